"""Signs messages of our domains as they leave, in threads of its own: neither hash nor signature waits on the reactor.

The keys in force are asked for at each message.  Where a domain has none its mail leaves as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence

from mailsrv.dkim import signature
from mailsrv.dkim.canonical import RelaxedBody
from mailsrv.dkim.signature import Key
from mailsrv.mail import header
from mailsrv.outside.interfaces import Outside

THREADS = 2
PIECE = 256 * 1024  # octets of a message in memory that are hashed at once

Keys = Mapping[str, Sequence[Key]]


class Signer:
    """``keys`` gives the keys in force, by domain (A-labels), in the order of their signatures."""

    def __init__(self, outside: Outside, keys: Callable[[], Keys]) -> None:
        self._worker = outside.worker("signatures", THREADS)
        self._wall = outside.wall
        self._keys = keys

    def stop(self) -> None:
        """End the threads."""
        self._worker.stop()

    async def fields(self, domain: str, header: bytes, body: AsyncIterable[bytes]) -> bytes:
        """The DKIM-Signature fields of ``domain`` for the front of a message, b"" when it has no key.

        ``header`` is the header section as it leaves, ``body`` what follows the empty line, in chunks as large as they
        may be in memory.  What reading them raises goes to the caller.
        """
        keys = self._keys().get(domain, ())
        if not keys:
            return b""
        digest = hashlib.sha256()
        relaxed = RelaxedBody(digest.update)
        last = b""
        async for chunk in body:
            # The last one goes with the signature, so that most messages take one hop to a thread.
            if last:
                await self._worker.call(relaxed.feed, last)
            last = chunk

        def sign() -> bytes:
            relaxed.feed(last)
            relaxed.end()
            return signature.sign(keys, header, digest.digest(), self._wall())

        return await self._worker.call(sign)

    async def fields_of(self, domain: str, message: bytes) -> bytes:
        """The same for a message in memory."""
        head, body = header.split(message)
        return await self.fields(domain, head, _pieces(body))

    def is_current(self, begun: bytes) -> bool | None:
        """Whether the signatures that we had put in front of a message are by the keys that sign now.

        So it is also where there are none of ours, or no keys to make others with.  None when the beginning of the
        message, ``begun``, is not long enough to tell.
        """
        signers = signature.signers(begun)
        if signers is None:
            return None
        domain, selectors = signers
        keys = self._keys().get(domain, ()) if domain else ()
        return not keys or sorted(selectors) == sorted(key.selector for key in keys)

    async def again(self, header: bytes, body: AsyncIterable[bytes]) -> bytes:
        """The header section of a message that leaves otherwise than it was signed, with signatures made anew in place
        of those that we had put in front; the same, and ``body`` not read, when there were none.

        Header section and body as for ``fields``.
        """
        domain, rest = signature.take_off(header)
        return await self.fields(domain, rest, body) + rest if domain else header


async def _pieces(octets: bytes) -> AsyncIterator[bytes]:
    """Small enough that no other thread waits long for the interpreter."""
    for start in range(0, len(octets), PIECE):
        yield octets[start : start + PIECE]
