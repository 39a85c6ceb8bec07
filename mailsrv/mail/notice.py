"""Notices: mail from the server itself that is no delivery report, to the postmaster or to a user (RFC 3834 5).

Pure and deterministic: date and Message-ID are given.  Plain text in lines of at most 72 characters where words allow;
nothing in the text can add a field or be read in another way elsewhere, for control characters go.

The caller sends it with the null reverse-path, so that nothing automatic answers it.
"""

from __future__ import annotations

import binascii
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from mailsrv.mail import header
from mailsrv.mail.address import Address
from mailsrv.mail.date import rfc5322_date

WIDTH = 72
TEXT_LIMIT = 32 * 1024  # characters; more is cut off
SUBJECT_LIMIT = 200

_CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Notice:
    """A message ready for the queue: ``content`` has CRLF, the rest is for its envelope."""

    content: bytes
    smtputf8: bool  # RFC 6531; the body is 7BIT in any case but this
    message_id: str


def build(*, domain: str, to: Address, subject: str, text: str, now: float, message_id: str) -> Notice:
    """``text`` has paragraphs or lines ended by ``\\n``; a long line is broken, and goes on with the same indent.

    ``domain`` is the one of ours that it is from, ``now`` is seconds since 1970, ``message_id`` without angle brackets.
    """
    body = "".join(f"{line}\n" for line in _lines(text))
    subject = " ".join(_CONTROLS.sub(" ", subject).split())[:SUBJECT_LIMIT]
    fields = [
        ("Date", rfc5322_date(now)),
        ("From", f"Mail Delivery System <MAILER-DAEMON@{domain}>"),
        ("To", str(to)),
        ("Subject", header.unstructured(subject)),
        ("Message-ID", f"<{message_id}>"),
        ("Auto-Submitted", "auto-generated"),  # RFC 3834 5
        ("MIME-Version", "1.0"),
    ]
    if body.isascii():
        fields.append(("Content-Type", "text/plain; charset=us-ascii"))
        data = body.replace("\n", "\r\n").encode("ascii")
    else:
        # Quoted-printable, so that it gets through where 8BITMIME is lacking.
        fields += [("Content-Type", "text/plain; charset=utf-8"), ("Content-Transfer-Encoding", "quoted-printable")]
        data = binascii.b2a_qp(body.replace("\n", "\r\n").encode())
    content = b"".join(header.build(name, value) for name, value in fields) + b"\r\n" + data
    return Notice(content, not to.is_ascii, message_id)


def _lines(text: str) -> Iterator[str]:
    for line in _CONTROLS.sub(" ", text[:TEXT_LIMIT]).rstrip().split("\n"):
        words = line.strip()
        indent = line[: len(line) - len(line.lstrip())][: WIDTH // 2] if words else ""
        yield from _wrapped(words, indent) or [""]


def _wrapped(words: str, indent: str) -> list[str]:
    return textwrap.wrap(
        words, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
