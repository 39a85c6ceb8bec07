"""What a submission server does to the header of a message of its own user (RFC 6409 8), and nothing else.

From, Date and Message-ID are added when they are missing: without them other servers refuse the message.  Bcc is taken
out, because nobody but the author may see who else got it.  Everything else stays octet for octet as it came.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mailsrv.mail import header
from mailsrv.mail.address import Address
from mailsrv.mail.date import rfc5322_date

_BCC = re.compile(rb"^(?:resent-)?bcc[ \t]*:.*\r\n(?:[ \t].*\r\n)*", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Amended:
    """``added`` goes in front of the message; ``head`` replaces its header section, None when that stays."""

    added: bytes
    head: bytes | None


def amend(head: bytes, *, author: Address, at: float, message_id: str) -> Amended:
    """``head`` is the header section with the empty line.

    ``author`` and ``message_id`` (without angle brackets) are for one without; ``at`` is the time of submission in
    seconds since 1970.
    """
    added = b""
    if not header.count(head, "From"):
        added += f"From: {author}\r\n".encode()
    if not header.count(head, "Date"):
        added += f"Date: {rfc5322_date(at)}\r\n".encode()
    if not header.count(head, "Message-ID"):
        added += f"Message-ID: <{message_id}>\r\n".encode()
    kept = _BCC.sub(b"", head)
    return Amended(added, kept if kept != head else None)
