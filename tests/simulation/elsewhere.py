"""The world that mail goes out to: domains, their servers, what the DNS says of them; well or sick, as the seed says.

Most domains are well, so that there is somebody to suffer from the others.  A sick one has servers that misbehave, or a
DNS that does; nearly all of them recover after a while.  What must become of mail for a domain is its ``end``.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mailsrv.outside.interfaces import LookupFailed
from tests.simulation import behaviour
from tests.simulation.behaviour import HEALTHY, Behaviour
from tests.simulation.clients import Message
from tests.simulation.scenario import ADDRESSES, CALM_FAULTS, MAILBOXES, Errand, Faults, draw_faults, message

SICK_S = (60.0, 1800.0)  # how long it takes to recover
HEALED_S = 1800.0  # when all that ever recovers has
LOGIN = ("relay@example.org", "a password")  # what the smarthost knows

DELIVERED, BOUNCED, EITHER = "delivered", "bounced", "either"

# The domains that most worlds know.
USUAL_RECORDS: Mapping[tuple[str, str], Any] = {
    ("example.net", "MX"): [(10, "mx1.example.net"), (20, "mx2.example.net")],
    ("mx1.example.net", "A"): ["192.0.2.10"],
    ("mx1.example.net", "AAAA"): ["2001:db8::10"],
    ("mx2.example.net", "A"): ["192.0.2.11"],
    ("example.com", "A"): ["192.0.2.20"],
    ("client.example", "A"): ["198.51.100.1"],
    ("mx.example.org", "A"): [ADDRESSES[0]],
    ("mx.example.org", "AAAA"): [ADDRESSES[1]],
    ("example.org", "MX"): [(10, "mx.example.org")],
}

_EXTENSIONS = ("PIPELINING", "8BITMIME", "SIZE 10000000", "ENHANCEDSTATUSCODES", "DSN", "CHUNKING", "SMTPUTF8")


@dataclass(frozen=True, slots=True)
class Server:
    """``phases``: from when on it behaves how.  ``dead``: addresses that never answer; ``closed``: nobody listens."""

    name: str
    addresses: tuple[str, ...]
    phases: tuple[tuple[float, Behaviour], ...] = ((0.0, HEALTHY),)
    dead: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    extensions: tuple[str, ...] = _EXTENSIONS
    tls: bool = False
    port: int = 25
    login: bool = False
    most_recipients: int = 1000
    most_messages: int = 1000

    @property
    def implicit_tls(self) -> bool:
        return self.port == 465


@dataclass(frozen=True, slots=True)
class Domain:
    """``end`` is what must become of mail for it; ``well`` that it is so without delay.  ``secret``: only under TLS."""

    name: str
    end: str
    well: bool = False
    secret: bool = False
    route: str = ""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """``troubles``: for a domain, until when which answer of the DNS stands instead of its records."""

    domains: tuple[Domain, ...]
    servers: tuple[Server, ...]
    records: Mapping[tuple[str, str], Any]
    troubles: Mapping[str, tuple[float, LookupFailed]] = field(default_factory=dict)

    def domain_of(self, address: str) -> Domain | None:
        name = address.rpartition("@")[2]
        return next((domain for domain in self.domains if domain.name == name), None)


_PLAIN = ("PIPELINING", "8BITMIME", "SIZE 10000000", "ENHANCEDSTATUSCODES")
USUAL = Elsewhere(
    (Domain("example.net", EITHER), Domain("example.com", EITHER)),
    (
        Server("mx1.example.net", ("192.0.2.10", "2001:db8::10"), extensions=_PLAIN),
        Server("mx2.example.net", ("192.0.2.11",), extensions=_PLAIN),
        Server("example.com", ("192.0.2.20",), extensions=_PLAIN),
    ),
    USUAL_RECORDS,
)


class _Draft:
    """What has been drawn so far."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.domains: list[Domain] = []
        self.servers: list[Server] = []
        self.records: dict[tuple[str, str], Any] = {}
        self.troubles: dict[str, tuple[float, LookupFailed]] = {}

    def addresses(self, version_6: bool) -> tuple[str, ...]:
        number = sum(len(server.addresses) for server in self.servers) + 1
        four = f"203.0.113.{number}"
        return (f"2001:db8:1::{number:x}", four) if version_6 else (four,)

    def server(self, name: str, phases: tuple[tuple[float, Behaviour], ...] = ((0.0, HEALTHY),), **more: Any) -> Server:
        rng = self.rng
        kept = tuple(extension for extension in _EXTENSIONS if rng.random() < 0.8)
        drawn: dict[str, Any] = {
            "addresses": self.addresses(rng.random() < 0.3),
            "phases": phases,
            "extensions": kept,
            "tls": rng.random() < 0.25,
            "most_recipients": rng.choice((1000, 1000, 1000, 3)),
            "most_messages": rng.choice((1000, 1000, 1000, 2)),
        }
        server = Server(name, **(drawn | more))
        self.servers.append(server)
        for address in server.addresses:
            self.records.setdefault((name, "AAAA" if ":" in address else "A"), []).append(address)
        return server

    def domain(self, name: str, end: str, hosts: tuple[str, ...], *, equal: bool = False, **more: Any) -> None:
        self.domains.append(Domain(name, end, **more))
        if hosts != (name,):
            self.records[name, "MX"] = [(10 if equal else 10 * n, host) for n, host in enumerate(hosts, 1)]


