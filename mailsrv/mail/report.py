"""Delivery status notifications: whole messages that say what became of a message (RFC 3461 6, 3464, 6522, 6533).

Pure and deterministic: the date, the Message-ID and the random token for the boundary are given.  A report has a part
for people first, one for programs, and then the original message, or its header alone where it is large or the sender
did not want more.

Nothing that was in the original, in an address or in another server's answer can end a part or add a field: line ends
and NUL are made harmless, the boundary is one that no part contains, 8-bit content is declared as such.

The caller sends it with the null reverse-path, and never about a message that had one (RFC 5321 6.1).
"""

from __future__ import annotations

import binascii
import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mailsrv.mail import header, report_text
from mailsrv.mail.address import Address
from mailsrv.mail.date import rfc5322_date
from mailsrv.mail.report_text import Kind, ReportedRecipient

__all__ = ["Kind", "Report", "ReportedRecipient", "build"]

RETURN_LIMIT = 64 * 1024  # octets of the original that go back
VALUE_LIMIT = 800  # octets of an answer or a name from elsewhere; a line may have 998
REFERENCES = 20  # identifiers in References

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LOOSE_LINE_END = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_IDENTIFIER = re.compile(rb"<[!-;=?-~]{1,250}>")
_TOKEN = re.compile(r"[A-Za-z0-9]{8,48}")
_STATUS = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")
_UNKNOWN_STATUS: dict[Kind, str] = {"failed": "5.0.0", "lost": "5.0.0", "delayed": "4.0.0"}


@dataclass(frozen=True, slots=True)
class Report:
    """A message ready for the queue: ``content`` has CRLF, the rest is for its envelope."""

    content: bytes
    body: str  # RFC 6152: 7BIT or 8BITMIME
    smtputf8: bool  # RFC 6531


@dataclass(frozen=True, slots=True)
class _Part:
    content_type: str
    encoding: str
    data: bytes


def build(
    kind: Kind,
    *,
    hostname: str,
    domain: str,
    to: Address,
    recipients: Sequence[ReportedRecipient],
    original_header: bytes,
    original_body: bytes | None,
    arrived_at: float,
    now: float,
    message_id: str,
    boundary_token: str,
    envid: str = "",
) -> Report:
    """The report of one kind about some recipients of one message.

    ``domain`` is the one of ours that it is from, ``to`` the original's sender.  ``original_body`` is None when only
    the header is to go back (RET=HDRS, and always for success: RFC 3461 4.3); a message of more than 64 KiB goes back
    as its header in any case.  Times are seconds since 1970, ``arrived_at`` when the original came.  ``message_id`` is
    without angle brackets, ``boundary_token`` 8 to 48 random letters and digits.  ValueError when those or ``hostname``
    are not well formed.
    """
    if not _TOKEN.fullmatch(boundary_token):
        raise ValueError("a boundary token is 8 to 48 letters and digits")
    recipients = [_cleaned(kind, recipient) for recipient in recipients]
    envid = _clean(envid)
    # RFC 6533: the internationalised forms are for addresses that the plain ones cannot hold.
    smtputf8 = not (to.is_ascii and all(r.address.is_ascii and r.original.isascii() for r in recipients))
    head, original, whole = _returned(original_header, original_body)
    subject = header.decoded(header.field(head, "Subject") or b"")
    told = report_text.Told(
        subject=subject,
        date=header.decoded(header.field(head, "Date") or b"", 60),
        message_id=header.message_id(head),
        arrived_at=arrived_at,
        returned="message" if whole else "headers",
    )
    status = b"\r\n".join(_status(kind, hostname, envid, arrived_at, recipients, smtputf8))
    parts = [
        _text_part(report_text.text(kind, hostname, recipients, told)),
        _Part(f"message/{'global-' if smtputf8 else ''}delivery-status", _encoding(status), status),
        _Part(_original_type(whole, smtputf8 and not head.isascii()), _encoding(original), original),
    ]
    eight_bit = any(part.encoding == "8bit" for part in parts)
    boundary = _boundary(boundary_token, parts)
    fields = [
        ("Date", rfc5322_date(now)),
        ("From", f"Mail Delivery System <MAILER-DAEMON@{domain}>"),
        ("To", str(to) if to.domain else f"{to}@{hostname}"),
        ("Subject", header.unstructured(f"{report_text.SUBJECTS[kind]}: {subject or 'your message'}")),
        ("Message-ID", f"<{message_id}>"),
        *_threading(head, told.message_id),
        ("Auto-Submitted", "auto-replied"),  # RFC 3834 5
        ("MIME-Version", "1.0"),
        ("Content-Type", f'multipart/report; report-type=delivery-status; boundary="{boundary}"'),
        *([("Content-Transfer-Encoding", "8bit")] if eight_bit else []),
    ]
    content = b"".join(header.build(name, value) for name, value in fields) + _multipart(boundary, parts)
    return Report(content, "8BITMIME" if eight_bit or smtputf8 else "7BIT", smtputf8)


def _returned(original_header: bytes, original_body: bytes | None) -> tuple[bytes, bytes, bool]:
    """The header section, what of the original goes back, and whether that is all of it."""
    head = _harmless(original_header[:RETURN_LIMIT])
    if len(original_header) > RETURN_LIMIT:
        head = head[: head.rfind(b"\r\n") + 2]
    elif head and not head.endswith(b"\r\n"):
        head += b"\r\n"
    if original_body is None or len(original_header) + len(original_body) > RETURN_LIMIT:
        return head, head, False
    return head, head + b"\r\n" + _harmless(original_body), True


