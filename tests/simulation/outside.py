"""A simulated machine, and the door through which one life of the program sees it.

``Machine`` is what a crash leaves behind: disk, databases, addresses, and the count of steps.  ``boot`` begins a life
and gives its ``Outside``.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IListeningPort, IProtocol, IProtocolFactory

from mailsrv.outside.interfaces import IFilesystem, IReactor, IResolver, Worker
from tests.simulation.database import Databases
from tests.simulation.disk import Disk, SimulatedFilesystem
from tests.simulation.network import Network
from tests.simulation.reactor import SimulatedReactor
from tests.simulation.resolver import SimulatedResolver, Zone
from tests.simulation.timeline import Life, Steps, Timeline
from tests.simulation.workers import SimulatedWorker

EPOCH = 1_760_000_000.0  # what the wall clock shows when a world begins


class SimulatedOutside:
    """``mailsrv.outside.interfaces.Outside`` for one life of the program on ``machine``."""

    def __init__(self, machine: Machine, life: Life) -> None:
        self.life = life
        self._machine = machine
        self.simulated_reactor = SimulatedReactor(
            machine.timeline, machine.network, machine.name, machine.addresses, life
        )
        self.reactor: IReactor = self.simulated_reactor
        self.filesystem: IFilesystem = SimulatedFilesystem(machine.disk, life)

    def wall(self) -> float:
        return self._machine.wall()

    def random(self, octets: int) -> bytes:
        self.life.check()
        return self._machine.rng.randbytes(octets)

    def worker(self, name: str, threads: int = 1) -> Worker:
        return SimulatedWorker(self._machine.timeline, self.life, self._machine.rng, threads)

    def listen(self, description: str, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        # Twisted's own reading of endpoint strings looks for plugins on the real disk, each time.
        kind, port, *_ = description.split(":")
        interface = {"tcp": "", "tcp6": "::"}[kind]
        listen: Any = self.simulated_reactor.listenTCP
        return maybeDeferred(listen, int(port), factory, interface=interface)

    def connect(self, address: str, port: int, factory: IProtocolFactory, timeout_s: float) -> Deferred[IProtocol]:
        endpoint: Any = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
        connected: Deferred[IProtocol] = endpoint(self.reactor, address, port, timeout=timeout_s).connect(factory)
        return connected

    def connect_database(self, path: str) -> sqlite3.Connection:
        return self._machine.databases.connect(path, self.life)

    def resolver(self, servers: Sequence[str]) -> IResolver:
        return SimulatedResolver(self._machine.zone, self._machine.timeline, self.life)


class Machine:
    """``clock_offset_s`` moves the wall clock; the timeline never jumps."""

    def __init__(
        self, name: str, addresses: Sequence[str], timeline: Timeline, network: Network, zone: Zone, seed: str
    ) -> None:
        self.name = name
        self.addresses = tuple(addresses)
        self.timeline = timeline
        self.network = network
        self.zone = zone
        self.clock_offset_s = 0.0
        self.rng = random.Random(f"{seed}: program")
        self.steps = Steps()
        self.disk = Disk(self.wall)
        self.databases = Databases()
        self.life = Life(name)
        self.life.end()
        self._seed = seed

    def wall(self) -> float:
        return EPOCH + self.timeline.now + self.clock_offset_s

    def boot(self) -> SimulatedOutside:
        """A new life of the program; the one before must be over."""
        assert not self.life.alive
        self.life = Life(self.name, self.steps)
        self.life.ended.append(self._stopped)
        return SimulatedOutside(self, self.life)

    def _stopped(self) -> None:
        self.databases.crash()
        # Each crash point has a fate of its own: what one spares another takes.
        fate = random.Random(f"{self._seed}: crash at {self.steps.number}")
        if fate.random() < 0.3:
            self.disk.stop_program()
        else:
            self.disk.lose_power(fate)
