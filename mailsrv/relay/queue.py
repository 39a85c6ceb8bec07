"""The queue runner: brings every message that waits for another server to an attempt when its time has come.

The database is the queue; here is only a window on it.  For each destination at most WINDOW messages are known at a
time, at most PER_DESTINATION attempts are under way, and at most IN_ALL over all destinations, which take turns; so
neither one slow domain nor one sender's hundred thousand messages keep others waiting, and memory stays bounded.

An attempt that is over is settled in one transaction: the new states, the events, and the reports to the sender with
their own acceptance.  If the database cannot take it just now the settlement is kept and tried again, and the
message stays claimed meanwhile, so that what has been sent is not sent twice.

Times in the database are wall clock, because they outlive the process.  When the wall clock jumps, which shows against
the monotonic one, everything that waits is moved along, and so it is when the clock went back between two runs.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailsrv.config import Queue
from mailsrv.mail.envelope import Recipient
from mailsrv.mail.outcome import Outcome
from mailsrv.outside.interfaces import Outside
from mailsrv.relay import bounce
from mailsrv.relay.bounce import Reports, original_recipient
from mailsrv.relay.delivery import Settings
from mailsrv.relay.job import IDeliveryAgent, Job
from mailsrv.store import message, queue_id
from mailsrv.store.database import Database, StorageTrouble
from mailsrv.store.message import Acceptance, Arrival, QueuedMessage
from mailsrv.store.spool import Spool

log = Logger()

WINDOW = 50
WINDOWS = 2000  # messages that are known at a time over all destinations, about
PER_DESTINATION = 10
IN_ALL = 100
LOCAL_WINDOW = 1000  # copies for own mailboxes that are taken up at a time
LOCAL_AGAIN_S = 0.25  # while there are more
LOOK_EVERY_S = 60.0  # even when nothing is due: clocks jump
SHORTEST_S = 0.01
DRAINED_S = 1.0  # between the last attempt of a destination and the next look at all of them
JUMP_S = 30.0
SETTLE_AGAIN_S = 5.0
GRACE_S = 4.0  # for attempts under way when the server stops


class LocalMail(Protocol):
    """Delivery into own mailboxes, as far as the queue wakes it up."""

    def waiting(self, messages: Sequence[QueuedMessage], last: bool) -> None:
        """These are due; ``last``: and no others.  Called at every look, with nothing too."""


@dataclass(slots=True)
class _Destination:
    """The window on one domain."""

    name: str
    waiting: list[QueuedMessage] = field(default_factory=list)
    claimed: set[tuple[int, int]] = field(default_factory=set)  # known here: waiting or under way
    active: int = 0
    more: bool = True  # the database may hold more that is due


class _Content:
    """The content of a queued message for as long as an attempt lasts."""

    def __init__(self, spool: Spool, number: int, prefix: bytes, data: bytes | None, size: int) -> None:
        self._spool = spool
        self._number = number
        self._prefix = prefix
        self._data = data
        self._size = size

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._prefix
        if self._data is not None:
            yield self._data
            return
        offset = 0
        while block := await self._spool.read_file(self._number, offset):
            offset += len(block)
            yield block
        if offset != self._size:
            # Without this a damaged file would go out as if it were the message, and then be dropped.
            raise OSError(errno.EIO, f"{offset} octets instead of {self._size}", self._spool.path(self._number))


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
        self._settings = settings
        self._outside = outside
        self._reactor = outside.reactor
        self._database = database
        self._spool = spool
        self._relay = relay
        self._reports = reports
        self._local = local
        self._destinations: dict[str, _Destination] = {}
        self._active = 0
        self._known = 0  # messages that wait in the windows
        self._working = False
        self._work_needed = False
        self._look_needed = False
        self._timer: IDelayedCall | None = None
        self._stopped = False
        self._idle: list[Deferred[None]] = []
        self._pauses: set[Deferred[None]] = set()
        self._clock_offset = outside.wall() - outside.reactor.seconds()
        self._clock_seen = outside.reactor.seconds()  # when it was last known to be right
        self._new_time = (0.0, 0.0)
        self._jumped = 0.0  # by how much the wall clock has jumped since the start, in all
        self._schedule = settings.config.queue
        self._resumed = False

    # -- waking up

    def accepted(self, arrival: Arrival) -> None:
        """A message has just been committed: its destinations are looked at, without asking for all others."""
        for recipient in arrival.recipients:
            if recipient.destination:
                self._destination(recipient.destination).more = True
                self._work()

    def wake(self) -> None:
        """Something has changed in the database: look at everything."""
        self._look_needed = True
        self._work()

    def wake_at(self, wall: float) -> None:
        """Something becomes due at ``wall``."""
        delay = min(max(wall - self._outside.wall(), SHORTEST_S), LOOK_EVERY_S)
        if self._timer is not None:
            if self._timer.getTime() <= self._reactor.seconds() + delay:
                return
            self._timer.cancel()
        if not self._stopped:
            self._timer = self._reactor.callLater(delay, self._woken)

    def _woken(self) -> None:
        self._timer = None
        self.wake()

    def reconfigured(self) -> None:
        """New queue settings hold for what waits already."""
        self.wake()

    async def stop(self) -> None:
        """Begin nothing more; what is under way may end within GRACE_S, so that no answer is missed, or is cut."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for pause in list(self._pauses):
            pause.cancel()
        cut = self._reactor.callLater(GRACE_S, lambda: Deferred.fromCoroutine(self._relay.close()))
        while self._active or self._working:
            idle: Deferred[None] = Deferred()
            self._idle.append(idle)
            await idle
        if cut.active():
            cut.cancel()
        await self._relay.close()

    # -- looking

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
                await self._look()
            for destination in list(self._destinations.values()):
                if destination.more and len(destination.waiting) < WINDOW // 2 and self._known < WINDOWS:
                    await self._fill(destination)
            self._dispatch()

    def _in_vain(self, failure: object) -> None:
        log.error("The queue could not be read, another look follows: {failure}", failure=failure)
        self.wake_at(self._outside.wall() + SETTLE_AGAIN_S)

    def _rested(self, result: object) -> None:
        self._working = False
        self._wake_idle()

    async def _look(self) -> None:
        await self._mind_the_clock()
        await self._mind_the_schedule()
        now = self._outside.wall()
        next_due = now + LOOK_EVERY_S
        local: list[QueuedMessage] = []
        for name, earliest in await self._database.read(message.destinations):
            if earliest > now:
                next_due = min(next_due, earliest)
            elif name:
                self._destination(name).more = True
            else:
                local = await self._database.read(message.local_waiting, now, LOCAL_WINDOW)
        last = sum([len(queued.recipients) for queued in local]) < LOCAL_WINDOW
        self._local.waiting(local, last)
        self.wake_at(next_due if last else now + LOCAL_AGAIN_S)

    async def _mind_the_clock(self) -> None:
        now, looked = self._outside.wall(), self._reactor.seconds()
        offset = now - looked
        jump = offset - self._clock_offset
        unseen, self._clock_seen = looked - self._clock_seen, looked
        if abs(jump) > JUMP_S:
            log.warn("The clock has jumped by {jump:.0f} s; the queue goes on as if it had not.", jump=jump)
            # At once, for an attempt that ends meanwhile asks the same.
            self._clock_offset += jump
            self._jumped += jump
            # What was accepted in this time was accepted by the new clock: only before it was the clock another.
            self._new_time = (now - unseen - 1.0, now + 1.0)
            try:
                longest = max(self._settings.config.queue.retry)
                await self._database.write(message.postpone, jump, self._new_time, now + longest)
            except StorageTrouble:
                self._clock_offset -= jump
                self._jumped -= jump
                self._clock_seen = looked - unseen
                raise

    async def _mind_the_schedule(self) -> None:
        old, new = self._schedule, self._settings.config.queue
        if not self._resumed:
            await self._database.write(message.resume, self._outside.wall(), JUMP_S, new.retry, new.expire)
            self._resumed = True
        elif old != new:
            shifts, last = _shifts(old, new)
            await self._database.write(message.reschedule, shifts, new.expire, last)
        self._schedule = new

    def _destination(self, name: str) -> _Destination:
        known = self._destinations.get(name)
        if known is None:
            known = self._destinations[name] = _Destination(name)
        return known

    async def _fill(self, destination: _Destination) -> None:
        destination.more = False
        limit = WINDOW + len(destination.claimed)
        found = await self._database.read(message.remote_waiting, self._outside.wall(), destination.name, limit)
        if sum(len(queued.recipients) for queued in found) >= limit:
            destination.more = True
        room = WINDOW
        for queued in found:
            # Of those that were claimed when the limit was made, some may be settled by now: then these are too many.
            fresh = tuple(r for r in queued.recipients if (queued.id, r.n) not in destination.claimed)[:room]
            room -= len(fresh)
            # One transaction has one sender, and forwarded mail another than the rest.
            for sender in dict.fromkeys(recipient.sender for recipient in fresh):
                alike = tuple(recipient for recipient in fresh if recipient.sender == sender)
                destination.waiting.append(replace(queued, recipients=alike))
                self._known += 1
                destination.claimed.update((queued.id, recipient.n) for recipient in alike)

    def _dispatch(self) -> None:
        """Begin as many attempts as may be under way, the destinations in turn."""
        progress = True
        while progress and not self._stopped:
            progress = False
            for destination in list(self._destinations.values()):
                if self._active >= IN_ALL:
                    return
                if destination.waiting:
                    if destination.active < PER_DESTINATION:
                        # To the end of the row: whoever was served last is served last again.
                        self._destinations[destination.name] = self._destinations.pop(destination.name)
                        self._begin(destination, destination.waiting.pop(0))
                        progress = True
                elif not destination.active and not destination.more and not destination.claimed:
                    del self._destinations[destination.name]

    def _begin(self, destination: _Destination, queued: QueuedMessage) -> None:
        self._known -= 1
        destination.active += 1
        self._active += 1
        attempt = Deferred.fromCoroutine(self._attempt(destination, queued))
        attempt.addCallback(self._attempted, destination, queued)

    def _attempted(self, over: bool, destination: _Destination, queued: QueuedMessage) -> None:
        destination.active -= 1
        self._active -= 1
        if over:
            destination.claimed.difference_update((queued.id, recipient.n) for recipient in queued.recipients)
        if not destination.active and not destination.waiting and not destination.more:
            # What was not due when this window was filled may be due by now.
            self.wake_at(self._outside.wall() + DRAINED_S)
        self._work()
        self._wake_idle()

    def _wake_idle(self) -> None:
        if not self._active and not self._working:
            idle, self._idle = self._idle, []
            for waiting in idle:
                waiting.callback(None)

    # -- one attempt

    async def _attempt(self, destination: _Destination, queued: QueuedMessage) -> bool:
        """One attempt, recorded; False when nobody knows what became of it, and it must not be repeated."""
        try:
            loaded = await self._load(destination, queued)
        except Exception as error:
            if isinstance(error, StorageTrouble):
                log.error("A message cannot be read yet: {trouble}", trouble=error)
            else:
                log.failure("{queue_id} cannot be read", queue_id=queue_id.text(queued.id))
            await self._pause(SETTLE_AGAIN_S)
            return True
        if loaded is None:
            return True
        queued, job, content = loaded
        jumped = self._jumped
        try:
            outcomes = await self._relay.deliver(job)
            await self._settle(queued, outcomes, content, jumped)
        except Exception:
            log.failure(
                "What became of {queue_id} for {destination} cannot be recorded; the next attempt waits for a restart",
                queue_id=job.queue_id,
                destination=destination.name,
            )
            return False
        return True

    async def _load(
        self, destination: _Destination, queued: QueuedMessage
    ) -> tuple[QueuedMessage, Job, tuple[bytes, bytes | None]] | None:
        """What is to be sent, as the database has it now; None when the operator was faster."""
        found = await self._spool.load(queued.id)
        still = await self._database.read(message.still_queued, queued.id)
        recipients = tuple(replace(r, since=still[r.n]) for r in queued.recipients if r.n in still)
        if found is None or not recipients or self._stopped:
            return None
        prefix, data = found
        job = Job(
            queue_id=queue_id.text(queued.id),
            envelope=replace(queued.envelope, sender=recipients[0].sender or queued.envelope.sender),
            recipients=tuple(Recipient(r.address, original_recipient(r), r.notify) for r in recipients),
            destination=destination.name,
            content=_Content(self._spool, queued.id, prefix, data, queued.size),
            size=len(prefix) + queued.size,
            eight_bit=queued.envelope.body == "8BITMIME",
        )
        return replace(queued, recipients=recipients), job, found

    async def _settle(
        self,
        queued: QueuedMessage,
        outcomes: Sequence[Outcome],
        content: tuple[bytes, bytes | None],
        jumped: float,
    ) -> None:
        if not await self._surely(self._mind_the_clock):
            return
        jump = self._jumped - jumped
        begin, end = self._new_time
        if jump and not begin <= queued.accepted <= end:  # the recipients were read before it
            moved = tuple(replace(recipient, since=recipient.since + jump) for recipient in queued.recipients)
            queued = replace(queued, recipients=moved)
        verdict = await self._reports.judge(queued, outcomes, content)
        gone = False
        accepted: Sequence[Acceptance] = ()

        async def record() -> None:
            nonlocal gone, accepted
            gone, accepted = await self._database.write(bounce.settle, self._outside.wall(), queued.id, verdict)

        if not await self._surely(record):
            return
        if gone:
            self._spool.dropped([queued.id])
        for report in accepted:
            self._spool.on_accepted(report.arrival, report.names, report.content)
        later = [settlement.next_attempt for settlement in verdict.settlements if settlement.state == "queued"]
        if later:
            self.wake_at(min(later))

    async def _surely(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Do ``work``, as often as the database needs to take it; False when the server stops before that."""
        while True:
            try:
                await work()
                return True
            except StorageTrouble as trouble:
                log.error("An attempt cannot be recorded yet: {trouble}", trouble=trouble)
            if self._stopped:
                return False
            await self._pause(SETTLE_AGAIN_S)

    async def _pause(self, seconds: float) -> None:
        """Wait, at most until the server stops."""
        if self._stopped:
            return
        pause: Deferred[None] = deferLater(self._reactor, seconds)
        self._pauses.add(pause)
        try:
            await pause
        except CancelledError:
            pass
        finally:
            self._pauses.discard(pause)


def _shifts(old: Queue, new: Queue) -> tuple[list[tuple[int, float]], int]:
    """By how much the next attempt moves, for each number of attempts made; the last number stands for all above."""
    last = max(len(old.retry), len(new.retry))

    def delay(retry: Sequence[float], attempts: int) -> float:
        return retry[min(attempts, len(retry)) - 1]

    shifts = [(attempts, delay(new.retry, attempts) - delay(old.retry, attempts)) for attempts in range(1, last + 1)]
    return shifts, last
