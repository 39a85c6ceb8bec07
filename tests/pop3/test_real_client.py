"""Python's poplib on real sockets, with the real reactor, threads and TLS: what only they can show."""

from __future__ import annotations

import poplib
import shutil
import socket
import ssl
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailsrv.checks.login_delay import LoginDelay
from mailsrv.outside.real import RealOutside
from mailsrv.outside.transports import PromptTlsFactory
from mailsrv.pop3.protocol import Pop3Factory
from mailsrv.store.accounts.passwords import Passwords
from mailsrv.store.ledger import Event
from mailsrv.store.mailbox import maildir
from mailsrv.store.mailbox.mailboxes import MailStore
from mailsrv.tls import ServerCertificate
from tests.pop3.world import PASSWORD, Doorkeeper, Settings
from tests.simulation.certificates import pem

reactor: Any = _reactor

MESSAGES = [
    b"Subject: one\n\nhello\n",
    b"Subject: dots\n\n" + b"\n".join(b"." * n for n in range(200)) + b"\n",
    b"Subject: long\n\n" + b"x" * 998 + b"\n",
    b"Subject: large\n\n" + (bytes(range(14, 256)) + b"\n") * 20_000,
    b"Subject: no line end\n\n.",
]


class RealClient(TestCase):
    """poplib runs in a thread and blocks there; the server is where it always is."""

    timeout = 30

    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp()) / "state"
        self.addCleanup(shutil.rmtree, self.root.parent)
        self.folder = self.root / "example.org" / "alice"
        certificate, key = pem("mx.example.org")
        self.root.mkdir(parents=True)
        (self.root / "cert.pem").write_bytes(certificate)
        (self.root / "key.pem").write_bytes(key)
        creator = ServerCertificate(str(self.root / "cert.pem"), str(self.root / "key.pem"))
        self.outside = RealOutside(reactor)
        maildir.ensure(self.outside.filesystem, str(self.folder.absolute()))
        for n, content in enumerate(MESSAGES):
            (self.folder / "new" / f"{1764000000 + n}.M1.host").write_bytes(content)
        self.ledger: list[Event] = []
        self.passwords = Passwords(self.outside)
        self.mailboxes = MailStore(self.outside, str(self.root.absolute()), lambda mailbox: None)
        self.factories = [self.factory(creator, implicit) for implicit in (False, True)]
        wrapped = PromptTlsFactory(creator, False, self.factories[1])
        self.ports: list[Any] = []
        for factory in (self.factories[0], wrapped):
            self.outside.listen("tcp:0:interface=127.0.0.1", factory).addCallback(self.ports.append)
        self.clear, self.tls = (port.getHost().port for port in self.ports)

    def factory(self, creator: ServerCertificate, implicit_tls: bool) -> Pop3Factory:
        return Pop3Factory(
            Settings('[auth]\ncleartext = "loopback"'),
            self.outside,
            self.mailboxes,
            self.passwords,
            Doorkeeper(),
            Doorkeeper(),
            LoginDelay(lambda: 0.0, reactor.seconds),
            self,
            lambda: creator,
            implicit_tls,
        )

    def record(self, event: Event) -> None:
        self.ledger.append(event)

    def record_seldom(self, event: Event, who: str) -> None:
        self.record(event)

    async def record_all(self, events: Sequence[Event]) -> None:
        self.ledger += events

    async def tearDown(self) -> None:  # type: ignore[override]
        for port in self.ports:
            await port.stopListening()
        for factory in self.factories:
            ended = Deferred.fromCoroutine(factory.shut_down())
            factory.abort()  # a test that failed has left its client behind
            await ended
        self.mailboxes.stop()
        self.passwords.stop()

    def in_thread(self, work: Callable[[], None]) -> Deferred[None]:
        return deferToThread(work)

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.root / "cert.pem")
        context.check_hostname = False
        return context

    def fetch_all(self, client: poplib.POP3) -> None:
        client.user("alice@example.org")
        client.pass_(PASSWORD)
        sizes = [int(line.split()[1]) for line in client.list()[1]]
        expected = [content.replace(b"\n", b"\r\n") for content in MESSAGES]
        expected[-1] += b"\r\n"
        assert sizes == [len(content) for content in expected]
        assert client.stat() == (len(expected), sum(sizes))
        assert len({line.split()[1] for line in client.uidl()[1]}) == len(expected)
        for n, content in enumerate(expected, 1):
            _, lines, octets = client.retr(n)
            assert octets == len(content)
            assert b"\r\n".join(lines) + b"\r\n" == content
        assert client.top(1, 0)[1] == [b"Subject: one", b""]

    def test_in_clear_text(self) -> Deferred[None]:
        def work() -> None:
            client = poplib.POP3("127.0.0.1", self.clear, timeout=10)
            self.fetch_all(client)
            client.dele(1)
            client.rset()
            client.dele(2)
            assert client.quit() == b"+OK goodbye"
            assert len(list(self.folder.glob("new/*"))) == len(MESSAGES) - 1
            assert [event.detail for event in self.ledger] == ["1764000001.M1.host"]

        return self.in_thread(work)

    def test_stls(self) -> Deferred[None]:
        def work() -> None:
            client = poplib.POP3("127.0.0.1", self.clear, timeout=10)
            assert "STLS" in client.capa()
            client.stls(self.context())
            assert "STLS" not in client.capa()
            self.fetch_all(client)
            client.quit()

        return self.in_thread(work)

    def test_implicit_tls(self) -> Deferred[None]:
        def work() -> None:
            client = poplib.POP3_SSL("127.0.0.1", self.tls, timeout=10, context=self.context())
            assert "USER" in client.capa()
            self.fetch_all(client)
            client.dele(1)
            client.quit()
            assert len(list(self.folder.glob("new/*"))) == len(MESSAGES) - 1

        return self.in_thread(work)

    def test_a_client_that_closes_without_quit_deletes_nothing_and_frees_the_mailbox(self) -> Deferred[None]:
        def work() -> None:
            for _ in range(5):
                client = poplib.POP3("127.0.0.1", self.clear, timeout=10)
                self.fetch_all(client)
                client.dele(1)
                client.sock.shutdown(socket.SHUT_WR)
                assert client.sock.recv(1) == b""
                client.close()
            assert len(list(self.folder.glob("new/*"))) == len(MESSAGES)

        return self.in_thread(work)

    def test_a_client_that_reads_late_over_tls(self) -> Deferred[None]:
        def work() -> None:
            client = poplib.POP3_SSL("127.0.0.1", self.tls, timeout=10, context=self.context())
            client.user("alice@example.org")
            client.pass_(PASSWORD)
            client.sock.sendall(b"RETR 4\r\n" * 5 + b"QUIT\r\n")
            received = b"".join(iter(lambda: client.sock.recv(1 << 16), b""))
            assert received.count(b"\r\n.\r\n+OK") == 5
            assert received.endswith(b"+OK goodbye\r\n")
            client.close()

        return self.in_thread(work)

    def test_clear_text_behind_stls(self) -> Deferred[None]:
        def work() -> None:
            with socket.create_connection(("127.0.0.1", self.clear), timeout=10) as client:
                client.sendall(b"STLS\r\nUSER alice@example.org\r\n")
                received = b"".join(iter(lambda: client.recv(1 << 16), b""))
                assert received == b"+OK mx.example.org POP3 server ready\r\n"

        return self.in_thread(work)
