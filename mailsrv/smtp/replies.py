"""Replies of an SMTP server: a code, an enhanced status and lines of text (RFC 5321 4.2, 2034, 3463).

A ``Reply`` is a value; its bytes are made once, so the usual ones below cost nothing.  The text is printable ASCII,
says what is the matter in plain words, and never repeats what the client sent: whatever does not fit is refused when
the reply is made, so that a stranger's octets cannot become a line of ours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_STATUS = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")
_TEXT = re.compile(r"[\x20-\x7e]{0,480}")


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply of one or more lines.

    ``code`` is three digits (RFC 5321 4.2.1), ``status`` an enhanced status code such as ``"5.1.1"`` of the same
    class, or ``""`` where RFC 2034 4 has none (greeting, HELO and EHLO, 3xx).  ``lines`` are printable ASCII without
    the codes, at most 480 characters each.  ValueError for anything else.
    """

    code: int
    status: str
    lines: tuple[str, ...]
    _wire: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 200 <= self.code <= 599 or not self.lines:
            raise ValueError("a reply has a code from 200 to 599 and at least one line")
        if self.status and (not _STATUS.fullmatch(self.status) or self.status[0] != str(self.code)[0]):
            raise ValueError(f"status {self.status!r} does not go with code {self.code}")
        if not all(_TEXT.fullmatch(line) for line in self.lines):
            raise ValueError("the text of a reply is printable ASCII, 480 characters a line at most")
        prefix = f"{self.status} " if self.status else ""
        last = len(self.lines) - 1
        wire = "".join(
            f"{self.code}{' ' if number == last else '-'}{prefix}{line}\r\n" for number, line in enumerate(self.lines)
        )
        object.__setattr__(self, "_wire", wire.encode("ascii"))

    def encode(self) -> bytes:
        """The octets to send, CRLF included."""
        return self._wire

    @property
    def positive(self) -> bool:
        """True for 2xx and 3xx: what was asked for is done, or may go on."""
        return self.code < 400

    @property
    def text(self) -> str:
        """The lines as one, for the ledger and the log."""
        return " ".join(self.lines)

    def __str__(self) -> str:
        return " ".join(filter(None, (str(self.code), self.status, self.text)))


def reply(code: int, status: str, *lines: str) -> Reply:
    """A reply with its lines spelled out: ``reply(550, "5.1.1", "No such mailbox here")``."""
    return Reply(code, status, lines)


# What the server's core says by itself.

RESET = reply(250, "2.0.0", "Forgotten")
NOOP = reply(250, "2.0.0", "OK")
SENDER_OK = reply(250, "2.1.0", "Sender OK")
RECIPIENT_OK = reply(250, "2.1.5", "Recipient OK")
SEND_CONTENT = reply(354, "", "Send the message, end it with a line that holds a dot only")
ACCEPTED = reply(250, "2.0.0", "Message accepted")
CHUNK_OK = reply(250, "2.0.0", "Chunk received")
LOGGED_IN = reply(235, "2.7.0", "Authentication succeeded")
GOODBYE = reply(221, "2.0.0", "Goodbye")
START_TLS = reply(220, "2.0.0", "Start TLS now")
# RFC 5321 3.5.3, 7.3: nothing is given away.
CANNOT_VERIFY = reply(252, "2.0.0", "Cannot verify, but will try to deliver")
HELP = reply(214, "2.0.0", "See RFC 5321")

UNRECOGNISED = reply(500, "5.5.1", "Command not recognised")
NOT_OFFERED = reply(502, "5.5.1", "Command not offered here")
LINE_TOO_LONG = reply(500, "5.5.2", "Line too long")
BARE_LINE_END = reply(500, "5.5.2", "Bare CR or LF in a command; lines end in CRLF")
CONTROL_CHARACTER = reply(500, "5.5.2", "Control character in a command")
NOT_ASCII = reply(500, "5.5.2", "Octets above 127 in a command that does not allow them")
NO_ARGUMENT_ALLOWED = reply(501, "5.5.4", "This command takes no argument")
ARGUMENT_MISSING = reply(501, "5.5.4", "Argument missing")
BAD_HELLO = reply(501, "5.5.2", "Not a host name or address literal")

