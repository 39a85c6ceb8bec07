"""The part of a delivery report that people read: which address, what happened, what it means, what to do.

Plain text in lines of at most 72 characters where words allow.  Everything from elsewhere (subjects, answers of
servers) has lost its control characters and is bounded before it comes here.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from mailsrv.mail import status
from mailsrv.mail.address import Address
from mailsrv.mail.date import rfc5322_date

WIDTH = 72
SHOWN = 50  # recipients told of in words; the machine's part tells of all

Kind = Literal["failed", "delayed", "delivered", "relayed", "expanded"]

SUBJECTS: dict[Kind, str] = {
    "failed": "Undeliverable",
    "delayed": "Delayed",
    "delivered": "Delivered",
    "relayed": "Passed on",
    "expanded": "Delivered to a list",
}

_OPENINGS: dict[Kind, str] = {
    "failed": "Your message could not be delivered to the address below, and the server has given up.",
    "delayed": (
        "Your message has not been delivered to the address below yet. The server keeps trying: there is no need to "
        "send the message again."
    ),
    "delivered": "Your message was delivered to the address below, as you asked to be told.",
    "relayed": (
        "Your message was passed on to another server for the address below. That server gives no delivery notices, so "
        "this may be the last one about it."
    ),
    "expanded": "Your message was delivered to the address below, which passes it on to several others.",
}
_PLURAL = (("the address below", "the addresses below"), ("which passes", "which pass"))


@dataclass(frozen=True, slots=True)
class ReportedRecipient:
    """What became of one recipient.

    ``status`` is an enhanced status code; ``reason``, ``answer`` and ``remote`` are as in
    :class:`mailsrv.mail.outcome.Outcome`.  ``original`` is ORCPT, decoded, as ``type;address``, "" when there was none.
    ``attempted_at`` is the last attempt and ``retry_until`` the time of giving up, seconds since 1970.
    """

    address: Address
    status: str
    reason: str = ""
    answer: str = ""
    remote: str = ""
    original: str = ""
    attempted_at: float | None = None
    retry_until: float | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What is said of the original message; "" where nothing is known."""

    subject: str
    date: str
    message_id: str
    arrived_at: float
    returned: Literal["message", "headers"]


def text(kind: Kind, hostname: str, recipients: Sequence[ReportedRecipient], told: Told) -> str:
    """The whole text, lines ended by ``\\n``."""
    return "\n".join(_lines(kind, hostname, recipients, told)) + "\n"


def _lines(kind: Kind, hostname: str, recipients: Sequence[ReportedRecipient], told: Told) -> Iterator[str]:
    opening = _OPENINGS[kind]
    if len(recipients) > 1:
        for one, several in _PLURAL:
            opening = opening.replace(one, several)
    yield from _wrapped(opening)
    for recipient in recipients[:SHOWN]:
        yield ""
        yield from _recipient(kind, recipient)
    if len(recipients) > SHOWN:
        yield ""
        yield from _wrapped(f"And {len(recipients) - SHOWN} more, which the next part of this report names.")
    yield ""
    yield "Your message:"
    yield ""
    for name, value in (("Subject", told.subject), ("Date", told.date), ("Message-ID", told.message_id)):
        if value:
            yield from _wrapped(f"{name}: {value}", "  ")
    yield from _wrapped(f"Received: {rfc5322_date(told.arrived_at)} by {hostname}", "  ")
    yield ""
    yield from _wrapped(_closing(hostname, told))


def _closing(hostname: str, told: Told) -> str:
    attached = "Your message is attached." if told.returned == "message" else "The header of your message is attached."
    return f"{attached} This report was written by the mail server {hostname}; nobody reads answers to it."


def _recipient(kind: Kind, recipient: ReportedRecipient) -> Iterator[str]:
    yield f"  {recipient.address.text}"
    asked = recipient.original.partition(";")[2]
    if asked and asked.lower() not in {str(recipient.address).lower(), recipient.address.text.lower()}:
        yield from _wrapped(f"You wrote to {asked}, which leads there.", "    ")
    if kind not in ("failed", "delayed"):
        return
    yield ""
    yield from _wrapped(f"{status.meaning(recipient.status)}.", "    ")
    if recipient.reason:
        yield from _wrapped(f"{recipient.reason[:1].upper()}{recipient.reason[1:].rstrip('.')}.", "    ")
    if recipient.answer:
        yield ""
        yield from _wrapped(f"{recipient.remote or 'The other server'} said:", "    ")
        yield from _wrapped(recipient.answer, "      ")
    yield ""
    if kind == "delayed":
        if recipient.retry_until is not None:
            yield from _wrapped(f"The server tries until {rfc5322_date(recipient.retry_until)}.", "    ")
        return
    # Where the server has given up, "try again later" is no longer what it will do: ask for the advice of a final no.
    final = f"5{recipient.status[1:]}" if recipient.status.startswith("4") else recipient.status
    yield from _wrapped(f"What you can do: {status.advice(final, recipient.answer)}", "    ")


def _wrapped(words: str, indent: str = "") -> Iterable[str]:
    return textwrap.wrap(
        words, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
