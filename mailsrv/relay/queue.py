"""The queue runner: brings every message that waits for another server to an attempt when its time has come.

The database is the queue; here is only a window on it (``mailsrv.relay.window``), which says whose turn it is.  A
message that has just been accepted comes into the window from memory, and its attempt begins in the same turn of the
reactor when nobody is before it.  Everything else is found in the database: what becomes due, by time; what others have
changed, by looking through all lanes; what did not fit into the window, where the window has room again.

The operator's tool may change what waits in the window.  The server notices that within half a second, and from then on
asks the database about each message that was read before.  An attempt that has begun is not called back.

An attempt that is over is settled (``mailsrv.relay.settling``) in one transaction with others: the new states, the
events, and the reports to the sender with their own acceptance.  Until the database has taken it the message stays
claimed, so that what has been sent is not sent twice; nothing more is begun while SETTLING messages wait for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from mailsrv.mail.envelope import Recipient
from mailsrv.mail.outcome import Outcome, Result
from mailsrv.outside.interfaces import Outside
from mailsrv.relay.bounce import Reports, original_recipient
from mailsrv.relay.clock import QueueClock
from mailsrv.relay.content import Content, Memory, QueuedContent
from mailsrv.relay.delivery import Settings
from mailsrv.relay.job import IDeliveryAgent, Job
from mailsrv.relay.limit import Failure, Said, said
from mailsrv.relay.lookout import LocalMail, Lookout
from mailsrv.relay.pairs import Item
from mailsrv.relay.settling import AGAIN_S, Settling
from mailsrv.relay.window import Window
from mailsrv.store import due, queue_id
from mailsrv.store.database import Database, StorageTrouble
from mailsrv.store.message import Acceptance, QueuedMessage
from mailsrv.store.spool import Spool

log = Logger()

SETTLING: Final = 100  # messages that may wait to be recorded before nothing more is begun
IN_A_TURN: Final = 20  # attempts that are begun before the reactor does something else
LOOK_EVERY_S: Final = 30.0  # even when nothing is due: clocks jump, attempts stall
SHORTEST_S: Final = 0.1  # between two looks for what is due
GRACE_S: Final = 4.0  # for attempts under way when the server stops


class QueueRunner:
    """One for the server."""

    def __init__(
        self,
        settings: Settings,
        outside: Outside,
        database: Database,
        spool: Spool,
        relay: IDeliveryAgent,
        reports: Reports,
        local: LocalMail,
    ) -> None:
        self._outside = outside
        self._reactor = outside.reactor
        self._database = database
        self._spool = spool
        self._relay = relay
        self._memory = Memory()
        self._clock = QueueClock(settings, outside, database)
        self.window = Window()
        self._changes = 0  # by others, in the database
        self._lookout = Lookout(
            outside, database, self.window, self._clock, self._memory, local, lambda: self._changes, self._item
        )
        self._settling = Settling(outside, database, spool, reports, self._clock, self._clock_jumped)
        self._under_way = 0  # attempts, until they are recorded
        self._beginning = False
        self._next_turn: IDelayedCall | None = None  # in which more attempts are begun
        self._working = False
        self._work_needed = False
        self._look_needed = False
        self._timer: IDelayedCall | None = None
        self._stopped = False
        self._idle: list[Deferred[None]] = []

    # -- waking up

    def accepted(self, acceptance: Acceptance) -> None:
        """A message has just been committed: take it up without asking the database."""
        found = due.elsewhere(acceptance)
        if not found:
            return
        window = self.window
        now, jumps = self._reactor.seconds(), self._clock.jumps_before(acceptance.now)
        kept = (acceptance.arrival.prefix, acceptance.content) if acceptance.content is not None else None
        for pair, queued in found:
            known = window.pairs.get(pair)
            if known is not None and (queued.id, queued.recipients[0].n) in known.claimed:
                continue  # a look at the database was faster
            if not window.admits(pair):
                window.more(pair)
                self._work()
                continue
            window.take(self._item(queued, pair, self._changes, jumps, kept), now)
        self._begin()

    def _item(self, queued: QueuedMessage, pair: due.Pair, age: int, jumps: int, kept: Content | None = None) -> Item:
        return Item(queued, pair, QueuedContent(self._spool, self._memory, queued, kept), age, jumps)

    def wake(self) -> None:
        """Others may have changed anything in the database: look at everything, and believe nothing read before."""
        self._changes += 1
        self._lookout.look_through()
        self._look()

    def wake_at(self, wall: float) -> None:
        """Something becomes due at ``wall``, or has become due by its time."""
        self._lookout.due_at(wall)
        delay = min(max(wall - self._outside.wall(), SHORTEST_S), LOOK_EVERY_S)
        if self._timer is not None:
            if self._timer.getTime() <= self._reactor.seconds() + delay:
                return
            self._timer.cancel()
        if not self._stopped:
            self._timer = self._reactor.callLater(delay, self._woken)

    def _woken(self) -> None:
        self._timer = None
        self._look()

    def _look(self) -> None:
        self._look_needed = True
        self._work()

    def reconfigured(self) -> None:
        """New queue settings hold for what waits already."""
        self._look()

    async def stop(self) -> None:
        """Begin nothing more; what is under way may end within GRACE_S, so that no answer is missed, or is cut."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None
        self._lookout.stop()
        self._settling.stop()
        cut = self._reactor.callLater(GRACE_S, lambda: Deferred.fromCoroutine(self._relay.close()))
        while self._under_way or self._working:
            idle: Deferred[None] = Deferred()
            self._idle.append(idle)
            await idle
        if cut.active():
            cut.cancel()
        await self._relay.close()

    # -- looking

    def is_looking(self) -> bool:
        """Whether the database is being read."""
        return self._working

    def _work(self) -> None:
        self._work_needed = True
        if not self._working and not self._stopped:
            self._working = True
            Deferred.fromCoroutine(self._rounds()).addErrback(self._in_vain).addBoth(self._rested)

    async def _rounds(self) -> None:
        while self._work_needed and not self._stopped:
            self._work_needed = False
            if self._look_needed:
                self._look_needed = False
                self.wake_at(self._outside.wall() + LOOK_EVERY_S)
                self.wake_at(await self._lookout.look())
            if await self._lookout.fill():
                self._work_needed = True
            self._begin()

    def _in_vain(self, failure: object) -> None:
        log.error("The queue could not be read, another look follows: {failure}", failure=failure)
        self._lookout.look_through()
        self.wake_at(self._outside.wall() + AGAIN_S)

    def _rested(self, result: object) -> None:
        self._working = False
        self._wake_idle()

    def _begin(self) -> None:
        """Begin every attempt that may be under way now."""
        if self._beginning:
            return  # an attempt was over at once: the loop below goes on with the next
        if not self.window.has_offers:
            if self._lookout.is_hungry():
                self._work()
            return
        self._beginning = True
        try:
            for _ in range(IN_A_TURN):
                if self._stopped or self._settling.waiting >= SETTLING:
                    break
                item = self.window.next(self._outside.wall(), self._reactor.seconds())
                if item is None:
                    break
                self._under_way += 1
                Deferred.fromCoroutine(self._attempt(item)).addCallback(self._recorded, item)
            else:
                self._begin_later()
        finally:
            self._beginning = False
        if self._lookout.is_hungry():
            self._work()

    def _begin_later(self) -> None:
        if self._next_turn is None and not self._stopped:
            self._next_turn = self._reactor.callLater(0, self._begin_now)

    def _begin_now(self) -> None:
        self._next_turn = None
        self._begin()

    def _recorded(self, over: bool, item: Item) -> None:
        self._under_way -= 1
        item.content.forget()
        if over:
            self._lookout.settled(item)
            self.window.release(item)
        self._begin()
        self._wake_idle()

    def _wake_idle(self) -> None:
        if not self._under_way and not self._working:
            idle, self._idle = self._idle, []
            for waiting in idle:
                waiting.callback(None)

    # -- one attempt

    async def _attempt(self, item: Item) -> bool:
        """One attempt, recorded; False when nobody knows what became of it, and it must not be repeated."""
        # What was read before others changed the database is asked for again.
        if item.age != self._changes and (later := await self._refreshed(item)) is not None:
            return later
        try:
            outcomes = await self._outcomes(item)
            content = item.content
            if content.gone and not any(outcome.result is Result.DELIVERED for outcome in outcomes):
                return True  # the operator was faster
            if content.trouble is not None and all(outcome.result is Result.DEFERRED for outcome in outcomes):
                log.error("A message cannot be read yet: {trouble}", trouble=content.trouble)
                return await self._later(item)
            next_attempt = await self._settling.settle(item, outcomes)
            if next_attempt is not None:
                self.wake_at(next_attempt)
        except Exception:
            log.failure(
                "What became of {queue_id} for {destination} cannot be recorded; the next attempt waits for a restart",
                queue_id=queue_id.text(item.queued.id),
                destination=item.pair.destination,
            )
            self.window.ended(item, Said.NOTHING, self._reactor.seconds())
            return False
        return True

    async def _refreshed(self, item: Item) -> bool | None:
        """Ask which recipients are still queued; None: go on, else there is no attempt, and it is over."""
        try:
            still = await self._database.read(due.still_queued, item.queued.id)
        except StorageTrouble as trouble:
            log.error("A message cannot be looked at yet: {trouble}", trouble=trouble)
            self.window.ended(item, Said.NOTHING, self._reactor.seconds())
            return await self._later(item)
        recipients = tuple(recipient for recipient in item.queued.recipients if recipient.n in still)
        if recipients and not self._stopped:
            if len(recipients) < len(item.queued.recipients):
                self.window.narrow(item, recipients)
            return None
        self.window.ended(item, Said.NOTHING, self._reactor.seconds())
        return True

    async def _outcomes(self, item: Item) -> Sequence[Outcome]:
        """Of the attempt that is made, or of the one that stands for it; its place is free then."""
        if item.failure is not None:
            return [item.failure.shared()] * len(item.queued.recipients)
        outcomes = await self._relay.deliver(_job(item, lambda: self._alive(item)))
        now = self._reactor.seconds()
        what = said(outcomes, item.alive, now - item.started)
        failure = None
        if what in (Said.UNREACHABLE, Said.SLOW_DOWN) and not item.alive:
            deferred = next((outcome for outcome in outcomes if outcome.result is Result.DEFERRED), None)
            # What was refused for good says nothing for others.
            if deferred is not None:
                failure = Failure(item.begun, now, queue_id.text(item.queued.id), deferred)
        self.window.ended(item, what, now, failure)
        self._begin()
        return outcomes

    def _alive(self, item: Item) -> None:
        self.window.alive(item, self._reactor.seconds())
        self._begin()

    async def _later(self, item: Item) -> bool:
        """Trouble with the database: the message is looked for again after a while."""
        await self._settling.pause()
        self.window.more(item.pair)
        return True

    def _clock_jumped(self) -> None:
        self._lookout.clock_jumped()
        self._look()


def _job(item: Item, on_alive: Callable[[], None]) -> Job:
    queued = item.queued
    recipients = queued.recipients
    envelope = queued.envelope
    if recipients[0].sender is not None:
        envelope = replace(envelope, sender=recipients[0].sender)
    return Job(
        queue_id=queue_id.text(queued.id),
        envelope=envelope,
        recipients=tuple(Recipient(r.address, original_recipient(r), r.notify) for r in recipients),
        destination=item.pair.destination,
        content=item.content,
        size=queued.head + queued.size,
        eight_bit=envelope.body == "8BITMIME",
        on_alive=on_alive,
    )
