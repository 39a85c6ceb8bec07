"""Records what attempts have come to: states, events and the reports that tell of them, in one transaction each.

If the database cannot take it just now the settlement is kept and tried again, by the clock and the settings of then.
Until it is recorded the message stays claimed, so that what has been sent is not sent twice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailsrv.mail.outcome import Outcome
from mailsrv.outside.interfaces import Outside
from mailsrv.relay import bounce
from mailsrv.relay.bounce import Reports, Reprieved, Verdict
from mailsrv.relay.clock import QueueClock
from mailsrv.relay.pairs import Item
from mailsrv.store import message
from mailsrv.store.database import Database, StorageTrouble
from mailsrv.store.message import Acceptance, QueuedMessage, Settled
from mailsrv.store.spool import Spool

T = TypeVar("T")

log = Logger()

AGAIN_S: Final = 5.0


class Settling:
    """Of the queue runner.  ``jumped`` is called when what waits has moved with a jump of the clock."""

    def __init__(
        self,
        outside: Outside,
        database: Database,
        spool: Spool,
        reports: Reports,
        clock: QueueClock,
        jumped: Callable[[], None],
    ) -> None:
        self._outside = outside
        self._database = database
        self._spool = spool
        self._reports = reports
        self._clock = clock
        self._jumped = jumped
        self._stopped = False
        self._pauses: set[Deferred[None]] = set()
        self.waiting = 0  # messages that are not recorded yet

    def stop(self) -> None:
        """What the database does not take now will not be recorded."""
        self._stopped = True
        for pause in list(self._pauses):
            pause.cancel()

    async def settle(self, item: Item, outcomes: Sequence[Outcome]) -> float | None:
        """Returns when it is recorded, with the time of the next attempt if there is one; or in vain, at the stop."""
        self.waiting += 1
        try:
            recorded = await self._surely(lambda: self._record(item, outcomes))
        finally:
            self.waiting -= 1
        if recorded is None:
            return None
        verdict, accepted = recorded
        for each in accepted:
            self._spool.on_accepted(each)
        later = [settlement.next_attempt for settlement in verdict.settlements if settlement.state == "queued"]
        return min(later, default=None)

    async def _record(self, item: Item, outcomes: Sequence[Outcome]) -> tuple[Verdict, Sequence[Acceptance]]:
        """What the outcomes mean, and the messages that were accepted with it."""
        clock = self._clock
        since: Mapping[int, float] = {}
        while True:
            if not clock.is_right() and await clock.mind():
                self._jumped()
            jumps = clock.jumps
            queued = _waiting_since(clock.moved_along(item.queued, item.jumps), since)
            verdict = await self._reports.judge(queued, outcomes, item.content.whole)
            if clock.jumps != jumps:
                # While a report was written: the times in the verdict are of another clock.
                self._reports.not_recorded(verdict)
                since = {}
                continue
            settled = Settled(self._outside.wall(), queued.id, verdict.settlements)
            if not (verdict.reports or verdict.notices or verdict.given_up or self._spool.is_filed(queued.id)):
                await self._database.gather(message.settle_all, settled)
                return verdict, ()
            try:
                gone, accepted = await self._database.write(bounce.settle, settled, verdict)
            except Reprieved as reprieved:
                self._reports.not_recorded(verdict)
                since = {**since, **reprieved.since}
                continue
            except BaseException:
                self._reports.not_recorded(verdict)
                raise
            if gone:
                self._spool.dropped([queued.id])
            return verdict, accepted

    async def _surely(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """Do ``work``, as often as the database needs to take it; None when the server stops before that."""
        while True:
            try:
                return await work()
            except StorageTrouble as trouble:
                log.error("An attempt cannot be recorded yet: {trouble}", trouble=trouble)
            if self._stopped:
                return None
            await self.pause()

    async def pause(self) -> None:
        """Give the database a while, at most until the server stops."""
        if self._stopped:
            return
        pause: Deferred[None] = deferLater(self._outside.reactor, AGAIN_S)
        self._pauses.add(pause)
        try:
            await pause
        except CancelledError:
            pass
        finally:
            self._pauses.discard(pause)


def _waiting_since(queued: QueuedMessage, since: Mapping[int, float]) -> QueuedMessage:
    """``queued`` with other times, by number of the recipient, from which its recipients wait."""
    if not since:
        return queued
    recipients = tuple(replace(each, since=since.get(each.n, each.since)) for each in queued.recipients)
    return replace(queued, recipients=recipients)
