"""An SMTP server in memory: the real program on a simulated machine, clients that read when a test says.

Between the server and its clients are Twisted's own transports and TLS, on simulated sockets and a virtual clock.  The
program's threads do their work at once, unless a test holds them.
"""

from __future__ import annotations

import base64
import functools
import os
import random
import sqlite3
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from argon2 import low_level
from twisted.internet.defer import Deferred, fail
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv import config
from mailsrv.checks.admission import Admission
from mailsrv.checks.bursts import Bursts
from mailsrv.checks.caps import Caps
from mailsrv.checks.members import all_checks
from mailsrv.checks.penalties import Penalties
from mailsrv.dkim.signer import Signer
from mailsrv.outside.interfaces import Worker
from mailsrv.outside.transports import PromptTlsFactory
from mailsrv.smtp.house import House
from mailsrv.smtp.protocol import SmtpFactory
from mailsrv.store import queue_id
from mailsrv.store.accounts.accounts import parse_directory
from mailsrv.store.accounts.passwords import Passwords
from mailsrv.store.database import Database
from mailsrv.store.key_states import NO_KEYS
from mailsrv.store.mailbox.usage import MailboxUsage
from mailsrv.store.notices import Notices
from mailsrv.store.recorder import FLUSH_S, Recorder
from mailsrv.store.spool import Spool
from mailsrv.tls import ServerCertificate
from tests.simulation.certificates import pem
from tests.simulation.network import Network, Weather
from tests.simulation.outside import Machine, SimulatedOutside
from tests.simulation.reactor import SimulatedReactor
from tests.simulation.resolver import Zone
from tests.simulation.timeline import Life, Timeline
from tests.worlds.resolver import RecordsResolver
from tests.worlds.worker import HeldWorker

P = ParamSpec("P")
T = TypeVar("T")

STATE = "/var/lib/mailsrv"
DATABASE = f"{STATE}/mailsrv.db"
ADDRESSES = ("192.0.2.1", "2001:db8::1")
CLIENT = "198.51.100.7"
PASSWORD = "tulip and thyme"
# RFC 5782 5: what a blocklist has that works.
TEST_POINTS = {(f"2.0.0.127.{name}", "A"): ["127.0.0.2"] for name in ("bl.example.com", "other.example.com")}
ALIASES = """
team@example.org: alice@example.org, bob@example.org, carol@example.net
sales@example.org: alice@example.org
both@example.org: team@example.org, alice@example.org
"""
TURN_S = 0.05  # there and back, several times

_FILED = "SELECT message FROM content WHERE data IS NULL"


@functools.cache
def certificate() -> ServerCertificate:
    with tempfile.TemporaryDirectory() as folder:
        paths = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
        for path, octets in zip(paths, pem("mx.example.org"), strict=True):
            with open(path, "wb") as file:
                file.write(octets)
        return ServerCertificate(*paths)


@functools.cache
def stored(password: str) -> str:
    """As cheap as Argon2id allows."""
    encoded = low_level.hash_secret(password.encode(), bytes(16), 1, 8, 1, 16, low_level.Type.ID)
    return f"{{ARGON2ID}}{encoded.decode()}"


def plain(username: str, password: str = PASSWORD) -> str:
    return "AUTH PLAIN " + base64.b64encode(f"\0{username}\0{password}".encode()).decode()


class Gate(HeldWorker):
    """Does its work at once while it is open, none at all while there is a ``failure``."""

    def __init__(self) -> None:
        super().__init__()
        self.open = True
        self.failure: Exception | None = None

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        if self.failure is not None:
            return fail(self.failure)
        done = super().call(function, *args, **kwargs)
        if self.open:
            self.run()
        return done

    def release(self) -> None:
        self.open = True
        self.run()


class Outside(SimulatedOutside):
    """A simulated machine whose threads are gates; ``gates`` has them by name."""

    def __init__(self, machine: Machine, life: Life) -> None:
        super().__init__(machine, life)
        self.gates: dict[str, Gate] = {}

    def worker(self, name: str, threads: int = 1) -> Worker:
        return self.gates.setdefault(name, Gate())


