"""``mailsrv account``: who has a mailbox, and their passwords.

A change is in force in a running server within a second.  Passwords come from a terminal (asked twice, or generated)
or, with ``--password-stdin``, as one line of standard input.  Removing an account keeps its mail and says where it is.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys

from mailsrv.cli.command import Failure, add_common, config_of, print_json, table, wants_json
from mailsrv.config import Config
from mailsrv.mail.address import Address
from mailsrv.store.account_files import Texts, edit
from mailsrv.store.accounts import Account, Directory, account_address, mailbox_path, parse_directory, read_text
from mailsrv.store.passwords import generate_password, hash_password


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    verb = subparsers.add_parser("account", help="add, list and remove accounts, set passwords")
    add_common(verb)
    actions = verb.add_subparsers(metavar="ACTION", required=True)
    for name, run, text in (
        ("add", _add, "add an account"),
        ("passwd", _passwd, "give an account a new password"),
    ):
        action = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        add_common(action)
        action.add_argument("address", metavar="ADDRESS")
        action.add_argument("--password-stdin", action="store_true", help="read the password as one line from stdin")
        action.set_defaults(run=run)
    action = actions.add_parser("list", help="list the accounts", description="List the accounts.")
    add_common(action, json=True)
    action.add_argument("address", metavar="ADDRESS", nargs="?", help="only this one")
    action.set_defaults(run=_list)
    action = actions.add_parser(
        "remove", help="remove an account, keep its mail", description="Remove an account; its mail is kept."
    )
    add_common(action)
    action.add_argument("address", metavar="ADDRESS")
    action.set_defaults(run=_remove)


def directory_of(config: Config) -> Directory:
    """Accounts and aliases as they are now; files that are not there yet are empty (AccountsError)."""
    return parse_directory(config, read_text(config.accounts) or "", read_text(config.aliases) or "")


def _add(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    address = _address(arguments, config)
    _check_free(directory_of(config), address)
    stored = hash_password(_password(arguments, address), os.urandom)

    def change(texts: Texts, directory: Directory) -> Texts:
        _check_free(directory, address)
        return texts.with_account(address, stored)

    account = edit(config, change).account(address)
    print(f"Added {address.text}; its mail goes to {_mailbox(config, account or Account(address))}.")
    return 0


def _passwd(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    address = _address(arguments, config)
    _known(directory_of(config), address)
    stored = hash_password(_password(arguments, address), os.urandom)

    def change(texts: Texts, directory: Directory) -> Texts:
        _known(directory, address)
        return texts.with_account(address, stored)

    edit(config, change)
    print(f"{address.text} has a new password.")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    directory = directory_of(config)
    accounts = directory.accounts
    if arguments.address is not None:
        accounts = (_known(directory, _address(arguments, config)),)
    rows = [(account.key, _mailbox(config, account), "locked" if account.locked else "active") for account in accounts]
    if wants_json(arguments):
        print_json([{"address": address, "mailbox": mailbox, "state": state} for address, mailbox, state in rows])
    elif rows:
        print(table(rows, ("address", "mailbox", "state")))
    else:
        print("There are no accounts; 'mailsrv account add ADDRESS' adds one.")
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    address = _address(arguments, config)
    removed: list[Account] = []

    def change(texts: Texts, directory: Directory) -> Texts:
        removed.append(_known(directory, address))
        return texts.without_account(address)

    directory = edit(config, change)
    mailbox = _mailbox(config, removed[0])
    where = f"its mail stays in {mailbox}" if os.path.isdir(mailbox) else "it had no mail"
    print(f"Removed {address.text}; {where}.")
    for alias, target in directory.dangling():
        if target.key == address.key:
            print(f"The alias {alias} still names it; 'mailsrv alias remove {alias} {target}' ends that.")
    return 0


def _address(arguments: argparse.Namespace, config: Config) -> Address:
    try:
        return account_address(arguments.address, config.domains)
    except ValueError as error:
        raise Failure(f"{error}.") from None


def _check_free(directory: Directory, address: Address) -> None:
    if directory.account(address) is not None:
        raise Failure(f"{address.text} is an account already; 'mailsrv account passwd' gives it a new password.")
    if address.key in directory.aliases:
        raise Failure(f"{address.text} is an alias; 'mailsrv alias remove {address}' makes the name free.")


def _known(directory: Directory, address: Address) -> Account:
    account = directory.account(address)
    if account is None:
        raise Failure(f"{address.text} is not an account; 'mailsrv account list' names all.")
    return account


def _mailbox(config: Config, account: Account) -> str:
    return os.path.join(config.state, "mail", mailbox_path(account.key))


def _password(arguments: argparse.Namespace, address: Address) -> str:
    if arguments.password_stdin:
        return _usable(_line(sys.stdin.buffer.readline()))
    if not sys.stdin.isatty():
        raise Failure("there is no terminal to ask for a password; give it with --password-stdin.")
    first = getpass.getpass(f"Password for {address.text} (nothing: make one up): ")
    if not first:
        generated = generate_password(os.urandom)
        print(f"Password: {generated}")
        return generated
    if getpass.getpass("The same again: ") != first:
        raise Failure("the two passwords differ; nothing was changed.")
    return _usable(first)


def _line(octets: bytes) -> str:
    try:
        return octets.removesuffix(b"\n").removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        raise Failure("the password is not UTF-8 text; no client could send it.") from None


def _usable(password: str) -> str:
    if not password:
        raise Failure("the password is empty.")
    # RFC 4616 2: a PLAIN exchange cannot carry NUL; a line end ends a POP3 command.
    if any(character in password for character in "\0\r\n"):
        raise Failure("the password contains NUL or a line end; no client could send it.")
    return password
