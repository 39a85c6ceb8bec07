"""When each password was last used: for ``account list``, so that people see which ones may go.

One row for an account and the name of its password, written at most once a minute however often a client logs in, with
the next group commit.  It tells nobody's secrets and decides nothing: when it cannot be written, logins go on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from twisted.logger import Logger

from mailsrv.outside.interfaces import Outside
from mailsrv.store.accounts.accounts import Account
from mailsrv.store.accounts.passwords import Match
from mailsrv.store.database import Database

EVERY_S: Final = 60.0
_REMEMBERED_LIMIT: Final = 10_000

log = Logger()


@dataclass(frozen=True, slots=True)
class Use:
    """The last login of ``account`` (its key) with the password of that name, "" for the main one.

    ``at`` is seconds since 1970, ``client`` an address, ``service`` "smtp" or "pop3".
    """

    account: str
    password: str
    at: float
    client: str
    service: str


def write(connection: sqlite3.Connection, uses: Sequence[Use]) -> None:
    """Keep these as the last ones, in the caller's transaction."""
    connection.executemany(
        "INSERT INTO login (account, password, at, client, service) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (account, password) DO UPDATE SET at = excluded.at, client = excluded.client,"
        " service = excluded.service",
        [(use.account, use.password, use.at, use.client, use.service) for use in uses],
    )


def read(connection: sqlite3.Connection) -> dict[tuple[str, str], Use]:
    """All of them, by account and name of the password."""
    rows = connection.execute("SELECT account, password, at, client, service FROM login")
    return {(row[0], row[1]): Use(*row) for row in rows}


def forget(connection: sqlite3.Connection, account: str, password: str | None = None) -> None:
    """A password is no more, or (None) no password of the account is."""
    connection.execute(
        "DELETE FROM login WHERE account = ?1 AND (?2 IS NULL OR password = ?2)",
        (account, password),
    )


class Logins:
    """Writes what ``used`` tells."""

    def __init__(self, outside: Outside, database: Database) -> None:
        self._outside = outside
        self._database = database
        self._written: dict[tuple[str, str], float] = {}  # account and hash; oldest first

    def used(self, account: Account, match: Match, client: str, service: str) -> None:
        """Somebody has logged in."""
        # By the hash and not by the name: a new password of an old name is one that was never used.
        which = account.key, match.stored
        now = self._outside.reactor.seconds()
        if now - self._written.get(which, float("-inf")) < EVERY_S:
            return
        self._written.pop(which, None)
        self._written[which] = now
        if len(self._written) > _REMEMBERED_LIMIT:
            del self._written[next(iter(self._written))]
        use = Use(account.key, match.name, self._outside.wall(), client, service)
        self._database.gather(write, use).addErrback(
            lambda failure: log.warn("A login could not be noted: {error}", error=failure.value)
        )
