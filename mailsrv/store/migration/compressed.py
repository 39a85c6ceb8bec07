"""Messages that Dovecot keeps compressed in a Maildir (its zlib plugin), and those that it has encrypted.

What a file is, its first octets tell: no message begins like that.  gzip, bzip2 and xz are undone, up to a limit; the
others are named, so that somebody may undo them with ``doveadm``.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import Final, Protocol

LIMIT: Final = 1 << 30

_GZIP: Final = 16 + zlib.MAX_WBITS
_UNKNOWN: Final = {
    b"\x28\xb5\x2f\xfd": "is compressed with zstd",
    b"Dovecot-LZ4\x0d\x2a\x9b\xc5": "is compressed with LZ4",
    b"CRYPTED\x03\x07": "is encrypted",
}


class CannotUndo(ValueError):
    """The message is compressed or encrypted; the text is the end of a sentence about it."""


class _Decompressor(Protocol):
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...

    @property
    def eof(self) -> bool: ...


def undone(data: bytes) -> bytes:
    """The message in ``data``, which mostly is ``data`` itself (CannotUndo)."""
    for start, what in _UNKNOWN.items():
        if data.startswith(start):
            raise CannotUndo(f"{what}; let doveadm write it in clear first")
    if data.startswith(b"\x1f\x8b\x08"):
        return _with(zlib.decompressobj(_GZIP), data)
    if data.startswith(b"BZh"):
        return _with(bz2.BZ2Decompressor(), data)
    if data.startswith(b"\xfd7zXZ\x00"):
        return _with(lzma.LZMADecompressor(), data)
    return data


def _with(decompressor: _Decompressor, data: bytes) -> bytes:
    try:
        found = decompressor.decompress(data, LIMIT)
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError):
        raise CannotUndo("is compressed and damaged") from None
    if not decompressor.eof:
        raise CannotUndo("is compressed and damaged" if len(found) < LIMIT else "is compressed and too large")
    return found
