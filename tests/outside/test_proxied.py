"""Connections from proxies and from others, on transports in memory and a clock of our own."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock

from mailsrv.outside.proxied import HEADER_S, ProxiedFactory

PROXY = IPv4Address("TCP", "10.0.0.1", 40000)
STRANGER = IPv4Address("TCP", "192.0.2.99", 40000)
V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 25\r\n"
V2 = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\xdc\x04\x00\x19"
LOCAL = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"


class Service(Protocol):
    """Greets whom it takes for the client, and remembers what it is told."""

    transport: Any

    def __init__(self) -> None:
        self.received = b""
        self.lost = False

    def connectionMade(self) -> None:
        self.transport.write(b"220 hello " + self.transport.getPeer().host.encode() + b"\r\n")

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: object = None) -> None:
        self.lost = True


class Services(Factory[Service]):
    noisy = False

    def __init__(self) -> None:
        self.built: list[tuple[Service, IAddress | None]] = []

    def buildProtocol(self, addr: IAddress | None) -> Service:
        service = Service()
        self.built.append((service, addr))
        return service


class Transport:
    """Gives what comes in to its present protocol, as the transports of a reactor do."""

    protocol: Any

    def __init__(self, peer: Any) -> None:
        self.peer = peer
        self.written = b""
        self.aborted = False

    def getPeer(self) -> Any:
        return self.peer

    def write(self, data: bytes) -> None:
        self.written += data

    def abortConnection(self) -> None:
        self.aborted = True

    def come_in(self, data: bytes) -> None:
        assert not self.aborted
        self.protocol.dataReceived(data)


class World:
    def __init__(self) -> None:
        self.clock = Clock()
        self.services = Services()
        self.proxies = {"10.0.0.1"}
        self.refused: list[tuple[str, str]] = []
        self.factory = ProxiedFactory(
            self.services,
            lambda address: address in self.proxies,
            self.clock,
            lambda *what: self.refused.append(what),
        )
        self.factory.doStart()

    def connect(self, peer: Any) -> Transport:
        transport = Transport(peer)
        protocol: Any = self.factory.buildProtocol(peer)
        transport.protocol = protocol
        protocol.makeConnection(transport)
        return transport


@pytest.mark.parametrize("header", [V1, V2])
def test_the_service_sees_the_client(header: bytes) -> None:
    world = World()
    transport = world.connect(PROXY)
    assert transport.written == b""
    transport.come_in(header)
    assert transport.written == b"220 hello 192.0.2.7\r\n"
    ((service, address),) = world.services.built
    assert address == transport.getPeer() == IPv4Address("TCP", "192.0.2.7", 56324)
    transport.come_in(b"QUIT\r\n")
    assert service.received == b"QUIT\r\n"
    transport.protocol.connectionLost(None)
    assert service.lost
    world.clock.advance(60)
    assert not transport.aborted
    assert not world.refused
    assert not world.clock.getDelayedCalls()


def test_an_ipv6_client() -> None:
    world = World()
    transport = world.connect(PROXY)
    transport.come_in(b"PROXY TCP6 2001:db8::7 ::1 9 25\r\n")
    assert transport.getPeer() == IPv6Address("TCP", "2001:db8::7", 9)


@pytest.mark.parametrize("header", [V1, V2, LOCAL])
def test_octet_by_octet_and_all_at_once(header: bytes) -> None:
    together, apart = World(), World()
    one, other = together.connect(PROXY), apart.connect(PROXY)
    data = header + b"EHLO client.example.net\r\n"
    one.come_in(data)
    for n in range(len(data)):
        other.come_in(data[n : n + 1])
    assert one.written == other.written != b""
    for world in (together, apart):
        assert world.services.built[0][0].received == b"EHLO client.example.net\r\n"


@pytest.mark.parametrize("header", [LOCAL, b"PROXY UNKNOWN\r\n"])
def test_a_proxy_that_speaks_for_itself(header: bytes) -> None:
    world = World()
    transport = world.connect(PROXY)
    transport.come_in(header)
    assert transport.getPeer() == PROXY
    assert transport.written == b"220 hello 10.0.0.1\r\n"


@pytest.mark.parametrize(
    "octets", [b"EHLO client.example.net\r\n", V1.lower(), b"\x16\x03\x01", V2[:13] + b"\x13" * 90]
)
def test_a_proxy_without_a_header_gets_not_a_byte(octets: bytes) -> None:
    world = World()
    transport = world.connect(PROXY)
    transport.come_in(octets)
    assert transport.aborted
    assert transport.written == b""
    assert not world.services.built
    ((address, reason),) = world.refused
    assert address == "10.0.0.1"
    assert "PROXY header" in reason
    assert not world.clock.getDelayedCalls()


@pytest.mark.parametrize("begun", [b"", V1[:-1], V2[:-1]])
def test_the_header_has_a_deadline(begun: bytes) -> None:
    world = World()
    transport = world.connect(PROXY)
    world.clock.advance(HEADER_S - 0.1)
    if begun:
        transport.come_in(begun)  # does not move the deadline
    world.clock.advance(0.2)
    assert transport.aborted
    assert transport.written == b""
    assert world.refused == [("10.0.0.1", "no PROXY header in 5 s")]


def test_others_are_served_as_themselves() -> None:
    world = World()
    for peer in (STRANGER, IPv6Address("TCP", "2001:db8::99", 1)):
        transport = world.connect(peer)
        assert transport.written == b"220 hello " + peer.host.encode() + b"\r\n"
        transport.come_in(V1)
        assert transport.getPeer() == peer
        assert world.services.built[-1][0].received == V1
    assert not world.clock.getDelayedCalls()


def test_a_local_socket_is_no_proxy() -> None:
    world = World()
    world.proxies.add("")
    assert isinstance(world.factory.buildProtocol(UNIXAddress(b"")), Service)


def test_a_change_of_the_list_counts_for_the_next_connection() -> None:
    world = World()
    world.proxies.clear()
    assert world.connect(PROXY).written != b""
    world.proxies.add("192.0.2.99")
    assert world.connect(STRANGER).written == b""


def test_a_proxy_that_goes_without_a_word_is_no_news() -> None:
    """So do the health checks of proxies."""
    world = World()
    transport = world.connect(PROXY)
    transport.protocol.connectionLost(None)
    world.clock.advance(60)
    assert not world.refused
    assert not world.factory.waiting


def test_the_end_of_listening_ends_those_who_wait() -> None:
    world = World()
    waiting, served = world.connect(PROXY), world.connect(PROXY)
    served.come_in(V1)
    world.factory.doStop()
    assert waiting.aborted
    assert not served.aborted
    assert not world.clock.getDelayedCalls()
    assert world.services.numPorts == 0


def test_a_service_may_refuse() -> None:
    world = World()
    world.services.buildProtocol = lambda addr: None  # type: ignore[method-assign, assignment, return-value]
    transport = world.connect(PROXY)
    transport.come_in(V1)
    assert transport.aborted
