"""What waits in memory for an attempt: messages by lane and destination, and the row in which they wait for a place."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from mailsrv.relay.content import QueuedContent
from mailsrv.relay.limit import Failure, Limit, Standing
from mailsrv.store.due import Pair
from mailsrv.store.message import QueuedMessage


@dataclass(slots=True, eq=False)
class Item:
    """A message with recipients at one destination, who get one attempt.

    ``age`` and ``jumps`` tell from when that is: how often others had changed the database when it was read, and how
    often the clock had jumped.
    """

    queued: QueuedMessage
    pair: Pair
    content: QueuedContent
    age: int
    jumps: int
    failure: Failure | None = None  # an attempt of another message that stands for this one's
    begun: float = 0.0  # seconds since 1970
    started: float = 0.0  # the same, monotonic
    standing: Standing = Standing.UNPROVEN  # whose share its place belongs to
    alive: bool = False
    stalled: bool = False

    def keys(self) -> Iterator[tuple[int, int]]:
        return ((self.queued.id, recipient.n) for recipient in self.queued.recipients)

    @property
    def due(self) -> float:
        return max(recipient.due for recipient in self.queued.recipients)


@dataclass(slots=True, eq=False)
class Lane:
    name: str
    pairs: int = 0
    known: int = 0  # messages that wait in memory
    cursor: str | None = None  # the database may have mail for destinations behind this one
    times: int = 0  # that looking through its destinations began


@dataclass(slots=True, eq=False)
class Destination:
    name: str
    limit: Limit
    pairs: dict[str, PairState] = field(default_factory=dict)  # by lane
    fresh: deque[PairState] = field(default_factory=deque)  # with nothing under way
    turn: deque[PairState] = field(default_factory=deque)  # the others
    offered: int = 0  # places it has asked for
    active: int = 0
    stalled: int = 0

    def has_room(self, pair: PairState) -> bool:
        """Whether one more attempt may be made, for this pair: half as many more are there for those who have none."""
        places = self.limit.places + self.stalled
        if pair.active + pair.offered == 0 and self.limit.standing is Standing.PROVEN:
            places += self.limit.places // 2
        return self.active + self.offered < places


@dataclass(slots=True, eq=False)
class PairState:
    """What is known of a pair.  ``more``: the database may have more that is due."""

    key: Pair
    lane: Lane
    destination: Destination
    waiting: deque[Item] = field(default_factory=deque)
    claimed: set[tuple[int, int]] = field(default_factory=set)  # waiting, under way or being settled
    more: bool = False
    shared: int = 0  # messages with the outcome of another attempt, until they are released
    offered: int = 0
    active: int = 0
    in_turn: bool = False


class Row:
    """Pairs that wait for a place: the lanes in turn, each with its destinations in turn."""

    def __init__(self) -> None:
        self._lanes: dict[str, deque[PairState]] = {}

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def put(self, pair: PairState) -> None:
        self._lanes.setdefault(pair.key.lane, deque()).append(pair)

    def pop(self) -> PairState:
        lane, pairs = next(iter(self._lanes.items()))
        pair = pairs.popleft()
        del self._lanes[lane]
        if pairs:
            self._lanes[lane] = pairs  # at the end
        return pair
