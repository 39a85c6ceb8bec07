"""Reading whole files of a mailbox, never through a symbolic link."""

from __future__ import annotations

import errno
from typing import Final

from mailsrv.outside.interfaces import IFilesystem

LIMIT: Final = 1 << 30
_CHUNK: Final = 1 << 20


def content_of(filesystem: IFilesystem, path: str) -> bytes:
    """A regular file of at most ``LIMIT`` octets (OSError)."""
    source = filesystem.open(path)
    try:
        chunks = []
        left = LIMIT
        while chunk := source.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                raise OSError(errno.EFBIG, f"larger than {LIMIT:,} octets", path)
            chunks.append(chunk)
        return b"".join(chunks)
    finally:
        source.close()
