"""Reading small files without ever waiting for the disk.

A thread that reads for the reactor costs more than the reading, when what is read lies in memory anyway, as it does
for mail that has just come or is fetched in turn.  Linux can open and read on the condition that nothing has to be
fetched from the disk (``RESOLVE_CACHED`` of openat2 since 5.12, ``RWF_NOWAIT`` of preadv2 since 4.14) and says so when
the condition does not hold.  Where it cannot, nothing is ever found here and everything goes the long way.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from typing import Any

# The number of openat2 is the same on every machine that Linux runs on, but for Alpha.
_OPENAT2 = 437
_AT_FDCWD = -100
_RESOLVE_CACHED = 0x20
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_HOW = struct.pack("QQQ", _FLAGS, 0, _RESOLVE_CACHED)
_HOW_SIZE = len(_HOW)


def works() -> bool:
    """Whether this kernel can say at all what is in memory."""
    if sys.platform != "linux" or not hasattr(os, "RWF_NOWAIT") or os.uname().machine == "alpha":
        return False
    descriptor = _openat2()(_OPENAT2, _AT_FDCWD, b"/", _HOW, len(_HOW))
    if descriptor >= 0:
        os.close(descriptor)
    return bool(descriptor >= 0)


def _openat2() -> Any:
    syscall = ctypes.CDLL(None).syscall
    syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
    syscall.restype = ctypes.c_long
    return syscall


class PageCache:
    """For one thread; ``most`` octets is the largest file that is looked for."""

    def __init__(self, most: int) -> None:
        self._buffer = bytearray(most + 1)
        self._view = memoryview(self._buffer)
        self._buffers = [self._buffer]
        self._syscall = _openat2() if works() else None

    def read(self, path: bytes) -> bytes | None:
        """All of a regular file of 1 to ``most`` octets that is in memory; None otherwise, whatever the reason."""
        if self._syscall is None or b"\0" in path:  # C would read up to there
            return None
        descriptor = self._syscall(_OPENAT2, _AT_FDCWD, path, _HOW, _HOW_SIZE)
        if descriptor < 0:
            return None
        try:
            # Takes half as long as fstat, and what is no regular file has no end or cannot be read at a position.
            size = os.lseek(descriptor, 0, os.SEEK_END)
            if not 0 < size < len(self._buffer):
                return None
            found = os.preadv(descriptor, self._buffers, 0, os.RWF_NOWAIT)
            # Less than it has means that the rest is on the disk, or that somebody is writing to it.
            return bytes(self._view[:size]) if found == size else None
        except OSError:
            return None
        finally:
            os.close(descriptor)
