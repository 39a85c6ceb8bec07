"""Finds mail in the database for which the window has room.

Three ways lead to it.  What becomes due is found by its time: ``look`` asks for what did since the last look.  What
others may have changed is found by looking through all lanes, and within each through its destinations, in steps, as
far as there is room for the lane; where it stops is remembered.  And a pair of which the window knows that there is
more in the database is read again when few of its messages wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final, Protocol

from mailsrv.mail.address import Address
from mailsrv.outside.interfaces import Outside
from mailsrv.relay.clock import QueueClock
from mailsrv.relay.content import Content, Memory
from mailsrv.relay.limit import Standing
from mailsrv.relay.pairs import Item
from mailsrv.relay.window import LANE, Window
from mailsrv.store import due
from mailsrv.store.database import Database
from mailsrv.store.due import Pair
from mailsrv.store.message import QueuedMessage, QueuedRecipient

LOCAL: Final = 1000  # copies for own mailboxes that are taken up at a time
LOCAL_AGAIN_S: Final = 0.25  # while there are more
BECAME_DUE: Final = 1000  # recipients; when more became due since the last look, all lanes are looked through
LANES: Final = 100  # that are told at a time
AT_ONCE: Final = 100  # destinations of a lane that are taken up at a time
CONTENTS: Final = 1024 * 1024  # octets of content that are read together with what they belong to
NEVER: Final = float("-inf")
FAR_S: Final = 86400.0


class LocalMail(Protocol):
    """Delivery into own mailboxes, as far as the queue wakes it up."""

    def waiting(self, messages: Sequence[QueuedMessage], last: bool) -> None:
        """These are due; ``last``: and no others.  Called at every look, with nothing too."""


class Lookout:
    """Reads for the queue runner, one thing after the other.

    ``age`` tells the runner's count of changes by others, and ``item`` makes what is put into the window.
    """

    def __init__(
        self,
        outside: Outside,
        database: Database,
        window: Window,
        clock: QueueClock,
        memory: Memory,
        local: LocalMail,
        age: Callable[[], int],
        item: Callable[[QueuedMessage, Pair, int, int, Content | None], Item],
    ) -> None:
        self._outside = outside
        self._database = database
        self._window = window
        self._clock = clock
        self._memory = memory
        self._local = local
        self._age = age
        self._item = item
        self._horizon = NEVER  # what was due by then is known: in the window, behind a cursor, or as a pair's ``more``
        self._next_lane: str | None = None  # behind which looking through all lanes goes on; None: it is done
        self._times = 0  # that looking through all lanes began
        self._stopped = False
        self._gone: set[tuple[int, int]] | None = None  # what was settled while the database is being read

    def stop(self) -> None:
        """What takes long is not finished."""
        self._stopped = True

    def look_through(self) -> None:
        """Look at everything, from the beginning."""
        self._next_lane = ""
        self._times += 1
        self._begin_lane("")

    def due_at(self, wall: float) -> None:
        """Something may be due at ``wall`` that was not when that time was looked at."""
        self._horizon = min(self._horizon, wall - 1.0)

    def settled(self, item: Item) -> None:
        """What is being read at this moment may be older than this."""
        if self._gone is not None:
            self._gone.update(item.keys())

    def clock_jumped(self) -> None:
        """All times have moved."""
        self._window.forget_failures()
        self.look_through()

    # -- what becomes due

    async def look(self) -> float:
        """Find what has become due; when the next look is worth while, in seconds since 1970 (StorageTrouble)."""
        window, monotonic = self._window, self._outside.reactor.seconds()
        window.stalled(monotonic)
        window.forget(monotonic)
        await self._mind_the_clock()
        now = self._outside.wall()
        since, self._horizon = min(self._horizon, now), now
        pairs = await self._database.read(due.became_due, since, now, BECAME_DUE)
        if pairs is None:
            self.look_through()
        for pair in pairs or ():
            if pair.destination:
                window.more(pair)
        local = await self._database.read(due.local_waiting, now, LOCAL)
        last = sum([len(queued.recipients) for queued in local]) < LOCAL
        self._local.waiting(local, last)
        if not last:
            return now + LOCAL_AGAIN_S
        following = await self._database.read(due.next_due, now)
        return following if following is not None else now + FAR_S

    async def _mind_the_clock(self) -> None:
        """Until all that waits is in step with the clock and with the settings: after a start that may take a while."""
        while not self._stopped:
            if await self._clock.mind():
                self.clock_jumped()
            if not await self._clock.mind_the_schedule():
                break
            self.look_through()

    # -- what there is room for

    def is_hungry(self) -> bool:
        """Whether there is something to read, and room for it."""
        window = self._window
        if self._clock.moving:
            return False  # what is read now may have been moved already, or not; a look follows
        if window.hungry or window.hungry_lanes:
            return True
        return (self._next_lane is not None or window.missed) and window.has_room()

    async def fill(self) -> bool:
        """Read what there is room for, a part of it; whether to go on with the next (StorageTrouble)."""
        window = self._window
        if self._clock.moving:
            return False
        if window.missed and window.has_room():
            window.missed = False
            self.look_through()
        await self._fill_pairs(list(islice(window.hungry, AT_ONCE)))
        for lane in list(islice(window.hungry_lanes, AT_ONCE)):
            await self._fill_lane(lane)
        if self._next_lane is not None and window.has_room():
            await self._look_at_lanes(self._next_lane)
        return self.is_hungry()

    async def _look_at_lanes(self, after: str) -> None:
        times = self._times
        lanes = await self._database.read(due.lanes, after, LANES)
        if self._times == times:
            self._next_lane = lanes[-1] if len(lanes) == LANES else None
        for lane in lanes:
            self._begin_lane(lane)

    def _begin_lane(self, name: str) -> None:
        lane = self._window.lane(name)
        lane.cursor = ""
        lane.times += 1
        self._window.hungry_lanes[name] = None

    async def _fill_lane(self, name: str) -> None:
        """Take up the next destinations of the lane for which something is due."""
        window = self._window
        window.hungry_lanes.pop(name, None)
        lane = window.lanes.get(name)
        if lane is None or lane.cursor is None or lane.known >= LANE or not window.has_room():
            return  # the window says when there is room again
        times, arguments = lane.times, (self._outside.wall(), name, lane.cursor, AT_ONCE)
        try:
            pairs, cursor = await self._database.read(due.of_lane, *arguments)
        except BaseException:
            window.hungry_lanes[name] = None
            raise
        if lane.times == times:
            lane.cursor = cursor
        if lane.cursor is not None:
            window.hungry_lanes[name] = None
        for pair in pairs:
            window.more(pair)
        await self._fill_pairs(pairs)
        window.tidy_lane(lane)

    async def _fill_pairs(self, keys: Sequence[Pair]) -> None:
        window, jumps, age = self._window, self._clock.jumps, self._age()
        wanted = []
        for key in keys:
            window.hungry.pop(key, None)
            pair = window.pairs.get(key)
            room = window.room(pair) if pair is not None and pair.more else 0
            if pair is not None and room > 0:
                pair.more = False
                # Where it is not known to be wanted soon, content is no use in memory.
                soon = pair.destination.limit.standing is Standing.PROVEN
                wanted.append(due.Wanted(key, room, frozenset(pair.claimed), soon))
        if not wanted:
            return
        self._gone = set()
        try:
            octets = min(self._memory.left, CONTENTS)
            found = await self._database.read(due.waiting_of, self._outside.wall(), wanted, octets)
        except BaseException:
            for key, *_ in wanted:
                window.more(key)
            raise
        finally:
            gone, self._gone = self._gone, None
        unsure = self._clock.moving or self._clock.jumps != jumps
        now = self._outside.reactor.seconds()
        for (key, *_), (messages, more, contents) in zip(wanted, found, strict=True):
            pair = window.pair(key)
            for queued in () if unsure else messages:
                # What was accepted or settled meanwhile is not to be taken up twice.
                fresh = [
                    r
                    for r in queued.recipients
                    if (queued.id, r.n) not in pair.claimed and (queued.id, r.n) not in gone
                ]
                for part in _by_sender(fresh):
                    kept = contents.get(queued.id)
                    window.take(self._item(replace(queued, recipients=part), key, age, jumps, kept), now)
            if more or unsure:
                window.more(key)
            window.tidy(pair)


def _by_sender(recipients: Sequence[QueuedRecipient]) -> list[tuple[QueuedRecipient, ...]]:
    """One transaction has one sender, and forwarded mail another than the rest."""
    parts: dict[Address | None, list[QueuedRecipient]] = {}
    for recipient in recipients:
        parts.setdefault(recipient.sender, []).append(recipient)
    return [tuple(part) for part in parts.values()]
