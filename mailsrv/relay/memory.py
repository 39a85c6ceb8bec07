"""What is remembered of servers and destinations for some time: bounded, in memory only, lost with the process.

Whatever is in here speeds an attempt up or spares a server a question; nothing is lost when it is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_MOST: Final = 10_000


class Memory(Generic[K, V]):
    """Values that are forgotten after ``lasting_s`` seconds, the oldest first when there are more than ``most``.

    ``seconds`` is a monotonic clock.
    """

    def __init__(self, seconds: Callable[[], float], lasting_s: float, most: int = _MOST) -> None:
        self._seconds = seconds
        self._lasting_s = lasting_s
        self._most = most
        self._known: dict[K, tuple[float, V]] = {}  # in the order in which they are forgotten

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, key: K) -> bool:
        return self._known_one(key) is not None

    def get(self, key: K) -> V | None:
        found = self._known_one(key)
        return None if found is None else found[1]

    def remember(self, key: K, value: V) -> None:
        self._known.pop(key, None)
        self._known[key] = (self._seconds() + self._lasting_s, value)
        if len(self._known) > self._most:
            del self._known[next(iter(self._known))]

    def forget(self, key: K) -> None:
        self._known.pop(key, None)

    def clear(self) -> None:
        self._known.clear()

    def _known_one(self, key: K) -> tuple[float, V] | None:
        if not self._known:
            return None
        found = self._known.get(key)
        if found is not None and found[0] <= self._seconds():
            del self._known[key]
            return None
        return found
