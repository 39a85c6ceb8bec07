"""The values that go in and out of the client's core: replies, extensions, transactions, events."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from mailsrv.mail.envelope import Envelope, Recipient

_NO_KEYWORDS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class RemoteReply:
    """What the server said: ``code`` 200 to 599, ``status`` an enhanced status code (RFC 3463), its own or derived.

    ``lines`` are without the codes in front, without control characters.
    """

    code: int
    status: str
    lines: tuple[str, ...]

    @property
    def positive(self) -> bool:
        return self.code < 300

    @property
    def permanent(self) -> bool:
        return self.code >= 500

    @property
    def text(self) -> str:
        """One line for people and the ledger, at most 1,000 characters."""
        # RFC 2034 4: the status is repeated in front of each line; once is enough to read.
        said = self.lines
        if said and said[0].startswith(f"{self.status} "):
            said = (said[0], *(line.removeprefix(f"{self.status} ").lstrip() for line in said[1:]))
        text = " ".join(filter(None, (str(self.code), *said)))
        return text if len(text) <= 1000 else text[:999] + "…"


@dataclass(frozen=True, slots=True)
class Extensions:
    """What a server offered in its answer to EHLO (RFC 5321 4.1.1.1): keywords in upper case and their parameters."""

    keywords: Mapping[str, str] = field(default_factory=lambda: _NO_KEYWORDS)

    @classmethod
    def parse(cls, lines: tuple[str, ...]) -> Extensions:
        """``lines`` of the reply; the first one is the greeting.  Of a keyword given twice the parameters add up."""
        keywords: dict[str, str] = {}
        for line in lines[1:]:
            keyword, _, parameters = line.strip().partition(" ")
            keyword = keyword.upper()
            if keyword.startswith("AUTH="):  # what old clients were told, and some servers still tell
                keyword, parameters = "AUTH", f"{keyword[5:]} {parameters}"
            known = keywords.get(keyword)
            keywords[keyword] = parameters.strip() if known is None else f"{known} {parameters.strip()}"
        return cls(keywords)

    def __contains__(self, keyword: str) -> bool:
        return keyword in self.keywords

    @property
    def size(self) -> int | None:
        """RFC 1870 4: the most octets the server takes; None when it does not say, or says 0 (no fixed limit)."""
        text = self.keywords.get("SIZE", "")
        if text.isascii() and text.isdigit() and len(text) <= 20:
            return int(text) or None
        return None

    def limit(self, name: str) -> int | None:
        """RFC 9422: ``MAILMAX``, ``RCPTMAX`` or ``RCPTDOMAINMAX``; None when the server sets none that can be read."""
        for parameter in self.keywords.get("LIMITS", "").upper().split():
            key, _, value = parameter.partition("=")
            if key == name and re.fullmatch("[1-9][0-9]{0,5}", value):
                return int(value)
        return None

    @property
    def mechanisms(self) -> frozenset[str]:
        return frozenset(self.keywords.get("AUTH", "").upper().split())


@dataclass(frozen=True, slots=True)
class Transaction:
    """One message for some recipients.  ``size`` in octets; ``eight_bit`` when its content has octets above 127."""

    envelope: Envelope
    recipients: tuple[Recipient, ...]
    size: int
    eight_bit: bool


# Events: what has happened, in the order in which it did.


@dataclass(frozen=True, slots=True)
class Greeted:
    """The server spoke first.  Unless ``reply.positive`` only ``quit`` is left."""

    reply: RemoteReply


@dataclass(frozen=True, slots=True)
class HelloAnswered:
    """``extensions`` is None when EHLO, and then HELO, were refused; ``say_hello`` may be tried again."""

    reply: RemoteReply
    extensions: Extensions | None


@dataclass(frozen=True, slots=True)
class TlsReady:
    """The server waits for the handshake: begin it before reading anything more, then call ``tls_started``."""


@dataclass(frozen=True, slots=True)
class TlsRefused:
    """Not now, or not at all; the connection goes on in clear."""

    reply: RemoteReply


@dataclass(frozen=True, slots=True)
class LoginAnswered:
    """Logged in when ``reply.positive``."""

    reply: RemoteReply


@dataclass(frozen=True, slots=True)
class RecipientAnswered:
    """What the server said about recipient ``n`` (from 0) of the transaction."""

    n: int
    reply: RemoteReply


@dataclass(frozen=True, slots=True)
class ContentWanted:
    """At least one recipient was accepted and the server waits: ``send_content`` and ``end_content``."""


@dataclass(frozen=True, slots=True)
class TransactionEnded:
    """The transaction is over, and another may begin unless the connection has ended with it.

    ``at`` tells which command decided: "MAIL" or "DATA" (refused with ``reply``), "RCPT" (no recipient was accepted,
    ``reply`` is None), "." (the server's answer to the content, positive or not, by DATA or BDAT).
    """

    at: str
    reply: RemoteReply | None


@dataclass(frozen=True, slots=True)
class ConnectionEnded:
    """Nothing can be said or heard any more: close.  The last event.

    ``reply`` is the 421 by which the server said so; else ``reason`` tells, and ``fault`` that the server broke the
    protocol.  ``unanswered`` is the dangerous case: the whole content went out and no answer to it came.
    ``untouched``: not even MAIL was answered, or by ``reply``, as when a server ended a connection that had been idle.
    """

    reason: str
    reply: RemoteReply | None = None
    fault: bool = False
    unanswered: bool = False
    untouched: bool = False


Event = (
    Greeted
    | HelloAnswered
    | TlsReady
    | TlsRefused
    | LoginAnswered
    | RecipientAnswered
    | ContentWanted
    | TransactionEnded
    | ConnectionEnded
)