GREETING_REFUSED = reply(503, "5.5.1", "No service for you; only QUIT is left")
HELLO_FIRST = reply(503, "5.5.1", "Say hello first")
NESTED_MAIL = reply(503, "5.5.1", "A transaction is under way; RSET ends it")
MAIL_FIRST = reply(503, "5.5.1", "Need MAIL first")
RCPT_FIRST = reply(503, "5.5.1", "Need RCPT first")
NO_VALID_RECIPIENTS = reply(554, "5.5.1", "No valid recipients")
CHUNKS_BEGUN = reply(503, "5.5.1", "In the middle of BDAT; send the last chunk or RSET")
OUT_OF_ORDER = reply(503, "5.5.1", "Not now")

BAD_SENDER = reply(501, "5.1.7", "Bad syntax in the sender's address")
BAD_RECIPIENT = reply(501, "5.1.3", "Bad syntax in the recipient's address")
MAIL_SYNTAX = reply(501, "5.5.2", "Syntax: MAIL FROM:<address> and parameters")
RCPT_SYNTAX = reply(501, "5.5.2", "Syntax: RCPT TO:<address> and parameters")
BAD_PARAMETER = reply(501, "5.5.4", "Bad or repeated parameter")
UNKNOWN_PARAMETER = reply(555, "5.5.4", "Parameter not offered here")
NEEDS_SMTPUTF8 = reply(553, "5.6.7", "A non-ASCII address needs the SMTPUTF8 parameter of MAIL")
TOO_BIG = reply(552, "5.3.4", "Message too big")
TOO_MANY_RECIPIENTS = reply(452, "4.5.3", "Too many recipients; send the others in another transaction")
HOLD_TOO_LONG = reply(501, "5.5.4", "Cannot hold mail that long")

BARE_LF_IN_CONTENT = reply(554, "5.6.0", "Message refused: it holds a bare LF; lines end in CRLF")
BARE_CR_IN_CONTENT = reply(554, "5.6.0", "Message refused: it holds a bare CR; lines end in CRLF")
NUL_IN_CONTENT = reply(554, "5.6.0", "Message refused: it holds a NUL octet")
BAD_CHUNK = reply(501, "5.5.4", "Syntax: BDAT size [LAST]")

ALREADY_SECURE = reply(503, "5.5.1", "TLS is active already")
BEHIND_STARTTLS = reply(421, "4.7.0", "Data behind STARTTLS; closing")
STARTTLS_FIRST = reply(530, "5.7.0", "Must issue STARTTLS first")
LOGIN_FIRST = reply(530, "5.7.0", "Authentication required")
LOGIN_NEEDS_TLS = reply(538, "5.7.11", "Encryption required; issue STARTTLS first")
LOGIN_AGAIN = reply(503, "5.5.1", "Authenticated already")
UNKNOWN_MECHANISM = reply(504, "5.5.4", "Mechanism not offered here")
BAD_BASE64 = reply(501, "5.5.2", "Not base64")
LOGIN_CANCELLED = reply(501, "5.7.0", "Authentication cancelled")
LOGIN_LINE_TOO_LONG = reply(500, "5.5.6", "Authentication line too long")
LOGIN_FAILED = reply(535, "5.7.8", "Authentication failed")

NO_WEB_SERVER = reply(421, "4.7.0", "No web server here; closing")
TOO_MANY_ERRORS = reply(421, "4.7.0", "Too many errors; closing")

# For sessions and shells.

TIMED_OUT = reply(421, "4.4.2", "Nothing heard for too long; closing")
SHUTTING_DOWN = reply(421, "4.3.2", "Shutting down; try again soon")
LOCAL_TROUBLE = reply(451, "4.3.0", "Local trouble; try again later")
STORAGE_FULL = reply(452, "4.3.1", "No room for mail just now; try again later")
