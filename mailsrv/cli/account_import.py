"""``mailsrv account import``: the users of another server, with the passwords that they have.

Takes Dovecot's passwd-files, lines like those of ``/etc/shadow``, and SQL dumps.  Hashes are taken as they are, and
each becomes Argon2id when its owner logs in for the first time; a password that is there in clear is hashed at once.
All that can be taken is written in one step.  Each line that cannot be taken is reported, and makes the exit status 1;
accounts that exist already stay as they are.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

from mailsrv.cli.command import Failure, add_common, config_of
from mailsrv.cli.progress import Progress
from mailsrv.cli.wording import clean, counted
from mailsrv.config import Config
from mailsrv.mail.address import Address, AddressError, domain_a_label
from mailsrv.store.accounts.account_files import Texts, edit
from mailsrv.store.accounts.accounts import Directory, account_address
from mailsrv.store.accounts.password_schemes import SCHEMES, UnknownScheme
from mailsrv.store.accounts.passwords import hash_password
from mailsrv.store.migration import passwd_file, sql_users
from mailsrv.store.migration.letter import Trouble
from mailsrv.store.migration.users import LOCKED, User, in_clear

_SQL = re.compile(r"^\s*(?:INSERT\s|REPLACE\s+INTO|COPY\s+\S+\s*\(|CREATE\s+TABLE)", re.IGNORECASE | re.MULTILINE)


def register(actions: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the action to ``mailsrv account``."""
    action = actions.add_parser(
        "import",
        help="take users of another server with their passwords",
        description="Take the users in FILE with their password hashes: a passwd-file of Dovecot, lines as in "
        "/etc/shadow, or an SQL dump of a table of users.  What cannot be taken is reported, line by line.",
    )
    add_common(action)
    action.add_argument("file", metavar="FILE", help="- is standard input")
    action.add_argument("--domain", help="the domain of names that have none")
    action.add_argument("--scheme", default="", help="the scheme of passwords that do not name theirs, such as SSHA512")
    action.add_argument("--table", default="", help="the table of users in an SQL dump, if that is not plain")
    action.set_defaults(run=_run)


@dataclass(slots=True)
class _Taken:
    """What has become of the users."""

    new: dict[str, tuple[Address, str]] = field(default_factory=dict)
    present: int = 0
    left_out: int = 0
    problems: int = 0

    def problem(self, where: str, reason: str) -> None:
        self.problems += 1
        print(f"mailsrv: {clean(where)} {clean(reason)}.", file=sys.stderr)


def _run(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    scheme = arguments.scheme.strip("{}").upper()
    if scheme and scheme.partition(".")[0] not in SCHEMES:
        raise Failure(f"--scheme: {arguments.scheme} is not known; known are {', '.join(SCHEMES)}.")
    text = _text(arguments.file)
    taken = _Taken()
    if _SQL.search(text):
        try:
            found = list(sql_users.users(text, arguments.file, scheme, arguments.table.lower()))
        except sql_users.WhichTable as error:
            raise Failure(str(error)) from None
    else:
        found = list(passwd_file.users(text, arguments.file, scheme))
    users = list(_users(found, _domain(arguments, config), config, taken))
    _write(users, config, taken)
    print(_summary(taken))
    return 1 if taken.problems else 0


def _text(path: str) -> str:
    if path == "-":
        return sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return file.read()


def _domain(arguments: argparse.Namespace, config: Config) -> str:
    """The domain of names without one, "" when there is none (Failure)."""
    if arguments.domain is None:
        return ""
    try:
        domain = domain_a_label(arguments.domain)
    except AddressError as error:
        raise Failure(f"--domain: {error}.") from None
    if domain not in config.domains:
        raise Failure(f"--domain: {arguments.domain} is not one of the domains in the configuration.")
    return domain


def _users(
    found: Iterable[User | Trouble], domain: str, config: Config, taken: _Taken
) -> Iterable[tuple[User, Address, str]]:
    """Each user that can be taken, with the address and what is to be stored."""
    users = list(found)
    with Progress(len(users)) as progress:
        for user in users:
            progress.add(1, "users")
            if isinstance(user, Trouble):
                progress.clear()
                taken.problem(user.origin, user.reason)
                continue
            bare = "@" not in user.name
            if bare and user.stored == LOCKED:
                taken.left_out += 1  # a system has many users that are no people
                continue
            try:
                if bare and not domain:
                    raise ValueError(f"{user.name} has no domain; --domain says which")
                address = account_address(f"{user.name}@{domain}" if bare else user.name, config.domains)
                yield user, address, _stored(user)
            except ValueError as error:
                progress.clear()
                taken.problem(user.where, str(error))


def _stored(user: User) -> str:
    """What goes into the accounts file (ValueError)."""
    if user.stored == LOCKED:
        return LOCKED
    try:
        password = in_clear(user.stored)
    except UnknownScheme as error:
        raise ValueError(f"{user.name}: {error}") from None
    return user.stored if password is None else hash_password(password, os.urandom)


def _write(users: list[tuple[User, Address, str]], config: Config, taken: _Taken) -> None:
    def change(texts: Texts, directory: Directory) -> Texts:
        for user, address, stored in users:
            if directory.account(address) is not None:
                taken.present += 1
            elif address.key in directory.aliases:
                taken.problem(user.where, f"{address.text} is an alias here")
            elif address.key in taken.new:
                taken.problem(user.where, f"{address.text} is in the file twice; the first one is taken")
            else:
                taken.new[address.key] = address, stored
        return texts.with_new_accounts(taken.new.values())

    edit(config, change)


def _summary(taken: _Taken) -> str:
    locked = sum(stored == LOCKED for _, stored in taken.new.values())
    parts = [f"Took {counted(len(taken.new), 'account')}" + (f", {locked:,} of them locked" if locked else "")]
    if taken.present:
        parts.append(f"{counted(taken.present, 'account')} existed already, untouched")
    if taken.left_out:
        parts.append(f"{counted(taken.left_out, 'user')} without a password and a domain left out")
    if taken.problems:
        parts.append(f"{counted(taken.problems, 'line')} not taken, named above")
    return "; ".join(parts) + "."
