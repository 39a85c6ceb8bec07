"""Keeps what waits in step with the clock and with the settings.

Times in the database are wall clock, because they outlive the process.  When the wall clock jumps, which shows against
the monotonic one, everything that waits is moved along, and so it is when the clock went back between two runs.  New
waiting times move the next attempts of what waits already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from twisted.logger import Logger

from mailsrv.config import Queue
from mailsrv.outside.interfaces import Outside
from mailsrv.relay.delivery import Settings
from mailsrv.store import rescheduling
from mailsrv.store.database import Database, StorageTrouble
from mailsrv.store.message import QueuedMessage

JUMP_S: Final = 30.0

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
        self._new_time = (0.0, 0.0)
        self._schedule = settings.config.queue
        self._resumed = False
        self._moves = 0  # of what waits, under way: the clock may jump again before the first is written
        self.jumped = 0.0  # by how much the wall clock has jumped since the start, in all

    @property
    def moving(self) -> bool:
        """Whether what waits is being moved just now."""
        return self._moves > 0

    def is_right(self) -> bool:
        """Whether it has not jumped since it was last asked; if it has, ``mind`` is to be called."""
        now = self._reactor.seconds()
        if abs(self._outside.wall() - now - self._offset) > JUMP_S:
            return False
        self._seen = now
        return True

    async def mind(self) -> bool:
        """Move what waits along with a jump; True when there was one (StorageTrouble)."""
        if self.is_right():
            return False
        now, looked = self._outside.wall(), self._reactor.seconds()
        jump = now - looked - self._offset
        unseen, self._seen = looked - self._seen, looked
        log.warn("The clock has jumped by {jump:.0f} s; the queue goes on as if it had not.", jump=jump)
        # At once, for an attempt that ends meanwhile asks the same.
        self._offset += jump
        self.jumped += jump
        # What was accepted in this time was accepted by the new clock: only before it was the clock another.
        self._new_time = (now - unseen - 1.0, now + 1.0)
        self._moves += 1
        try:
            longest = max(self._settings.config.queue.retry)
            await self._database.write(rescheduling.postpone, jump, self._new_time, now + longest)
        except StorageTrouble:
            self._offset -= jump
            self.jumped -= jump
            self._seen = looked - unseen
            raise
        finally:
            self._moves -= 1
        return True

    async def mind_the_schedule(self) -> bool:
        """Apply settings that have changed, before the start or since; True when they had (StorageTrouble)."""
        old, new = self._schedule, self._settings.config.queue
        if not self._resumed:
            await self._database.write(rescheduling.resume, self._outside.wall(), JUMP_S, new.retry, new.expire)
            self._resumed = True
        elif old != new:
            shifts, last = _shifts(old, new)
            await self._database.write(rescheduling.reschedule, shifts, new.expire, last)
        else:
            return False
        self._schedule = new
        return True

    def moved_along(self, queued: QueuedMessage, jumped: float) -> QueuedMessage:
        """``queued``, read when the clock had jumped by ``jumped`` in all, by the clock of today."""
        jump = self.jumped - jumped
        begin, end = self._new_time
        if not jump or begin <= queued.accepted <= end:
            return queued
        moved = tuple(replace(recipient, since=recipient.since + jump) for recipient in queued.recipients)
        return replace(queued, recipients=moved)


def _shifts(old: Queue, new: Queue) -> tuple[list[tuple[int, float]], int]:
    """By how much the next attempt moves, for each number of attempts made; the last number stands for all above."""
    last = max(len(old.retry), len(new.retry))

    def delay(retry: Sequence[float], attempts: int) -> float:
        return retry[min(attempts, len(retry)) - 1]

    shifts = [(attempts, delay(new.retry, attempts) - delay(old.retry, attempts)) for attempts in range(1, last + 1)]
    return shifts, last
