"""Virtual time: what happens next in a simulated world, and who is still alive to do it.

One timeline for a world.  Time stands still while something runs and jumps from one event to the next, so a week of
retries costs what its events cost.  Events at the same instant run in the order in which they were scheduled: a run is
a function of its seed.

Everything that belongs to one start of the program carries its ``Life``.  When that ends, by a crash or at the end of
a test, its events are skipped for ever: a dead program does nothing, whatever it had planned.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Container
from typing import Any

from twisted.logger import Logger

_logger = Logger()


class SimulatedCrash(BaseException):
    """The machine has stopped.  Not an Exception: no ``except Exception`` of the program gets to see it.

    What catches it all the same (Deferreds, ``finally``) gains nothing: all that it may touch is dead too.
    """


class Steps:
    """Numbers what a machine does where a crash may fall: before and after each change on disk, commit, packet sent.

    Numbers go on over restarts.  ``crashes`` holds those at which the machine stops.  ``failures`` are asked before
    each step and may raise the error that it fails with.
    """

    __slots__ = ("crashes", "failures", "number", "trace")

    def __init__(self, crashes: Container[int] = ()) -> None:
        self.crashes = crashes
        self.number = 0
        self.trace: list[str] = []  # what each step was, from number 1 on
        self.failures: list[Callable[[str], None]] = []


class Life:
    """One start of a program, from boot to crash.  ``ended`` lists what is to be done at once when it ends.

    Scripted clients and servers have a life, too; only the program under test has ``steps``.
    """

    __slots__ = ("alive", "ended", "name", "steps")

    def __init__(self, name: str = "", steps: Steps | None = None) -> None:
        self.name = name
        self.alive = True
        self.steps = steps
        self.ended: list[Callable[[], object]] = []

    def check(self) -> None:
        """Raises ``SimulatedCrash`` when this life is over."""
        if not self.alive:
            raise SimulatedCrash(self.name)

    def step(self, what: str) -> None:
        """One more step: it may be where the machine crashes (``SimulatedCrash``) or where ``what`` fails."""
        if not self.alive:
            raise SimulatedCrash(self.name)
        steps = self.steps
        if steps is None:
            return
        steps.number += 1
        steps.trace.append(what)
        if steps.number in steps.crashes:
            self.end()
            raise SimulatedCrash(f"{self.name} at step {steps.number}: {what}")
        for failure in steps.failures:
            failure(what)

    def end(self) -> None:
        """The machine stops.  Nothing of this life runs any more once the present turn is over."""
        if self.alive:
            self.alive = False
            ended, self.ended = self.ended, []
            for function in ended:
                function()


class Timeline:
    """``now`` is in seconds since the beginning of the world."""

    __slots__ = ("_buried", "_events", "_order", "now", "turns")

    def __init__(self) -> None:
        self.now = 0.0
        self.turns = 0  # events so far
        self._events: list[tuple[float, int, Life, Callable[..., object], tuple[Any, ...]]] = []
        self._order = 0
        self._buried: list[object] = []

    def at(self, when: float, life: Life, function: Callable[..., object], *args: Any) -> None:
        """Call ``function`` at ``when``, or now if that is past, as long as ``life`` lasts."""
        self._order += 1
        heapq.heappush(self._events, (max(when, self.now), self._order, life, function, args))

    def bury(self, remains: object) -> None:
        """Keep what a dead program has left.

        Were it thrown away, Python would end its coroutines, and their ``finally`` would run while the next life does.
        """
        self._buried.append(remains)

    def forget(self) -> None:
        """The world is over, and all that is buried goes."""
        self._events.clear()
        self._buried.clear()

    def run(self, until: float, stop: Callable[[], bool] = lambda: False) -> None:
        """Let everything happen up to and including ``until`` (seconds), or until ``stop()``, asked between events."""
        events = self._events
        while events and events[0][0] <= until and not stop():
            when, _, life, function, args = heapq.heappop(events)
            if not life.alive:
                self.bury((function, args))
                continue
            self.now = when
            self.turns += 1
            try:
                function(*args)
            except SimulatedCrash:
                pass
            except Exception:
                # As a real reactor does: the failure of one event does not stop the others.  The world collects it.
                _logger.failure("an event of the simulation failed")
        if not stop():
            self.now = max(self.now, until)