def draw(rng: random.Random) -> Elsewhere:
    """Six to thirty domains."""
    draft = _Draft(rng)
    for _ in range(rng.choice((4, 8, 15))):
        _well(draft)
    for _ in range(rng.choice((2, 4, 8, 14))):
        rng.choice(_SICK)(draft)
    records = {**USUAL_RECORDS, **draft.records}
    return Elsewhere(tuple(draft.domains), (*USUAL.servers, *draft.servers), records, draft.troubles)


def _well(draft: _Draft) -> None:
    rng, number = draft.rng, len(draft.domains)
    name = f"well{number}.example"
    hosts = tuple(f"mx{n}.{name}" for n in range(rng.choice((1, 1, 2, 3))))
    if rng.random() < 0.2:
        hosts = (name,)  # no MX: the domain itself is the host
    for host in hosts:
        draft.server(host)
    draft.domain(name, DELIVERED, hosts, equal=rng.random() < 0.5, well=True)


def _ill(draft: _Draft) -> None:
    """One to three servers, each sick in its own way, or well."""
    rng = draft.rng
    name = f"ill{len(draft.domains)}.example"
    hosts = tuple(f"mx{n}.{name}" for n in range(rng.choice((1, 1, 2, 3))))
    ends = []
    for n, host in enumerate(hosts):
        sickness = _sickness(rng) if n == 0 or rng.random() < 0.6 else HEALTHY
        recovery = (rng.uniform(*SICK_S), HEALTHY)
        phases: tuple[tuple[float, Behaviour], ...] = ((0.0, sickness), recovery)
        if rng.random() < 0.3:  # it comes and goes
            phases = ((0.0, HEALTHY), (rng.uniform(1, 60), sickness), recovery)
        draft.server(host, tuple(sorted(phases, key=lambda phase: phase[0])), tls=rng.random() < 0.5)
        ends.append(bool(set(sickness.faults) & set(behaviour.FINAL)))
    draft.domain(name, EITHER if any(ends) else DELIVERED, hosts, equal=rng.random() < 0.5)


def _sickness(rng: random.Random) -> Behaviour:
    kind = rng.randrange(6)
    if kind == 0:
        return Behaviour(octet_s=rng.choice((0.2, 3.0, 20.0)))  # a tarpit
    if kind == 1:
        return Behaviour({rng.choice(behaviour.GREETING): 1.0}, late_s=rng.choice((20.0, 250.0, 400.0)))
    if kind == 2:
        return Behaviour({rng.choice(behaviour.DOT): rng.choice((0.5, 1.0))})
    if kind == 3:
        return Behaviour(dict.fromkeys(rng.sample(behaviour.ALL, 5), 0.3), tarpit_s=rng.choice((0.0, 10.0)))
    if kind == 4:
        return Behaviour(dict.fromkeys((*behaviour.STARTTLS, *behaviour.HANDSHAKE), 0.3))
    return Behaviour({rng.choice(behaviour.ALL): 1.0})


def _half_dead(draft: _Draft) -> None:
    """A host with addresses of both families, one of which leads nowhere; the mail has to find the other."""
    rng = draft.rng
    name = f"half{len(draft.domains)}.example"
    addresses = draft.addresses(True)
    lost = (rng.choice(addresses),)
    dead = rng.random() < 0.5
    draft.server(f"mx.{name}", addresses=addresses, dead=lost if dead else (), closed=() if dead else lost)
    draft.domain(name, DELIVERED, (f"mx.{name}",))


def _down(draft: _Draft) -> None:
    """Nobody at home, for ever: the mail goes back when its time has come."""
    name = f"down{len(draft.domains)}.example"
    addresses = draft.addresses(False)
    dead = draft.rng.random() < 0.5
    draft.server(f"mx.{name}", addresses=addresses, dead=addresses if dead else (), closed=() if dead else addresses)
    draft.domain(name, BOUNCED, (f"mx.{name}",))


