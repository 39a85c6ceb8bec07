"""Events without a message on their way to the ledger: refusals, failed logins, deletions.

Strangers cause them, so they are cheap and bounded: they gather in memory and go to the database together, at most once
in FLUSH_S and never while the last of them are still being written.  What is more than KEPT at once, or more than BURST
and then PER_S in the long run, is counted, and the count is told: a flood fills neither the memory nor the disk.
Events of messages never come here: they are written in the transaction of the change that they tell of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from mailsrv.outside.interfaces import Outside
from mailsrv.store import ledger
from mailsrv.store.database import Database
from mailsrv.store.ledger import Event

log = Logger()

FLUSH_S = 0.5
KEPT = 500
BURST = 10_000
SELDOM_S = 60.0
PLACES = 1000  # of whom it is known when they were last told of
PER_S = 1.0  # the ledger is pruned faster than this (app.PRUNED_AT_ONCE)


class Recorder:
    """One for the whole server."""

    def __init__(self, outside: Outside, database: Database) -> None:
        self._outside = outside
        self._database = database
        self._events: list[Event] = []
        self._left_out: Event | None = None  # the last that was only counted
        self._more = 0
        self._allowance = float(BURST)
        self._allowed_at = outside.reactor.seconds()
        self._seldom: dict[str, tuple[float, int]] = {}  # when told, and how many since; the longest ago first
        self._writing = False
        self._closed = False
        self._timer: IDelayedCall | None = None

    def record(self, event: Event) -> None:
        """Keep an event, or count it.  Ignored after ``close``."""
        if self._closed:
            return
        if len(self._events) >= KEPT or not self._allow():
            self._more += 1
            self._left_out = event
            return
        self._events.append(event)
        self._wait()

    def record_seldom(self, event: Event, who: str) -> None:
        """Of what one client can cause without end: one event in SELDOM_S for ``who``, with the number of the others.

        Otherwise it would use up what is allowed, and others' refusals would only be counted.
        """
        now = self._outside.reactor.seconds()
        told, more = self._seldom.get(who, (float("-inf"), 0))
        if now < told + SELDOM_S:
            self._seldom[who] = (told, more + 1)
            return
        self._seldom.pop(who, None)
        self._seldom[who] = (now, 0)
        if len(self._seldom) > PLACES:
            del self._seldom[next(iter(self._seldom))]
        if more:
            event = replace(event, reason=f"{event.reason}; so were {more} more since this was last told")
        self.record(event)

    def _allow(self) -> bool:
        now = self._outside.reactor.seconds()
        self._allowance = min(self._allowance + (now - self._allowed_at) * PER_S, float(BURST))
        self._allowed_at = now
        if self._allowance < 1.0:
            return False
        self._allowance -= 1.0
        return True

    async def record_all(self, events: Sequence[Event]) -> None:
        """Write these now, and return when they are durable."""
        await self._database.write(ledger.write, self._outside.wall(), tuple(events))

    def _wait(self) -> None:
        if self._timer is None and not self._writing:
            self._timer = self._outside.reactor.callLater(FLUSH_S, self._flush)

    def _flush(self) -> None:
        self._timer = None
        events, self._events = self._events, []
        if not events and self._left_out is not None:
            events.append(self._left_out)
            self._more -= 1
        if self._more:
            told = events[-1]
            events[-1] = replace(told, reason=f"{told.reason} (and {self._more} more such events, not kept)")
        self._more = 0
        self._left_out = None
        self._writing = True
        self._database.write(ledger.write, self._outside.wall(), tuple(events)).addErrback(self._lost).addCallback(
            self._written
        )

    def _lost(self, failure: object) -> None:
        log.error("Refusals could not be written to the ledger: {failure}", failure=failure)

    def _written(self, result: object) -> None:
        self._writing = False
        if self._events and not self._closed:
            self._wait()

    def close(self) -> None:
        """Hand over what is left; the database writes it before it closes."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._events or self._more:
            self._flush()
