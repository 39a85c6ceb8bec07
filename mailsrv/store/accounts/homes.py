"""From which networks each account is used: whoever has logged in from there before is no stranger.

Strangers can make themselves wait and make each other wait, but not who comes from such a place: the places for
passwords that wait to be checked, and the delays after failed logins, go by it.  A network is known by the password
that opened the account last from there, so it is forgotten with that password; else after KEPT_S without a login.

A few networks for each account are kept, those used last; they are in memory, and in the database for the next start,
where each is written once a day at most.  That decides about waiting and about nothing else, so when it cannot be
written, nothing is refused.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from mailsrv.outside.interfaces import Outside
from mailsrv.store.database import Database

if TYPE_CHECKING:
    from mailsrv.store.accounts.accounts import Account
    from mailsrv.store.accounts.passwords import Match

NETWORKS: Final = 16  # of one account
KEPT_S: Final = 180 * 86400.0
EVERY_S: Final = 86400.0

_NEVER: Final[tuple[Match | None, float]] = (None, float("-inf"))

log = Logger()


@dataclass(frozen=True, slots=True)
class Home:
    """``account`` (its key) was opened from ``network`` by the password of that name, "" for the main one.

    ``at`` is seconds since 1970.
    """

    account: str
    network: str
    password: str
    at: float


def write(connection: sqlite3.Connection, homes: Sequence[Home]) -> None:
    """Keep these, in the caller's transaction, and of each account the newest."""
    connection.executemany(
        "INSERT INTO home (account, network, password, at) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (account, network) DO UPDATE SET password = excluded.password, at = excluded.at",
        [(home.account, home.network, home.password, home.at) for home in homes],
    )
    connection.executemany(
        "DELETE FROM home WHERE account = ?1 AND network NOT IN"
        " (SELECT network FROM home WHERE account = ?1 ORDER BY at DESC LIMIT ?2)",
        [(account, NETWORKS) for account in {home.account for home in homes}],
    )


def read(connection: sqlite3.Connection) -> list[Home]:
    """All of them, the oldest first."""
    return [Home(*row) for row in connection.execute("SELECT account, network, password, at FROM home ORDER BY at")]


def forget(connection: sqlite3.Connection, account: str, password: str | None = None) -> None:
    """A password is no more, or (None) no password of the account is."""
    connection.execute("DELETE FROM home WHERE account = ?1 AND (?2 IS NULL OR password = ?2)", (account, password))


def prune(connection: sqlite3.Connection, before: float) -> None:
    """Forget what was last written before ``before`` (seconds since 1970)."""
    connection.execute("DELETE FROM home WHERE at < ?", (before,))


class Homes:
    """What is known now.  ``seconds`` is a monotonic clock; ``on_due`` is told what should be written."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        # By account and network, those used last at the end: the password, and when it was last told to be written.
        self._of: dict[str, OrderedDict[str, tuple[Match, float]]] = {}
        self._networks: Counter[str] = Counter()  # how many accounts each is known for
        self.on_due: Callable[[str, str, str], None] = lambda account, network, password: None

    def knows(self, account: str, network: str) -> bool:
        """Whether the account of this key was logged in to from there; False for who has no account."""
        networks = self._of.get(account)
        return networks is not None and self._seconds() - networks.get(network, _NEVER)[1] < KEPT_S

    def knows_network(self, network: str) -> bool:
        """Whether any account was logged in to from there."""
        return network in self._networks

    def add(self, account: Account, match: Match, network: str) -> None:
        """Somebody has logged in."""
        if self._keep(account.key, match, network, self._seconds()):
            self.on_due(account.key, network, match.name)

    def load(self, homes: Iterable[Home], wall: float, named: Callable[[str, str], Match | None]) -> None:
        """Take up what an earlier run has written, the oldest first; ``wall`` is the time in seconds since 1970.

        ``named`` gives an account's password of that name as it is now; who has none is left out.
        """
        for home in homes:
            match = named(home.account, home.password)
            if match is not None:
                # In the future only when the clock was set back.
                self._keep(home.account, match, home.network, self._seconds() - max(wall - home.at, 0.0))

    def review(self, holds: Callable[[str, Match], bool]) -> None:
        """The accounts have changed: forget what was known by a password that is none any more."""
        for account, networks in tuple(self._of.items()):
            for network, (match, _) in tuple(networks.items()):
                if not holds(account, match):
                    del networks[network]
                    self._leave(network)
            if not networks:
                del self._of[account]

    def _keep(self, account: str, match: Match, network: str, now: float) -> bool:
        """Whether it should be written."""
        networks = self._of.setdefault(account, OrderedDict())
        known, written = networks.pop(network, _NEVER)
        due = known != match or now - written >= EVERY_S
        networks[network] = match, now if due else written
        self._networks[network] += known is None
        if len(networks) > NETWORKS:
            self._leave(networks.popitem(last=False)[0])
        return due

    def _leave(self, network: str) -> None:
        self._networks[network] -= 1
        if not self._networks[network]:
            del self._networks[network]


class HomesKept:
    """Writes what ``Homes`` says is due, with the next group commit."""

    def __init__(self, outside: Outside, database: Database) -> None:
        self._outside = outside
        self._database = database

    def __call__(self, account: str, network: str, password: str) -> None:
        self._database.gather(write, Home(account, network, password, self._outside.wall())).addErrback(
            lambda failure: log.warn("A login could not be noted: {error}", error=failure.value)
        )
