"""Whether the mailboxes that a message is for have room for it.

At RCPT a recipient is refused (452 4.2.2) when no mailbox behind it has room for what MAIL announced.  At the end of
the content the size is known.  LMTP has an answer for each recipient.  SMTP has one for all, so:

- every recipient is without room: 452;
- one of them became full since RCPT: 452, because at the next attempt its RCPT is refused and the others get theirs;
- some are not full, yet this message is too much for them: it is taken, and they go over their quota by this one.  A
  452 would come again at each attempt, for RCPT does not see it, and the others would never get the message.

A mailbox behind an alias that leads to others, too, goes over its quota rather than keep the message from them; over
LMTP, who is to get it by such an alias and in its own name as well is not refused.
What is accepted is delivered, whatever the mailbox holds by then.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from twisted.internet.defer import Deferred

from mailsrv.smtp import replies
from mailsrv.store.mailbox import maildirsize
from mailsrv.store.mailbox.usage import MailboxUsage, Room
from mailsrv.store.message import Arrival, FinalRecipient
from mailsrv.store.spool import Spool

MAILBOX_FULL = replies.reply(452, "4.2.2", "The mailbox is full")
RULE = "quota"


@dataclass(slots=True)
class Taken:
    """What is decided at the end of the content.

    ``refused`` are the places of the recipients without room, in the order of their RCPTs; none of the message is to be
    stored when ``whole``.  ``release`` must be called once the message is accepted or not.
    """

    refused: list[int] = field(default_factory=list)
    whole: bool = False
    release: Callable[[], None] = lambda: None


def at_rcpt(
    usage: MailboxUsage, mailboxes: Sequence[str], announced: int | None
) -> Coroutine[Deferred[Any], Any, bool] | None:
    """Whether a recipient has room: None when there is nothing to ask, else an answer that may have to be awaited.

    ``mailboxes`` are where its mail ends, "" for an address elsewhere.
    """
    if any(not usage.limited(mailbox) for mailbox in mailboxes):
        return None
    return _has_room(usage, mailboxes, announced or 1)


async def _has_room(usage: MailboxUsage, mailboxes: Sequence[str], octets: int) -> bool:
    await usage.look(dict.fromkeys(mailboxes, octets))
    return any(usage.room(mailbox, octets) is Room.FITS for mailbox in mailboxes)


def limited(usage: MailboxUsage, found: Iterable[FinalRecipient]) -> bool:
    """Whether the end of the content has anything to ask."""
    return any(final.mailbox and usage.limited(final.mailbox) for final in found)


async def at_end(
    usage: MailboxUsage, spool: Spool, arrival: Arrival, recipients: Sequence[Sequence[str]], each: bool
) -> Taken:
    """Decide, and reserve what is taken.

    ``recipients``: where the mail for each RCPT ends (keys of mailboxes, "" for elsewhere).  ``each``: LMTP.
    """
    sizes = {
        final.mailbox: maildirsize.size_told(name) or 0
        for final, name in zip(arrival.recipients, spool.names(arrival), strict=True)
        if final.mailbox and usage.limited(final.mailbox)
    }
    await usage.look(sizes)
    rooms = {mailbox: usage.room(mailbox, octets) for mailbox, octets in sizes.items()}
    refused, whole = judge(recipients, rooms, each)
    if whole:
        return Taken(refused, whole)
    kept = {mailbox for n, ends in enumerate(recipients) if n not in refused for mailbox in ends}
    return Taken(refused, whole, usage.reserve({box: octets for box, octets in sizes.items() if box in kept}))


def judge(recipients: Sequence[Sequence[str]], rooms: Mapping[str, Room], each: bool) -> tuple[list[int], bool]:
    """The places of the recipients that are refused, and whether that is the whole message."""

    def best(ends: Sequence[str]) -> Room:
        found = [rooms.get(mailbox, Room.FITS) for mailbox in ends]
        return next((room for room in (Room.FITS, Room.OVER) if room in found), Room.FULL)

    of_each = [best(ends) for ends in recipients]
    without = [n for n, room in enumerate(of_each) if room is not Room.FITS]
    if len(without) == len(of_each):
        return without, True
    if each:
        return _reached_by_nobody_else(recipients, without), False
    full = [n for n, room in enumerate(of_each) if room is Room.FULL]
    return full, bool(full)


def _reached_by_nobody_else(recipients: Sequence[Sequence[str]], refused: Sequence[int]) -> list[int]:
    """Those of ``refused`` none of whose mailboxes gets the message for another recipient.

    A refusal of the others would bring it there a second time.
    """
    left = set(refused)
    reached = {mailbox for n, ends in enumerate(recipients) if n not in left for mailbox in ends}
    while others := [n for n in left if not reached.isdisjoint(recipients[n])]:
        left.difference_update(others)
        reached.update(mailbox for n in others for mailbox in recipients[n])
    return sorted(left)


def without(arrival: Arrival, recipients: Sequence[Sequence[str]], refused: Sequence[int]) -> Arrival:
    """The message for those who are not refused."""
    kept = {mailbox for n, ends in enumerate(recipients) if n not in refused for mailbox in ends}
    return replace(arrival, recipients=tuple(final for final in arrival.recipients if final.mailbox in kept))
