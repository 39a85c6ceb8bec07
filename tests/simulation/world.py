"""A world in which the whole program runs: its machine, the servers and clients around it, and what befalls them.

``World(seed).run()`` lets a handful of messages come in and go out, heals whatever was broken, waits until the queue is
empty, and then asks the judge (``judge.py``) whether every promise was kept.  ``crashes`` are numbers of steps
(``timeline.Steps``) at which the machine stops; it comes back after a while.  Everything is a function of the seed:

    python -m tests.simulation.world SEED [STEP ...]

runs one world again, with crashes at these steps; ``+`` behind the seed adds the faults that the seed draws.
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
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from argon2 import low_level
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet.defer import Deferred
from twisted.internet.ssl import CertificateOptions
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

from mailsrv import app, config
from mailsrv.store import scram_keys
from mailsrv.store.accounts import parse_directory
from mailsrv.store.database import StorageTrouble
from mailsrv.store.key_states import Keys
from mailsrv.store.keys import SigningKey
from mailsrv.store.schema import DatabaseError
from mailsrv.tls import ServerCertificate
from tests.simulation import judge, scenario
from tests.simulation.certificates import pem, self_signed
from tests.simulation.clients import Login, Manner, Message, Pop3Client, SmtpClient
from tests.simulation.lines import Gone
from tests.simulation.network import CALM, Network
from tests.simulation.outside import Machine, SimulatedOutside
from tests.simulation.reactor import SimulatedReactor
from tests.simulation.resolver import Zone
from tests.simulation.scenario import CALM_FAULTS, Errand, Faults
from tests.simulation.sink import Sink
from tests.simulation.timeline import Life, SimulatedCrash, Timeline
from tests.worlds.resolver import RecordsResolver

STATE = "/var/lib/mailsrv"
DATABASE = f"{STATE}/mailsrv.db"

FAULTY_S = 300.0  # how long things go wrong
HEALED_S = 7200.0  # how long they may take to come right after that
TRIES = 12  # a client gives up after so many
PORTS = {"smtp": 25, "submission": 587, "submissions": 465, "pop3": 110, "pop3s": 995}

_CONFIG = """
hostname = "mx.example.org"
domains = ["example.org"]
state = "/var/lib/mailsrv"
auth.cleartext = "loopback"
checks.dns = false
queue.retry = ["5s", "20s", "1m", "5m"]
queue.warn = "2m"
queue.expire = "10m"
outbound.connect_timeout = "20s"
"""

_RECORDS: dict[tuple[str, str], Any] = {
    ("example.net", "MX"): [(10, "mx1.example.net"), (20, "mx2.example.net")],
    ("mx1.example.net", "A"): ["192.0.2.10"],
    ("mx1.example.net", "AAAA"): ["2001:db8::10"],
    ("mx2.example.net", "A"): ["192.0.2.11"],
    ("example.com", "A"): ["192.0.2.20"],
    ("client.example", "A"): ["198.51.100.1"],
    ("mx.example.org", "A"): [scenario.ADDRESSES[0]],
    ("mx.example.org", "AAAA"): [scenario.ADDRESSES[1]],
    ("example.org", "MX"): [(10, "mx.example.org")],
}
_SINKS = {
    "mx1.example.net": ("192.0.2.10", "2001:db8::10"),
    "mx2.example.net": ("192.0.2.11",),
    "example.com": ("192.0.2.20",),
}


# What I/O errors may end as; programs may log them.
_TROUBLE = (OSError, sqlite3.Error, StorageTrouble)


@functools.cache
def _certificate() -> ServerCertificate:
    with tempfile.TemporaryDirectory() as folder:
        paths = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
        for path, octets in zip(paths, pem(scenario.HOSTNAME), strict=True):
            with open(path, "wb") as file:
                file.write(octets)
        return ServerCertificate(*paths)


@functools.cache
def _accounts() -> str:
    """An accounts file, its hashes as cheap as Argon2id allows; with SCRAM keys, so that no login adds them."""
    kind = low_level.Type.ID
    encoded = low_level.hash_secret(scenario.PASSWORD.encode(), bytes(16), 1, 8, 1, 16, kind).decode()
    stored = f"{{ARGON2ID}}{encoded}"
    keys = f"{scram_keys.FIELD}={scram_keys.make(scenario.PASSWORD, stored, bytes)}"
    return "".join(f"{name}:{stored}::::::{keys}\n" for name in scenario.MAILBOXES)


@functools.cache
def _config() -> config.Config:
    return config.parse(_CONFIG, "/etc/mailsrv/mailsrv.toml")


@functools.cache
def _sink_context(name: str) -> CertificateOptions:
    key, certificate = self_signed(name)
    return CertificateOptions(privateKey=key, certificate=certificate)  # type: ignore[arg-type]


@functools.cache
def _client_context() -> CertificateOptions:
    return CertificateOptions()


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
        elif not failure.check(SimulatedCrash) and not (self._world.faults.steps and failure.check(*_TROUBLE)):
            self._world.errors.append(f"{formatEvent(event)}\n{failure.getTraceback()}")


def _signing_key() -> SigningKey:
    """The same in every process, as a run has to be."""
    return SigningKey("example.org", "ed25519", Ed25519PrivateKey.from_private_bytes(bytes(32)))


class WorldSettings:
    """``mailsrv.app.Settings`` from text; no files to look at."""

    def __init__(self) -> None:
        aliases = "".join(f"{name}: {', '.join(ends)}\n" for name, ends in scenario.ALIASES.items())
        self.config = _config()
        self.directory = parse_directory(self.config, _accounts(), aliases)
        self.certificate = _certificate()
        self.keys = Keys({"example.org": (_signing_key(),)}, {})
        self.changed: Callable[[], None] = lambda: None
        self.refused: Callable[[str], None] = lambda problem: None

    def look(self) -> None:
        """Nothing changes by itself."""


class World:
    """``sent`` are the messages that clients were given; ``errors`` is what failed that nothing may make fail."""

    def __init__(
        self, seed: int, crashes: Collection[int] = (), faults: Faults = CALM_FAULTS, *, tls: bool = False
    ) -> None:
        self.seed = seed
        self.faults = faults
        self.crashes = crashes
        self.tls = tls
        self.timeline = Timeline()
        self.rng = random.Random(f"{seed}: world")
        self.large = seed % 10 == 0  # messages that become files in the spool
        weather = faults.weather
        if self.large and weather.window[0] < 4096:
            weather = replace(weather, window=(4096, 65536))  # else one message takes minutes of real time
        self.network = Network(self.timeline, random.Random(f"{seed}: network"), weather)
        self.records = RecordsResolver(_RECORDS)
        self.zone = Zone(random.Random(f"{seed}: resolver"), self.records)
        self.zone.failing = faults.resolver
        self.machine = Machine(scenario.HOSTNAME, scenario.ADDRESSES, self.timeline, self.network, self.zone, str(seed))
        self.machine.disk.make_folders("/var/lib")
        self.machine.steps.crashes = frozenset(crashes)
        self.outside: SimulatedOutside
        self.server: app.Server
        self.settings = WorldSettings()
        self.sent: list[Message] = []
        self.fetched: dict[str, dict[str, bytes]] = {name: {} for name in scenario.MAILBOXES}
        self.errors: list[str] = []
        self.complaints: list[str] = []  # of clients and sinks
        self.restarts = 0
        self.healed = False
        self._always = Life("world")
        self.sinks = {name: self._sink(name, addresses) for name, addresses in _SINKS.items()}
        _no_collecting()
        self._failures = _Failures(self)
        globalLogPublisher.addObserver(self._failures)
        self._arrange_faults()

    # -- the parts

    def _reactor(self, host: str, addresses: Collection[str]) -> SimulatedReactor:
        return SimulatedReactor(self.timeline, self.network, host, tuple(addresses), self._always)

    def _sink(self, name: str, addresses: tuple[str, ...]) -> Sink:
        sink = Sink(name, self._reactor(name, addresses), random.Random(f"{self.seed}: {name}"))
        sink.faults = self.faults.sinks
        sink.tarpit_s = self.faults.tarpit_s
        sink.refused.add(scenario.REFUSED)
        if self.tls and sink.rng.random() < 0.7:
            sink.context = _sink_context(name)
        return sink

    def _arrange_faults(self) -> None:
        rng = random.Random(f"{self.seed}: disk")
        faults, disk = self.faults, self.machine.disk

        def fail(step: str) -> None:
            if not self.healed and rng.random() < faults.steps.get(step, 0.0):
                judge.raise_fault(step, rng)

        if faults.steps:
            self.machine.steps.failures.append(fail)
        if faults.full_disk_s is not None:
            begins, ends = faults.full_disk_s
            taken: list[int] = []

            def fill() -> None:
                taken.append(disk.space)
                disk.space = 0

            def empty() -> None:
                disk.space += taken[0]

            self.timeline.at(begins, self._always, fill)
            self.timeline.at(ends, self._always, empty)
        for when, seconds in faults.jumps:
            self.timeline.at(when, self._always, self._jump, seconds)

    def _jump(self, seconds: float) -> None:
        self.machine.clock_offset_s += seconds

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
                if not self.faults.steps or not isinstance(error, (*_TROUBLE, app.StartError, DatabaseError)):
                    self.errors.append(f"the program does not start: {error!r}")
                self.machine.life.end()
        finally:
            app.LOOK_EVERY_S = looked

    def crash(self) -> None:
        """Stop the machine now."""
        self.machine.life.end()

    def restart(self) -> None:
        """Start the program on what the crash has left."""
        if not self.machine.life.alive:
            self.restarts += 1
            self.start()

    def _died(self) -> None:
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
        self.machine.life.ended.clear()
        self.machine.life.end()
        self._always.end()
        self.machine.databases.remove()
        self.timeline.forget()
        del self.server, self.outside
        _collect()

    # -- what happens

    def run(self) -> list[str]:
        """The whole story; what was promised and not kept, as sentences."""
        self.start()
        rng = random.Random(f"{self.seed}: errands")
        for errand in scenario.draw_errands(rng, self.tls, large=self.large):
            self.sent += errand.messages
            self.watch(Deferred.fromCoroutine(self._send(errand)))
        for mailbox in scenario.MAILBOXES:
            self.watch(Deferred.fromCoroutine(self._fetch_now_and_then(mailbox)))
        self.advance(FAULTY_S)
        self.heal()
        limit = self.timeline.now + HEALED_S
        while self.timeline.now < limit and not self._quiet():
            self.advance(20.0)
        complaints = [*self.complaints, *judge.at_the_end(self)]
        complaints += [f"{sink.name}: {text}" for sink in self.sinks.values() for text in sink.complaints]
        self.stop()
        complaints += [f"error: {error}" for error in self.errors]
        return complaints

    def heal(self) -> None:
        """From now on nothing goes wrong any more."""
        self.healed = True
        self.network.weather = CALM
        self.zone.failing = 0.0
        self.machine.steps.crashes = ()
        for sink in self.sinks.values():
            sink.faults = {}
            sink.tarpit_s = 0.0

    def _quiet(self) -> bool:
        return self.machine.life.alive and all(message.done for message in self.sent) and judge.queue_is_empty(self)

    async def pause(self, seconds: float) -> None:
        waiting: Deferred[None] = Deferred()
        self.timeline.at(self.timeline.now + seconds, self._always, waiting.callback, None)
        await waiting

    async def _send(self, errand: Errand) -> None:
        await self.pause(errand.begins_s)
        address = errand.address
        reactor = self._reactor(scenario.HOSTNAME if address == "127.0.0.1" else address, (address,))
        rng = random.Random(f"{self.seed}: {address} {errand.begins_s}")
        host = address if address == "127.0.0.1" else scenario.ADDRESSES[0]
        manner = Manner(
            pipelining=errand.pipelining,
            login=Login(errand.login, scenario.PASSWORD) if errand.login else None,
            context=_client_context() if errand.tls else None,
            implicit_tls=errand.service == "submissions",
        )
        client = SmtpClient(reactor, host, PORTS[errand.service], manner, "client.example")
        for n in range(TRIES):
            left = [message for message in errand.messages if not message.done]
            if not left:
                return
            await client.send(left)
            await self.pause(rng.uniform(5, 60) * (n + 1))
        for message in errand.messages:
            if not message.done and self.healed:
                self.complaints.append(f"{message.id} could not be sent: {message.told} {message.answers}")

    async def _fetch_now_and_then(self, mailbox: str) -> None:
        rng = random.Random(f"{self.seed}: {mailbox}")
        while not self.healed:
            await self.pause(rng.uniform(5, 250))
            try:
                await self.fetch(mailbox, delete=rng.random() < 0.3)
            except Gone:
                pass

    async def fetch(self, mailbox: str, delete: bool = False) -> dict[str, bytes]:
        """All messages of a mailbox through POP3, from the machine itself (``Gone``)."""
        reactor = self._reactor(scenario.HOSTNAME, ("127.0.0.1",))
        manner = Manner(login=Login(mailbox, scenario.PASSWORD))
        client = Pop3Client(reactor, "127.0.0.1", PORTS["pop3"], manner)
        earlier = self.fetched[mailbox]
        found = await client.fetch(tuple(earlier) if delete else ())
        self.complaints += [f"POP3 of {mailbox}: {complaint}" for complaint in client.complaints]
        for name, content in found.items():
            if earlier.setdefault(name, content) != content:
                self.complaints.append(f"POP3 of {mailbox}: {name} has changed")
        return found

    async def fetch_at_last(self, mailbox: str) -> dict[str, bytes]:
        """The same, as soon as no other session holds the mailbox (RFC 1939 8)."""
        while True:
            try:
                return await self.fetch(mailbox)
            except Gone:
                await self.pause(30.0)

    def digest(self) -> str:
        """One value for all that has happened and all that is left, to compare runs."""
        return hashlib.sha256(judge.transcript(self).encode()).hexdigest()


def judged(seed: int, crashes: Collection[int] = (), faults: Faults = CALM_FAULTS, *, tls: bool = False) -> list[str]:
    """Run one world; its complaints, each with the line that runs it again."""
    world = World(seed, crashes, faults, tls=tls)
    try:
        complaints = world.run()
    finally:
        world.close()
    return [f"{reproduction(world)}: {complaint}" for complaint in complaints]


def reproduction(world: World) -> str:
    """What runs a world again: a command, or a call where the faults are not those of the seed."""
    if world.faults not in (CALM_FAULTS, faulty(world.seed)):
        return f"judged({world.seed}, {sorted(world.crashes)}, {world.faults}, tls={world.tls})"
    words = [f"{world.seed}{'+' if world.faults is not CALM_FAULTS else ''}{'t' if world.tls else ''}"]
    words += [str(step) for step in sorted(world.crashes)]
    return f"python -m tests.simulation.world {' '.join(words)}"


def faulty(seed: int) -> Faults:
    """The faults that belong to a seed."""
    return scenario.draw_faults(random.Random(f"{seed}: faults"))


def main(arguments: list[str]) -> int:
    """Run one world again and tell what happens; the steps around the crashes are listed."""
    word, *steps = arguments
    seed = int(word.rstrip("+t"))
    crashes = [int(step) for step in steps]
    world = World(seed, crashes, faulty(seed) if "+" in word else CALM_FAULTS, tls="t" in word)
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
