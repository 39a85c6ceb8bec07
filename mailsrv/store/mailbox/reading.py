"""Reading a stored message the way a client gets it: every line end CRLF, and one at the end.

Files in a Maildir have LF line ends by custom, but some programs write CRLF or both; a CR that no LF follows is content
and stays.  A message without a final line end gets one, because what follows on the wire is a line of its own.  All is
done chunk by chunk, in constant memory and without a Python call per line.
"""

from __future__ import annotations

from mailsrv.outside.interfaces import Input

CHUNK = 256 * 1024


class ToCrlf:
    """Converts a file's octets, whatever the chunk edges.  ``size`` is what has come out so far."""

    __slots__ = ("_held", "_last", "size")

    def __init__(self) -> None:
        self.size = 0
        self._held = b""  # a CR at the end of a chunk, until it is known what follows
        self._last = b""

    def convert(self, chunk: bytes) -> bytes:
        if self._held:
            chunk = self._held + chunk
            self._held = b""
        if chunk.endswith(b"\r"):
            self._held = b"\r"
            chunk = chunk[:-1]
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n")
        return self._out(chunk.replace(b"\n", b"\r\n"))

    def finish(self) -> bytes:
        """What is left, after the last chunk: nothing for an empty message, else its final CRLF if it is missing."""
        held, self._held = self._held, b""
        if self.size + len(held) and (held or self._last != b"\n"):
            return self._out(held + b"\r\n")
        return b""

    def _out(self, converted: bytes) -> bytes:
        if converted:
            self.size += len(converted)
            self._last = converted[-1:]
        return converted


def to_crlf(content: bytes) -> bytes:
    """The same for a whole message."""
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n")
    content = content.replace(b"\n", b"\r\n")
    return content if not content or content.endswith(b"\n") else content + b"\r\n"


class Top:
    """Cuts the answer to TOP out of a converted message: the header, the blank line, ``lines`` lines of the body.

    RFC 1939 7.  ``done`` is set when nothing more can come.
    """

    __slots__ = ("_end", "_in_body", "_lines", "done")

    def __init__(self, lines: int) -> None:
        self._lines = lines
        self._in_body = False
        # The last octets before the present chunk: a blank line may lie across the edge.  A message may also begin
        # with one, and then has no header.
        self._end = b"\r\n"
        self.done = False

    def cut(self, chunk: bytes) -> bytes:
        """The part of ``chunk`` that belongs to the answer."""
        if self.done:
            return b""
        start = 0
        if not self._in_body:
            seen = self._end + chunk
            blank = seen.find(b"\r\n\r\n")
            if blank < 0:
                self._end = seen[-3:]
                return chunk
            self._in_body = True
            start = blank + 4 - len(self._end)
        end = self._after_lines(chunk, start)
        return chunk if end == len(chunk) else chunk[:end]

    def _after_lines(self, chunk: bytes, start: int) -> int:
        in_chunk = chunk.count(b"\n", start)
        if in_chunk < self._lines:
            self._lines -= in_chunk
            return len(chunk)
        for _ in range(self._lines):
            start = chunk.index(b"\n", start) + 1
        self.done = True
        return start


class Reading:
    """One message on its way out of its file.  Blocks: each call runs in a worker, one at a time.

    ``lines`` is how much of the body TOP wants; None: all.  ``expected`` is how large the file probably is: memory for
    a whole chunk costs more than reading a small message.  The file stays open until ``close``.
    """

    __slots__ = ("_converter", "_next", "_source", "_top", "done")

    def __init__(self, source: Input, lines: int | None = None, expected: int = CHUNK) -> None:
        self._source = source
        self._next = min(expected + 1, CHUNK)  # one more, to see the end
        self._converter = ToCrlf()
        self._top = None if lines is None else Top(lines)
        self.done = False

    @property
    def size(self) -> int:
        """Octets of the message that were read so far, with CRLF; all of them once a whole message is ``done``."""
        return self._converter.size

    def next_chunk(self) -> bytes:
        """About ``CHUNK`` octets; sets ``done`` with the last ones.  OSError."""
        asked, self._next = self._next, CHUNK
        chunk = self._source.read(asked)
        converted = self._converter.convert(chunk)
        # A short read is the end of a regular file; asking again would cost every small message another call.
        if len(chunk) < asked:
            self.done = True
            converted += self._converter.finish()
        if self._top is not None:
            converted = self._top.cut(converted)
            self.done = self.done or self._top.done
        return converted

    def close(self) -> None:
        self._source.close()


def measure(source: Input) -> int:
    """How many octets a client is sent of the message in ``source``, from where it stands.  OSError."""
    reading = Reading(source)
    while not reading.done:
        reading.next_chunk()
    return reading.size


def virtual_size(content: bytes) -> int:
    """How many octets a client is sent of a message with this content in its file."""
    converter = ToCrlf()
    converter.convert(content)
    converter.finish()
    return converter.size
