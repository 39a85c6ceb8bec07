"""Dot transparency of SMTP's DATA and POP3's multi-line answers, by chunks (RFC 5321 4.5.2, RFC 1939 3).

Promises: the result does not depend on where chunks are cut; no Python code runs per line or per octet; memory is
bounded by the chunk.  CRLF.CRLF ends incoming content and nothing else does.

``Unstuffer`` finds the end and takes the dots away, ``LineCheck`` tells whether the lines are canonical, ``LineMender``
makes them so, ``Stuffer`` makes what goes out, and ``stuffed`` does when a message is whole and small.
"""

from __future__ import annotations

_CRLF = b"\r\n"
_DOT = b"\r\n."
_END = b"\r\n.\r\n"


class Unstuffer:
    """Decoder for one message, from behind the CRLF of the command or answer that announced it."""

    __slots__ = ("_held", "_skip")

    def __init__(self) -> None:
        self._held = _CRLF  # what may be the beginning of the end: a proper prefix of _END
        self._skip = 2  # the CRLF before the content takes part in the search and not in the content

    def feed(self, data: bytes, start: int = 0) -> tuple[bytes, int]:
        """Decode ``data`` from ``start``.

        Returns the content decoded so far and the position in ``data`` behind the end, or -1 when the end has not come;
        then all of ``data`` has been read.  Not to be called again after the end.
        """
        held = self._held
        # What straddles the edge begins in what was held and takes at most four octets more.
        edge = held + data[start : start + 4]
        dots = _DOT in edge
        straddling = edge.find(_END) if dots else -1
        if straddling >= 0:
            raw = held[:straddling] + _CRLF
            stop = start + straddling + len(_END) - len(held)
        else:
            # Nearly always the first line that begins with a dot is the end: one search for both.
            first = data.find(_DOT, start)
            end = data.find(_END, first) if first >= 0 else -1
            dots = dots or first != end
            if end >= 0:
                raw = held + data[start : end + 2]
                stop = end + len(_END)
            else:
                raw = held + data[start:]
                stop = -1
                keep = _held_back(raw)
                self._held = raw[len(raw) - keep :]
                if keep:
                    raw = raw[:-keep]
        # No dot is parted from its CRLF here: what is held back begins with its CR.
        content = raw.replace(_DOT, _CRLF) if dots else raw
        if self._skip and content:
            content = content[self._skip :]
            self._skip = 0
        return content, stop


def _held_back(raw: bytes) -> int:
    """How many octets at the end of ``raw`` may be the beginning of _END."""
    if raw[-1:] not in b"\r\n.":
        return 0
    for size in (4, 3, 2, 1):
        if raw.endswith(_END[:size]):
            return size
    return 0


class LineCheck:
    """Counts octets and lines of content and finds what two servers could read differently (bare CR, bare LF, NUL)."""

    __slots__ = ("_loose_cr", "_loose_lf", "_tail", "flawed", "lines", "nul", "size")

    def __init__(self) -> None:
        self.size = 0  # octets
        self.lines = 0  # CRLFs
        self.nul = False
        self.flawed = False  # a NUL, a bare CR or a bare LF is known
        self._loose_cr = 0  # CRs beyond those of CRLFs
        self._loose_lf = 0
        self._tail = b""  # the last octet

    def feed(self, content: bytes) -> None:
        """The next piece, cut anywhere."""
        if not content:
            return
        self.size += len(content)
        rest = content.replace(_CRLF, b"")
        lines = (len(content) - len(rest)) // 2
        if self._tail == b"\r" or b"\n" in rest or b"\r" in rest or b"\0" in rest:
            across = self._tail == b"\r" and content[:1] == b"\n"
            lines += across
            self._loose_lf += rest.count(b"\n") - across
            self._loose_cr += rest.count(b"\r") - across
            self.nul = self.nul or b"\0" in rest
            # A CR at the very end is in doubt until the next piece.
            self.flawed = self.nul or self.bare_lf or self._loose_cr > content.endswith(b"\r")
        self.lines += lines
        self._tail = content[-1:]

    def finish(self) -> None:
        """There is no more: a CR at the end was a bare one."""
        self.flawed = self.nul or self.bare_lf or self.bare_cr

    @property
    def bare_lf(self) -> bool:
        return self._loose_lf > 0

    @property
    def bare_cr(self) -> bool:
        """To be asked when all has come, for a CR at the end of a piece counts as bare."""
        return self._loose_cr > 0

    @property
    def complete(self) -> bool:
        """True when nothing came, or the last octet ends a line."""
        return self._tail in (b"", b"\n")


