"""Content with octets above 127 for servers that take none (RFC 6152 3): converted, or refused with the reason.

A server that does not offer 8BITMIME gets 7-bit content and nothing else, whatever the sender had declared.  What has
to change is found by ``mailsrv/mail/seven_bit.py``, which needs the whole content in memory: all who do that at one
time share a ``Budget``, and hold their part of it for as long as this machine reads and looks, never while a server is
waited for.  After that nothing is kept but the places to be changed.  The content is read from the queue as often as
it is needed and changed as it goes by (``mailsrv/mail/transfer_encoding.py``): once for its size and for ``resign``,
which makes our own signature anew over what leaves, since a conversion breaks every signature, and once for the server.

More than LARGEST octets are not converted.  Who waits for LONGEST_WAIT_S is told so (``Crowded``).  Large messages have
a thread of their own, so that a small one waits for none of them there.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from twisted.internet.defer import CancelledError, TimeoutError
from twisted.internet.task import deferLater

from mailsrv.mail import seven_bit
from mailsrv.mail.seven_bit import Unconvertible
from mailsrv.mail.transfer_encoding import Changes, Rewriting
from mailsrv.outside.interfaces import Outside, Worker
from mailsrv.relay.budget import Budget
from mailsrv.relay.connection import ContentLost
from mailsrv.relay.job import ContentSource, Job
from mailsrv.smtp.client_events import Extensions

Resign = Callable[[bytes, AsyncIterator[bytes]], Awaitable[bytes]]

LARGEST: Final = 25 * 1024 * 1024  # octets of a message that is converted
AT_ONCE: Final = 32 * 1024 * 1024  # octets that all who look for what has to change have in memory together
LONGEST_WAIT_S: Final = 120.0  # for a part of these, with a server at the other end of an open connection
SMALL: Final = 1024 * 1024  # octets of a message that has not to wait for a thread behind larger ones
_PIECE: Final = 64 * 1024  # octets that are changed at once


class Crowded(Exception):
    """There was no memory for a conversion in time; the message says so, without an end."""


@dataclass(frozen=True, slots=True)
class Converted:
    """A ``ContentSource``: ``source`` with ``changes``, and ``head`` for the first ``replaced`` octets of that."""

    source: ContentSource
    changes: Changes
    head: bytes = b""
    replaced: int = 0

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        if self.head:
            yield self.head
        left_out = self.replaced
        rewriting = Rewriting(self.changes)
        read = self.source.chunks()
        try:
            async for chunk in read:
                for start in range(0, len(chunk), _PIECE):
                    piece = rewriting.feed(chunk[start : start + _PIECE])
                    if left_out < len(piece):
                        yield piece[left_out:]
                    left_out -= min(left_out, len(piece))
        finally:
            await _close(read)
        if last := rewriting.end()[left_out:]:
            yield last


class Converter:
    """``resign(head, body)`` gives the header section of what leaves with signatures that are true of it.

    ``body`` is what follows the empty line, in pieces; it need not be read.
    """

    def __init__(self, outside: Outside, resign: Resign | None) -> None:
        self._outside = outside
        self._resign = resign
        self._budget = Budget(AT_ONCE)
        self._workers: dict[str, Worker] = {}

    async def fitted(self, job: Job, extensions: Extensions) -> Job | str:
        """``job`` with content that a server with these ``extensions`` takes; why there is none, as one sentence.

        ContentLost when the content cannot be read, Crowded when others need the memory for too long.
        """
        if "8BITMIME" in extensions or await _is_seven_bit(job):
            return job
        why = "The server takes 7-bit content only (it does not offer 8BITMIME), and this message cannot be converted"
        if job.size > LARGEST:
            return f"{why}: it has {job.size} octets, and the limit for that is {LARGEST}."
        try:
            changes = await self._changes(job)
        except Unconvertible as error:
            return f"{why}: {error}."
        try:
            content, size = await self._signed(Converted(job.content, changes))
        except OSError as error:
            raise ContentLost(f"the content cannot be read: {error}") from error
        envelope = replace(job.envelope, body="7BIT")
        return replace(job, envelope=envelope, content=content, size=size, eight_bit=False)

    def close(self) -> None:
        """Nobody waits any longer; what was begun may end."""
        self._budget.close()

    def stop(self) -> None:
        """End the threads."""
        for worker in self._workers.values():
            worker.stop()
        self._workers.clear()

    async def _changes(self, job: Job) -> Changes:
        waiting = self._budget.take(job.size).addTimeout(LONGEST_WAIT_S, self._outside.reactor)
        try:
            await waiting
        except (CancelledError, TimeoutError):
            raise Crowded("other messages are being converted to 7 bits, and it was not this one's turn") from None
        try:
            content = await _whole(job)
            return await self._worker(job.size).call(seven_bit.changes, content)
        finally:
            self._budget.give_back(job.size)

    def _worker(self, size: int) -> Worker:
        name = "conversion" if size <= SMALL else "large conversion"
        if name not in self._workers:
            self._workers[name] = self._outside.worker(name)
        return self._workers[name]

    async def _signed(self, converted: Converted) -> tuple[Converted, int]:
        """With our signatures made anew, and its size (OSError)."""
        read = converted.chunks()
        try:
            head, begun = await _head(read)
            body = _Counted(begun, read)
            signed = head if self._resign is None else await self._resign(head, body)
            async for _ in body:
                await deferLater(self._outside.reactor, 0)  # others have their turns
        finally:
            await read.aclose()
        size = len(signed) + len(b"\r\n") + body.octets
        return replace(converted, head=signed, replaced=len(head)), size


class _Counted:
    """What follows the empty line of a message; ``octets`` are those that have been read."""

    def __init__(self, begun: bytes, rest: AsyncIterator[bytes]) -> None:
        self.octets = 0
        self._begun = begun
        self._rest = rest

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk, self._begun = self._begun, b""
        chunk = chunk or await anext(self._rest)
        self.octets += len(chunk)
        return chunk


async def _head(read: AsyncIterator[bytes]) -> tuple[bytes, bytes]:
    """The header section, with the line end of its last field, and what has been read of the body behind it."""
    text = b""
    async for chunk in read:
        text += chunk
        if text.startswith(b"\r\n"):
            return b"", text[2:]
        end = text.find(b"\r\n\r\n")
        if end >= 0:
            return text[: end + 2], text[end + 4 :]
    raise OSError("the content has no end of its header any more")


async def _whole(job: Job) -> bytearray:
    """All of it, without a second copy on the way (ContentLost when it is not ``job.size`` octets long)."""
    content = bytearray(job.size)
    at = 0
    chunks = job.content.chunks()
    try:
        async for chunk in chunks:
            content[at : at + len(chunk)] = chunk
            at += len(chunk)
            if at > job.size:
                break
    except OSError as error:
        raise ContentLost(f"the content cannot be read: {error}") from error
    finally:
        await _close(chunks)
    if at != job.size:
        raise ContentLost(f"the content is not {job.size} octets long as was written down")
    return content


async def _is_seven_bit(job: Job) -> bool:
    chunks = job.content.chunks()
    try:
        async for chunk in chunks:
            if not chunk.isascii():
                return False
    except OSError as error:
        raise ContentLost(f"the content cannot be read: {error}") from error
    finally:
        await _close(chunks)
    return True


async def _close(chunks: AsyncIterator[bytes]) -> None:
    close = getattr(chunks, "aclose", None)
    if close is not None:
        await close()
