"""``mailsrv account``: who has a mailbox, and their passwords.

A change is in force in a running server within a second.  Passwords come from a terminal (asked twice, or generated)
or, with ``--password-stdin``, as one line of standard input.  Removing an account keeps its mail and says where it is.

App passwords (``passwd --app NAME``) are for one program or device each.  They are made up, since nobody has to
remember one, and shown this once.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys

from mailsrv.cli import account_import, account_list, account_quota
from mailsrv.cli.command import Failure, add_common, config_of
from mailsrv.config import Config
from mailsrv.mail.address import Address
from mailsrv.store.accounts import app_passwords, homes, logins, scram_keys
from mailsrv.store.accounts.account_files import Texts, edit
from mailsrv.store.accounts.accounts import Account, Directory, account_address, parse_directory, read_text
from mailsrv.store.accounts.passwords import generate_password, hash_password
from mailsrv.store.connection import opened, transaction


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    verb = subparsers.add_parser("account", help="add, list and remove accounts, set passwords")
    add_common(verb)
    actions = verb.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, run, text in (
        ("add", _add, "add an account"),
        ("passwd", _passwd, "give an account a new password"),
    ):
        action = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        add_common(action)
        action.add_argument("address", metavar="ADDRESS")
        action.add_argument("--password-stdin", action="store_true", help="read the password as one line from stdin")
        action.set_defaults(run=run)
        if run is _passwd:
            _add_app_options(action)
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
    account_quota.register(actions)
    account_import.register(actions)


def _add_app_options(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--app", metavar="NAME", help="not the main password: make one up for the program of that name")
    which.add_argument("--remove-app", metavar="NAME", help="remove that app password")
    parser.add_argument(
        "--for",
        dest="services",
        metavar="SERVICE[,SERVICE]",
        help=f"with --app: good for these only ({', '.join(app_passwords.SERVICES)})",
    )


def directory_of(config: Config) -> Directory:
    """Accounts and aliases as they are now; files that are not there yet are empty (AccountsError)."""
    return parse_directory(config, read_text(config.accounts) or "", read_text(config.aliases) or "")


def _add(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    address = _address(arguments, config)
    _check_free(directory_of(config), address)
    password = _password(arguments, address)
    stored = hash_password(password, os.urandom)
    keys = scram_keys.make(password, stored, os.urandom)

    def change(texts: Texts, directory: Directory) -> Texts:
        _check_free(directory, address)
        return texts.with_account(address, stored).with_extra(address, scram_keys.FIELD, keys)

    account = edit(config, change).account(address)
    print(f"Added {address.text}; its mail goes to {account_list.mailbox(config, account or Account(address))}.")
    return 0


def _passwd(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    if arguments.services is not None and arguments.app is None:
        raise Failure("--for is for app passwords, so it needs --app NAME.")
    address = _address(arguments, config)
    account = _known(directory_of(config), address)
    if arguments.remove_app is not None:
        return _remove_app(config, address, arguments.remove_app)
    if arguments.app is not None:
        return _set_app(arguments, config, account)
    password = _password(arguments, address)
    stored = hash_password(password, os.urandom, [app.hash for app in account.apps])
    keys = scram_keys.make(password, stored, os.urandom)

    def change(texts: Texts, directory: Directory) -> Texts:
        _known(directory, address)
        return texts.with_account(address, stored).with_extra(address, scram_keys.FIELD, keys)

    edit(config, change)
    print(f"{address.text} has a new password.")
    _forget(config, address, "")
    return 0


def _set_app(arguments: argparse.Namespace, config: Config, account: Account) -> int:
    address, name = account.address, arguments.app
    try:
        app_passwords.check_name(name)
        services = app_passwords.services(arguments.services or "")
    except ValueError as error:
        raise Failure(f"{error}.") from None
    if arguments.password_stdin:
        password = _usable(_line(sys.stdin.buffer.readline()))
    else:
        password = generate_password(os.urandom)
    beside = [account.hash, *(app.hash for app in account.apps if app.name != name)]
    value = app_passwords.field_value(hash_password(password, os.urandom, beside), services)

    def change(texts: Texts, directory: Directory) -> Texts:
        others = [app for app in _known(directory, address).apps if app.name != name]
        if len(others) >= app_passwords.LIMIT:
            raise Failure(f"{address.text} has {len(others)} app passwords, and more are not possible.")
        return texts.with_extra(address, app_passwords.field_name(name), value)

    edit(config, change)
    if not arguments.password_stdin:
        print(f"Password: {password}")
    where = f" It is good for {' and '.join(services)} only." if services else ""
    print(f'{address.text} has the app password "{name}".{where}')
    _forget(config, address, name)
    return 0


def _remove_app(config: Config, address: Address, name: str) -> int:
    def change(texts: Texts, directory: Directory) -> Texts:
        if name not in [app.name for app in _known(directory, address).apps]:
            raise Failure(f'{address.text} has no app password "{name}"; `mailsrv account list {address}` names all.')
        return texts.with_extra(address, app_passwords.field_name(name), None)

    edit(config, change)
    print(f'{address.text} has no app password "{name}" any more.')
    _forget(config, address, name)
    return 0


def _forget(config: Config, address: Address, password: str | None = None) -> None:
    """What was known of the use of a password, or of all."""
    with opened(os.path.join(config.state, "mailsrv.db")) as connection, transaction(connection):
        logins.forget(connection, address.key, password)
        homes.forget(connection, address.key, password)


def _list(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    directory = directory_of(config)
    accounts = directory.accounts
    if arguments.address is not None:
        accounts = (_known(directory, _address(arguments, config)),)
    return account_list.show(arguments, config, accounts)


def _remove(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    address = _address(arguments, config)
    removed: list[Account] = []

    def change(texts: Texts, directory: Directory) -> Texts:
        removed.append(_known(directory, address))
        return texts.without_account(address)

    directory = edit(config, change)
    mailbox = account_list.mailbox(config, removed[0])
    where = f"its mail stays in {mailbox}" if os.path.isdir(mailbox) else "it had no mail"
    print(f"Removed {address.text}; {where}.")
    for alias, target in directory.dangling():
        if target.key == address.key:
            print(f"The alias {alias} still names it; 'mailsrv alias remove {alias} {target}' ends that.")
    _forget(config, address)
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