def _status(
    kind: Kind,
    hostname: str,
    envid: str,
    arrived_at: float,
    recipients: Sequence[ReportedRecipient],
    utf8: bool,
) -> Iterator[bytes]:
    """The groups of fields of RFC 3464 2.2 and 2.3, which an empty line separates."""
    message = [("Reporting-MTA", f"dns; {hostname}"), ("Arrival-Date", rfc5322_date(arrived_at))]
    if envid:
        message.insert(0, ("Original-Envelope-Id", envid))
    yield _group(message, utf8)
    for recipient in recipients:
        fields = []
        if recipient.original:
            address_type, _, address = recipient.original.partition(";")
            fields.append(("Original-Recipient", f"{address_type}; {address}"))
        # RFC 6533 3: addresses beyond ASCII have a type of their own.
        address_type = "rfc822" if recipient.address.is_ascii else "utf-8"
        fields.append(("Final-Recipient", f"{address_type}; {recipient.address}"))
        fields.append(("Action", "failed" if kind == "lost" else kind))
        fields.append(("Status", recipient.status))
        if recipient.remote:
            fields.append(("Remote-MTA", f"dns; {recipient.remote.partition(' ')[0]}"))
        if recipient.answer:
            fields.append(("Diagnostic-Code", f"smtp; {recipient.answer}"))
        elif recipient.reason:
            fields.append(("Diagnostic-Code", f"x-mailsrv; {recipient.reason}"))
        if recipient.attempted_at is not None:
            fields.append(("Last-Attempt-Date", rfc5322_date(recipient.attempted_at)))
        if recipient.retry_until is not None and kind == "delayed":
            fields.append(("Will-Retry-Until", rfc5322_date(recipient.retry_until)))
        yield _group(fields, utf8)


def _group(fields: Sequence[tuple[str, str]], utf8: bool) -> bytes:
    if not utf8:
        fields = [(name, value.encode("ascii", "replace").decode("ascii")) for name, value in fields]
    return b"".join(header.build(name, value) for name, value in fields)


def _text_part(text: str) -> _Part:
    if text.isascii():
        return _Part("text/plain; charset=us-ascii", "7bit", text.replace("\n", "\r\n").encode("ascii"))
    # Quoted-printable, so that a Subject beyond ASCII does not make the report undeliverable where 8BITMIME is lacking.
    data = binascii.b2a_qp(text.replace("\n", "\r\n").encode())
    return _Part("text/plain; charset=utf-8", "quoted-printable", data)


def _original_type(whole: bool, utf8: bool) -> str:
    if whole:
        return "message/global" if utf8 else "message/rfc822"
    return "message/global-headers" if utf8 else "text/rfc822-headers"


def _encoding(data: bytes) -> str:
    return "7bit" if data.isascii() else "8bit"


def _boundary(token: str, parts: Sequence[_Part]) -> str:
    for n in itertools.count():
        boundary = f"=_{token}.{n}"
        if not any(boundary.encode("ascii") in part.data for part in parts):
            return boundary
    raise AssertionError("unreachable: parts are finite")


def _multipart(boundary: str, parts: Sequence[_Part]) -> bytes:
    # RFC 2046 5.1.1: the line end before a boundary belongs to the boundary, so parts keep their octets exactly.
    delimiter = f"\r\n--{boundary}".encode("ascii")
    pieces = []
    for part in parts:
        pieces.append(delimiter + b"\r\n" + header.build("Content-Type", part.content_type))
        if part.encoding != "7bit":
            pieces.append(header.build("Content-Transfer-Encoding", part.encoding))
        pieces.append(b"\r\n" + part.data)
    return b"".join([*pieces, delimiter, b"--\r\n"])


def _threading(head: bytes, message_id: str) -> Iterator[tuple[str, str]]:
    """RFC 5322 3.6.4: so that a report shows beside the message that it is about."""
    if not message_id:
        return
    own = f"<{message_id}>"
    earlier = [found.decode("ascii") for found in _IDENTIFIER.findall(header.field(head, "References") or b"")]
    yield "In-Reply-To", own
    yield "References", " ".join([*earlier[1 - REFERENCES :], own])


def _cleaned(kind: Kind, recipient: ReportedRecipient) -> ReportedRecipient:
    known = _STATUS.fullmatch(recipient.status)
    return dataclasses.replace(
        recipient,
        address=Address(_clean(recipient.address.local), _clean(recipient.address.domain)),
        status=recipient.status if known else _UNKNOWN_STATUS.get(kind, "2.0.0"),
        reason=_clean(recipient.reason),
        answer=_clean(recipient.answer),
        remote=_clean(recipient.remote),
        original=_clean(recipient.original),
    )


def _clean(text: str) -> str:
    # Bounded in octets, for a field without spaces cannot be folded.
    return _CONTROLS.sub(" ", text).encode()[:VALUE_LIMIT].decode("utf-8", "ignore").strip()


def _harmless(data: bytes) -> bytes:
    """Octets as they may go through SMTP, whoever wrote them: CRLF as the only line end, no NUL."""
    return _LOOSE_LINE_END.sub(b"\r\n", data.replace(b"\0", b"?"))
