"""Content as it leaves: in 7 bits for servers that take no others, and signed by the keys that sign now.

A server that does not offer 8BITMIME gets 7-bit content and nothing else, whatever the sender had declared (RFC 6152
3): converted, or refused with the reason.  What has to change is found by ``mailsrv/mail/seven_bit.py``, which needs
the whole content in memory: all who do that at one time share a ``Budget``, and hold their part of it for as long as
this machine reads and looks, never while a server is waited for.  More than LARGEST octets are not converted.  Who
waits for LONGEST_WAIT_S is told so (``Crowded``).  Large messages have a thread of their own, so that a small one waits
for none of them there.

Our own signatures are made anew over what is converted, since a conversion breaks every one, and where the keys of the
domain have been changed while a message waited, on hold perhaps: when it leaves, the records of the old ones may be
gone, by their time or because somebody has seen the keys.

Nothing of the content is kept but the places to be changed.  It is read from the queue as often as it is needed and
changed as it goes by (``mailsrv/mail/transfer_encoding.py``): once for its size and its signatures, and once for the
server.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, replace
from typing import Final, Protocol

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

LARGEST: Final = 25 * 1024 * 1024  # octets of a message that is converted
AT_ONCE: Final = 32 * 1024 * 1024  # octets that all who look for what has to change have in memory together
LONGEST_WAIT_S: Final = 120.0  # for a part of these, with a server at the other end of an open connection
SMALL: Final = 1024 * 1024  # octets of a message that has not to wait for a thread behind larger ones
_PIECE: Final = 64 * 1024  # octets that are changed at once, and that leave at once


class Signer(Protocol):
    """``mailsrv.dkim.signer.Signer``, as far as it is needed here."""

    def is_current(self, begun: bytes) -> bool | None: ...

    async def again(self, header: bytes, body: AsyncIterator[bytes]) -> bytes: ...


class Crowded(Exception):
    """There was no memory for a conversion in time; the message says so, without an end."""


@dataclass(frozen=True, slots=True)
class Converted:
    """A ``ContentSource``: ``source`` with ``changes``, and ``head`` for the first ``replaced`` octets of that."""

    source: ContentSource
    changes: Changes
    head: bytes = b""
    replaced: int = 0

    def beginning(self) -> AsyncIterator[bytes]:
        return self.chunks()

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
                    for at in range(left_out, len(piece), _PIECE):
                        yield piece[at : at + _PIECE]
                    left_out -= min(left_out, len(piece))
        finally:
            await _close(read)
        last = rewriting.end()
        for at in range(left_out, len(last), _PIECE):
            yield last[at : at + _PIECE]


class Converter:
    """Makes of a message what a server takes.  Without ``signer`` no signature is looked at."""

    def __init__(self, outside: Outside, signer: Signer | None) -> None:
        self._outside = outside
        self._signer = signer
        self._budget = Budget(AT_ONCE)
        self._workers: dict[str, Worker] = {}

    async def fitted(self, job: Job, extensions: Extensions) -> Job | str:
        """``job`` with content that a server with these ``extensions`` takes; why there is none, as one sentence.

        ContentLost when the content cannot be read, Crowded when others need the memory for too long.
        """
        if "8BITMIME" in extensions or await _is_seven_bit(job):
            if self._signer is None or await _is_current(self._signer, job):
                return job
            return await self._signed(job, Changes())
        why = "The server takes 7-bit content only (it does not offer 8BITMIME), and this message cannot be converted"
        if job.size > LARGEST:
            return f"{why}: it has {job.size} octets, and the limit for that is {LARGEST}."
        try:
            changes = await self._changes(job)
        except Unconvertible as error:
            return f"{why}: {error}."
        fitted = await self._signed(job, changes)
        return replace(fitted, envelope=replace(job.envelope, body="7BIT"), eight_bit=False)

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

    async def _signed(self, job: Job, changes: Changes) -> Job:
        """With ``changes``, with our signatures made anew, and with the size of that (ContentLost)."""
        converted = Converted(job.content, changes)
        read = converted.chunks()
        try:
            head, begun = await _head(read)
            body = _Counted(begun, read)
            signed = head if self._signer is None else await self._signer.again(head, body)
            async for _ in body:
                await deferLater(self._outside.reactor, 0)  # others have their turns
        except OSError as error:
            raise ContentLost(f"the content cannot be read: {error}") from error
        finally:
            await read.aclose()
        content = replace(converted, head=signed, replaced=len(head))
        return replace(job, content=content, size=len(signed) + body.octets)


class _Counted:
    """What follows the empty line of a message; ``octets`` are those that have been read, and the line's."""

    def __init__(self, begun: bytes | None, rest: AsyncIterator[bytes]) -> None:
        """``begun`` is what has been read already, None when there was no empty line."""
        self.octets = 0 if begun is None else len(b"\r\n")
        self._begun = begun or b""
        self._rest = rest

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk, self._begun = self._begun, b""
        chunk = chunk or await anext(self._rest)
        self.octets += len(chunk)
        return chunk


async def _is_current(signer: Signer, job: Job) -> bool:
    """Whether nothing has to be signed anew (ContentLost)."""
    begun = b""
    chunks = job.content.beginning()
    try:
        async for chunk in chunks:
            begun += chunk
            current = signer.is_current(begun)
            if current is not None:
                return current
    except OSError as error:
        raise ContentLost(f"the content cannot be read: {error}") from error
    finally:
        await _close(chunks)
    return True


async def _head(read: AsyncIterator[bytes]) -> tuple[bytes, bytes | None]:
    """The header section, with the line end of its last field, and what has been read of the body behind the empty
    line; None when there is no empty line.
    """
    text = b""
    async for chunk in read:
        text += chunk
        if text.startswith(b"\r\n"):
            return b"", text[2:]
        end = text.find(b"\r\n\r\n")
        if end >= 0:
            return text[: end + 2], text[end + 4 :]
    return text, None


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
