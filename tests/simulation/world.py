"""A world in which the whole program runs: its machine, the servers and clients around it, and what befalls them.

``World(seed).run()`` lets a handful of messages come in and go out, heals whatever was broken, waits until the queue is
empty, and then asks the judge (``judge.py``) whether every promise was kept.  ``crashes`` are numbers of steps
(``timeline.Steps``) at which the machine stops; it comes back after a while.  Everything is a function of the seed:

    python -m tests.simulation.world SEED [STEP ...]

runs one world again, with crashes at these steps; ``+`` behind the seed adds the faults that the seed draws, ``t`` TLS,
and ``o`` makes it a world of many domains, well and sick, to which mail goes out.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import os
import random
import sqlite3
import sys
import tempfile
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.ssl import CertificateOptions
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

from mailsrv import app
from mailsrv.store.database import StorageTrouble
from mailsrv.store.schema import DatabaseError
from tests.simulation import elsewhere, errands, judge, scenario
from tests.simulation.behaviour import HEALTHY, Behaviour
from tests.simulation.certificates import self_signed
from tests.simulation.clients import Message
from tests.simulation.incidents import Incidents
from tests.simulation.network import CALM, Network
from tests.simulation.outside import Machine, SimulatedOutside
from tests.simulation.reactor import SimulatedReactor
from tests.simulation.resolver import Zone
from tests.simulation.scenario import CALM_FAULTS, Errand, Faults
from tests.simulation.settings import WorldSettings, authorities
from tests.simulation.sink import Sink
from tests.simulation.timeline import Life, SimulatedCrash, Timeline
from tests.worlds.resolver import RecordsResolver

STATE = "/var/lib/mailsrv"
DATABASE = f"{STATE}/mailsrv.db"

FAULTY_S = 300.0  # how long things go wrong
HEALED_S = 7200.0  # how long they may take to come right after that
CLOSED_S = 1800.0  # how long a connection may be kept that nobody uses

# What I/O errors may end as; programs may log them.
_TROUBLE = (OSError, sqlite3.Error, StorageTrouble)
_NO_START = (*_TROUBLE, app.StartError, DatabaseError)


@functools.cache
def _sink_context(name: str) -> CertificateOptions:
    key, certificate = self_signed(name)
    return CertificateOptions(privateKey=key, certificate=certificate)  # type: ignore[arg-type]


# Garbage of a dead program must not be collected while another lives: ending its coroutines runs their ``finally``.


@functools.cache
def _freeze() -> None:
    gc.collect()
    gc.freeze()  # what is there before the first world is not looked through after each


def _no_collecting() -> None:
    _freeze()
    gc.disable()


def _collect() -> None:
    hook, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
    try:
        gc.collect()
    finally:
        sys.unraisablehook = hook
        gc.enable()


@implementer(ILogObserver)
class _Failures:
    """Listens to the log for what nobody expected."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_level") is not LogLevel.critical or not self._world.machine.life.alive:
            return
        failure = event.get("log_failure")
        if failure is None:
            # Twisted's heading of another event, which has the failure, says nothing by itself.
            if event.get("log_format") != "Unhandled error in Deferred:":
                self._world.errors.append(formatEvent(event))
        elif not failure.check(SimulatedCrash) and not (self._world.trouble_with_database and failure.check(*_TROUBLE)):
            self._world.errors.append(f"{formatEvent(event)}\n{failure.getTraceback()}")


