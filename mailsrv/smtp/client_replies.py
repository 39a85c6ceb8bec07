"""Reading a server's replies (RFC 5321 4.2, 2034, 3463), bounded.

Any multiline reply ends at the first line without a hyphen, whose code counts.  A line may end in LF alone: a
client cannot be misled by it.  ``ReplyError`` for what is no reply, for lines beyond 2,048 octets, replies beyond
100 lines or 16 KiB; after it the stream has lost its meaning.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from mailsrv.smtp.client_events import RemoteReply

LINE_LIMIT: Final = 2048
LINES_LIMIT: Final = 100
REPLY_LIMIT: Final = 16 * 1024

_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_STATUS = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: |$)")

# What a code says when no enhanced status comes with it; anything else is X.0.0, "other or undefined".
_DERIVED: Final = {
    421: "4.3.2",
    450: "4.2.0",
    451: "4.3.0",
    452: "4.3.1",
    454: "4.7.0",
    500: "5.5.2",
    501: "5.5.4",
    502: "5.5.1",
    503: "5.5.1",
    504: "5.5.4",
    521: "5.3.2",  # RFC 7504
    530: "5.7.0",
    535: "5.7.8",
    551: "5.1.6",
    552: "5.2.2",
    553: "5.1.3",
    555: "5.5.4",
    556: "5.1.10",  # RFC 7504, 7505
}


class ReplyError(Exception):
    """What came is no SMTP reply; the message says why."""


class ReplyReader:
    """Octets in, replies out, whatever the chunks."""

    def __init__(self) -> None:
        self._buffer = b""
        self._lines: list[_Line] = []
        self._octets = 0

    @property
    def pending(self) -> bool:
        """Whether something has come that is not a whole reply yet."""
        return bool(self._buffer or self._lines)

    def receive(self, data: bytes) -> None:
        self._buffer += data

    def next_reply(self) -> RemoteReply | None:
        """The next whole reply; None when more is needed; ReplyError."""
        while (end := self._buffer.find(b"\n", 0, LINE_LIMIT)) >= 0:
            line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
            reply = self._take(line.removesuffix(b"\r"))
            if reply is not None:
                return reply
        if len(self._buffer) >= LINE_LIMIT:
            raise ReplyError(f"a line of a reply is longer than {LINE_LIMIT} octets")
        return None

    def _take(self, octets: bytes) -> RemoteReply | None:
        line = _read(octets)
        self._octets += len(octets)
        if self._octets > REPLY_LIMIT or len(self._lines) >= LINES_LIMIT:
            raise ReplyError(f"a reply is longer than {LINES_LIMIT} lines or {REPLY_LIMIT} octets")
        self._lines.append(line)
        if line.continues:
            return None
        lines, self._lines, self._octets = self._lines, [], 0
        return RemoteReply(line.code, _status(line.code, lines), tuple(each.text for each in lines))


class _Line(NamedTuple):
    """``status`` is the enhanced status code in front of the text, "" when there is none."""

    code: int
    continues: bool
    text: str
    status: str


@lru_cache(maxsize=256)  # servers say the same few things again and again
def _read(octets: bytes) -> _Line:
    """One line without its end (ReplyError)."""
    found = _LINE.fullmatch(octets)
    if found is None:
        raise ReplyError(f"not an SMTP reply: {clean(octets[:80])}")
    code, separator, rest = found.groups()
    text = clean(rest or b"")
    status = _STATUS.match(text)
    return _Line(int(code), separator == b"-", text, status[1] if status else "")


def clean(octets: bytes) -> str:
    """Text that may stand in a log: UTF-8 where it is, nothing that a terminal or a line reader would act upon."""
    text = octets.decode("utf-8", "replace")
    if text.isprintable():
        return text.strip()
    return "".join(c if c.isprintable() else "?" for c in text.replace("\t", " ")).strip()


def _status(code: int, lines: Sequence[_Line]) -> str:
    """RFC 2034 4: the status stands in front of the text, and its class is the code's."""
    for line in reversed(lines):
        if line.status and int(line.status[0]) == code // 100:
            return line.status
    return _DERIVED.get(code, f"{code // 100}.0.0")
