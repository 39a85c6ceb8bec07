"""What befalls a simulated machine apart from crashes at a step: its disk, its clock, its network, its operator.

``Incidents`` arranges everything that ``scenario.Faults`` names and takes all of it back in the end (``heal``).
"""

from __future__ import annotations

import random
import sqlite3
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from mailsrv.config import Config
from tests.simulation import judge
from tests.simulation.timeline import Life

if TYPE_CHECKING:
    from tests.simulation.world import World


_UNSEEN_S = 61.0  # the program looks at the clock once a minute


class Incidents:
    """``lasted`` lists from when to when (seconds) something kept the program from its work."""

    def __init__(self, world: World, always: Life) -> None:
        self._world = world
        self._always = always
        self._locks: list[sqlite3.Connection] = []
        self._jumped_at = -_UNSEEN_S
        self.lasted: list[tuple[float, float]] = []

    def arrange(self) -> None:
        """Put everything on the timeline."""
        world, faults = self._world, self._world.faults
        if faults.steps:
            rng = random.Random(f"{world.seed}: disk")

            def fail(step: str) -> None:
                if not world.healed and rng.random() < faults.steps.get(step, 0.0):
                    judge.raise_fault(step, rng)

            world.machine.steps.failures.append(fail)
        if faults.full_disk_s is not None:
            self._arrange_full_disk(*faults.full_disk_s)
        for when, seconds in faults.jumps:
            self._at(when, self._jump, seconds)
        for begins, ends in faults.locked_s:
            self._during(begins, ends, self._lock, self._unlock)
        for begins, ends in faults.cut_off_s:
            self._during(begins, ends, self._cut_off, self._reconnect)
        for begins, ends in faults.misrouted_s:
            self._during(begins, ends, self._misroute, self._route)
        for when in faults.stops:
            self._at(when, self._stop)
        for when in faults.moments:
            self._at(when, world.crash)

    def jumped_lately(self) -> bool:
        """Whether the clock has gone forward and the program may not have looked at it since."""
        return self._world.timeline.now - self._jumped_at < _UNSEEN_S

    def heal(self) -> None:
        self._unlock()
        self._reconnect()
        self._route()

    def _at(self, when: float, function: object, *arguments: object) -> None:
        assert callable(function)

        def happen() -> None:
            if not self._world.healed:
                function(*arguments)

        self._world.timeline.at(when, self._always, happen)

    def _during(self, begins: float, ends: float, function: object, undo: object) -> None:
        self._at(begins, function)
        self._at(ends, undo)
        self.lasted.append((begins, ends))

    def _arrange_full_disk(self, begins: float, ends: float) -> None:
        disk = self._world.machine.disk
        taken: list[int] = []

        def fill() -> None:
            taken.append(disk.space)
            disk.space = 0

        def empty() -> None:
            disk.space += taken[0]

        self._world.timeline.at(begins, self._always, fill)
        self._world.timeline.at(ends, self._always, empty)

    def _jump(self, seconds: float) -> None:
        self._world.machine.clock_offset_s += seconds
        self.lasted.append((self._world.timeline.now, self._world.timeline.now))
        if seconds > 0:
            self._jumped_at = self._world.timeline.now
            self._world.time_lost = self._world.time_lost or not self._world.machine.life.alive

    # A program that backs the database up, or looks into it with a transaction that it forgets to end.

    def _lock(self) -> None:
        from tests.simulation.world import DATABASE

        connection = self._world.machine.databases.look(DATABASE)
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            connection.close()  # the program is writing at this instant
            self._world.timeline.at(self._world.timeline.now + 0.01, self._always, self._lock)
        else:
            self._locks.append(connection)

    def _unlock(self) -> None:
        for connection in self._locks:
            connection.close()
        self._locks.clear()

    # No network; and so no resolver.

    def _cut_off(self) -> None:
        self._world.network.cut_off_from_all(self._world.machine.name)

    def _reconnect(self) -> None:
        self._world.network.cut_off.clear()

    # An operator who mistypes the smarthost, and finds out.

    def _misroute(self) -> None:
        self._take_up(self._world.settings.misrouted)

    def _route(self) -> None:
        if self._world.settings.config is not self._world.settings.usual:
            self._take_up(self._world.settings.usual)

    def _take_up(self, config: Config) -> None:
        self._world.settings.config = config
        if self._world.machine.life.alive:
            self._world.settings.changed()

    def _stop(self) -> None:
        """As SIGTERM does, and off with the machine."""
        world = self._world
        if not world.machine.life.alive:
            return
        life = world.machine.life

        def stopped(result: object) -> None:
            if life.alive:
                world.in_order.add(world.timeline.now)
                life.end()

        work = Deferred.fromCoroutine(world.server.stop())
        world.watch(work)
        work.addCallback(stopped)
        world.timeline.at(world.timeline.now + 20.5, self._always, self._overdue, life)

    def _overdue(self, life: Life) -> None:
        if life.alive:
            self._world.errors.append("the program did not stop within 20 seconds")