def _denied(draft: _Draft) -> None:
    """The DNS says that no mail can go there."""
    rng = draft.rng
    name = f"denied{len(draft.domains)}.example"
    kind = rng.randrange(3)
    draft.domains.append(Domain(name, BOUNCED))
    if kind == 0:
        draft.records[name, "MX"] = [(0, "")]  # RFC 7505
    elif kind == 1:
        draft.records[name, "MX"] = [(10, f"mx.gone.{name}")]
        draft.records[f"www.{name}", "A"] = ["203.0.113.254"]


def _unknown(draft: _Draft) -> None:
    """The DNS has no answer for a while, or one to another question."""
    rng = draft.rng
    name = f"unknown{len(draft.domains)}.example"
    draft.server(f"mx.{name}")
    draft.domain(name, DELIVERED, (f"mx.{name}",))
    trouble = LookupFailed(rng.choice(("SERVFAIL", "no answer in time", "an answer to another question", "REFUSED")))
    draft.troubles[rng.choice((name, f"mx.{name}"))] = (rng.uniform(*SICK_S), trouble)


def _secret(draft: _Draft) -> None:
    """By a route, and only under TLS: from the first octet, or behind STARTTLS with a login."""
    rng = draft.rng
    name = f"secret{len(draft.domains)}.example"
    host = f"smart.{name}"
    phases = ((0.0, _sickness(rng)), (rng.uniform(*SICK_S), HEALTHY))
    final = bool(set(phases[0][1].faults) & set(behaviour.FINAL))
    if rng.random() < 0.5:
        server = draft.server(host, phases, tls=True, port=465)
        route = f"smtps://{host}:{server.port}"
    else:
        draft.server(host, phases, tls=True, port=587, login=True)
        route = f"smtp://{LOGIN[0].replace('@', '%40')}:{LOGIN[1].replace(' ', '%20')}@{host}:587"
    draft.domains.append(Domain(name, EITHER if final else DELIVERED, secret=True, route=route))


_SICK = (_ill, _ill, _ill, _ill, _ill, _half_dead, _down, _denied, _unknown, _secret)


def draw_errands(rng: random.Random, elsewhere: Elsewhere) -> list[Errand]:
    """Ten to sixty messages of our own users for everybody elsewhere, seldom three hundred."""
    everybody = [f"{name}@{domain.name}" for domain in elsewhere.domains for name in ("carol", "dave", "nobody")]
    weights = [0.1 if address.startswith("nobody@") else 1.0 for address in everybody]
    count = 300 if rng.random() < 0.05 else rng.choice((10, 20, 30, 60))
    messages: list[Message] = []
    for number in range(count):
        recipients = tuple(dict.fromkeys(rng.choices(everybody, weights, k=rng.choice((1, 1, 2, 5)))))
        messages.append(message(rng, number, MAILBOXES[number % 2], recipients))
    return [
        Errand(
            begins_s=rng.uniform(0.5, 60.0),
            address="127.0.0.1",
            service="submission",
            login=MAILBOXES[n % 2],
            tls=False,
            pipelining=rng.random() < 0.7,
            messages=tuple(part),
        )
        for n in range(4)
        if (part := messages[n::4])
    ]


def draw_incidents(rng: random.Random) -> Faults:
    """What befalls the machine under test meanwhile: seldom nothing, seldom all."""

    def window(probability: float, longest_s: float) -> tuple[tuple[float, float], ...]:
        if rng.random() > probability:
            return ()
        begins = rng.uniform(0, 600)
        return ((begins, begins + rng.uniform(1, longest_s)),)

    weather = draw_faults(rng).weather if rng.random() < 0.3 else CALM_FAULTS.weather
    jumps = tuple(
        (rng.uniform(0, 900), rng.choice((-1e6, -4000.0, 4000.0, 1e6))) for _ in range(rng.choice((0, 0, 0, 1, 2)))
    )
    return Faults(
        weather=weather,
        resolver=rng.choice((0.0, 0.0, 0.0, 0.3)),
        jumps=jumps,
        locked_s=window(0.25, 300),
        cut_off_s=window(0.25, 600),
        misrouted_s=window(0.25, 600),
        stops=tuple(rng.uniform(1, 600) for _ in range(rng.choice((0, 0, 1, 2)))),
        moments=tuple(rng.uniform(1, 600) for _ in range(rng.choice((0, 0, 1, 3)))),
    )
