"""Content with octets above 127 for servers that take none (RFC 6152 3): converted, or refused with the reason.

A server that does not offer 8BITMIME gets 7-bit content and nothing else, whatever the sender had declared.  The
conversion itself is pure, ``mailsrv/mail/seven_bit.py``; here is what it needs around it: reading the content, a
thread, and ``resign``, which makes our own signature anew over what leaves, for a conversion breaks every signature.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from mailsrv.mail.seven_bit import Unconvertible, seven_bit
from mailsrv.outside.interfaces import Outside, Worker
from mailsrv.relay.connection import ContentLost
from mailsrv.relay.job import Job
from mailsrv.relay.obstacles import whole_content
from mailsrv.smtp.client_events import Extensions

Resign = Callable[[bytes], Awaitable[bytes]]

_SMALL: Final = 64 * 1024  # octets of what is read at once, and of a piece
LARGEST: Final = 25 * 1024 * 1024  # octets of what is converted in memory


@dataclass(frozen=True, slots=True)
class Converted:
    """A ``ContentSource`` in memory."""

    content: bytes

    async def chunks(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.content), _SMALL):
            yield self.content[start : start + _SMALL]


class Converter:
    """``resign(content)`` gives the converted content with signatures that are true of it."""

    def __init__(self, outside: Outside, resign: Resign | None) -> None:
        self._outside = outside
        self._resign = resign
        self._worker: Worker | None = None

    async def fitted(self, job: Job, extensions: Extensions) -> Job | str:
        """``job`` with content that a server with these ``extensions`` takes; why there is none, as one sentence.

        ContentLost when the content cannot be read.
        """
        if "8BITMIME" in extensions:
            return job
        if job.size <= _SMALL:  # read once, for here and for the sending
            job = replace(job, content=Converted(await whole_content(job)))
        if await _is_seven_bit(job):
            return job
        why = "The server takes 7-bit content only (it does not offer 8BITMIME), and this message cannot be converted"
        if job.size > LARGEST:
            return f"{why}: it has {job.size} octets, and the limit for that is {LARGEST}."
        content = await whole_content(job)
        try:
            converted = await self._at_work().call(seven_bit, content)
        except Unconvertible as error:
            return f"{why}: {error}."
        if self._resign is not None:
            converted = await self._resign(converted)
        envelope = replace(job.envelope, body="7BIT")
        return replace(job, envelope=envelope, content=Converted(converted), size=len(converted), eight_bit=False)

    def stop(self) -> None:
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def _at_work(self) -> Worker:
        if self._worker is None:
            self._worker = self._outside.worker("conversion")
        return self._worker


async def _is_seven_bit(job: Job) -> bool:
    chunks = job.content.chunks()
    try:
        async for chunk in chunks:
            if not chunk.isascii():
                return False
    except OSError as error:
        raise ContentLost(f"the content cannot be read: {error}") from error
    finally:
        close = getattr(chunks, "aclose", None)
        if close is not None:
            await close()
    return True
