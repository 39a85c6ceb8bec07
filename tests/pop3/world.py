"""A POP3 server in memory: the real program on a real folder, a virtual clock, clients that read when a test says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailsrv import config
from mailsrv.checks.login_delay import LoginDelay
from mailsrv.mail.address import Address
from mailsrv.outside.filesystem import Filesystem
from mailsrv.pop3.protocol import Pop3Factory, Pop3Protocol
from mailsrv.store.accounts.accounts import Account, Directory
from mailsrv.store.accounts.passwords import Passwords, hash_password
from mailsrv.store.ledger import Event
from mailsrv.store.mailbox import maildir
from mailsrv.store.mailbox.mailboxes import MailStore
from tests.worlds.worker import ImmediateWorker

PASSWORD = "tulip and thyme"
_HASH = hash_password(PASSWORD, lambda octets: bytes(octets))
BUFFER = 65536  # as Twisted's transports have it


class ColdFilesystem(Filesystem):
    """Nothing is in memory: the disk is asked for everything."""

    def read_cached(self, path: bytes) -> bytes | None:
        return None


class Outside:
    """What the program asks of the world, all in one thread."""

    def __init__(self, cached: bool) -> None:
        self.reactor: Any = Clock()
        self.filesystem: Any = Filesystem() if cached else ColdFilesystem()
        self.workers: dict[str, Any] = {}

    def wall(self) -> float:
        return 1764000000.0 + float(self.reactor.seconds())

    def random(self, octets: int) -> bytes:
        return bytes(octets)

    def worker(self, name: str, threads: int = 1) -> Any:
        return self.workers.setdefault(name, ImmediateWorker())

    def listen(self, description: str, factory: Any) -> Any:
        raise NotImplementedError

    def connect(self, address: str, port: int, factory: Any, timeout_s: float) -> Any:
        raise NotImplementedError

    def connect_database(self, path: str) -> Any:
        raise NotImplementedError

    def resolver(self, servers: Sequence[str]) -> Any:
        raise NotImplementedError


class Settings:
    """What the server is set up with; a test may change it while clients are connected."""

    def __init__(self, extra: str = "") -> None:
        self.config = config.parse(
            f'hostname = "mx.example.org"\ndomains = ["example.org"]\n{extra}', "/etc/mailsrv.toml"
        )
        self.directory = Directory(
            ("example.org",),
            [Account(Address.parse(f"{name}@example.org"), _HASH) for name in ("alice", "bob")],
            {},
        )


class Doorkeeper:
    """Admission and penalties as a test wants them, and a record of what they were told."""

    def __init__(self) -> None:
        self.refusal: str | None = None
        self.explains = False
        self.explaining: list[str] = []
        self.delay = 0.0
        self.inside: list[str] = []
        self.told: list[tuple[str, str, str]] = []

    def enter(self, peer_ip: str, /) -> str | None:
        if self.refusal is None:
            self.inside.append(peer_ip)
        return self.refusal

    def leave(self, peer_ip: str, /) -> None:
        self.inside.remove(peer_ip)

    def explain(self, peer_ip: str, /) -> bool:
        if self.explains:
            self.explaining.append(peer_ip)
        return self.explains

    def explained(self, peer_ip: str, /) -> None:
        self.explaining.remove(peer_ip)

    def delay_s(self, peer_ip: str, account: str, /) -> float:
        return self.delay

    def failed(self, peer_ip: str, account: str, /) -> None:
        self.told.append(("failed", peer_ip, account))

    def succeeded(self, peer_ip: str, account: str, /) -> None:
        self.told.append(("succeeded", peer_ip, account))


class Peer:
    def __init__(self, host: str) -> None:
        self.host = host


class Handle:
    """As much of an OpenSSL connection as the server looks at."""

    def __init__(self, exporter: bytes | None) -> None:
        self._exporter = exporter

    def get_protocol_version(self) -> int:
        return SSL.TLS1_2_VERSION if self._exporter is None else SSL.TLS1_3_VERSION

    def export_keying_material(self, label: bytes, octets: int) -> bytes:
        assert (label, octets) == (b"EXPORTER-Channel-Binding", 32)
        assert self._exporter is not None
        return self._exporter


class Client:
    """A client, and the transport that the server sees of it."""

    def __init__(self, world: World, protocol: Pop3Protocol, host: str) -> None:
        self.world = world
        self.protocol = protocol
        self.host = host
        self.received = b""
        self.waiting = b""  # written by the server, not yet read
        self.reads = True
        self.connected = True
        self.disconnecting = False
        self.aborted = False
        self.closed = False  # the client saw the end
        self.server_reads = True
        self.tls: Any = None
        self.exporter: bytes | None = None
        self.writes: list[bytes] = []
        self._producer: Any = None

    # -- the client's side

    def send(self, data: bytes) -> Client:
        assert self.connected
        self.protocol.dataReceived(data)
        self.world.settle()
        return self

    def say(self, line: str) -> str:
        """Send a line; what comes back."""
        before = len(self.received)
        self.send(line.encode() + b"\r\n")
        return self.received[before:].decode()

    def log_in(self, name: str = "alice") -> Client:
        self.send(b"USER %b@example.org\r\nPASS %b\r\n" % (name.encode(), PASSWORD.encode()))
        return self

    def read(self, octets: int = 1 << 30) -> None:
        """Take so much of what waits."""
        self.received += self.waiting[:octets]
        self.waiting = self.waiting[octets:]
        if not self.waiting and self._producer is not None:
            self._producer.resumeProducing()
        if not self.waiting and self.disconnecting:
            self._lose()
        self.world.settle()

    def end_sending(self) -> None:
        self.protocol.readConnectionLost()
        self.world.settle()

    def vanish(self) -> None:
        self._lose()
        self.world.settle()

    # -- what the server calls

    def write(self, data: bytes) -> None:
        if not self.connected or self.disconnecting:
            return
        self.writes.append(data)
        if self.reads:
            self.received += data
            return
        self.waiting += data
        if len(self.waiting) > BUFFER and self._producer is not None:
            self._producer.pauseProducing()

    def getPeer(self) -> Peer:
        return Peer(self.host)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def pauseProducing(self) -> None:
        self.server_reads = False

    def resumeProducing(self) -> None:
        self.server_reads = True

    def getHandle(self) -> Handle:
        return Handle(self.exporter)

    def startTLS(self, creator: Any) -> None:
        self.tls = creator

    def loseConnection(self) -> None:
        self.disconnecting = True
        if not self.waiting:
            self._lose()

    def abortConnection(self) -> None:
        self.aborted = True
        self._lose()

    def _lose(self) -> None:
        if self.connected:
            self.connected = False
            self.closed = True
            self.protocol.connectionLost()


class World:
    """A server with the mailboxes of alice and bob, passwords in clear allowed from loopback.

    ``cached``: whether messages that were just written are still in memory.
    """

    def __init__(
        self,
        root: Path,
        extra: str = '[auth]\ncleartext = "loopback"',
        tls: Callable[[], Any] | None = None,
        cached: bool = True,
    ) -> None:
        self.root = root
        self.outside = Outside(cached)
        self.settings = Settings(extra)
        self.doorkeeper = Doorkeeper()
        self.ledger: list[Event] = []
        self.unsettled: Deferred[None] | None = None
        self.mailboxes = MailStore(self.outside, str(root), lambda mailbox: self.unsettled)
        self.factory = Pop3Factory(
            self.settings,
            self.outside,
            self.mailboxes,
            Passwords(self.outside),
            self.doorkeeper,
            self.doorkeeper,
            LoginDelay(lambda: self.settings.config.limits.login_delay, self.outside.reactor.seconds),
            self,
            tls,
        )

    @property
    def clock(self) -> Clock:
        clock: Clock = self.outside.reactor
        return clock

    def record(self, event: Event) -> None:
        self.ledger.append(event)

    def record_seldom(self, event: Event, who: str) -> None:
        self.ledger.append(event)

    async def record_all(self, events: Sequence[Event]) -> None:
        self.ledger += events

    def settle(self) -> None:
        """Let the server do what it put off to later turns."""
        while any(call.getTime() <= self.clock.seconds() for call in self.clock.getDelayedCalls()):
            self.clock.advance(0)

    def folder(self, mailbox: str = "alice") -> Path:
        return self.root / "example.org" / mailbox

    def deliver(self, content: bytes, name: str = "", mailbox: str = "alice", folder: str = "new") -> Path:
        """File a message with LF line ends, by default under one of our own names."""
        maildir.ensure(self.outside.filesystem, str(self.folder(mailbox)))
        if not name:
            n = len(list(self.folder(mailbox).glob("*/*")))
            size = len(content)
            unique = maildir.unique("1J4BS1D7M00", n, 1764000000, "mx.example.org")
            name = maildir.file_name(unique, size, size + content.count(b"\n"))
        path = self.folder(mailbox) / folder / name
        path.write_bytes(content)
        return path

    def files(self, mailbox: str = "alice") -> list[str]:
        return sorted(path.name for path in self.folder(mailbox).glob("*/*"))

    def connect(self, host: str = "127.0.0.1") -> Client:
        protocol = self.factory.buildProtocol(None)
        client = Client(self, protocol, host)
        protocol.makeConnection(client)  # type: ignore[no-untyped-call]
        self.settle()
        return client
