"""The network of a simulated world: sockets in pairs, with distance, weather and accidents between them.

What a program sends arrives in order, after a while, in other pieces than it was sent in.  A socket takes no more than
its window holds until the other side reads, so back-pressure is real.  The weather, drawn from the seed for each
connection, says how far the other side is, how data is split, and whether the connection will be cut (both sides lose
it, ``ConnectionLost``) or fall silent (packets vanish; time-outs have to notice) after how many octets.

Addresses belong to hosts.  127.0.0.0/8 and ::1 mean the same host only.  Nobody listens: refused.  ``black_holes``
swallow everything.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.simulation.timeline import Life, Timeline

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.simulation.transport import SimulatedClient, SimulatedConnection, SimulatedPort

Place = tuple[str, int]  # address and port

_FIRST_EPHEMERAL_PORT = 32768


def canonical(address: str) -> str:
    """One text for each address."""
    return str(ipaddress.ip_address(address)) if ":" in address else address


def is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


@dataclass(frozen=True, slots=True)
class Weather:
    """What connections go through; ranges are ``(lowest, highest)``, probabilities are per connection.

    ``latency_s`` is one way.  ``splits`` is how often data is cut up on the way.  ``window`` is in octets.  An
    accident happens after as many octets, counted in both directions, as a draw up to ``accident_octets`` says.
    """

    latency_s: tuple[float, float] = (0.0005, 0.05)
    splits: float = 0.3
    window: tuple[int, int] = (65536, 65536)
    cut: float = 0.0
    stall: float = 0.0
    accident_octets: int = 4000


CALM = Weather()


class Link:
    """What the two sockets of a connection have between them."""

    __slots__ = ("cut_after", "latency_s", "rng", "silent", "splits", "stall_after", "window")

    def __init__(self, weather: Weather, rng: random.Random) -> None:
        self.rng = rng
        self.latency_s = rng.uniform(*weather.latency_s)
        self.splits = rng.random() < weather.splits
        self.window = rng.randint(*weather.window)
        fate = rng.random()
        after = int(rng.random() * weather.accident_octets)
        self.cut_after = after if fate < weather.cut else -1
        self.stall_after = after if weather.cut <= fate < weather.cut + weather.stall else -1
        self.silent = False

    def delay(self) -> float:
        return self.latency_s * (1 + self.rng.random() / 4)

    def pieces(self, data: bytes) -> Iterable[bytes]:
        """``data`` as it arrives: often whole, sometimes in up to five pieces, sometimes octet by octet."""
        if not self.splits or len(data) < 2:
            return (data,)
        if len(data) < 80 and self.rng.random() < 0.2:
            return tuple(data[n : n + 1] for n in range(len(data)))
        cuts = sorted(self.rng.randrange(1, len(data)) for _ in range(self.rng.randrange(5)))
        return tuple(data[start:end] for start, end in zip((0, *cuts), (*cuts, len(data)), strict=True) if start < end)


class SimulatedSocket:
    """One end of a connection: what Twisted's Connection and ``getHandle`` users ask of a non-blocking socket."""

    def __init__(self, timeline: Timeline, life: Life, local: Place, remote: Place) -> None:
        self.timeline = timeline
        self.life = life
        self.local = local
        self.remote = remote
        self.connection: SimulatedConnection | None = None
        self.link: Link | None = None
        self.peer: SimulatedSocket | None = None
        self.broken = False
        self._inbox = bytearray()
        self._eof = False
        self.closed = False
        self._write_shut = False
        self._linger = True
        self.sent = 0  # octets so far
        self.unread = 0  # octets sent that the other side has not read yet
        self._latest = 0.0  # when the latest of what was sent arrives

    def join(self, peer: SimulatedSocket, link: Link) -> None:
        self.peer, self.link = peer, link
        self._latest = self.timeline.now

    # What the reactor asks.

    @property
    def readable(self) -> bool:
        return bool(self._inbox) or self._eof or self.broken

    @property
    def writable(self) -> bool:
        return self.broken or (self.link is not None and self.unread < self.link.window)

    # The socket as its owner sees it.

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def fileno(self) -> int:
        return -1 if self.closed else 3

    def getsockname(self) -> Place:
        return self.local

    def getpeername(self) -> Place:
        return self.remote

    def getsockopt(self, level: int, option: int) -> int:
        return 0

    def setsockopt(self, level: int, option: int, value: object) -> None:
        # Twisted sets one option with a structure: SO_LINGER of 0 seconds, by which abortConnection sends a reset.
        if isinstance(value, bytes):
            self._linger = False

    def send(self, data: bytes | memoryview) -> int:
        if not data:
            return 0  # Twisted asks so before it closes
        self.life.step("network: send")
        if self.broken or self.closed or self._write_shut or self.link is None:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        room = self.link.window - self.unread
        if room <= 0:
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))
        octets = bytes(data[:room])
        self.sent += len(octets)
        self.unread += len(octets)
        self._transmit(octets)
        self.life.step("network: sent")
        return len(octets)

    def recv(self, size: int) -> bytes:
        self.life.check()
        if self._inbox:
            octets = bytes(self._inbox[:size])
            del self._inbox[:size]
            if self.peer is not None and self.link is not None and not self.link.silent:
                self._later(self.peer, self.peer._read, len(octets))
            return octets
        if self.broken:
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        if self._eof:
            return b""
        raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK))

    def shutdown(self, how: int) -> None:
        if how in (1, 2) and not self._write_shut and self._linger and self.peer is not None:
            self._send_event(self.peer._end)
        self._write_shut = True

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self.peer is None:
            return
        if self._inbox or not self._linger:
            self._send_event(self.peer.reset)  # RFC 9293 3.6.1: closed with data unread
        elif not self._write_shut:
            self._send_event(self.peer._end)
        self._inbox.clear()

    # What the network does to it.

    def reset(self) -> None:
        """The other side, or something in between, has ended the connection."""
        self.broken = True
        self._poll()

    def _transmit(self, octets: bytes) -> None:
        link, peer = self.link, self.peer
        assert link is not None
        assert peer is not None
        if link.cut_after >= 0:
            if link.cut_after < len(octets):
                octets = octets[: link.cut_after]
                self._arrive_later(octets)
                self.cut()
                return
            link.cut_after -= len(octets)
        elif link.stall_after >= 0:
            if link.stall_after < len(octets):
                octets = octets[: link.stall_after]
                self._arrive_later(octets)
                link.silent = True
                return
            link.stall_after -= len(octets)
        self._arrive_later(octets)

    def cut(self) -> None:
        """Both sides lose the connection."""
        if self.peer is not None and self.link is not None and not self.link.silent:
            self._send_event(self.peer.reset)
            self.peer._send_event(self.reset)
            self.link.silent = True

    def _arrive_later(self, octets: bytes) -> None:
        link, peer = self.link, self.peer
        assert link is not None
        assert peer is not None
        if link.silent or not octets:
            return
        for piece in link.pieces(octets):
            self._latest = max(self._latest, self.timeline.now + link.delay())
            self.timeline.at(self._latest, peer.life, peer._arrive, piece)

    def _send_event(self, function: object) -> None:
        """Behind what was sent before."""
        assert self.peer is not None
        assert callable(function)
        if self.link is not None and not self.link.silent:
            self._latest = max(self._latest, self.timeline.now + self.link.delay())
            self.timeline.at(self._latest, self.peer.life, function)

    def _later(self, peer: SimulatedSocket, function: object, *args: object) -> None:
        assert callable(function)
        assert self.link is not None
        self.timeline.at(self.timeline.now + self.link.latency_s, peer.life, function, *args)

    def _arrive(self, octets: bytes) -> None:
        if self.closed:
            if self.peer is not None:
                self._later(self.peer, self.peer.reset)
            return
        self._inbox += octets
        self._poll()

    def _end(self) -> None:
        self._eof = True
        self._poll()

    def _read(self, octets: int) -> None:
        """The other side has read."""
        self.unread -= octets
        self._poll()

    def _poll(self) -> None:
        if self.connection is not None and not self.closed:
            self.connection.simulated_reactor.poll(self.connection)


