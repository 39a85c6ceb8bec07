"""The content of queued messages, as servers take it: read when it is wanted, from memory where it is kept.

An attempt that waits for a connection holds no content.  All attempts together keep KEPT octets; beyond that, what is
wanted is read in blocks, so that thousands of servers that take it slowly need little memory.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from typing import Final

from mailsrv.store.database import StorageTrouble
from mailsrv.store.message import QueuedMessage
from mailsrv.store.spool import Spool

KEPT: Final = 32 * 1024 * 1024  # octets that all queued messages together keep in memory
EARLY: Final = 64 * 1024  # octets of a message that is kept before a server has wanted it
SMALL_BLOCK: Final = 16 * 1024  # octets that are read at once when KEPT is used up

Content = tuple[bytes, bytes | None]  # prefix and data; the data is None when it is a file


class Memory:
    """How much content is kept."""

    __slots__ = ("used",)

    def __init__(self) -> None:
        self.used = 0

    @property
    def left(self) -> int:
        return max(KEPT - self.used, 0)


class QueuedContent:
    """A ``ContentSource`` for as long as a message is in the window.

    ``trouble`` is set when the database could not be read, ``gone`` when the message has no content any more, since the
    operator took it out.
    """

    __slots__ = ("_kept", "_memory", "_queued", "_spool", "gone", "trouble")

    def __init__(self, spool: Spool, memory: Memory, queued: QueuedMessage, kept: Content | None = None) -> None:
        self._spool = spool
        self._memory = memory
        self._queued = queued
        self._kept: Content | None = None
        self.trouble: StorageTrouble | None = None
        self.gone = False
        if kept is not None and len(kept[1] or b"") <= memory.left:
            self._keep(kept)

    def _keep(self, content: Content) -> None:
        self._kept = content
        self._memory.used += len(content[1] or b"")

    def forget(self) -> None:
        """Nobody needs it any more."""
        if self._kept is not None:
            self._memory.used -= len(self._kept[1] or b"")
            self._kept = None

    async def whole(self) -> Content:
        """Prefix and data; both empty when they are gone (StorageTrouble)."""
        return self._kept or await self._spool.load(self._queued.id) or (b"", b"")

    def chunks(self) -> AsyncIterator[bytes]:
        return self._read(self._memory.left)

    def beginning(self) -> AsyncIterator[bytes]:
        # What is small is read once, for here and for the sending.
        return self._read(min(self._memory.left, EARLY))

    async def _read(self, kept: int) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._chunks(kept):
                yield chunk
        except StorageTrouble as trouble:
            self.trouble = trouble
            raise OSError(errno.EIO, str(trouble)) from trouble

    async def _chunks(self, kept: int) -> AsyncIterator[bytes]:
        """``kept``: how large it may be to be read at once and kept."""
        number, size = self._queued.id, self._queued.size
        if self._kept is None and size <= kept:
            found = await self._spool.load(number)
            if found is not None and self._kept is None:
                self._keep(found)
        if self._kept is not None and self._kept[1] is not None:
            yield self._kept[0]
            yield self._kept[1]
            return
        prefix, filed = await self._spool.load_prefix(number) if self._kept is None else (self._kept[0], True)
        if prefix is None:
            self.gone = True
            raise OSError(errno.ENOENT, "it was taken out of the queue")
        yield prefix
        offset = 0
        while block := await self._block(offset, filed):
            offset += len(block)
            yield block
        if offset != size:
            # Without this a damaged file would go out as if it were the message, and then be dropped.
            raise OSError(errno.EIO, f"{offset} octets instead of {size}", self._spool.path(number))

    async def _block(self, offset: int, filed: bool) -> bytes:
        if filed:
            return await self._spool.read_file(self._queued.id, offset)
        return await self._spool.load_block(self._queued.id, offset, SMALL_BLOCK)