class LineMender:
    """Makes CRLF of each bare LF of one content; everything else, a bare CR too, stays what it is."""

    __slots__ = ("_after_cr",)

    def __init__(self) -> None:
        self._after_cr = False

    def feed(self, content: bytes) -> bytes:
        """The next piece, cut anywhere."""
        if not content:
            return content
        begin = content[:1] if self._after_cr and content[:1] == b"\n" else b""  # the second half of a CRLF
        rest = content[len(begin) :]
        self._after_cr = content.endswith(b"\r")
        if not _has_bare_lf(rest):
            return content
        return begin + rest.replace(_CRLF, b"\n").replace(b"\n", _CRLF)


class Stuffer:
    """Encoder for one message: lines that end in LF or CRLF go in, CRLF lines with their dots stuffed come out.

    A CR that no LF follows stays what it is: sizes told in advance count such files the same way.  ``crlf`` says that
    all lines end in CRLF, which is not looked at then: it takes twice the time of all the rest.
    """

    __slots__ = ("_crlf", "_tail")

    def __init__(self, *, crlf: bool = False) -> None:
        self._crlf = crlf
        self._tail = _CRLF  # the last octets that went out, as far as they are a part of CRLF

    def feed(self, data: bytes) -> bytes:
        """The next piece of the message, cut anywhere; returns what to send."""
        if not data:
            return b""
        tail = self._tail
        if self._crlf:
            return self._feed_crlf(tail, data)
        out = tail + data
        if _has_bare_lf(out):
            out = out.replace(_CRLF, b"\n").replace(b"\n", _CRLF)
        self._tail = _part_of_crlf(out)
        return _with_dots_doubled(out)[len(tail) :]

    def _feed_crlf(self, tail: bytes, data: bytes) -> bytes:
        self._tail = _part_of_crlf(data if len(data) > 1 else tail + data)
        if tail == _CRLF and data.startswith(b"."):
            data = b"." + data
        elif tail == b"\r" and data.startswith(b"\n."):
            data = b"\n." + data[1:]
        return _with_dots_doubled(data)

    def finish(self) -> bytes:
        """The end: CRLF when the last line lacks it, and the line with the dot."""
        return b".\r\n" if self._tail == _CRLF else _END


def _has_bare_lf(data: bytes) -> bool:
    # Pairs are found many octets at a time; single octets are counted one by one, which takes twice as long.
    return b"\n" in data.replace(_CRLF, b"")


def _with_dots_doubled(data: bytes) -> bytes:
    # Looking first takes a third of the time of replacing nothing.
    return data.replace(_DOT, _DOT + b".") if _DOT in data else data


def _part_of_crlf(data: bytes) -> bytes:
    """How much of CRLF is at the end."""
    return _CRLF if data.endswith(_CRLF) else b"\r" if data.endswith(b"\r") else b""


def stuffed(content: bytes, head: bytes = b"") -> bytes:
    """What to send for a whole message of CRLF lines that ends with one, or is empty, with the line with the dot.

    ``head`` goes before it: joined here, the message is copied once.
    """
    if content.startswith(b"."):
        content = b"." + content
    return b"".join((head, _with_dots_doubled(content), b".\r\n"))
