"""A bounded buffer of received octets, cut into CRLF lines or taken raw, whatever the edges of the chunks.

Promises: CRLF and nothing else ends a line; a line without end costs no more memory than the limit and one chunk;
lines are cut where they lie, so ten thousand of them in one chunk cost ten thousand searches and no copies of the
rest.

Refuses nothing by itself: a lone CR or LF is part of its line, for the caller to judge (``CONTROL`` finds it).
"""

from __future__ import annotations

import re

CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


class LineTooLong(Exception):
    """A line over the limit came to its end; it is gone, the next line is the next to read."""


class LineBuffer:
    """Octets waiting to be read.  ``limit`` is the longest line in octets, its CRLF not counted."""

    __slots__ = ("_at", "_data", "_more", "_more_size", "_overlong", "_searched", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._data = b""
        self._at = 0  # where the unread part of _data begins
        self._searched = 0  # how far _data is known to hold no CRLF
        self._more: list[bytes] = []  # chunks not joined yet: joining only when needed keeps tiny chunks cheap
        self._more_size = 0
        self._overlong = False

    def __len__(self) -> int:
        return len(self._data) - self._at + self._more_size

    def feed(self, data: bytes) -> None:
        """Add what was received."""
        if self._at == len(self._data) and not self._more:
            self._data = data
            self._at = self._searched = 0
        elif data:
            self._more.append(data)
            self._more_size += len(data)

    def next_line(self) -> bytes | None:
        """The next line without its CRLF; None when it is not whole yet; LineTooLong at the end of one too long."""
        if self._searched == len(self._data) and not self._more:
            return None
        end = self._data.find(b"\r\n", self._searched)
        if end < 0:
            if self._more:
                self._join()
                end = self._data.find(b"\r\n", self._searched)
            if end < 0:
                self._wait()
                return None
        start = self._at
        self._at = self._searched = end + 2
        if self._overlong or end - start > self.limit:
            self._overlong = False
            raise LineTooLong
        return self._data[start:end]

    def take(self, most: int) -> bytes:
        """Up to ``most`` octets as they come; b"" when there are none."""
        if self._more:
            self._join()
        taken = self._data[self._at : self._at + most]
        self._at += len(taken)
        self._searched = self._at
        return taken

    def peek(self) -> tuple[bytes, int]:
        """All that is held, and where its unread part begins; how far a decoder read it is told by ``skip_to``."""
        if self._more:
            self._join()
        return self._data, self._at

    def skip_to(self, position: int) -> None:
        """Forget what lies before ``position`` of the octets that ``peek`` gave."""
        self._at = self._searched = position

    def clear(self) -> None:
        """Forget everything, the begun line included."""
        self._data = b""
        self._at = self._searched = self._more_size = 0
        self._more.clear()
        self._overlong = False

    def _join(self) -> None:
        self._searched -= self._at
        self._more.insert(0, self._data[self._at :])
        self._data = b"".join(self._more)
        self._at = self._more_size = 0
        self._more.clear()

    def _wait(self) -> None:
        """No CRLF in what is held: remember that, and drop what can only be part of a line over the limit."""
        size = len(self._data)
        self._searched = size - 1 if self._data.endswith(b"\r", self._at) else size
        if self._overlong or self._searched - self._at > self.limit:
            self._overlong = True
            self._data = self._data[self._searched :]
            self._at = self._searched = 0
