"""The relaxed canonical forms of header fields and of bodies (RFC 6376 3.4.2, 3.4.4), for signing and for verifying.

Promises: a body is read in chunks of any size, cut anywhere, with the same result; memory is bounded by the chunk,
time is linear in the octets, and no Python code runs per line.  Nothing here fails: what is no field is passed over.
Line ends are CRLF; a bare CR or LF, which no accepted message has, is an octet like any other.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_CRLF = b"\r\n"
_EMPTY_LINES = _CRLF * 4096  # how many are given on at once

# A name, its colon, and all up to a CRLF that no white space follows.
_FIELD = re.compile(rb"^([!-9;-~]+)[ \t]*:(?:[^\n]|(?<!\r)\n|(?<=\r)\n[ \t])*", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Field:
    """``name`` in lower case; ``raw`` is the whole field as it stands, without its last CRLF."""

    name: bytes
    raw: bytes


def fields(header: bytes) -> list[Field]:
    """The fields of a header section in their order."""
    return [Field(match[1].lower(), match[0].removesuffix(b"\r")) for match in _FIELD.finditer(header)]


def relaxed_field(raw: bytes) -> bytes:
    """A whole field in its relaxed form (RFC 6376 3.4.2), without CRLF at the end."""
    name, _, value = raw.partition(b":")
    value = _collapsed(value.replace(_CRLF, b""))
    return name.rstrip(b" \t").lower() + b":" + value.strip(b" ")


class RelaxedBody:
    """Gives the relaxed form of a body (RFC 6376 3.4.4) to ``write``, such as the ``update`` of a hash.

    ``feed`` any number of chunks, then ``end``.
    """

    __slots__ = ("_begun", "_held", "_lines", "_write")

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._held = b""  # what cannot be judged yet: a space, a CR, or both
        self._lines = 0  # CRLFs that have come and not been written: those at the end of the body are left out
        self._begun = False

    def feed(self, chunk: bytes) -> None:
        """The next octets of the body."""
        data = _collapsed(self._held + chunk)
        kept = data.removesuffix(b"\r").removesuffix(b" ")
        data, self._held = kept.replace(b" \r\n", _CRLF), data[len(kept) :]
        text = _without_last_lines(data)
        if text:
            self._write_lines(self._lines)
            self._lines = 0
            self._write(text)
            self._begun = True
        self._lines += (len(data) - len(text)) // 2

    def end(self) -> None:
        """The body has ended.  White space at the end of its last line goes; an empty body stays empty."""
        if self._held.endswith(b"\r"):
            self._write_lines(self._lines)
            self._write(self._held)
            self._begun = True
        self._held = b""
        if self._begun:
            self._write(_CRLF)

    def _write_lines(self, number: int) -> None:
        whole, rest = divmod(number, len(_EMPTY_LINES) // 2)
        for _ in range(whole):
            self._write(_EMPTY_LINES)
        self._write(_EMPTY_LINES[: 2 * rest])


def _collapsed(data: bytes) -> bytes:
    """Each run of spaces and tabs as one space.  A run halves at each step, so there are few of them."""
    if b"\t" in data:
        data = data.replace(b"\t", b" ")
    while b"  " in data:
        data = data.replace(b"  ", b" ")
    return data


def _without_last_lines(data: bytes) -> bytes:
    """``data`` without the CRLFs at its end."""
    text = data.rstrip(_CRLF)
    end = data[len(text) :]
    if end != _CRLF * (len(end) // 2):
        # Among them is a bare CR or LF, which belongs to the text with all that stands before it.
        text += end[: len(end) - 2 * _pairs_at_end(end)]
    return text


def _pairs_at_end(end: bytes) -> int:
    """How many CRLFs there are at the end of a run of CR and LF."""
    pairs = 0
    while end.endswith(_CRLF, 0, len(end) - 2 * pairs):
        pairs += 1
    return pairs
