"""The mbox format: many messages in one file, each behind a line ``From sender date`` (RFC 4155).

Reading understands what programs really write.  A message ends where its Content-Length says, when a From_ line or the
end of the file is there (mboxcl2, nothing is quoted then); else at the next line that is a From_ line with a date, and
then one ``>`` is taken from lines that begin with ``>From ``, ``>>From `` and so on (mboxrd, mboxo).  Line ends become
LF.  The notes of mail programs in the header (Status and the like) become flags and are left out, because they are the
file's and not the message's; messages that a program has deleted or that are its own notes are left out as well.

Writing is mboxrd: every message can be read back octet for octet, but for those notes and for a line end that is
missing at its end.

Reading never fails on account of the content; what is no mbox at all is ``NotMbox``.  One message at a time is in
memory.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

MESSAGE_LIMIT = 1 << 30
_LINE = 1 << 16

_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_DAYS = (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")
_ZONE = rb"[+-][0-9]{4}|[A-Z][A-Za-z]{0,4}"
# ctime's form with a zone at one of the two places where programs put it, or the form of RFC 5322.
_DATE = re.compile(
    rb"\b(?:%(days)b),?\s+(?:"
    rb"(?P<month>%(months)b)\s+(?P<day>[0-9]{1,2})\s+(?P<time>[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?)"
    rb"(?:\s+(?P<zone>%(zone)b))?\s+(?P<year>[0-9]{4})(?:\s+(?P<zone_behind>%(zone)b))?"
    rb"|(?P<day_5322>[0-9]{1,2})\s+(?P<month_5322>%(months)b)\s+(?P<year_5322>[0-9]{4})"
    rb"\s+(?P<time_5322>[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?)(?:\s+(?P<zone_5322>%(zone)b))?"
    rb")\s*(?:remote from \S+\s*)?\Z" % {b"days": b"|".join(_DAYS), b"months": b"|".join(_MONTHS), b"zone": _ZONE}
)
_NOTE = re.compile(
    rb"^(Status|X-Status|X-Keywords|X-UID|X-IMAP|X-IMAPbase|Content-Length|X-Mozilla-Status|X-Mozilla-Status2"
    rb"|X-Mozilla-Keys)[ \t]*:(.*(?:\n[ \t].*)*)\n",
    re.MULTILINE | re.IGNORECASE,
)
_QUOTED = re.compile(rb"^>(>*From )", re.MULTILINE)
_TO_QUOTE = re.compile(rb"^(>*From )", re.MULTILINE)
_RETURN_PATH = re.compile(rb"^Return-Path:[ \t]*<([!-;=?-~]{1,254})>", re.MULTILINE | re.IGNORECASE)
_OWN_NOTES = re.compile(rb"^Subject:[ \t]*DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA", re.MULTILINE)
_NUMBER = re.compile(rb"[0-9]{1,18}")
_HEXADECIMAL = re.compile(rb"[0-9A-Fa-f]{1,8}")
_BLANK = frozenset({b"\n", b"\r\n"})

# What Status and X-Status say, and the bits of X-Mozilla-Status, in the letters of Maildir.
_STATUS = {b"R": "S"}
_X_STATUS = {b"A": "R", b"F": "F", b"T": "D", b"D": "T"}
_MOZILLA = {0x0001: "S", 0x0002: "R", 0x0004: "F", 0x1000: "P"}
_MOZILLA_EXPUNGED = 0x0008


class NotMbox(ValueError):
    """The file does not begin as an mbox does."""


@dataclass(frozen=True, slots=True)
class MboxMessage:
    """One message.

    ``from_line`` is the From_ line without its end, ``offset`` where that line is in the file and ``end`` where the
    message ends.  ``content`` has LF line ends; None: larger than ``MESSAGE_LIMIT``.  ``seconds`` is the date of
    delivery, None when the line has none that can be read.  ``flags`` are Maildir's, in order; ``new``: no program has
    shown it to anybody.
    """

    from_line: bytes
    offset: int
    end: int
    content: bytes | None
    seconds: int | None
    flags: str
    new: bool


def read(file: BinaryIO) -> Iterator[MboxMessage]:
    """The messages of a seekable file, in their order (NotMbox, OSError)."""
    line = file.readline(_LINE)
    while line in _BLANK:
        line = file.readline(_LINE)
    if line and not line.startswith(b"From "):
        raise NotMbox("it does not begin with a From_ line")
    while line:
        offset = file.tell() - len(line)
        from_line = line.rstrip(b"\r\n")
        header = _header(file)
        body, line = _body(file, header)
        message = _message(from_line, offset, file.tell() - len(line), header, body)
        if message is not None:
            yield message


def date_of(from_line: bytes) -> int | None:
    """Seconds since 1970 in a From_ line; without a zone it is UTC (RFC 4155, appendix A)."""
    found = _DATE.search(from_line)
    if found is None:
        return None
    day, month, year, time = (
        found[f"{field}_5322"] if found["day_5322"] else found[field] for field in ("day", "month", "year", "time")
    )
    zone = found["zone"] or found["zone_behind"] or found["zone_5322"] or b""
    hour, minute, second = (*map(int, time.split(b":")), 0)[:3]
    try:
        at = datetime.datetime(
            int(year), _MONTHS.index(month) + 1, int(day), hour, minute, min(second, 59), tzinfo=datetime.UTC
        )
    except ValueError:
        return None
    seconds = int(at.timestamp())
    if zone[:1] in b"+-" and zone:
        ahead = int(zone[1:3]) * 3600 + int(zone[3:]) * 60
        seconds -= ahead if zone.startswith(b"+") else -ahead
    return seconds if seconds >= 0 else None


def entry(content: bytes, seconds: float, flags: str, new: bool) -> bytes:
    """A message (LF line ends) as mboxrd, with its From_ line and the empty line behind it."""
    header, body = _split(content)
    sender = _RETURN_PATH.search(header)
    lines = [b"From %b %b\n" % (sender[1] if sender else b"MAILER-DAEMON", _ctime(seconds))]
    # A stranger's message must not bring its own notes: they would be read as ours.
    lines.append(_TO_QUOTE.sub(rb">\1", _NOTE.sub(b"", header)))
    if header and not header.endswith(b"\n"):
        lines.append(b"\n")
    if not new:
        lines.append(b"Status: %b\n" % (b"RO" if "S" in flags else b"O"))
    marks = b"".join(mark for mark, flag in _X_STATUS.items() if flag in flags)
    if marks:
        lines.append(b"X-Status: %b\n" % marks)
    lines.append(b"\n")
    lines.append(_TO_QUOTE.sub(rb">\1", body))
    if body and not body.endswith(b"\n"):
        lines.append(b"\n")
    lines.append(b"\n")
    return b"".join(lines)


def _is_from(line: bytes) -> bool:
    """Whether a line begins a message.  People begin sentences with "From" as well, but not with such a date."""
    return line.startswith(b"From ") and _DATE.search(line) is not None


def _header(file: BinaryIO) -> bytes:
    """The header section with the empty line at its end, if there is one; as it stands in the file."""
    lines = []
    fresh = True
    while line := file.readline(_LINE):
        if fresh and _is_from(line):
            file.seek(-len(line), 1)
            break
        lines.append(line)
        if fresh and line in _BLANK:
            break
        fresh = line.endswith(b"\n")
    return b"".join(lines)


def _body(file: BinaryIO, header: bytes) -> tuple[bytes | None, bytes]:
    """The body with LF line ends and unquoted (None: too large), and the next From_ line, b"" at the end."""
    lengths = [value.strip() for name, value in _NOTE.findall(header) if name.lower() == b"content-length"]
    start = file.tell()
    if lengths and _NUMBER.fullmatch(lengths[0]):
        length = int(lengths[0])
        line = _from_line_at(file, start + length)
        if line is not None:
            after = file.tell()
            file.seek(start)
            body = file.read(length) if length <= MESSAGE_LIMIT else None
            file.seek(after)
            return None if body is None else body.replace(b"\r\n", b"\n"), line
        file.seek(start)
    lines: list[bytes] = []
    size = 0
    fresh = True
    while line := file.readline(_LINE):
        if fresh and _is_from(line):
            break
        fresh = line.endswith(b"\n")
        size += len(line)
        if size <= MESSAGE_LIMIT:
            lines.append(line)
    if size > MESSAGE_LIMIT:
        return None, line
    body = b"".join(lines).replace(b"\r\n", b"\n")
    if body.endswith(b"\n\n") or body == b"\n":
        body = body[:-1]  # RFC 4155: the empty line before the next From_ line is not the message's
    return _QUOTED.sub(rb"\1", body), line


def _from_line_at(file: BinaryIO, offset: int) -> bytes | None:
    """The From_ line at ``offset``, behind empty lines; b"" when only those are there; None when something else is."""
    file.seek(0, 2)
    if offset > file.tell():
        return None
    file.seek(offset)
    line = file.readline(_LINE)
    while line in _BLANK:
        line = file.readline(_LINE)
    return line if not line or _is_from(line) else None


def _message(from_line: bytes, offset: int, end: int, header: bytes, body: bytes | None) -> MboxMessage | None:
    """None for what a program has deleted, or has written for itself."""
    header = header.replace(b"\r\n", b"\n")
    notes = {name.lower(): value.strip() for name, value in _NOTE.findall(header)}
    if (b"x-imap" in notes or b"x-imapbase" in notes) and _OWN_NOTES.search(header):
        return None
    status = notes.get(b"status", b"")
    mozilla = notes.get(b"x-mozilla-status", b"")
    bits = int(mozilla, 16) if _HEXADECIMAL.fullmatch(mozilla) else 0
    if bits & _MOZILLA_EXPUNGED:
        return None
    flags = {flag for mark, flag in _STATUS.items() if mark in status}
    flags |= {flag for mark, flag in _X_STATUS.items() if mark in notes.get(b"x-status", b"")}
    flags |= {flag for bit, flag in _MOZILLA.items() if bits & bit}
    new = not (flags or b"O" in status or mozilla)
    content = None if body is None else _QUOTED.sub(rb"\1", _NOTE.sub(b"", header)) + body
    return MboxMessage(from_line, offset, end, content, date_of(from_line), "".join(sorted(flags)), new)


def _split(content: bytes) -> tuple[bytes, bytes]:
    """The header section without, and the body behind the empty line."""
    if content.startswith(b"\n"):
        return b"", content[1:]
    end = content.find(b"\n\n")
    return (content, b"") if end < 0 else (content[: end + 1], content[end + 2 :])


def _ctime(seconds: float) -> bytes:
    at = datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
    return b"%b %b %2d %02d:%02d:%02d %04d" % (
        *(_DAYS[at.weekday()], _MONTHS[at.month - 1]),
        *(at.day, at.hour, at.minute, at.second, at.year),
    )
