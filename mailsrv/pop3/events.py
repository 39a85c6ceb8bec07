"""What the POP3 server's core tells its session: small frozen values, in the order of what the client sent.

After an event of ``ASKS`` the core is paused until the method named with it is called.  ``Closed`` is always the last.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Connected:
    """A client is there: ``greet`` it, or ``refuse`` and it is closed."""


@dataclass(frozen=True, slots=True)
class Login:
    """A name and a password to be verified: ``log_in`` with the maildrop, or ``refuse``.

    ``mechanism`` is "USER" or that of SASL.
    """

    mechanism: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Keys:
    """An AUTH exchange needs a user's keys (RFC 5802): ``give_keys``, or ``refuse``."""

    mechanism: str
    username: str


@dataclass(frozen=True, slots=True)
class Proof:
    """An AUTH exchange that went by keys is over: ``log_in`` with the maildrop, or ``refuse``.

    The client has proved that it is ``username`` when ``fault`` is "".  Else that is why it has not, for the ledger.
    """

    mechanism: str
    username: str
    fault: str


@dataclass(slots=True)  # not frozen, for that takes three times as long to make, and each message has one
class Retrieve:
    """RETR, or TOP when ``lines`` is a number.

    ``whole_message``; or ``begin_message``, ``send`` for each piece, ``end_message``; or ``refuse`` at the beginning.
    """

    index: int
    lines: int | None = None


@dataclass(frozen=True, slots=True)
class More:
    """A long listing is not finished: send what there is, then ``list_more``."""


@dataclass(frozen=True, slots=True)
class Update:
    """QUIT of a logged-in client: remove these messages and give the mailbox back, then ``updated``, or ``refuse``."""

    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TlsWanted:
    """STLS: send the output, start TLS, call ``tls_started`` before any decrypted octet comes in."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The end: send the output, then close.  ``reason`` is for the log.  The session gives the mailbox back."""

    reason: str


Question = Connected | Login | Keys | Proof | Retrieve | More | Update
Event = Question | TlsWanted | Closed

ASKS = (Connected, Login, Keys, Proof, Retrieve, More, Update)
