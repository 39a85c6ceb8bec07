"""The bounded part of the queue that is in memory, and whose turn it is; without I/O and without a clock.

Mail is kept by pairs of a lane (who sends, ``Arrival.lane``) and a destination.  At each destination the lanes take
turns, and so they do for the places that all share; a place is an attempt under way.  What is bounded, and by what:

- attempts at one destination by its ``Limit``;
- attempts in all by IN_ALL, of which destinations that have not answered yet get three quarters, and those that are
  down one: so places are there for those who make progress, however many others let us wait;
- messages that wait in memory by LANE for each lane and by KNOWN in all, but the first of a pair is let in beyond
  LANE; what is not in memory is found in the database when there is room again (``hungry``, ``Lane.cursor``).

An attempt without a sign of life for STALLED_S keeps its place among all, and none at its destination.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Final

from mailsrv.relay.limit import MOST, STALLED_S, Failure, Limit, Said, Standing
from mailsrv.relay.pairs import Destination, Item, Lane, PairState, Row
from mailsrv.store.due import Pair
from mailsrv.store.message import QueuedRecipient

IN_ALL: Final = 2000  # attempts under way
LANE: Final = 500  # messages of one lane that wait in memory
KNOWN: Final = 10_000  # messages that wait in memory over all lanes
PAIRS: Final = 10_000  # pairs of lane and destination of which something is known
SPARE: Final = 1000  # of these, kept for what is accepted and what becomes due
LIMITS: Final = 10_000  # destinations whose limit is remembered
FORGET_S: Final = 3600.0  # how long it is remembered when there is nothing to send
AHEAD: Final = 2  # messages of a pair that wait in memory for each attempt that the destination may have

_SHARES = {Standing.PROVEN: IN_ALL, Standing.UNPROVEN: IN_ALL * 3 // 4, Standing.DOWN: IN_ALL // 4}


class Window:
    """Takes messages in, and gives them out for attempts."""

    def __init__(self) -> None:
        self.pairs: dict[Pair, PairState] = {}
        self.lanes: dict[str, Lane] = {}
        self.hungry: dict[Pair, None] = {}  # may have more in the database, and have room for it
        self.hungry_lanes: dict[str, None] = {}
        self.known = 0  # messages that wait
        self.missed = False  # mail was turned away of which nothing is known here: all lanes are to be looked through
        self._destinations: dict[str, Destination] = {}
        self._limits: dict[str, Limit] = {}  # the longest unused first
        self._rows = {standing: Row() for standing in Standing}
        self._places = dict.fromkeys(Standing, 0)  # taken
        self._shared: deque[Item] = deque()
        self._under_way: dict[Item, None] = {}  # in the order in which they began

    # -- in

    def has_room(self) -> bool:
        """Whether more may be read from the database than what keeps those going who are here."""
        return self.known < KNOWN and len(self.pairs) < PAIRS - SPARE

    def admits(self, key: Pair) -> bool:
        """Whether a message that has just been accepted may come in at once."""
        pair, lane = self.pairs.get(key), self.lanes.get(key.lane)
        of_lane = lane.known if lane is not None else 0
        if pair is None:
            return of_lane < 2 * LANE and self.known < KNOWN and len(self.pairs) < PAIRS
        if pair.more:
            return False  # older ones wait in the database
        if not pair.waiting:
            return of_lane < 2 * LANE and self.known < KNOWN
        return of_lane < LANE and self.known < KNOWN and len(pair.waiting) < 2 * MOST

    def more(self, key: Pair) -> None:
        """The database may have mail of this pair that is due."""
        if key not in self.pairs and len(self.pairs) >= PAIRS:
            self.missed = True
            return
        pair = self.pair(key)
        pair.more = True
        self._look_whether_hungry(pair)

    def pair(self, key: Pair) -> PairState:
        """The state of a pair; ``tidy`` forgets it when there is nothing in it."""
        pair = self.pairs.get(key)
        if pair is None:
            lane = self.lane(key.lane)
            destination = self._destinations.get(key.destination)
            if destination is None:
                destination = Destination(key.destination, self._limit(key.destination))
                self._destinations[key.destination] = destination
            pair = self.pairs[key] = PairState(key, lane, destination)
            destination.pairs[key.lane] = pair
            lane.pairs += 1
        return pair

    def lane(self, name: str) -> Lane:
        lane = self.lanes.get(name)
        if lane is None:
            lane = self.lanes[name] = Lane(name)
        return lane

    def take(self, item: Item, now: float) -> None:
        """Let a message wait here for its turn."""
        pair = self.pair(item.pair)
        pair.claimed.update(item.keys())
        failure = pair.destination.limit.failure
        if failure is not None and failure.stands_for(item.due, now):
            self._share(pair, item, failure)
            return
        pair.waiting.append(item)
        self._count(pair, 1)
        self._queue_up(pair)
        self._offer(pair.destination)

    def room(self, pair: PairState) -> int:
        """How many messages of the pair may be read from the database now."""
        limit = pair.destination.limit
        if limit.standing is Standing.UNPROVEN or pair.lane.known >= LANE or self.known >= KNOWN:
            wanted = 0 if pair.active else 1
        else:
            wanted = AHEAD * limit.places
        return wanted - len(pair.waiting) - pair.shared

    # -- out

    @property
    def has_offers(self) -> bool:
        """Whether it is worth while to ask for the next."""
        return bool(self._shared) or any(self._rows.values())

    def next(self, wall: float, now: float) -> Item | None:
        """The next message for which an attempt may begin now; its place is taken.  None when there is none.

        With ``Item.failure`` no attempt is to be made, nor is there a place for it: its outcome is known.
        """
        if self._shared:
            return self._shared.popleft()
        again = True
        while again:
            again = False
            for standing, row in self._rows.items():
                while row and self._has_place(standing):
                    pair = row.pop()
                    destination = pair.destination
                    pair.offered -= 1
                    destination.offered -= 1
                    if pair.waiting and destination.limit.standing is standing and destination.has_room(pair):
                        return self._begin(pair, wall, now)
                    # Things have changed since it got into the row.
                    self._queue_up(pair)
                    self._offer(destination)
                    again = True
        return None

    def _begin(self, pair: PairState, wall: float, now: float) -> Item:
        item = pair.waiting.popleft()
        self._count(pair, -1)
        pair.active += 1
        pair.destination.active += 1
        item.begun, item.started, item.standing = wall, now, pair.destination.limit.standing
        self._places[item.standing] += 1
        self._under_way[item] = None
        self._look_whether_hungry(pair)
        return item

    def alive(self, item: Item, now: float) -> None:
        """A server has taken a recipient: its destination makes progress."""
        if item.alive or item not in self._under_way:
            return
        item.alive = True
        destination = self.pairs[item.pair].destination
        destination.limit.alive(now)
        self._places[item.standing] -= 1
        item.standing = Standing.PROVEN
        self._places[item.standing] += 1
        self._unstall(item, destination)
        self._offer(destination)

    def ended(self, item: Item, what: Said, now: float, failure: Failure | None = None) -> None:
        """The attempt is over, and its place is free; the message stays claimed until ``release``."""
        if item not in self._under_way:
            return  # it had none
        del self._under_way[item]
        pair = self.pairs[item.pair]
        destination = pair.destination
        self._places[item.standing] -= 1
        pair.active -= 1
        destination.active -= 1
        self._unstall(item, destination)
        destination.limit.ended(what, item.started, now, failure)
        if destination.limit.failure is not None:
            self._share_all(destination, destination.limit.failure, now)
        self._offer(destination)
        self._look_whether_hungry(pair)

    def release(self, item: Item) -> None:
        """Nothing of the message is under way any more."""
        pair = self.pairs[item.pair]
        pair.claimed.difference_update(item.keys())
        if item.failure is not None:
            pair.shared -= 1
            self._look_whether_hungry(pair)
        self.tidy(pair)

    def narrow(self, item: Item, recipients: tuple[QueuedRecipient, ...]) -> None:
        """Of the message only these are still our business."""
        pair = self.pairs[item.pair]
        pair.claimed.difference_update(item.keys())
        item.queued = replace(item.queued, recipients=recipients)
        pair.claimed.update(item.keys())

    def stalled(self, now: float) -> None:
        """Let attempts without a sign of life for STALLED_S keep nobody waiting at their destination."""
        for item in self._under_way:
            if item.started > now - STALLED_S:
                break
            if not item.alive and not item.stalled:
                item.stalled = True
                destination = self.pairs[item.pair].destination
                destination.stalled += 1
                self._offer(destination)

    def forget_failures(self) -> None:
        """The clock has jumped: what was due when an attempt began cannot be told any more."""
        for limit in self._limits.values():
            if limit.failure is not None:
                limit.failure = replace(limit.failure, begun=float("-inf"))

    def forget(self, now: float) -> None:
        """Forget limits that nobody has needed for FORGET_S."""
        for name in list(self._limits):
            if name not in self._destinations:
                if self._limits[name].used_at > now - FORGET_S:
                    break
                del self._limits[name]

    def tidy(self, pair: PairState) -> None:
        """Forget a pair with nothing in it, and its lane and its destination."""
        if pair.more or pair.claimed or pair.waiting or pair.active or self.pairs.get(pair.key) is not pair:
            return
        lane, destination = pair.lane, pair.destination
        del self.pairs[pair.key]
        if len(self.pairs) == PAIRS - SPARE - 1:
            self._relieved()
        self.hungry.pop(pair.key, None)
        del destination.pairs[lane.name]
        if not destination.pairs:
            del self._destinations[destination.name]
        lane.pairs -= 1
        self.tidy_lane(lane)

    def tidy_lane(self, lane: Lane) -> None:
        if not lane.pairs and lane.cursor is None:
            self.lanes.pop(lane.name, None)
            self.hungry_lanes.pop(lane.name, None)

    # -- inside

    def _count(self, pair: PairState, messages: int) -> None:
        before, self.known = self.known, self.known + messages
        if before >= KNOWN > self.known:
            self._relieved()
        lane = pair.lane
        lane.known += messages
        if lane.cursor is not None and lane.known < LANE // 2:
            self.hungry_lanes[lane.name] = None

    def _relieved(self) -> None:
        """There is room again for lanes that had to stop because of others."""
        for lane in self.lanes.values():
            if lane.cursor is not None and lane.known < LANE:
                self.hungry_lanes[lane.name] = None

    def _queue_up(self, pair: PairState) -> None:
        if not pair.in_turn and len(pair.waiting) > pair.offered:
            pair.in_turn = True
            row = pair.destination.turn if pair.active or pair.offered else pair.destination.fresh
            row.append(pair)

    def _offer(self, destination: Destination) -> None:
        """Ask for places for as many attempts as the destination may have."""
        for row in (destination.fresh, destination.turn):
            while row:
                pair = row[0]
                wants = len(pair.waiting) > pair.offered
                if wants and not destination.has_room(pair):
                    break
                row.popleft()
                pair.in_turn = False
                if wants:
                    pair.offered += 1
                    destination.offered += 1
                    self._rows[destination.limit.standing].put(pair)
                    self._queue_up(pair)

    def _has_place(self, standing: Standing) -> bool:
        taken = self._places
        if sum(taken.values()) >= IN_ALL:
            return False
        if standing is Standing.PROVEN:
            return True
        if taken[Standing.UNPROVEN] + taken[Standing.DOWN] >= _SHARES[Standing.UNPROVEN]:
            return False
        return standing is Standing.UNPROVEN or taken[Standing.DOWN] < _SHARES[Standing.DOWN]

    def _share(self, pair: PairState, item: Item, failure: Failure) -> None:
        item.failure = failure
        pair.shared += 1
        self._shared.append(item)

    def _share_all(self, destination: Destination, failure: Failure, now: float) -> None:
        for pair in destination.pairs.values():
            staying: deque[Item] = deque()
            for item in pair.waiting:
                if failure.stands_for(item.due, now):
                    self._share(pair, item, failure)
                else:
                    staying.append(item)
            self._count(pair, len(staying) - len(pair.waiting))
            pair.waiting = staying
            self._look_whether_hungry(pair)

    def _unstall(self, item: Item, destination: Destination) -> None:
        if item.stalled:
            item.stalled = False
            destination.stalled -= 1

    def _look_whether_hungry(self, pair: PairState) -> None:
        if pair.more:
            room = self.room(pair)
            if room > 0 and room >= len(pair.waiting):
                self.hungry[pair.key] = None

    def _limit(self, name: str) -> Limit:
        limit = self._limits.pop(name, None)
        if limit is None:
            limit = Limit()
            if len(self._limits) >= LIMITS:
                del self._limits[next(iter(self._limits))]
        self._limits[name] = limit
        return limit