class Network:
    """Who listens where, and what lies between."""

    def __init__(self, timeline: Timeline, rng: random.Random, weather: Weather = CALM) -> None:
        self.timeline = timeline
        self.weather = weather
        self.black_holes: set[str] = set()
        self.cut_off: set[str] = set()  # hosts without a way to any other
        self.connected = 0  # connections made so far
        self._rng = rng
        self._ports: dict[tuple[str, int], SimulatedPort] = {}
        self._ephemeral = _FIRST_EPHEMERAL_PORT
        self._sockets: dict[Life, dict[SimulatedSocket, None]] = {}

    def cut_off_from_all(self, host: str) -> None:
        """There is no way from ``host`` to others any more: connections are lost, new ones find no route."""
        self.cut_off.add(host)
        for sockets in list(self._sockets.values()):
            for socket in list(sockets):
                connection = socket.connection
                if (
                    connection is not None
                    and connection.simulated_reactor.host == host
                    and not is_loopback(socket.remote[0])
                ):
                    socket.cut()

    def ephemeral_port(self) -> int:
        self._ephemeral += 1
        return self._ephemeral

    def listen(self, port: SimulatedPort, places: Iterable[Place]) -> bool:
        """False when one of the places is taken by a program that lives."""
        keys = [self._key(port.reactor.host, *place) for place in places]
        if any(key in self._ports and self._ports[key].reactor.life.alive for key in keys):
            return False
        for key in keys:
            self._ports[key] = port
        return True

    def unlisten(self, port: SimulatedPort) -> None:
        for key in [key for key, known in self._ports.items() if known is port]:
            del self._ports[key]

    def dial(self, client: SimulatedClient) -> None:
        """Carry a request to connect to where it is addressed, and the answer back."""
        link = Link(self.weather, self._rng)
        timeline = self.timeline
        timeline.at(timeline.now + link.delay(), client.simulated_reactor.life, self._asked, client, link)

    def _asked(self, client: SimulatedClient, link: Link) -> None:
        address, number = client.endpoint.remote
        if address in self.black_holes:
            return
        timeline, life = self.timeline, client.simulated_reactor.life
        port = self._ports.get(self._key(client.simulated_reactor.host, address, number))
        back = timeline.now + link.delay()
        if port is None or not port.reactor.life.alive:
            timeline.at(back, life, client.refused)
            return
        near = client.endpoint
        far = SimulatedSocket(timeline, port.reactor.life, near.remote, near.local)
        near.join(far, link)
        far.join(near, link)
        far._latest = back
        self.connected += 1
        for socket in (near, far):
            self._sockets_of(socket.life)[socket] = None
        timeline.at(back, life, client.established)
        timeline.at(timeline.now, port.reactor.life, port.accept, far)

    def _sockets_of(self, life: Life) -> dict[SimulatedSocket, None]:
        sockets = self._sockets.get(life)
        if sockets is None:
            sockets = self._sockets[life] = {}
            life.ended.append(lambda: self._ended(life))
        return sockets

    def _ended(self, life: Life) -> None:
        """A program has died.  Its system tells the other sides, or has died with it and tells nobody."""
        told = self._rng.random() < 0.5
        sockets = self._sockets.pop(life)
        self.timeline.bury(sockets)
        for socket in sockets:
            if told and socket.peer is not None:
                socket._send_event(socket.peer.reset)
            elif socket.link is not None:
                socket.link.silent = True

    def _key(self, host: str, address: str, port: int) -> tuple[str, int]:
        return (f"{host}/{address}" if is_loopback(address) else address, port)
