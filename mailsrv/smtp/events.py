"""What the SMTP server's core tells its session: small frozen values, in the order of what the client sent.

After an event of ``ASKS`` the core is paused until ``ServerConnection.reply`` answers it; the others want no answer.
``Closed`` is always the last one.
"""

from __future__ import annotations

from dataclasses import dataclass

from mailsrv.mail.envelope import Envelope, Recipient
from mailsrv.smtp.replies import Reply

# Asking for a reply.


@dataclass(frozen=True, slots=True)
class Connected:
    """A client is there.  Positive: the greeting.  Negative: only QUIT is answered from then on (RFC 5321 3.1)."""


@dataclass(frozen=True, slots=True)
class Hello:
    """HELO, EHLO or LHLO: ``name`` is letters, digits and ``._:[]-`` only, 1 to 255 of them, and not otherwise checked.

    When a transaction was under way, a positive reply is followed by ``Reset``; a negative one changes nothing.
    """

    name: str
    extended: bool


@dataclass(frozen=True, slots=True)
class Login:
    """A complete AUTH exchange with a password to be verified (RFC 4954).  Say 535 5.7.8 for every failure."""

    mechanism: str
    username: str
    password: str

    def __repr__(self) -> str:
        return f"Login(mechanism={self.mechanism!r}, username={self.username!r})"


@dataclass(frozen=True, slots=True)
class Keys:
    """An AUTH exchange needs a user's keys (RFC 5802): answer with a ``ServerFirst``, or a negative reply."""

    mechanism: str
    username: str


@dataclass(frozen=True, slots=True)
class Proof:
    """An AUTH exchange that went by keys is over.

    The client has proved that it is ``username`` when ``fault`` is "".  Else that is why it has not, for the ledger:
    say 535 5.7.8 as after ``Login``.
    """

    mechanism: str
    username: str
    fault: str


@dataclass(frozen=True, slots=True)
class Mail:
    """MAIL FROM.

    ``submitter`` is the AUTH parameter (RFC 4954 5), decoded: an address, ``"<>"``, or ``""`` when not given; it is a
    claim.  ``hold_for_s`` and ``hold_until`` (seconds since 1970) are HOLDFOR and HOLDUNTIL (RFC 4865), at most one
    of them.
    """

    envelope: Envelope
    submitter: str = ""
    hold_for_s: int | None = None
    hold_until: float | None = None


@dataclass(frozen=True, slots=True)
class Rcpt:
    """RCPT TO, in a transaction."""

    recipient: Recipient


@dataclass(frozen=True, slots=True)
class DataBegin:
    """DATA, or the first BDAT of a transaction: content comes next if the reply is positive.

    A refused DATA leaves the transaction as it was; a refused BDAT ends it (``Reset`` follows), its octets are
    swallowed.
    """


@dataclass(frozen=True, slots=True)
class DataEnd:
    """The true end of the content has come, and with it the end of the transaction, whatever the reply.

    ``size`` counts decoded octets, ``lines`` CRLFs.  ``problem`` is the refusal that will be given, whatever the
    session says, because the content cannot be taken: record it, throw the content away, reply with None.
    """

    size: int
    lines: int
    problem: Reply | None


# Only telling.


@dataclass(frozen=True, slots=True)
class Content:
    """A piece of the message: dots unstuffed, cut anywhere, but never between CR and LF of DATA.

    After the last piece the whole is lines that end in CRLF, without any other CR or LF and without NUL; a flaw shows
    first in ``DataEnd.problem``, and no pieces are delivered once it is known.
    """

    chunk: bytes


@dataclass(frozen=True, slots=True)
class Reset:
    """The transaction under way is forgotten: RSET, a new hello, STARTTLS, a refused BDAT, the connection's end."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The core refused a command by itself, for syntax, order or limits; the reply is written already.

    For the ledger: ``command`` is a verb, ``argument`` what followed it, printable ASCII, 100 characters at most.
    Both are ``""`` where they could hold a part of a password.
    """

    command: str
    reply: Reply
    argument: str


@dataclass(frozen=True, slots=True)
class TlsWanted:
    """STARTTLS: flush the output, start TLS, call ``tls_started`` before any decrypted octet comes in."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The end: flush the output, then close.  ``reason`` is for the log."""

    reason: str


Question = Connected | Hello | Login | Keys | Proof | Mail | Rcpt | DataBegin | DataEnd
Event = Question | Content | Reset | Refused | TlsWanted | Closed

ASKS = (Connected, Hello, Login, Keys, Proof, Mail, Rcpt, DataBegin, DataEnd)
