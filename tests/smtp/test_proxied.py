"""SMTP behind a proxy: all that depends on the client depends on the one that the PROXY header names."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.ssl import CertificateOptions

from mailsrv.checks.clients import is_within
from mailsrv.outside.proxied import HEADER_S, ProxiedFactory
from mailsrv.outside.transports import PromptTlsFactory
from tests.smtp.world import CLIENT, Client, World, certificate

PROXY = "10.0.0.1"
PROXIED, PROXIED_TLS = 2525, 2465


class ProxiedWorld(World):
    """Two more ports, for which proxies are asked as the program does it."""

    def __init__(self, extra: str = "", **more: Any) -> None:
        super().__init__(f'listen.proxies = ["{PROXY}"]\n{extra}', **more)
        self.refused: list[str] = []
        self._offer(PROXIED, self.factories["smtp"])
        under_tls = PromptTlsFactory(certificate(), False, self.factories["submissions"], self.outside.reactor)
        self._offer(PROXIED_TLS, under_tls)

    def _offer(self, port: int, service: Any) -> None:
        factory = ProxiedFactory(
            service,
            lambda address: is_within(address, self.settings.config.listen.proxies),
            self.outside.reactor,
            lambda address, reason: self.refused.append(reason),
        )
        self.outside.listen(f"tcp:{port}", factory)

    def introduced(self, host: str = CLIENT, port: int = PROXIED) -> Client:
        """Somebody behind the proxy."""
        client = self.connect(port, PROXY)
        family = "TCP6" if ":" in host else "TCP4"
        here = "2001:db8::1" if ":" in host else "192.0.2.1"
        client.send(f"PROXY {family} {host} {here} 40000 {port}\r\n".encode())
        return client

    def behind(self, host: str = CLIENT) -> Client:
        """The same, after EHLO."""
        client = self.introduced(host)
        client.say("EHLO client.example.net")
        return client


@pytest.fixture
def world() -> Iterator[ProxiedWorld]:
    world = ProxiedWorld()
    yield world
    world.end()


def test_the_client_is_who_the_header_says(world: ProxiedWorld) -> None:
    client = world.connect(PROXIED, PROXY)
    assert client.received == b""
    client.send(b"PROXY TCP4 198.51.100.7 192.0.2.1 40000 25\r\n")
    assert client.received == b"220 mx.example.org ESMTP mailsrv\r\n"
    client.say("EHLO client.example.net")
    assert client.transaction("alice@example.org") == [250, 250, 354, 250]
    ((prefix, told),) = world.ask("SELECT content.prefix, message.client FROM content JOIN message ON id = message")
    assert prefix.startswith(b"Received: from client.example.net ([198.51.100.7])")
    assert told == "198.51.100.7"


def test_trust_is_for_the_client_not_for_the_proxy() -> None:
    world = ProxiedWorld('trusted_networks = ["10.0.0.0/8", "2001:db8:5::/48"]')
    assert world.behind().transaction("carol@example.net") == [250, 550, 554]
    assert world.behind("2001:db8:5::1").transaction("carol@example.net") == [250, 250, 354, 250]
    world.end()


def test_limits_count_the_clients() -> None:
    world = ProxiedWorld("limits.connections_per_client = 2")
    others = [world.introduced(f"198.51.100.{n}") for n in range(20, 30)]
    clients = [world.introduced() for _ in range(3)]
    assert all(client.received.startswith(b"220 ") for client in others + clients[:2])
    assert clients[2].received.startswith(b"421 4.7.0 ")
    clients[0].vanish()
    assert world.introduced().received.startswith(b"220 ")
    world.end()


def test_the_turned_away_are_recorded_as_themselves() -> None:
    world = ProxiedWorld("limits.connections_per_client = 1")
    world.introduced()
    world.introduced()
    assert world.ledger("connection", "client, rule") == [(CLIENT, "limits.connections")]
    world.end()


def test_blocklists_are_asked_about_the_client() -> None:
    records = {("7.100.51.198.bl.example.com", "A"): ["127.0.0.2"]}
    world = ProxiedWorld('checks.blocklists = ["bl.example.com"]', records=records)
    assert world.behind().transaction("alice@example.org") == [250, 554, 554]
    assert world.behind("198.51.100.8").transaction("alice@example.org") == [250, 250, 354, 250]
    assert world.asked() == ["7.100.51.198.bl.example.com", "8.100.51.198.bl.example.com"]
    world.end()


def test_the_header_comes_before_tls(world: ProxiedWorld) -> None:
    client = world.introduced(port=PROXIED_TLS)
    assert client.received == b""
    client.wire.startTLS(CertificateOptions())
    world.run()
    assert client.received.startswith(b"220 ")
    assert "AUTH" in client.say("EHLO client.example.net")
    (shell,) = world.factories["submissions"].connections
    assert shell.transport.getPeer().host == CLIENT


def test_header_and_first_octets_of_tls_in_one_piece(world: ProxiedWorld) -> None:
    context = ssl.create_default_context()
    outgoing = ssl.MemoryBIO()
    begun = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="mx.example.org")
    with pytest.raises(ssl.SSLWantReadError):
        begun.do_handshake()
    client = world.connect(PROXIED_TLS, PROXY)
    client.send(b"PROXY TCP4 198.51.100.7 192.0.2.1 40000 465\r\n" + outgoing.read())
    assert client.received.startswith(b"\x16\x03\x03"), "a ServerHello"


def test_a_proxy_that_says_nothing_or_nonsense_gets_nothing(world: ProxiedWorld) -> None:
    for octets in (b"EHLO client.example.net\r\n", b"\r\n\r\n\x00\r\nQUIT\n\x21\x12\x00\x00"):
        client = world.connect(PROXIED, PROXY).send(octets)
        assert client.gone
        assert client.received == b""
    client = world.connect(PROXIED, PROXY)
    world.run(HEADER_S)
    assert client.gone
    assert client.received == b""
    assert len(world.refused) == 3


def test_nobody_else_is_believed(world: ProxiedWorld) -> None:
    world.settings.configure('trusted_networks = ["192.168.0.0/16"]\nlisten.proxies = ["10.0.0.1"]')
    for host in (CLIENT, "10.0.0.2"):
        client = world.connect(PROXIED, host)
        assert client.received.startswith(b"220 ")
        answer = client.say("PROXY TCP4 192.168.0.1 192.0.2.1 40000 25")
        assert answer.startswith("500 5.5.1 ")
        client.say("EHLO client.example.net")
        assert client.transaction("carol@example.net") == [250, 550, 554]
    assert set(world.ledger("refused", "client")) == {CLIENT, "10.0.0.2"}


def test_a_second_header_is_a_bad_command(world: ProxiedWorld) -> None:
    client = world.introduced()
    assert client.say("PROXY TCP4 10.0.0.1 192.0.2.1 40000 25").startswith("500 5.5.1 ")
