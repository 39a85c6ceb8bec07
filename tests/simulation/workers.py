"""Threads of a simulated program: work happens at later instants of the virtual clock, one thing at a time.

A function runs as a whole at one instant, its result arrives at a later one, and anything may happen in between, a
crash included.  With one thread the order of calls is the order of runs and of results; with more it is the seed's.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred

from tests.simulation.timeline import Life, Timeline

P = ParamSpec("P")
T = TypeVar("T")

_LONGEST_S = 0.02


class SimulatedWorker:
    def __init__(self, timeline: Timeline, life: Life, rng: random.Random, threads: int = 1) -> None:
        self._timeline = timeline
        self._life = life
        self._rng = rng
        self._idle_from = [0.0] * threads  # for each thread
        self._latest = 0.0  # when the latest result arrives
        self._waiting: dict[int, tuple[Deferred[Any], Callable[[], Any]]] = {}
        self._count = 0
        self._stopped = False
        life.ended.append(lambda: timeline.bury(self._waiting))

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        self._life.check()
        if self._stopped:
            raise RuntimeError(f"{function} was given to a worker that has been stopped")
        result: Deferred[T] = Deferred()
        self._count += 1
        self._waiting[self._count] = (result, lambda: function(*args, **kwargs))
        thread = min(range(len(self._idle_from)), key=self._idle_from.__getitem__)
        begins = max(self._idle_from[thread], self._timeline.now) + self._rng.random() ** 4 * _LONGEST_S
        self._idle_from[thread] = begins
        self._timeline.at(begins, self._life, self._run, self._count)
        return result

    def _run(self, number: int) -> None:
        if number not in self._waiting:
            return  # done already, when the worker was stopped
        result, function = self._waiting.pop(number)
        answer: Any
        deliver: Callable[[Any], None]
        try:
            answer, deliver = function(), result.callback
        except Exception as error:
            answer, deliver = error, result.errback
        arrives = self._timeline.now + self._rng.random() ** 4 * _LONGEST_S
        if len(self._idle_from) == 1:
            arrives = self._latest = max(arrives, self._latest)
        self._timeline.at(arrives, self._life, deliver, answer)

    def stop(self) -> None:
        """Finish what was begun; the caller waits for it."""
        self._stopped = True
        for number in list(self._waiting):
            self._run(number)
