"""What a client gets that has not said UTF8, of a message whose header has more than ASCII in it (RFC 6856 2.1 and 4).

Such a message must not be sent as it is.  Here each octet of the header that is not ASCII becomes a question mark: the
size stays what STAT and LIST have said without anybody having read the message, nothing is refused to a client that
knows no better, and the stored message stays what it is, for a client that says UTF8.  The body is 8-bit content like
any other and stays too.
"""

from __future__ import annotations

_ASCII = bytes(range(128)) + b"?" * 128


class Surrogate:
    """For one message of CRLF lines, cut anywhere."""

    __slots__ = ("_end", "_in_body")

    def __init__(self) -> None:
        self._in_body = False
        self._end = b"\r\n"  # the last octets before the present piece: the blank line may lie across the edge

    def feed(self, piece: bytes) -> bytes:
        if self._in_body:
            return piece
        seen = self._end + piece
        blank = seen.find(b"\r\n\r\n")
        if blank < 0:
            self._end = seen[-3:]
            return piece.translate(_ASCII)
        self._in_body = True
        end = blank + 4 - len(self._end)
        return piece if piece[:end].isascii() else piece[:end].translate(_ASCII) + piece[end:]


def surrogate(message: bytes) -> bytes:
    """The same for a whole message."""
    return message if message.isascii() else Surrogate().feed(message)
