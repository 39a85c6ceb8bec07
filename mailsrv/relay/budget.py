"""Octets of memory that several may use at once, given out in the order in which they were asked for."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from twisted.internet.defer import CancelledError, Deferred


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    octets: int
    given: Deferred[None]


class Budget:
    """``octets`` in all.  Who asks for more gets all of them, and so has them alone.

    Nobody asks for more while they hold some, so that nobody waits for ever as long as all give back.
    """

    def __init__(self, octets: int) -> None:
        self._whole = octets
        self._left = octets
        self._row: deque[_Asked] = deque()
        self._closed = False

    def take(self, octets: int) -> Deferred[None]:
        """Fires when ``octets`` may be used, at once if nobody is before; CancelledError from ``close`` on.

        Whoever waits may be cancelled, and leaves the row; nothing is to be given back then.
        """
        asked = _Asked(min(octets, self._whole), Deferred(self._leave))
        self._row.append(asked)
        self._serve()
        if self._closed:
            asked.given.cancel()
        return asked.given

    def give_back(self, octets: int) -> None:
        """What was asked for with ``take`` is not used any more."""
        self._left += min(octets, self._whole)
        self._serve()

    def close(self) -> None:
        """Send away everybody who waits or comes; what is in use stays so until it is given back."""
        self._closed = True
        for asked in list(self._row):
            asked.given.cancel()

    def _leave(self, given: Deferred[None]) -> None:
        self._row = deque(asked for asked in self._row if asked.given is not given)
        given.errback(CancelledError())
        self._serve()  # perhaps nobody but the one who left was too large

    def _serve(self) -> None:
        while self._row and not self._closed and self._row[0].octets <= self._left:
            asked = self._row.popleft()
            self._left -= asked.octets
            asked.given.callback(None)
