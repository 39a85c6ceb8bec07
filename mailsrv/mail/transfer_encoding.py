"""Content with some places of it encoded or replaced, as it goes by in pieces (RFC 2045 6.7 and 6.8).

``Changes`` says where, by positions in the content as it was; it is small whatever the content (17 octets for each
place).  ``Rewriting`` carries them out in constant memory.  What comes out does not depend on how the content was cut:
a message that is read twice is the same octets twice, and its size and its signature can be found before it is sent.
"""

from __future__ import annotations

import binascii
import enum
from array import array
from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol

LONGEST: Final = 64 * 1024  # octets of a line, or of whole lines, that are encoded at once
_BASE64_LINE: Final = 57  # octets that make a line of 76
_LINE: Final = 76  # RFC 2045 6.7 (5): characters of an encoded line


class Becomes(enum.IntEnum):
    """What a place becomes: the octets there encoded, or one of a few header fields instead of them."""

    QUOTED_PRINTABLE = 0
    BASE64 = 1
    SAYS_7BIT = 2
    SAYS_QUOTED_PRINTABLE = 3
    SAYS_BASE64 = 4
    SAYS_MIME = 5
    SAYS_UNKNOWN_8BIT = 6


_FIELDS: Final = {
    Becomes.SAYS_7BIT: b"Content-Transfer-Encoding: 7bit\r\n",
    Becomes.SAYS_QUOTED_PRINTABLE: b"Content-Transfer-Encoding: quoted-printable\r\n",
    Becomes.SAYS_BASE64: b"Content-Transfer-Encoding: base64\r\n",
    Becomes.SAYS_MIME: b"MIME-Version: 1.0\r\n",
    # RFC 1428 3: what it is in, nobody knows.
    Becomes.SAYS_UNKNOWN_8BIT: b"Content-Type: text/plain; charset=unknown-8bit\r\n",
}


class Change(NamedTuple):
    start: int
    end: int
    becomes: Becomes


class Changes:
    """Places in the order of the content, none within another; what is between them stays as it is."""

    __slots__ = ("_becomes", "_places")

    def __init__(self) -> None:
        self._places = array("Q")
        self._becomes = bytearray()

    def __len__(self) -> int:
        return len(self._becomes)

    def __iter__(self) -> Iterator[Change]:
        for n, becomes in enumerate(self._becomes):
            yield Change(self._places[2 * n], self._places[2 * n + 1], Becomes(becomes))

    def add(self, start: int, end: int, becomes: Becomes) -> None:
        """``start`` is not before the end of the place that was added last."""
        self._places.extend((start, end))
        self._becomes.append(becomes)


class Rewriting:
    """One way through the content: ``feed`` each piece, then ``end``; each gives octets that are to follow."""

    def __init__(self, changes: Changes) -> None:
        self._changes = iter(changes)
        self._next = next(self._changes, None)
        self._at = 0  # in the content
        self._encoder: _Encoder | None = None  # of the place in which we are

    def feed(self, octets: bytes) -> bytes:
        made: list[bytes] = []
        begin = 0
        while True:
            change = self._next
            until = len(octets)
            if change is not None:
                until = min((change.start if self._encoder is None else change.end) - self._at + begin, until)
            piece = octets[begin:until]
            made.append(piece if self._encoder is None else self._encoder.feed(piece))
            self._at += until - begin
            begin = until
            if change is None or not self._step(change, made):
                return b"".join(made)

    def end(self) -> bytes:
        return self._encoder.end() if self._encoder is not None else b""

    def _step(self, change: Change, made: list[bytes]) -> bool:
        """Into a place or out of it, where we stand at its beginning or its end."""
        if self._encoder is None and self._at == change.start:
            self._encoder = _encoder(change.becomes)
        elif self._encoder is not None and self._at == change.end:
            made.append(self._encoder.end())
            self._encoder = None
            self._next = next(self._changes, None)
        else:
            return False
        return True


class _Encoder(Protocol):
    def feed(self, octets: bytes) -> bytes: ...

    def end(self) -> bytes: ...


def _encoder(becomes: Becomes) -> _Encoder:
    if becomes is Becomes.QUOTED_PRINTABLE:
        return _QuotedPrintable()
    return _Base64() if becomes is Becomes.BASE64 else _Instead(_FIELDS[becomes])


class _Instead:
    """Other octets in their place."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    def feed(self, octets: bytes) -> bytes:
        return b""

    def end(self) -> bytes:
        return self._octets


class _QuotedPrintable:
    """Text with CRLF line ends.  Lines are encoded each by itself, so many at once as are there, up to LONGEST octets;
    one that is longer is cut by a soft line break at LONGEST octets from its beginning.
    """

    def __init__(self) -> None:
        self._held = b""  # the beginning of a line

    def feed(self, octets: bytes) -> bytes:
        text = self._held + octets
        made: list[bytes] = []
        begin = 0
        while True:
            end = text.rfind(b"\r\n", begin, begin + LONGEST) + 2
            if end >= begin + 2:
                made.append(_quoted_printable(text[begin:end]))
            elif len(text) - begin >= LONGEST:
                end = begin + LONGEST
                if text[end - 1 : end] == b"\r":
                    end -= 1  # its LF may follow
                made.append(_with_soft_end(_quoted_printable(text[begin:end] + b"\r\n")[:-2]))
            else:
                self._held = text[begin:]
                return b"".join(made)
            begin = end

    def end(self) -> bytes:
        # The line end at the end tells the encoder which kind of line end to use.
        return _quoted_printable(self._held + b"\r\n")[:-2]


def _quoted_printable(lines: bytes) -> bytes:
    return binascii.b2a_qp(lines, quotetabs=False, istext=True, header=False)


def _with_soft_end(encoded: bytes) -> bytes:
    last = len(encoded) - (encoded.rfind(b"\r\n") + 2 if b"\r\n" in encoded else 0)
    if last < _LINE:
        return encoded + b"=\r\n"
    character = 3 if encoded[-3:-2] == b"=" else 1
    return encoded[:-character] + b"=\r\n" + encoded[-character:] + b"=\r\n"


class _Base64:
    """Any octets.  A line end at their end is followed by one outside of the encoding."""

    def __init__(self) -> None:
        self._held = b""
        self._last = b""
        self._begun = False

    def feed(self, octets: bytes) -> bytes:
        self._last = (self._last + octets[-2:])[-2:]
        octets = self._held + octets
        whole = len(octets) // _BASE64_LINE * _BASE64_LINE
        self._held = octets[whole:]
        return b"".join(self._line(octets[at : at + _BASE64_LINE]) for at in range(0, whole, _BASE64_LINE))

    def end(self) -> bytes:
        last = self._line(self._held) if self._held else b""
        return last + (b"\r\n" if self._last == b"\r\n" else b"")

    def _line(self, octets: bytes) -> bytes:
        line = binascii.b2a_base64(octets, newline=False)
        if self._begun:
            return b"\r\n" + line
        self._begun = True
        return line
