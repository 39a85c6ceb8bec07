"""``mailsrv account quota``: how much an account may keep, and how much it has.

The rule goes into the accounts file in Dovecot's own words, and is in force in a running server within a second.
"""

from __future__ import annotations

import argparse
import os
import re
from typing import Any

from mailsrv.cli.command import Failure, add_common, config_of, print_json, wants_json
from mailsrv.config import Config, size
from mailsrv.mail.address import Address
from mailsrv.outside.filesystem import Filesystem
from mailsrv.store.accounts.account_files import Texts, edit
from mailsrv.store.accounts.accounts import (
    Account,
    Directory,
    account_address,
    mailbox_path,
    parse_directory,
    read_text,
)
from mailsrv.store.mailbox import maildirsize, quota
from mailsrv.store.mailbox.quota import Quota, Usage
from mailsrv.store.mailbox.quota_warning import in_words

_MOST = 10**9  # messages


def register(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the action."""
    text = "say how much an account may keep, or show it"
    action = actions.add_parser("quota", help=text, description=text[0].upper() + text[1:] + ".")
    add_common(action, json=True)
    action.add_argument("address", metavar="ADDRESS")
    action.add_argument("--storage", metavar="SIZE", help='octets of all its messages, such as "1 GiB"; 0 is no limit')
    action.add_argument("--messages", metavar="NUMBER", help="messages in all its folders; 0 is no limit")
    action.add_argument("--none", action="store_true", help="no limit at all")
    action.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    try:
        address = account_address(arguments.address, config.domains)
    except ValueError as error:
        raise Failure(f"{error}.") from None
    changes = arguments.storage is not None or arguments.messages is not None
    if arguments.none and changes:
        raise Failure("--none is for no limit at all, without --storage and --messages.")
    if arguments.none or changes:
        directory = _set(arguments, config, address)
    else:
        directory = parse_directory(config, read_text(config.accounts) or "", read_text(config.aliases) or "")
    account = _known(directory, address)
    path = os.path.join(config.state, "mail", mailbox_path(account.key))
    if wants_json(arguments):
        print_json(as_object(account, path))
    elif account.quota is None:
        print(f"{account.key} may keep as much as it likes.")
    else:
        print(f"{account.key} uses {words(account, path)}.")
    return 0


def _set(arguments: argparse.Namespace, config: Config, address: Address) -> Directory:
    octets = None if arguments.storage is None else _octets(arguments.storage)
    messages = None if arguments.messages is None else _number(arguments.messages)

    def change(texts: Texts, directory: Directory) -> Texts:
        present = _known(directory, address).quota or Quota()
        wanted = quota.Quota(
            present.octets if octets is None else octets, present.messages if messages is None else messages
        )
        limited = not arguments.none and (wanted.octets or wanted.messages)
        return texts.with_extra(address, quota.FIELD, quota.rule(wanted.octets, wanted.messages) if limited else None)

    return edit(config, change)


def _octets(text: str) -> int:
    if text == "0":
        return 0
    dovecot = re.fullmatch("([0-9]{1,6})([kMGT])", text)  # as in the file
    try:
        return size(f"{dovecot[1]} {dovecot[2]}iB" if dovecot else int(text) if text.isdecimal() else text)
    except ValueError as error:
        raise Failure(f"{error}.") from None


def _number(text: str) -> int:
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) > _MOST:
        raise Failure(f'"{text}" is not a number of messages.')
    return int(text)


def _known(directory: Directory, address: Address) -> Account:
    account = directory.account(address)
    if account is None:
        raise Failure(f"{address.text} is not an account; 'mailsrv account list' names all.")
    return account


def usage(account: Account, path: str) -> Usage | None:
    """What its mailbox holds: as ``maildirsize`` tells, or counted when there is none; None: it cannot be read."""
    disk = Filesystem()
    try:
        told = maildirsize.read(disk, path)
        ignored = account.quota.ignored if account.quota is not None else frozenset()
        return maildirsize.count(disk, path, ignored) if told is None else told.usage
    except OSError:
        return None


def words(account: Account, path: str) -> str:
    """``1.5 GiB of 2.0 GiB (75%), 10 of 100 messages``; "" without a quota."""
    limit = account.quota
    if limit is None:
        return ""
    used = usage(account, path)
    if used is None:
        return "cannot be read"
    parts = []
    if limit.octets:
        parts.append(f"{in_words(used.octets)} of {in_words(limit.octets)} ({100 * used.octets // limit.octets}%)")
    if limit.messages:
        parts.append(f"{used.messages} of {limit.messages} messages")
    return ", ".join(parts)


def as_object(account: Account, path: str) -> dict[str, Any] | None:
    """The same for programs; None: it cannot be read, or there is no limit."""
    limit = account.quota
    if limit is None:
        return None
    used = usage(account, path)
    return {
        "octets": None if used is None else used.octets,
        "messages": None if used is None else used.messages,
        "octets_limit": limit.octets or None,
        "messages_limit": limit.messages or None,
        "ignored_folders": sorted(folder.removeprefix(".") for folder in limit.ignored),
    }
