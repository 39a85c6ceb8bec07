"""Keeps what waits in step with the clock and with the settings.

Times in the database are wall clock, because they outlive the process.  When the wall clock jumps, which shows against
the monotonic one, everything that waits is moved along.  A jump that was noticed is owed until its move is written: the
database may not take it just now, and the clock may jump again before it does.  Until then nothing is read from the
queue and no attempt is settled.  All moves that are owed are written together, in one transaction.

Who began to wait by which clock is told by the time itself: what is by the clock after a jump lies between the moment
when the clock was last seen to be right and the present (``rescheduling.Move``).  Where the clock goes back to times
that there were already, some of what came then is not moved: it waits longer than it would have, by the jump at most.

A process that ends while moves are owed leaves times by the old clock, as one does that was not running when the clock
jumped; the next start cannot tell the jump from a time in which the machine was off.  What it makes of them stands at
``rescheduling.resume``: back, nothing waits longer than its schedule says and nothing is given up early; forward, the
jump counts as time that went by, and what is older than ``queue.expire`` by that has one more attempt.

New waiting times move the next attempts of what waits already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv.config import Queue
from mailsrv.outside.interfaces import Outside
from mailsrv.relay.delivery import Settings
from mailsrv.store import rescheduling
from mailsrv.store.database import Database
from mailsrv.store.message import QueuedMessage
from mailsrv.store.rescheduling import Move, Place

JUMP_S: Final = 30.0
LATE_S: Final = 60.0  # what has a time may come into the database, or be told from there, so much later
JUMPS: Final = 100  # written ones that are remembered, for what was read before them
ROWS: Final = 500  # that are looked through in one transaction after a start: others commit in between

log = Logger()


class QueueClock:
    """Of the queue runner, who asks it before anything is done by the time in the database."""

    def __init__(self, settings: Settings, outside: Outside, database: Database) -> None:
        self._settings = settings
        self._outside = outside
        self._reactor = outside.reactor
        self._database = database
        self._offset = outside.wall() - outside.reactor.seconds()
        self._seen = outside.reactor.seconds()  # when it was last known to be right
        self._moves: list[Move] = []  # the jumps since the start, but for the oldest
        self._noticed: list[float] = []  # when each of them was, monotonic
        self._forgotten = 0  # jumps before them
        self._owed = 0  # the last so many moves are not written yet
        self._waiting: list[Deferred[Any]] | None = None  # for the moves that are being written; None: none are
        self._schedule = settings.config.queue
        self._place: Place | None = rescheduling.BEGIN  # up to where what the last run left was looked through

    @property
    def jumps(self) -> int:
        """How often the wall clock has jumped since the start, as far as it was noticed."""
        return self._forgotten + len(self._moves)

    @property
    def moving(self) -> bool:
        """Whether what waits is still to be moved: what is read now may have the times of another clock."""
        return self._owed > 0

    def is_right(self) -> bool:
        """Whether the times in the database are those of the clock; if not, ``mind`` is to be called."""
        now = self._reactor.seconds()
        if abs(self._outside.wall() - now - self._offset) > JUMP_S:
            return False
        self._seen = now
        return not self._owed

    async def mind(self) -> bool:
        """Move what waits along with the jumps; True for whom it was that did so (StorageTrouble)."""
        self._notice()
        if not self._owed:
            return False
        if self._waiting is not None:
            waiter: Deferred[Any] = Deferred()
            self._waiting.append(waiter)
            await waiter
            return False
        waiting: list[Deferred[Any]] = []
        self._waiting = waiting
        result: Failure | None = None
        try:
            while self._owed:
                await self._move()
                self._notice()
        except BaseException:
            result = Failure()
            raise
        finally:
            self._waiting = None
            for waiter in waiting:
                waiter.callback(result)
        return True

    def _notice(self) -> None:
        wall, now = self._outside.wall(), self._reactor.seconds()
        jump = wall - now - self._offset
        unseen, self._seen = now - self._seen, now
        if abs(jump) <= JUMP_S:
            return
        log.warn("The clock has jumped by {jump:.0f} s; the queue goes on as if it had not.", jump=jump)
        if self._moves:
            # By the clock before this jump nothing begins to wait any more.
            last, end = self._moves[-1], now + self._offset + 1.0
            self._moves[-1] = last._replace(end=end if self._owed else min(last.end, end))
        self._offset += jump
        self._moves.append(Move(jump, wall - unseen - 1.0, wall + LATE_S))
        self._noticed.append(now)
        self._owed += 1
        if len(self._moves) > JUMPS and len(self._moves) > self._owed:
            del self._moves[0], self._noticed[0]
            self._forgotten += 1

    async def _move(self) -> None:
        now = self._outside.wall()
        # It may have been owed for long.
        self._moves[-1] = self._moves[-1]._replace(end=now + LATE_S)
        moves = tuple(self._moves[-self._owed :])
        await self._database.write(rescheduling.postpone, moves, now + max(self._settings.config.queue.retry))
        self._owed -= len(moves)
        if self._place is not None:
            self._place = rescheduling.BEGIN

    async def mind_the_schedule(self) -> bool:
        """Apply settings that have changed, before the start or since; a part of it at a time.

        True when there was something to do: perhaps there is more (StorageTrouble).
        """
        old, new = self._schedule, self._settings.config.queue
        if self._place is not None:
            if old != new:
                self._schedule, self._place = new, rescheduling.BEGIN
            jumps, now = self.jumps, self._outside.wall()
            arguments = (self._place, ROWS, now, JUMP_S, new.retry, new.expire)
            place = await self._database.write(rescheduling.resume, *arguments)
            # What the clock's jump has moved may have come before the place.
            self._place = place if self.jumps == jumps else rescheduling.BEGIN
        elif old != new:
            shifts, last = _shifts(old, new)
            await self._database.write(rescheduling.reschedule, shifts, new.expire, last)
            self._schedule = new
        else:
            return False
        return True

    def jumps_before(self, at: float) -> int:
        """How many jumps there had been when the wall clock told ``at``, at most LATE_S seconds ago."""
        jumps, now = self.jumps, self._reactor.seconds()
        for move, noticed in zip(reversed(self._moves), reversed(self._noticed), strict=True):
            if noticed < now - LATE_S or move.begin <= at <= move.end:
                break
            jumps -= 1
        return jumps

    def moved_along(self, queued: QueuedMessage, jumps: int) -> QueuedMessage:
        """``queued``, read after so many jumps, by the clock of today."""
        moves = self._moves[max(jumps - self._forgotten, 0) :]
        if not moves:
            return queued
        return replace(
            queued,
            recipients=tuple(
                replace(recipient, since=recipient.since + rescheduling.shift(moves, recipient.since))
                for recipient in queued.recipients
            ),
        )


def _shifts(old: Queue, new: Queue) -> tuple[list[tuple[int, float]], int]:
    """By how much the next attempt moves, for each number of attempts made; the last number stands for all above."""
    last = max(len(old.retry), len(new.retry))

    def delay(retry: Sequence[float], attempts: int) -> float:
        return retry[min(attempts, len(retry)) - 1]

    shifts = [(attempts, delay(new.retry, attempts) - delay(old.retry, attempts)) for attempts in range(1, last + 1)]
    return shifts, last
