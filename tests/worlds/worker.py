"""Workers for tests: work that is done at once, or when the test says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, execute

P = ParamSpec("P")
T = TypeVar("T")


class ImmediateWorker:
    """Does each piece of work during the call."""

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        return execute(function, *args, **kwargs)

    def stop(self) -> None:
        pass


class HeldWorker:
    """Keeps work until ``run``; in order, as a worker with one thread does."""

    def __init__(self) -> None:
        self._held: list[Callable[[], None]] = []
        self.stopped = False

    def __len__(self) -> int:
        return len(self._held)

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        done: Deferred[Any] = Deferred()

        def do() -> None:
            execute(function, *args, **kwargs).chainDeferred(done)

        self._held.append(do)
        return done

    def run(self, pieces: int | None = None) -> None:
        """Do the oldest ``pieces``, or all that wait now; some of them may be done by the others on their way."""
        if pieces is not None and pieces > len(self._held):
            raise ValueError("so many pieces do not wait")
        for piece in self._held[:pieces]:
            if piece in self._held:
                self._held.remove(piece)
                piece()

    def stop(self) -> None:
        self.stopped = True
