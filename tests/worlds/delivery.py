"""A relay before scripted servers on real sockets of loopback: what tests of deliveries share."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from mailsrv.config import Config, Route, parse
from mailsrv.mail.address import Address
from mailsrv.mail.envelope import Envelope, Recipient
from mailsrv.mail.outcome import Outcome
from mailsrv.outside.real import RealOutside
from mailsrv.relay.delivery import Job, Relay
from tests.peers import certificate
from tests.worlds.resolver import RecordsResolver
from tests.worlds.smtp_server import Script, Server

reactor: Any = global_reactor

CONTENT = b"Subject: hi\r\n\r\n.dots\r\n..more\r\n.\r\nend\r\n"
STARTTLS = b"250-mx.example.net\r\n250-STARTTLS\r\n250 PIPELINING\r\n"


def turn() -> Deferred[None]:
    """One turn of the reactor."""
    done: Deferred[None] = Deferred()
    reactor.callLater(0, done.callback, None)
    return done


@dataclass
class Text:
    """Content in chunks cut anywhere; ``broken`` raises OSError after so many chunks; ``slow`` as from a disk."""

    text: bytes = CONTENT
    step: int = 7
    broken: int | None = None
    slow: bool = False
    readable: int = 1000  # times

    def beginning(self) -> AsyncIterator[bytes]:
        return self.chunks()

    async def chunks(self) -> AsyncIterator[bytes]:
        self.readable -= 1
        if self.readable < 0:
            raise OSError(5, "Input/output error")
        for n, start in enumerate(range(0, len(self.text), self.step)):
            if n == self.broken:
                raise OSError(5, "Input/output error")
            if self.slow:
                await turn()
            yield self.text[start : start + self.step]


@implementer(IOpenSSLContextFactory)
class ServerTls:
    def __init__(self, path: Path, key: Path) -> None:
        self._context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self._context.use_certificate_file(str(path))
        self._context.use_privatekey_file(str(key))

    def getContext(self) -> SSL.Context:
        return self._context


def job(*recipients: str, content: Text | None = None, envelope: Envelope | None = None, **changes: Any) -> Job:
    source = content or Text()
    values: dict[str, Any] = {
        "queue_id": "0",
        "envelope": envelope or Envelope(Address("alice", "example.org")),
        "recipients": tuple(Recipient(Address(local, "example.net")) for local in recipients or ("bob",)),
        "destination": "example.net",
        "content": source,
        "size": len(source.text),
        "eight_bit": False,
    }
    return Job(**{**values, **changes})


@dataclass
class SettingsOf:
    config: Config


class DeliveryCase(TestCase):
    timeout = 20

    def setUp(self) -> None:
        self.resolver = RecordsResolver()

    def serve(self, script: Script | None = None, *addresses: str, port: int = 0) -> Server:
        server = Server(script or Script(), port)
        for address in addresses or ("127.0.0.1",):
            server.listen(reactor, address)
        self.addCleanup(server.close)
        return server

    def config(self, route: Route | None = None, authorities: str = "", **demands: str) -> Config:
        """``demands`` are entries of [outbound.tls], with ``_`` for ``.``, and ``all`` for ``*``."""
        config = parse(
            f'hostname = "us.example.org"\ndomains = ["example.org"]\n[tls]\nauthorities = "{authorities}"\n', "/x"
        )
        if route is not None:
            config.outbound.routes["*"] = route
        config.outbound.tls.update({name.replace("_", ".").replace("all", "*"): d for name, d in demands.items()})
        return config

    def relay(self, route: Route | None = None, authorities: str = "", **demands: str) -> Relay:
        return self.relay_with(SettingsOf(self.config(route, authorities, **demands)))

    def relay_with(self, settings: SettingsOf, **options: Any) -> Relay:
        relay = Relay(settings, RealOutside(reactor), self.resolver, **options)
        self.addCleanup(relay.close)
        return relay

    def to(self, server: Server, host: str = "127.0.0.1", **changes: str) -> Relay:
        return self.relay(Route("smtp", host, server.port, **changes))

    def several(self, *scripts: Script) -> tuple[Relay, list[Server]]:
        """One name with an address for each script, to be tried in this order."""
        servers: list[Server] = []
        for n, script in enumerate(scripts):
            servers.append(self.serve(script, f"127.0.0.{n + 1}", port=servers[0].port if servers else 0))
        self.resolver.records["next.example", "A"] = [f"127.0.0.{n + 1}" for n in range(len(scripts))]
        return self.to(servers[0], "next.example"), servers

    def certificate(self, name: str = "smart.example") -> tuple[Any, str]:
        """Options for a server, and the file by which its certificate may be trusted."""
        folder = Path(tempfile.mkdtemp(dir=self.mktemp_folder()))
        path, key = certificate.write(folder, name)
        return ServerTls(path, key), str(path)

    def mktemp_folder(self) -> str:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return folder.name


def one(outcomes: list[Outcome]) -> Outcome:
    (outcome,) = outcomes
    return outcome