class Settings:
    """What is in force; a test may change it at any time."""

    def __init__(self, extra: str, aliases: str) -> None:
        self._aliases = aliases
        self.keys = NO_KEYS
        self.configure(extra)
        self.serve(dict.fromkeys(("alice", "bob"), PASSWORD))

    def configure(self, extra: str) -> None:
        self.config = config.parse(
            f'hostname = "mx.example.org"\ndomains = ["example.org", "example.com"]\nstate = "{STATE}"\n{extra}',
            "/etc/mailsrv/mailsrv.toml",
        )

    def serve(self, passwords: Mapping[str, str], quotas: Mapping[str, str] | None = None) -> None:
        """Accounts of example.org; ``quotas`` are rules for some of them."""
        rules = {name: f"::::::userdb_quota_rule={rule}" for name, rule in (quotas or {}).items()}
        accounts = "".join(
            f"{name}@example.org:{stored(password)}{rules.get(name, '')}\n" for name, password in passwords.items()
        )
        self.directory = parse_directory(self.config, accounts, self._aliases if passwords else "")


class Client(Protocol):
    """A client of the server; each method lets the world run until everything that follows from it has happened."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.received = b""
        self.gone = False
        self.reason: Failure | None = None

    # What Twisted calls.

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone = True
        self.reason = reason

    # What tests call.

    @property
    def wire(self) -> Any:
        return self.transport

    def send(self, data: bytes) -> Client:
        self.wire.write(data)
        self._world.run()
        return self

    def say(self, *lines: str) -> str:
        """Send lines, all at once; what comes back."""
        before = len(self.received)
        self.send("".join(f"{line}\r\n" for line in lines).encode())
        return self.received[before:].decode()

    def codes(self, *lines: str) -> list[int]:
        """The code of each reply to these lines."""
        return [int(line[:3]) for line in self.say(*lines).splitlines() if line[3:4] == " "]

    def transaction(self, *recipients: str, sender: str = "dave@example.net", content: str = "hello\r\n") -> list[int]:
        """The code of each reply: to MAIL, to each RCPT, to DATA, to the end of the content."""
        commands = [f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{recipient}>" for recipient in recipients), "DATA"]
        codes = self.codes(*commands)
        return codes + (self.codes(f"{content}.") if codes and codes[-1] == 354 else [])

    def start_tls(self) -> Client:
        assert self.say("STARTTLS").startswith("220 ")
        self.wire.startTLS(CertificateOptions())
        self._world.run()
        return self

    def end_sending(self) -> None:
        self.wire.loseWriteConnection()
        self._world.run()

    def vanish(self) -> None:
        self.wire.abortConnection()
        self._world.run()

    def stop_reading(self) -> None:
        self.wire.pauseProducing()

    def read_on(self) -> None:
        self.wire.resumeProducing()
        self._world.run()


@implementer(ILogObserver)
class Failures(list[str]):
    """What the log calls critical: bugs."""

    def __call__(self, event: LogEvent) -> None:
        if event["log_level"] is LogLevel.critical:
            failure = event.get("log_failure")
            self.append(failure.getTraceback() if failure else str(event))


class World:
    """``factories`` by service: smtp (25), submission (587), submissions (465).

    ``end`` must be called; it sees to it that nothing is left of the clients and that nothing has failed unexpectedly.
    """

    def __init__(
        self, extra: str = "", *, records: Mapping[tuple[str, str], Any] | None = None, aliases: str = ALIASES
    ) -> None:
        self.failures = Failures()
        globalLogPublisher.addObserver(self.failures)
        self.timeline = Timeline()
        self.dns = RecordsResolver({**TEST_POINTS, **(records or {})})
        rng = random.Random("smtp")
        self.network = Network(self.timeline, rng, Weather(latency_s=(0.001, 0.001), splits=0.0))
        self.zone = Zone(rng, self.dns)
        self.zone.latency_s = (0.001, 0.001)
        self.machine = Machine("mx.example.org", ADDRESSES, self.timeline, self.network, self.zone, "smtp")
        self.machine.boot()
        self.outside = Outside(self.machine, self.machine.life)
        self.settings = Settings(extra, aliases)
        self._prepare()
        settings, reactor = self.settings, self.outside.reactor
        passwords = Passwords(self.outside)
        self.admission = Admission(lambda: settings.config.limits, passwords.homes.knows_network)
        recorder = Recorder(self.outside, self.database)
        self.usage = MailboxUsage(self.outside, f"{STATE}/mail", settings)
        signer = Signer(self.outside, lambda: settings.keys.signing)
        self.house = House(
            settings,
            self.outside,
            self.spool,
            passwords,
            Penalties(lambda: settings.config.limits.penalties, reactor.seconds, passwords.homes.knows),
            recorder,
            all_checks(settings, self.outside, self.outside.resolver(()), self.database, recorder),
            Caps(lambda: settings.config.limits, self.database, self.outside.wall, reactor.seconds),
            signer,
            Bursts(
                lambda: settings.config.limits.first_time_recipients,
                self.database,
                self.outside.wall,
                reactor.seconds,
            ),
            Notices(settings, self.outside, self.spool, self.database, signer.fields_of),
            self.usage,
        )
        self.factories = {
            "smtp": self._listen(25, "smtp"),
            "submission": self._listen(587, "submission"),
            "submissions": self._listen(465, "submission", implicit_tls=True),
        }
        self._clients = Life("clients")

    def _prepare(self) -> None:
        disk = self.outside.filesystem
        path = ""
        for name in STATE.split("/")[1:]:
            path += f"/{name}"
            disk.make_directory(path)
        self.database = Database(self.outside, DATABASE)
        self.spool = Spool(self.outside, self.database, STATE, lambda: "mx.example.org")
        self.spool.open(self.database.open())

    def _listen(self, port: int, kind: str, implicit_tls: bool = False) -> SmtpFactory:
        factory = SmtpFactory(self.house, self.admission, kind, certificate(), implicit_tls)
        listener: Any = PromptTlsFactory(certificate(), False, factory) if implicit_tls else factory
        for description in (f"tcp:{port}", f"tcp6:{port}"):
            self.outside.listen(description, listener)
        return factory

    def gate(self, name: str) -> Gate:
        """The threads of that name, shut: they do nothing until they are released."""
        gate = self.outside.gates[name]
        gate.open = False
        return gate

    def run(self, seconds: float = TURN_S) -> None:
        """Let time pass."""
        self.timeline.run(self.timeline.now + seconds)

    def connect(self, port: int = 25, host: str = CLIENT, *, tls: bool = False) -> Client:
        reactor = SimulatedReactor(self.timeline, self.network, host, (host,), self._clients)
        client = Client(self)
        factory: Any = ClientFactory.forProtocol(lambda: client)
        factory.noisy = False
        if tls:
            factory = TLSMemoryBIOFactory(CertificateOptions(), True, factory, reactor)
        reactor.connectTCP("2001:db8::1" if ":" in host else "192.0.2.1", port, factory)
        self.run()
        return client

    def greeted(self, port: int = 25, host: str = CLIENT) -> Client:
        """A client that has said EHLO."""
        client = self.connect(port, host)
        client.say("EHLO client.example.net")
        return client

    def logged_in(self, username: str = "alice@example.org", host: str = CLIENT) -> Client:
        """A client of the submission port, under TLS."""
        client = self.greeted(587, host).start_tls()
        client.say("EHLO client.example.net")
        assert client.codes(plain(username)) == [235]
        return client

    def ask(self, query: str, *arguments: object) -> list[Any]:
        """Rows of the database, as any other program would see them."""
        connection = self.machine.databases.look(DATABASE)
        connection.row_factory = sqlite3.Row
        try:
            return [tuple(row) if len(row) > 1 else row[0] for row in connection.execute(query, arguments)]
        finally:
            connection.close()

    def asked(self) -> list[str]:
        """The names that were asked for about clients, in order: neither test points nor names of clients."""
        ours = ("1.0.0.127.", "2.0.0.127.")
        return [name for name, kind in self.dns.asked if kind == "A" and not name.startswith(ours)]

    def ledger(self, kind: str, columns: str = "detail, status, address, rule") -> list[Any]:
        """What was recorded, in order."""
        self.run(FLUSH_S + 0.01)
        return self.ask(f"SELECT {columns} FROM event WHERE kind = ? ORDER BY id", kind)

    def messages(self) -> list[bytes]:
        """The contents that were accepted, in order."""
        return self.ask("SELECT data FROM content ORDER BY message")

    def recipients(self) -> list[tuple[str, str]]:
        """Address and mailbox of each recipient of all messages."""
        return self.ask("SELECT address, mailbox FROM recipient ORDER BY message, n")

    def files(self) -> list[str]:
        """Names in the spool's folder."""
        return self.outside.filesystem.list(f"{STATE}/spool")

    def end(self) -> None:
        """All clients vanish; nothing may be left of them."""
        try:
            for gate in self.outside.gates.values():
                gate.release()
            self._clients.end()
            for factory in self.factories.values():
                factory.abort()
            self.run(60.0)
            assert not [connection for factory in self.factories.values() for connection in factory.connections]
            self.settings.configure("limits.connections = 1")
            assert self.admission.enter(CLIENT) is None
            assert self.spool.memory == 0
            assert set(self.files()) == {queue_id.text(number) for number in self.ask(_FILED)}
            self.house.recorder.close()
            self.run()
            assert self.outside.reactor.getDelayedCalls() == []
            assert self.failures == []
        finally:
            globalLogPublisher.removeObserver(self.failures)
            self.machine.life.ended.clear()
            self.machine.life.end()
            self.machine.databases.remove()
