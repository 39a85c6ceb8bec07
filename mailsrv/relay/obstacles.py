"""What keeps a message from a server before a word is said about it: its size, and characters that it cannot take."""

from __future__ import annotations

from collections.abc import Sequence

from mailsrv.mail.outcome import Outcome, Result
from mailsrv.relay.connection import ContentLost
from mailsrv.relay.job import Job
from mailsrv.relay.session import Session
from mailsrv.smtp.client_commands import is_ascii


def too_large(job: Job, session: Session) -> Outcome | None:
    """RFC 1870 6.1: what is larger than the server takes is not offered to it."""
    limit = session.core.extensions.size
    if limit is None or job.size <= limit:
        return None
    reason = f"The message has {job.size} octets, and {session.hop} takes at most {limit}."
    return session.outcome(Result.FAILED, "5.3.4", reason, rule="SIZE (RFC 1870)")


async def too_international(job: Job, positions: Sequence[int], session: Session) -> dict[int, Outcome]:
    """Of the recipients at ``positions`` those that need SMTPUTF8 where it is not offered (ContentLost)."""
    if "SMTPUTF8" in session.core.extensions:
        return {}
    # RFC 6531 3.2, 3.4: nothing that needs it goes where it is not known.
    whole = not is_ascii(job.envelope.sender)
    if job.envelope.smtputf8 and job.eight_bit and not whole:
        whole = await _unicode_header(job)
    if not whole and all(is_ascii(job.recipients[n].address) for n in positions):
        return {}
    reason = f"{session.hop} takes no addresses or headers beyond ASCII, and this message needs them."
    refused = session.outcome(Result.FAILED, "5.6.7", reason, rule="SMTPUTF8 (RFC 6531)")
    return {n: refused for n in positions if whole or not is_ascii(job.recipients[n].address)}


async def whole_content(job: Job) -> bytes:
    """All of a small message (ContentLost when it is not ``job.size`` octets long)."""
    chunks = job.content.chunks()
    try:
        content = b"".join([chunk async for chunk in chunks])
    except OSError as error:
        raise ContentLost(f"the content cannot be read: {error}") from error
    if len(content) != job.size:
        raise ContentLost(f"the content is {len(content)} octets long where {job.size} were written down")
    return content


async def _unicode_header(job: Job) -> bool:
    """Whether there are octets above 127 before the first empty line."""
    chunks = job.content.chunks()
    before = b""
    try:
        async for chunk in chunks:
            text = before + chunk
            header, end, _ = text.partition(b"\r\n\r\n")
            if not header.isascii():
                return True
            if end:
                return False
            before = text[-3:]
    except OSError as error:
        raise ContentLost(f"the content cannot be read: {error}") from error
    finally:
        close = getattr(chunks, "aclose", None)
        if close is not None:
            await close()
    return False
