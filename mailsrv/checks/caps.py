"""How many recipients an account may write to in an hour and in a day.

A stolen password then sends little before somebody notices.  What counts is what the database has accepted from the
account, so a restart forgets nothing; after the first look the counts are kept in memory, by minutes.  Recipients of a
transaction under way are reserved, so many connections at once are no way around.  In memory nothing depends on the
wall clock; a start after it was set back does not count what was sent before that, or an owner would wait until it has
caught up.

What is over a cap is refused, or with ``limits.over_cap = "hold"`` held until the operator releases it.  Held
recipients count like any others, since a release sends them at once; so they keep the account over its cap, and beyond
twice the cap even they are refused: what a stolen password can store has a bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mailsrv.store import message
from mailsrv.store.database import Database

HOUR_S = 3600
DAY_S = 86400
_MINUTE_S = 60


class Limits(Protocol):
    @property
    def recipients_per_hour(self) -> int: ...

    @property
    def recipients_per_day(self) -> int: ...

    @property
    def over_cap(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Over:
    """A recipient is over a cap: which, and when one is possible again.  ``held``: it is taken all the same."""

    cap: str
    again: str
    held: bool


class _Usage:
    """One account: accepted recipients by minute of the monotonic clock, and those of open transactions."""

    __slots__ = ("minutes", "reserved")

    def __init__(self, minutes: dict[int, int]) -> None:
        self.minutes = minutes
        self.reserved = 0


class Caps:
    """``limits`` is asked each time.

    ``wall`` gives seconds since 1970, ``seconds`` those of a clock that never jumps.
    """

    def __init__(
        self, limits: Callable[[], Limits], database: Database, wall: Callable[[], float], seconds: Callable[[], float]
    ) -> None:
        self._limits = limits
        self._database = database
        self._wall = wall
        self._seconds = seconds
        self._usage: dict[str, _Usage] = {}

    async def prepare(self, account: str) -> None:
        """Know what the account has sent; needed before ``reserve``."""
        if account not in self._usage:
            sent = await self._database.read(message.recipients_by_minute, account, self._wall(), DAY_S)
            minute = self._minute()
            self._usage.setdefault(account, _Usage({minute - ago: n for ago, n in sent.items()}))

    def reserve(self, account: str) -> Over | None:
        """Count one more recipient; what is over a cap is counted only if it is to be held."""
        usage = self._usage[account]
        now = int(self._seconds())
        usage.minutes = {minute: n for minute, n in usage.minutes.items() if minute > (now - DAY_S) // _MINUTE_S}
        limits = self._limits()
        over: Over | None = None
        for seconds, limit, words in (
            (HOUR_S, limits.recipients_per_hour, "an hour"),
            (DAY_S, limits.recipients_per_day, "a day"),
        ):
            first = (now - seconds) // _MINUTE_S
            counted = {minute: n for minute, n in usage.minutes.items() if minute > first}
            used = sum(counted.values()) + usage.reserved
            if used >= limit and (over is None or over.held):
                wait = (min(counted) - first) if counted else 1
                held = limits.over_cap == "hold" and used < 2 * limit
                over = Over(f"more than {limit} recipients in {words}", f"the next one in about {wait} minutes", held)
        if over is None or over.held:
            usage.reserved += 1
        return over

    def release(self, account: str, reserved: int) -> None:
        """The transaction has come to nothing."""
        self._usage[account].reserved -= reserved

    def accepted(self, account: str, reserved: int) -> None:
        """The transaction is accepted: what it had reserved is used."""
        usage = self._usage[account]
        usage.reserved -= reserved
        minute = self._minute()
        usage.minutes[minute] = usage.minutes.get(minute, 0) + reserved

    def _minute(self) -> int:
        return int(self._seconds()) // _MINUTE_S
