"""Drives the server's core as a shell does: feeds chunks, answers what is asked, collects events and output.

The small policy here stands for a session: some local parts are refused, one password is right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from mailsrv.sasl import mechanisms
from mailsrv.smtp import events
from mailsrv.smtp.dialog import Answer
from mailsrv.smtp.events import Event
from mailsrv.smtp.replies import reply
from mailsrv.smtp.server import ServerConnection, Service
from tests.worlds.scram import EXAMPLE_FIRST

UNKNOWN = reply(550, "5.1.1", "No such mailbox here")
LATER = reply(451, "4.3.0", "Try again later")
BLOCKED = reply(550, "5.7.1", "Not welcome")
WRONG = reply(535, "5.7.8", "Authentication failed")
BUSY = reply(421, "4.3.2", "Too busy")

ALL_EXTENSIONS = frozenset(
    {"PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING", "DSN", "LIMITS", "FUTURERELEASE"}
)
SMTP = Service("mx.example.org", starttls=True, extensions=ALL_EXTENSIONS - {"FUTURERELEASE"}, size_limit=100_000)
SUBMISSION = Service(
    "mx.example.org",
    kind="submission",
    starttls=True,
    mechanisms=mechanisms.NAMES,
    auth_required=True,
    extensions=ALL_EXTENSIONS,
    size_limit=100_000,
    hold_limit_s=86_400,
    hold_until="2027-01-31T00:00:00Z",
)
LMTP = Service("mx.example.org", kind="lmtp", extensions=ALL_EXTENSIONS, size_limit=100_000)

ASKS = events.ASKS


def decide(event: Event) -> Answer:
    """The policy: None is yes."""
    match event:
        case events.Login(password=password) if password != "secret":
            return WRONG
        case events.Keys(username=username):
            return LATER if username == "later" else EXAMPLE_FIRST
        case events.Proof(fault=fault) if fault:
            return WRONG
        case events.Mail(envelope=envelope) if envelope.sender and envelope.sender.local == "blocked":
            return BLOCKED
        case events.Rcpt(recipient=recipient):
            return {"unknown": UNKNOWN, "later": LATER, "busy": BUSY}.get(recipient.address.local)
    return None


@dataclass
class Record:
    """What a conversation came to.  Neighbouring ``Content`` events are joined, for their edges mean nothing."""

    events: list[Event] = field(default_factory=list)
    output: bytes = b""

    def add(self, event: Event) -> None:
        last = self.events[-1] if self.events else None
        if isinstance(event, events.Content) and isinstance(last, events.Content):
            self.events[-1] = events.Content(last.chunk + event.chunk)
        else:
            self.events.append(event)

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def content(self) -> bytes:
        return b"".join(event.chunk for event in self.events if isinstance(event, events.Content))

    @property
    def codes(self) -> list[int]:
        """The code of each reply, the greeting included; continuation lines do not count."""
        return [int(line[:3]) for line in self.output.split(b"\r\n") if line[3:4] == b" "]

    @property
    def lines(self) -> list[str]:
        return self.output.decode("ascii").splitlines()


def settle(connection: ServerConnection, record: Record) -> None:
    """Answer everything that can be answered now."""
    full = True
    while full:
        while (event := connection.next_event()) is not None:
            record.add(event)
            assert connection.paused == isinstance(event, ASKS)
            if connection.paused:
                connection.reply(decide(event))
            if isinstance(event, events.TlsWanted):
                break
        full = connection.full
        record.output += connection.take_output()


def talk(service: Service, chunks: bytes | Iterable[bytes], *, secure: bool = False, eof: bool = False) -> Record:
    """A whole conversation."""
    connection, record = ServerConnection(service, secure), Record()
    settle(connection, record)
    for chunk in [chunks] if isinstance(chunks, bytes) else chunks:
        connection.receive(chunk)
        settle(connection, record)
    if eof:
        connection.receive_eof()
        settle(connection, record)
    return record


def lines(*texts: str | bytes) -> bytes:
    """Client lines with their CRLFs."""
    return b"".join((text if isinstance(text, bytes) else text.encode()) + b"\r\n" for text in texts)
