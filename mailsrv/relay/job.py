"""What the queue hands to a delivery agent: a message, some of its recipients, a destination."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Protocol

from zope.interface import Interface

from mailsrv.mail.envelope import Envelope, Recipient
from mailsrv.mail.outcome import Outcome


class ContentSource(Protocol):
    """The content of a message: canonical CRLF lines, trace headers first.  May be read several times."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The octets from the beginning (an async generator, or the like); OSError when they cannot be read."""
        ...

    def beginning(self) -> AsyncIterator[bytes]:
        """The same, for who will not go on far; memory is not taken for all that would follow."""
        ...


def _nobody_waits() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Job:
    """Recipients of one message that share a destination (a domain as A-label, or an address literal).

    ``size`` is the octets of the content, prefix included; ``eight_bit`` tells that there are octets above 127 in it.
    ``on_alive`` is called when a server has answered that it takes a recipient, once or more often.  That the content
    is read tells nothing: it is read before MAIL, too.
    """

    queue_id: str
    envelope: Envelope
    recipients: tuple[Recipient, ...]
    destination: str
    content: ContentSource
    size: int
    eight_bit: bool
    on_alive: Callable[[], None] = field(default=_nobody_waits, compare=False)


class IDeliveryAgent(Interface):
    """Whoever hands messages on: the relay is one."""

    async def deliver(job: Job) -> list[Outcome]:
        """One attempt for every recipient of ``job``; one outcome each, in their order.  Never raises."""

    async def close() -> None:
        """End the attempts under way; those that come to nothing by that are DEFERRED.  May be called twice."""