class World:
    """``sent`` are the messages that clients were given; ``errors`` is what failed that nothing may make fail.

    ``outgoing``: a world of many domains (``elsewhere.py``), and hundreds of messages for them.
    """

    def __init__(
        self,
        seed: int,
        crashes: Collection[int] = (),
        faults: Faults = CALM_FAULTS,
        *,
        tls: bool = False,
        outgoing: bool = False,
    ) -> None:
        self.seed = seed
        self.faults = faults
        self.crashes = crashes
        self.tls = tls
        self.outgoing = outgoing
        self.elsewhere = elsewhere.draw(random.Random(f"{seed}: elsewhere")) if outgoing else elsewhere.USUAL
        self.timeline = Timeline()
        self.rng = random.Random(f"{seed}: world")
        self.large = seed % 10 == 0  # messages that become files in the spool
        weather = faults.weather
        if self.large and weather.window[0] < 4096:
            weather = replace(weather, window=(4096, 65536))  # else one message takes minutes of real time
        self.network = Network(self.timeline, random.Random(f"{seed}: network"), weather)
        self.records = RecordsResolver(self.elsewhere.records)
        self.zone = Zone(random.Random(f"{seed}: resolver"), self.records)
        self.zone.failing = faults.resolver
        self.zone.troubles.update(self.elsewhere.troubles)
        self.zone.reachable = lambda: scenario.HOSTNAME not in self.network.cut_off
        self.machine = Machine(scenario.HOSTNAME, scenario.ADDRESSES, self.timeline, self.network, self.zone, str(seed))
        self.machine.disk.make_folders("/var/lib")
        self.machine.steps.crashes = frozenset(crashes)
        self.outside: SimulatedOutside
        self.server: app.Server
        self._files = tempfile.TemporaryDirectory(prefix="mailsrv-simulation-")
        self.settings = self._settings()
        self.sent: list[Message] = []
        self.fetched: dict[str, dict[str, bytes]] = {name: {} for name in scenario.MAILBOXES}
        self.errors: list[str] = []
        self.complaints: list[str] = []  # of clients and sinks
        self.ends: list[float] = []  # when the machine stopped, by a crash or in order
        self.in_order: set[float] = set()  # those of them that were in order
        self.time_lost = False  # the clock went forward and the program cannot have seen it
        self.healed = False
        self.most_open = 0  # connections to all sinks at a time
        self._always = Life("world")
        self.sinks = {plan.name: self._sink(plan) for plan in self.elsewhere.servers}
        _no_collecting()
        self._failures = _Failures(self)
        globalLogPublisher.addObserver(self._failures)
        self.incidents = Incidents(self, self._always)
        self.incidents.arrange()

    # -- the parts

    def reactor(self, host: str, addresses: Collection[str]) -> SimulatedReactor:
        return SimulatedReactor(self.timeline, self.network, host, tuple(addresses), self._always)

    def _settings(self) -> WorldSettings:
        if not self.outgoing:
            return WorldSettings(None, "")
        hosts = [server.name for server in self.elsewhere.servers if server.login]
        return WorldSettings(self.elsewhere, authorities(hosts, os.path.join(self._files.name, "authorities.pem")))

    def _sink(self, plan: elsewhere.Server) -> Sink:
        listening = [address for address in plan.addresses if address not in plan.closed]
        self.network.black_holes.update(plan.dead)
        rng = random.Random(f"{self.seed}: {plan.name}")
        tls = plan.tls or (self.tls and rng.random() < 0.7)
        sink = Sink(
            plan.name,
            self.reactor(plan.name, listening),
            rng,
            plan.port,
            context=_sink_context(plan.name) if tls else None,
            implicit_tls=plan.implicit_tls,
        )
        sink.on_connected = self._count_connections
        sink.refused.add(scenario.REFUSED)
        sink.refused.update(f"nobody@{domain.name}" for domain in self.elsewhere.domains)
        sink.extensions = list(plan.extensions)
        sink.most_recipients, sink.most_messages = plan.most_recipients, plan.most_messages
        sink.login = elsewhere.LOGIN if plan.login else None
        for begins, behaviour in plan.phases:
            self.timeline.at(begins, self._always, self._behave, sink, behaviour)
        if not self.outgoing:
            sink.behaviour = Behaviour(self.faults.sinks, tarpit_s=self.faults.tarpit_s)
        return sink

    def _count_connections(self) -> None:
        self.most_open = max(self.most_open, sum(sink.open for sink in self.sinks.values()))

    def _behave(self, sink: Sink, behaviour: Behaviour) -> None:
        if self.outgoing and not self.healed:
            sink.behaviour = behaviour

    # -- life and death of the program

    def start(self) -> None:
        """Boot the machine and start the program."""
        self.outside = self.machine.boot()
        self.machine.life.ended.append(self._died)
        looked = app.LOOK_EVERY_S
        app.LOOK_EVERY_S = 3600.0  # nobody edits a file here, and a day of half seconds takes long
        try:
            self.server = app.build(self.settings, self.outside)
            self.server.listen()
            self.server.start()
        except SimulatedCrash:
            pass
        except Exception as error:
            # After a crash an exception is only an echo of it.
            if self.machine.life.alive:
                if not self.trouble_with_database or not isinstance(error, _NO_START):
                    self.errors.append(f"the program does not start: {error!r}")
                self.machine.life.end()
        finally:
            app.LOOK_EVERY_S = looked

    @property
    def trouble_with_database(self) -> bool:
        """Whether disk and database may fail here."""
        return bool(self.faults.steps or self.faults.locked_s)

    @property
    def restarts(self) -> int:
        """How often the machine has come back."""
        return len(self.ends)

    def crash(self) -> None:
        """Stop the machine now."""
        self.machine.life.end()

    def restart(self) -> None:
        """Start the program on what the crash has left."""
        if not self.machine.life.alive:
            self.start()

    def _died(self) -> None:
        self.ends.append(self.timeline.now)
        self.time_lost = self.time_lost or self.incidents.jumped_lately()
        self.timeline.bury((self.server, self.outside))
        self.complaints += judge.after_crash(self)
        delay = self.rng.choice((0.0, 1.0, 40.0)) + self.rng.random()
        self.timeline.at(self.timeline.now + delay, self._always, self.restart)

    def stop(self) -> None:
        """End the program in order, as SIGTERM does."""
        done = Deferred.fromCoroutine(self.server.stop())
        self.watch(done)
        begun = self.timeline.now
        self.timeline.run(begun + 20.0, lambda: bool(done.called))
        if not done.called:
            self.errors.append("the program did not stop within 20 seconds")

    def watch(self, work: Deferred[Any]) -> None:
        """A failure of ``work`` is one of the world's errors."""
        work.addErrback(lambda failure: self.errors.append(failure.getTraceback()))

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.timeline.run(self.timeline.now + seconds)

    def close(self) -> None:
        """Free what the world has taken from the real machine."""
        globalLogPublisher.removeObserver(self._failures)
        self.incidents.heal()
        self.machine.life.ended.clear()
        self.machine.life.end()
        self._always.end()
        self.machine.databases.remove()
        self._files.cleanup()
        self.timeline.forget()
        del self.server, self.outside
        _collect()

    # -- what happens

    def run(self) -> list[str]:
        """The whole story; what was promised and not kept, as sentences."""
        self.start()
        for errand in self._draw_errands():
            self.sent += errand.messages
            self.watch(Deferred.fromCoroutine(errands.send(self, errand)))
        for mailbox in scenario.MAILBOXES:
            self.watch(Deferred.fromCoroutine(errands.fetch_now_and_then(self, mailbox)))
        self.advance(elsewhere.HEALED_S if self.outgoing else FAULTY_S)
        self.heal()
        limit = self.timeline.now + HEALED_S
        while self.timeline.now < limit and not self._quiet():
            self.advance(20.0)
        if self.outgoing:
            self.advance(CLOSED_S)
        complaints = [*self.complaints, *judge.at_the_end(self)]
        complaints += [f"{sink.name}: {text}" for sink in self.sinks.values() for text in sink.complaints]
        self.stop()
        complaints += [f"error: {error}" for error in self.errors]
        return complaints

    def _draw_errands(self) -> list[Errand]:
        rng = random.Random(f"{self.seed}: errands")
        if self.outgoing:
            return elsewhere.draw_errands(rng, self.elsewhere)
        return scenario.draw_errands(rng, self.tls, large=self.large)

    def heal(self) -> None:
        """From now on nothing goes wrong any more; what is down for ever stays so."""
        self.healed = True
        self.network.weather = CALM
        self.zone.failing = 0.0
        self.zone.troubles.clear()
        self.machine.steps.crashes = ()
        self.incidents.heal()
        for sink in self.sinks.values():
            sink.behaviour = HEALTHY

    def _quiet(self) -> bool:
        return self.machine.life.alive and all(message.done for message in self.sent) and judge.queue_is_empty(self)

    async def pause(self, seconds: float) -> None:
        waiting: Deferred[None] = Deferred()
        self.timeline.at(self.timeline.now + seconds, self._always, waiting.callback, None)
        await waiting

    def digest(self) -> str:
        """One value for all that has happened and all that is left, to compare runs."""
        return hashlib.sha256(judge.transcript(self).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Story:
    """What a word such as ``17+t`` names: ``+`` adds the faults that the seed draws, ``t`` TLS, ``o`` makes it a world
    to which mail goes out."""

    seed: int
    drawn: bool = False
    tls: bool = False
    outgoing: bool = False

    @classmethod
    def named(cls, word: str) -> Story:
        return cls(int(word.rstrip("+to")), "+" in word, "t" in word, "o" in word)

    def __str__(self) -> str:
        return f"{self.seed}{'+' * self.drawn}{'t' * self.tls}{'o' * self.outgoing}"

    def world(self, crashes: Collection[int] = ()) -> World:
        faults = faulty(self.seed, outgoing=self.outgoing) if self.drawn else CALM_FAULTS
        return World(self.seed, crashes, faults, tls=self.tls, outgoing=self.outgoing)


def judged(
    seed: int,
    crashes: Collection[int] = (),
    faults: Faults = CALM_FAULTS,
    *,
    tls: bool = False,
    outgoing: bool = False,
) -> list[str]:
    """Run one world; its complaints, each with the line that runs it again."""
    world = World(seed, crashes, faults, tls=tls, outgoing=outgoing)
    try:
        complaints = world.run()
    finally:
        world.close()
    return [f"{reproduction(world)}: {complaint}" for complaint in complaints]


def reproduction(world: World) -> str:
    """What runs a world again: a command, or a call where the faults are not those of the seed."""
    drawn = world.faults == faulty(world.seed, outgoing=world.outgoing)
    if world.faults != CALM_FAULTS and not drawn:
        return (
            f"judged({world.seed}, {sorted(world.crashes)}, {world.faults}, tls={world.tls}, outgoing={world.outgoing})"
        )
    story = Story(world.seed, drawn, world.tls, world.outgoing)
    return " ".join(["python -m tests.simulation.world", str(story), *map(str, sorted(world.crashes))])


def faulty(seed: int, *, outgoing: bool = False) -> Faults:
    """The faults that belong to a seed."""
    if outgoing:
        return elsewhere.draw_incidents(random.Random(f"{seed}: incidents"))
    return scenario.draw_faults(random.Random(f"{seed}: faults"))


def main(arguments: list[str]) -> int:
    """Run one world again and tell what happens; the steps around the crashes are listed."""
    word, *steps = arguments
    crashes = [int(step) for step in steps]
    world = Story.named(word).world(crashes)
    complaints = world.run()
    for crash in crashes:
        for number in range(max(crash - 8, 1), min(crash + 4, len(world.machine.steps.trace)) + 1):
            print(f"{'>' if number == crash else ' '} {number} {world.machine.steps.trace[number - 1]}")
    for message in world.sent:
        print(message.id, message.sender, message.recipients, [told.value for told in message.told])
    for complaint in complaints:
        print("BROKEN:", complaint)
    print(f"{world.machine.steps.number} steps, {world.timeline.turns} events, {world.restarts} restarts")
    world.close()
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
