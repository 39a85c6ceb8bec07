"""What the listening servers ask before they serve: may this client connect, how long must it wait, is the mail wanted.

``ICheck`` is one member of the list in ``mailsrv.checks.ordered``; ``Facts`` is what it is asked about and ``Verdict``
what it answers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, TypeAlias

from zope.interface import Attribute, Interface

from mailsrv.mail.address import Address
from mailsrv.mail.header import Scan


class Admission(Protocol):
    """Limits on connections, shared by all listeners.  ``peer_ip`` is an address as text, such as ``"192.0.2.1"``."""

    def enter(self, peer_ip: str, /) -> str | None:
        """A client has connected: None when it is admitted, else the reason for people; ``leave`` must follow None."""
        ...

    def leave(self, peer_ip: str, /) -> None:
        """An admitted client has gone."""
        ...

    def explain(self, peer_ip: str, /) -> bool:
        """Whether one that was not admitted may have a handshake to be told so; ``explained`` must follow True."""
        ...

    def explained(self, peer_ip: str, /) -> None:
        """The connection that ``explain`` allowed has gone."""
        ...


class Penalties(Protocol):
    """Delays for those who guess passwords.  ``account`` is the key of the address that was tried, "" for none."""

    def delay_s(self, peer_ip: str, account: str, /) -> float:
        """Seconds to wait before the next password is looked at; 0.0 for those who gave no cause."""
        ...

    def failed(self, peer_ip: str, account: str, /) -> None:
        """A login has failed."""
        ...

    def succeeded(self, peer_ip: str, account: str, /) -> None:
        """A login has succeeded."""
        ...


class Stage(Enum):
    """When a check is asked; the value is the command as the ledger calls it."""

    CONNECT = "connect"
    HELLO = "EHLO"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"  # at the end of the content

    __hash__ = object.__hash__  # an Enum's own is a function in Python, and every command asks for it


class Kind(Enum):
    """What follows from a verdict."""

    HEADERS = "headers"  # nothing but its header fields
    DOUBT = "doubt"  # a reason for others to be careful, no refusal by itself
    DEFER = "defer"  # 4xx
    REJECT = "reject"  # 5xx


@dataclass(frozen=True, slots=True)
class Verdict:
    """An opinion.  ``reason`` and ``rule`` are for the ledger; ``code``, ``status`` and ``text`` for the client.

    ``text`` is ASCII and nothing of it comes from the client.  ``headers`` are whole fields, made by
    ``mailsrv.mail.header.build``, and go above the message with a verdict of any kind if the message is accepted.
    ``removed`` are fields that are then taken out of it, as ``mailsrv.mail.header.whole_fields`` gives them: at the end
    of the content only, and for what must not be believed, since it breaks signatures (RFC 8601 5).
    """

    kind: Kind
    reason: str
    rule: str
    code: int = 0
    status: str = ""
    text: str = ""
    headers: bytes = b""
    removed: tuple[bytes, ...] = ()


def headers(fields: bytes, *, reason: str = "", rule: str = "", removed: tuple[bytes, ...] = ()) -> Verdict:
    """Nothing but fields to add and to take out."""
    return Verdict(Kind.HEADERS, reason, rule, headers=fields, removed=removed)


def doubt(*, reason: str, rule: str, headers: bytes = b"") -> Verdict:
    """A reason to be careful."""
    return Verdict(Kind.DOUBT, reason, rule, headers=headers)


def defer(code: int, status: str, text: str, *, reason: str, rule: str) -> Verdict:
    """Not now (4xx)."""
    return Verdict(Kind.DEFER, reason, rule, code, status, text)


def reject(code: int, status: str, text: str, *, reason: str, rule: str) -> Verdict:
    """Never (5xx)."""
    return Verdict(Kind.REJECT, reason, rule, code, status, text)


_NOTHING_SEEN = Scan("", 0, -1)


@dataclass(slots=True)
class Facts:
    """What is known of a connection and its transaction at the time; checks read it and write only to ``kept``."""

    client: str  # its address as text, "local" on a local socket
    trusted: bool = False  # of trusted_networks, or a program on this machine by LMTP
    client_name: str = ""  # what DNS calls the client, when that is confirmed
    helo: str = ""
    tls: str = ""  # version and cipher, "" in clear
    account: str | None = None  # the key of who has logged in
    # The transaction.
    sender: Address | None = None  # None is the null reverse-path, and before MAIL
    recipient: Address | None = None  # the one that RCPT asks about
    recipients: list[Address] = field(default_factory=list)  # accepted so far
    doubts: dict[str, Verdict] = field(default_factory=dict)  # of this transaction, by the name of the check
    fields: list[bytes] = field(default_factory=list)  # of the verdicts, for the front of the message
    removed: set[bytes] = field(default_factory=set)  # by the verdicts, from the header section
    # At the end of the content.
    header: bytes = b""  # the header section as it came, with the empty line
    whole: bool = False  # all of the header section is there; it is cut where it is too long for the memory
    scan: Scan = _NOTHING_SEEN
    size: int = 0  # octets of the content
    number: int = 0  # the message's queue id
    read: Callable[[], AsyncIterator[bytes]] | None = None
    # What a check has found out, by its name: for itself at a later stage, and for those behind it in the list.
    kept: dict[str, Any] = field(default_factory=dict)

    @property
    def stranger(self) -> bool:
        """Neither logged in nor trusted."""
        return self.account is None and not self.trusted

    def content(self) -> AsyncIterator[bytes]:
        """The whole content in pieces, from the beginning each time; at the end of the content only."""
        assert self.read is not None, "there is no content yet"
        return self.read()

    def begin(self, sender: Address | None) -> None:
        """A new transaction; of the one before only what checks have kept stays."""
        self.sender = sender
        self.recipient = None
        self.recipients = []
        self.doubts = {}
        self.fields = []
        self.removed = set()
        self.over()

    def over(self) -> None:
        """The content is judged; nothing of it is kept in memory."""
        self.header = b""
        self.read = None


# None: no opinion.  What can be awaited is awaited, and the client with it.
Opinion: TypeAlias = Verdict | Awaitable[Verdict | None] | None


class ICheck(Interface):
    """One check.  It is made once and asked about all connections; what it has to remember of one is in ``Facts.kept``.

    It answers plainly whenever nothing has to be awaited.  Lookups begin at ``Stage.CONNECT`` and are awaited where
    their result is needed: at CONNECT itself nothing may be awaited, for nobody waits before the greeting.  A doubt
    counts for the transaction under way, so whoever doubts the client says so in each, at MAIL or RCPT.
    """

    name: str = Attribute("As in the configuration; lower case, words joined by underscores.")
    stages: frozenset[Stage] = Attribute("When it is asked.")
    everybody: bool = Attribute("Whether it is asked about accounts and trusted networks too.")

    def ask(stage: Stage, facts: Facts) -> Opinion:
        """What the check thinks."""

    def end(facts: Facts) -> None:
        """The connection is over; only called when something is in ``facts.kept`` under the check's name."""
