"""Who waits for a scarce thing, and whose turn it is: each key in its turn, however many wait under one.

A ``Lane`` holds a fixed number of places.  When all are taken, one who waits under the key with the most is turned
away for the newcomer: the newest of them.  Where several keys have as many, it is who deserves it most (``blame``), and
among equals the one whose turn is farthest off, as a new one's is.  So nobody can take the places of others by taking
many, and many at once share what there is.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Lane(Generic[T]):
    """``places`` bounds the memory.  Keys are taken in turn, and under one key the oldest first."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()  # whose turn it is next comes first
        self._blame: dict[str, float] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, key: str, blame: float, item: T) -> T | None:
        """Wait under a key; gives back who is turned away for it, ``item`` itself perhaps, None when there was room.

        ``blame``: the larger, the sooner turned away, among keys with as many waiting.
        """
        self._waiting.setdefault(key, deque()).append(item)
        self._blame[key] = blame
        self._count += 1
        if self._count <= self._places:
            return None
        # ``max`` takes the first of equals.
        worst = max(reversed(self._waiting), key=lambda key: (len(self._waiting[key]), self._blame[key]))
        turned_away = self._waiting[worst].pop()
        self._leave(worst)
        return turned_away

    def next(self) -> T:
        """Whose turn it is; IndexError when nobody waits."""
        for key, waiting in self._waiting.items():
            item = waiting.popleft()
            self._waiting.move_to_end(key)
            self._leave(key)
            return item
        raise IndexError("nobody waits")

    def _leave(self, key: str) -> None:
        self._count -= 1
        if not self._waiting[key]:
            del self._waiting[key], self._blame[key]
