"""Users in an SQL dump of the usual tables: postfixadmin's and mailcow's ``mailbox``, ``users``, ``virtual_users``...

A table of users is one with a column for the name and one for the password (the lists below).  Tables of administrators
are none, and when several are left, the operator has to say which.  A name without a domain is completed from the
column ``domain``.  Who is not active is locked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from mailsrv.store.migration.letter import Trouble
from mailsrv.store.migration.sql_text import Row, rows
from mailsrv.store.migration.users import LOCKED, User, stored_of

_NAMES: Final = ("username", "email", "address", "mail", "login", "user", "userid", "user_name", "user_email")
_PASSWORDS: Final = ("password", "passwd", "crypt", "password_hash", "user_password", "pass", "pw")
_ACTIVE: Final = ("active", "enabled")
_YES: Final = frozenset({"1", "t", "true", "y", "yes"})


class WhichTable(ValueError):
    """There is no table of users, or more than one; the text is a sentence."""


def users(text: str, path: str, scheme: str = "", table: str = "") -> Iterator[User | Trouble]:
    """The users in a dump (WhichTable); ``table`` is the one that the operator named."""
    found: dict[str, list[Row]] = {}
    unreadable: list[Row] = []
    for row in rows(text):
        if row.values is None:
            unreadable.append(row)
        elif table == row.table or (not table and _is_of_users(row)):
            found.setdefault(row.table, []).append(row)
    if len(found) > 1:
        raise WhichTable(f"{path}: several tables have names and passwords: {', '.join(found)}; --table says which.")
    if not found:
        hint = f"no rows in a table {table}" if table else "no table with names and passwords"
        raise WhichTable(f"{path}: there is {hint}.")
    ((name, chosen),) = found.items()
    for row in unreadable:
        if row.table == name:
            yield Trouble(f"{path}:{row.line}:", "the row has not as many values as the table has columns")
    for row in chosen:
        yield _user(row.values or {}, f"{path}:{row.line}:", scheme)


def _is_of_users(row: Row) -> bool:
    columns = row.values or {}
    return (
        "admin" not in row.table
        and any(name in columns for name in _NAMES)
        and any(password in columns for password in _PASSWORDS)
    )


def _user(values: Mapping[str, str | None], where: str, scheme: str) -> User | Trouble:
    names = [value for name in _NAMES if (value := values.get(name))]
    if not names:
        return Trouble(where, "the row has no name")
    name = next((name for name in names if "@" in name), names[0])
    domain = values.get("domain") or ""
    if "@" not in name and "." in domain:
        name = f"{name}@{domain}"
    column = next((password for password in _PASSWORDS if password in values), "")
    if column and values[column] is None:
        return Trouble(where, f"{name} is not taken: its password is NULL or has to be computed")
    inactive = any(values.get(key) is not None and str(values[key]).lower() not in _YES for key in _ACTIVE)
    return User(name, LOCKED if inactive else stored_of(values.get(column), scheme), where)
