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
FORGED = (
    "Nothing where the address was forged, as senders of spam often are. If it belongs to one of your machines or "
    "users, give that a sender address that exists."
)
SHOWN = 50  # recipients told of in words; the machine's part tells of all

Kind = Literal["failed", "delayed", "delivered", "relayed", "expanded", "lost"]

SUBJECTS: dict[Kind, str] = {
    "failed": "Undeliverable",
    "delayed": "Delayed",
    "delivered": "Delivered",
    "relayed": "Passed on",
    "expanded": "Delivered to a list",
    "lost": "Undeliverable report",
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
    "lost": (
        "A report of this server, that a message could not be delivered, could not be delivered itself to the address "
        "below. So nobody has heard what became of that message, and the report comes to you, the postmaster."
    ),
}
_PLURAL = (("the address below", "the addresses below"), ("which passes", "which pass"))


@dataclass(frozen=True, slots=True)
class ReportedRecipient:
    """What became of one recipient.

    ``status`` is an enhanced status code; ``reason``, ``answer`` and ``remote`` are as in
    :class:`mailsrv.mail.outcome.Outcome`.  ``original`` is ORCPT, decoded, as ``type;address``, "" when there was none.
    ``attempted_at`` is the last attempt and ``retry_until`` the time of giving up, seconds since 1970.  ``meaning`` and
    ``remedy``, whole sentences, are of a known refusal, "" for others; ``for_postmaster``: the remedy is not for the
    sender but for who runs this server.
    """

    address: Address
    status: str
    reason: str = ""
    answer: str = ""
    remote: str = ""
    original: str = ""
    attempted_at: float | None = None
    retry_until: float | None = None
    meaning: str = ""
    remedy: str = ""
    for_postmaster: bool = False


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
    yield "The report:" if kind == "lost" else "Your message:"
    yield ""
    for name, value in (("Subject", told.subject), ("Date", told.date), ("Message-ID", told.message_id)):
        if value:
            yield from _wrapped(f"{name}: {value}", "  ")
    yield from _wrapped(f"Received: {rfc5322_date(told.arrived_at)} by {hostname}", "  ")
    yield ""
    yield from _wrapped(_closing(kind, hostname, told))


def _closing(kind: Kind, hostname: str, told: Told) -> str:
    what = "the report" if kind == "lost" else "your message"
    attached = (
        f"{what.capitalize()} is attached." if told.returned == "message" else f"The header of {what} is attached."
    )
    return f"{attached} This report was written by the mail server {hostname}; nobody reads answers to it."


def _recipient(kind: Kind, recipient: ReportedRecipient) -> Iterator[str]:
    yield f"  {recipient.address.text}"
    asked = recipient.original.partition(";")[2]
    if asked and asked.lower() not in {str(recipient.address).lower(), recipient.address.text.lower()}:
        yield from _wrapped(f"You wrote to {asked}, which leads there.", "    ")
    if kind not in ("failed", "delayed", "lost"):
        return
    yield ""
    if not recipient.meaning or recipient.status.endswith(".4.7"):
        yield from _wrapped(f"{status.meaning(recipient.status)}.", "    ")
    if recipient.reason:
        yield from _wrapped(_sentence(recipient.reason), "    ")
    if recipient.answer:
        yield ""
        yield from _wrapped(f"{recipient.remote or 'The other server'} said:", "    ")
        yield from _wrapped(recipient.answer, "      ")
    yield ""
    if recipient.meaning:
        yield from _wrapped(f"What it means: {recipient.meaning}", "    ")
        yield ""
    if kind == "delayed":
        if recipient.retry_until is not None:
            yield from _wrapped(f"The server tries until {rfc5322_date(recipient.retry_until)}.", "    ")
    else:
        yield from _wrapped(f"What you can do: {_advice(kind, recipient)}", "    ")
    if recipient.for_postmaster:
        yield ""
        yield from _wrapped(f"What the postmaster can do: {recipient.remedy}", "    ")


def _sentence(words: str) -> str:
    # A host's name is written as it is.
    begins_with_name = "." in words.partition(" ")[0]
    return f"{words[:1] if begins_with_name else words[:1].upper()}{words[1:].rstrip('.')}."


def _advice(kind: Kind, recipient: ReportedRecipient) -> str:
    if kind == "lost":
        return FORGED
    if recipient.for_postmaster:
        return status.OUR_POSTMASTER
    if recipient.remedy and recipient.answer.startswith("5"):
        return recipient.remedy
    # Where the server has given up, "try again later" is no longer what it will do: ask for the advice of a final no.
    final = f"5{recipient.status[1:]}" if recipient.status.startswith("4") else recipient.status
    return status.advice(final, recipient.answer)


def _wrapped(words: str, indent: str = "") -> Iterable[str]:
    return textwrap.wrap(
        words, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
