"""Events without a message on their way to the ledger: refusals, failed logins, deletions.

Strangers cause them, so they are cheap and bounded: they gather in memory and go to the database together, at most once
in FLUSH_S; beyond KEPT in that time they are counted, and the count is told.  Events of messages never come here: they
are written in the transaction of the change that they tell of.
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


class Recorder:
    """One for the whole server."""

    def __init__(self, outside: Outside, database: Database) -> None:
        self._outside = outside
        self._database = database
        self._events: list[Event] = []
        self._more = 0
        self._timer: IDelayedCall | None = None

    def record(self, event: Event) -> None:
        if len(self._events) >= KEPT:
            self._more += 1
            return
        self._events.append(event)
        if self._timer is None:
            self._timer = self._outside.reactor.callLater(FLUSH_S, self._flush)

    async def record_all(self, events: Sequence[Event]) -> None:
        """Write these now, and return when they are durable."""
        await self._database.write(ledger.write, self._outside.wall(), tuple(events))

    def _flush(self) -> None:
        self._timer = None
        events, self._events = self._events, []
        if self._more:
            told = replace(events[-1], reason=f"{events[-1].reason} (and {self._more} more such events, not kept)")
            events[-1] = told
            self._more = 0
        self._database.write(ledger.write, self._outside.wall(), tuple(events)).addErrback(self._lost)

    def _lost(self, failure: object) -> None:
        log.error("Refusals could not be written to the ledger: {failure}", failure=failure)

    def close(self) -> None:
        """Hand over what is left; the database writes it before it closes."""
        if self._timer is not None:
            self._timer.cancel()
            self._flush()
