"""What happens in a simulated world, drawn from its seed: who sends what to whom, and what goes wrong on the way.

The names are always the same, so that a failure can be read: ``alice`` and ``bob`` of example.org are at home on the
machine under test; example.net and example.com are elsewhere; ``nobody`` exists nowhere.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.simulation import behaviour
from tests.simulation.clients import Message
from tests.simulation.network import CALM, Weather

HOSTNAME = "mx.example.org"
ADDRESSES = ("192.0.2.1", "2001:db8::1")
PASSWORD = "correct horse battery staple"
MAILBOXES = ("alice@example.org", "bob@example.org")
ALIASES = {
    "both@example.org": ("alice@example.org", "bob@example.org"),
    "mixed@example.org": ("bob@example.org", "carol@example.net"),
}
POSTMASTER = "alice@example.org"  # nobody is named, so it is the first account

LOCAL = ("alice@example.org", "bob@example.org", "alice+list@example.org", "both@example.org", "mixed@example.org")
REMOTE = ("carol@example.net", "dave@example.net", "erin@example.com", "frank@example.com")
REFUSED = "nobody@example.net"
NOWHERE = "someone@none.example"


def targets(recipient: str) -> tuple[str, ...]:
    """Where mail for a recipient has to arrive in the end: own mailboxes by their names, others by their addresses."""
    if recipient in ALIASES:
        return ALIASES[recipient]
    if recipient == "alice+list@example.org":
        return ("alice@example.org",)
    if recipient == "postmaster@example.org":
        return (POSTMASTER,)
    return (recipient,)


@dataclass(frozen=True, slots=True)
class Faults:
    """What may go wrong apart from crashes at a step.  Probabilities; steps are named as in ``Steps.trace``."""

    weather: Weather = CALM
    sinks: Mapping[str, float] = field(default_factory=dict)
    tarpit_s: float = 0.0
    resolver: float = 0.0
    steps: Mapping[str, float] = field(default_factory=dict)  # I/O errors
    full_disk_s: tuple[float, float] | None = None  # from when to when there is no room
    jumps: tuple[tuple[float, float], ...] = ()  # at what time the wall clock jumps by how many seconds
    locked_s: tuple[tuple[float, float], ...] = ()  # from when to when another program holds the database
    cut_off_s: tuple[tuple[float, float], ...] = ()  # ... there is no way to any other host
    misrouted_s: tuple[tuple[float, float], ...] = ()  # ... all mail goes by a route to nobody
    stops: tuple[float, ...] = ()  # when the program is ended in order
    moments: tuple[float, ...] = ()  # when the machine crashes, whatever its step


CALM_FAULTS = Faults()

DISK_STEPS = (
    *("disk: sync file", "disk: sync all", "disk: sync folder", "disk: rename", "disk: create", "disk: write"),
    *("disk: make folder", "disk: unlink", "disk: open", "disk: read", "disk: list", "database: commit"),
)


def draw_faults(rng: random.Random) -> Faults:
    """Some of everything, seldom all at once."""

    def often(probability: float) -> bool:
        return rng.random() < probability

    weather = Weather(
        latency_s=(0.0005, rng.choice((0.01, 0.2, 2.0))),
        splits=rng.choice((0.0, 0.5, 1.0)),
        window=rng.choice(((65536, 65536), (1000, 65536), (200, 3000))),
        cut=rng.choice((0.0, 0.0, 0.1, 0.4)),
        stall=rng.choice((0.0, 0.0, 0.05)),
    )
    level = rng.choice((0.0, 0.05, 0.3))
    faults = rng.sample(behaviour.ALL, rng.randrange(len(behaviour.ALL))) if level else []
    steps = {}
    if often(0.3):
        steps = {step: rng.choice((0.02, 0.2)) for step in rng.sample(DISK_STEPS, rng.randint(1, 4))}
    full = (rng.uniform(0, 20), rng.uniform(20, 120)) if often(0.15) else None
    jumps = ((rng.uniform(0, 100), rng.choice((-1e6, -4000.0, 4000.0, 1e6))),) if often(0.1) else ()
    return Faults(
        weather=weather,
        sinks=dict.fromkeys(faults, level),
        tarpit_s=rng.choice((0.0, 0.0, 5.0)),
        resolver=rng.choice((0.0, 0.0, 0.3)),
        steps=steps,
        full_disk_s=full,
        jumps=jumps,
    )


def message(rng: random.Random, number: int, sender: str, recipients: tuple[str, ...], large: bool = False) -> Message:
    """A message with all that is awkward in content: leading dots, octets above 127, long lines."""
    identifier = f"{number}.{rng.getrandbits(40):010x}@client.example"
    lines = [
        b"From: <%b>" % (sender or "mailer-daemon@elsewhere.example").encode(),
        b"To: <%b>" % recipients[0].encode(),
        b"Date: Thu, 09 Oct 2025 08:53:20 +0000",
        b"Message-ID: <%b>" % identifier.encode(),
        b"Subject: message %d" % number,
        b"",
    ]
    for _ in range(rng.randrange(1, 12)):
        lines.append(rng.choice(_LINES))
    if large:
        lines.extend([b"0123456789abcdef" * 60] * rng.randrange(280, 400))
    return Message(identifier, sender, recipients, b"\r\n".join(lines) + b"\r\n")


_LINES = (
    b"",
    b".",
    b"..",
    b".hidden",
    b"plain text",
    "gr\u00fc\u00dfe".encode(),
    b"From somebody",
    b"x" * 998,
    b"trailing space ",
    b"QUIT",
    b".\t",
)


@dataclass(frozen=True, slots=True)
class Errand:
    """One client with its messages.  ``service`` is "smtp", "submission" or "submissions"."""

    begins_s: float
    address: str
    service: str
    login: str
    tls: bool
    pipelining: bool
    messages: tuple[Message, ...]


def draw_errands(rng: random.Random, tls: bool, large: bool) -> list[Errand]:
    """Inbound mail and submissions, a handful of messages in all."""
    errands = []
    number = 0
    for n in range(rng.randint(2, 4)):
        inbound = n == 0 or (n > 1 and rng.random() < 0.5)
        messages = []
        login = "" if inbound else rng.choice(MAILBOXES)
        for _ in range(rng.choice((1, 1, 2, 3))):
            number += 1
            sender = login
            if inbound:
                sender = rng.choice(("mallory@example.com", "trent@example.net", ""))
                recipients = rng.sample(LOCAL, rng.choice((1, 1, 2)))
            else:
                recipients = rng.sample((*LOCAL, *REMOTE, *REMOTE, REFUSED, NOWHERE), rng.choice((1, 2, 3)))
            unique = tuple(dict.fromkeys(recipients))
            messages.append(message(rng, number, sender, unique, large and rng.random() < 0.3))
        local = not inbound and not tls
        service = "smtp" if inbound else rng.choice(("submission", "submissions")) if tls else "submission"
        errands.append(
            Errand(
                begins_s=rng.uniform(0, 10) if n else 0.5,
                address="127.0.0.1" if local else f"198.51.100.{n + 1}",
                service=service,
                login=login,
                tls=tls and rng.random() < 0.7 if inbound else tls,
                pipelining=rng.random() < 0.7,
                messages=tuple(messages),
            )
        )
    return errands
