"""The history of a message in plain sentences: what was decided and when, why, and what comes next.

Used by ``why`` and ``queue show``.  Every stored string goes through ``wording.clean``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mailsrv.cli.wording import clean, counted, moment, span
from mailsrv.relay.remedies import Remedy, remedy_for, remedy_of
from mailsrv.store import ledger, queue_id, schema
from mailsrv.store.history import MessageHistory, RecipientState, Record
from mailsrv.store.ledger import Event

OVERDUE_S = 60  # an attempt this late makes one ask whether the server runs

_DID = {
    ledger.ACCEPTED: "accepted",
    ledger.DELIVERED: "delivered",
    ledger.DEFERRED: "deferred",
    ledger.BOUNCED: "failed for good, and the sender was told",
    ledger.DROPPED: "failed for good, and nobody was told",
    ledger.WARNED: "the sender was told of the delay",
    ledger.HELD: "held",
    ledger.RELEASED: "released",
    ledger.RETRIED: "retried",
    ledger.REMOVED: "removed",
    ledger.REFUSED: "refused",
    ledger.OBSERVED: "observed",
    ledger.CONNECTION: "turned away at connecting",
    ledger.LOGIN: "login failed",
    ledger.DELETED: "fetched and deleted by POP3",
    ledger.CONFIG: "configuration",
}


def message_lines(message: MessageHistory, at: float) -> Iterator[str]:
    """The whole story of ``message``; next steps are seen from ``at``, seconds since 1970."""
    id = queue_id.text(message.id)
    yield f"Message {id} {sender(message.sender)}"
    yield f"  Message-ID {f'<{clean(message.message_id)}>' if message.message_id else 'missing'}, {size(message.size)}"
    addresses = {recipient.n: recipient.address for recipient in message.recipients}
    explained: set[str] = set()
    for record in message.events:
        if record.event.kind == ledger.ACCEPTED:
            yield f"  {moment(record.at)}  {_accepted(message, record.event)}"
        else:
            yield f"  {moment(record.at)}  {_decision(record.event, addresses)}"
            remedy = _remedy(record.event)
            if remedy is not None and remedy.cause not in explained:
                explained.add(remedy.cause)
                yield f"    That means: {remedy.meaning} What to do: {remedy.remedy}"
    deleted = {record.event.n for record in message.events if record.event.kind == ledger.DELETED}
    for recipient in message.recipients:
        now = standing(id, recipient, at, recipient.n in deleted)
        yield f"  {clean(recipient.address)}{_asked_for(recipient)} {now}"


def loose_line(record: Record) -> str:
    """An event that belongs to no message."""
    event = record.event
    step = {
        ledger.REFUSED: (
            "The client may try again; `mailsrv account quota ADDRESS` shows how full it is and gives more."
            if event.rule == "quota"
            else "Nothing was accepted; where it was one of your users, `submission.mend_lines` mends such lines."
            if "bare LF" in event.reason
            else "Nothing was accepted; the client may try again."
            if event.status.startswith("4.")
            else "Nothing was accepted; the sender's server has told its user."
        ),
        ledger.OBSERVED: (
            "The mail went on; this check refuses when its name is out of checks.observe."
            if event.detail
            else "No mail was refused for it."
        ),
        ledger.LOGIN: (
            "The password was right; let the program look for mail less often, or shorten the delay."
            if event.rule == "limits.login_delay"
            else "`mailsrv account passwd ADDRESS` sets a new password."
        ),
    }.get(event.kind, "")
    return f"{moment(record.at)}  {_decision(event, {})}{' ' + step if step else ''}"


def sender(address: str) -> str:
    """``from alice@example.org``, or of nobody."""
    return f"from {clean(address)}" if address else "from <> (a report)"


def size(octets: int) -> str:
    return counted(octets, "octet")


def waiting(recipient: RecipientState, at: float) -> str:
    """When the next attempt of a queued recipient comes."""
    due = recipient.next_attempt - at
    if due > 0:
        return f"next attempt in {span(due)}"
    if due > -OVERDUE_S:
        return "an attempt is due now"
    return f"an attempt was due {span(-due)} ago (is the server running?)"


def standing(id: str, recipient: RecipientState, at: float, deleted: bool) -> str:
    """What is the case with a recipient, and what can be done."""
    tried = f"after {counted(recipient.attempts, 'attempt')}" if recipient.attempts else "not tried yet"
    if recipient.state == schema.QUEUED:
        return f"is queued, {tried}; {waiting(recipient, at)}; `mailsrv queue retry {id}` tries now."
    if recipient.state == schema.HELD:
        return (
            f"is held, {tried}; `mailsrv queue release {id}` lets it go on, `mailsrv queue remove {id}` takes it out."
        )
    if recipient.state == schema.DELIVERED and deleted:
        return "has the message; it was fetched and deleted from the mailbox."
    if recipient.state == schema.DELIVERED and recipient.mailbox:
        return f"has the message: it was put into the mailbox {clean(recipient.mailbox)}; nothing is left to do."
    if recipient.state == schema.DELIVERED:
        return "is done: the other server took the message, and what it did with it only its operator can say."
    if recipient.state == schema.BOUNCED:
        return "did not get the message, and the sender was told; nothing is left to do."
    if recipient.state == schema.DROPPED:
        return "did not get the message, and nobody was told; nothing is left to do."
    if recipient.state == schema.REMOVED:
        return "was taken out of the queue by the operator; nothing is left to do."
    return f"is {clean(recipient.state)}."


def message_object(message: MessageHistory) -> dict[str, Any]:
    """The same for programs; times are seconds since 1970."""
    return {
        "id": queue_id.text(message.id),
        "accepted": message.accepted,
        "sender": message.sender,
        "message_id": message.message_id,
        "size": message.size,
        "account": message.account,
        "client": message.client,
        "helo": message.helo,
        "protocol": message.protocol,
        "recipients": [recipient_object(recipient) for recipient in message.recipients],
        "events": [event_object(record) for record in message.events],
    }


def recipient_object(recipient: RecipientState) -> dict[str, Any]:
    return {
        "address": recipient.address,
        "original": recipient.original,
        "mailbox": recipient.mailbox,
        "state": recipient.state,
        "attempts": recipient.attempts,
        "next_attempt": recipient.next_attempt if recipient.state == schema.QUEUED else None,
        "status": recipient.status,
        "answer": recipient.answer,
    }


def event_object(record: Record) -> dict[str, Any]:
    """An event with those of its fields that say something."""
    event = record.event
    fields = ("address", "sender", "client", "status", "reason", "rule", "answer", "remote", "detail")
    return {"at": record.at, "kind": event.kind} | {
        name: value for name in fields if (value := getattr(event, name)) != ""
    }


def _accepted(message: MessageHistory, event: Event) -> str:
    if message.protocol.startswith("report") or message.protocol == "double bounce":
        about = f" about {clean(event.detail)}" if event.detail else ""
        return f"written by this server, a report{about}{_because(event)}"
    if message.protocol == "notice":
        return f"written by this server{_because(event)}"
    client = f" from {clean(message.client)}" if message.client else ""
    helo = f" ({clean(message.helo)})" if message.helo else ""
    protocol = f" by {clean(message.protocol)}" if message.protocol else ""
    account = f", logged in as {clean(message.account)}" if message.account else ""
    return f"accepted{client}{helo}{protocol}{account}{_because(event)}"


def _decision(event: Event, addresses: dict[int, str]) -> str:
    address = event.address or addresses.get(-1 if event.n is None else event.n, "")
    parts = [f"{clean(address)}: " if address else "", _DID.get(event.kind, clean(event.kind))]
    if event.kind in (ledger.REFUSED, ledger.OBSERVED):
        if event.detail:
            parts.append(f" at {clean(event.detail)}")
        if event.sender:
            parts.append(f", sender {clean(event.sender)}")
    if event.client:
        parts.append(f", from {clean(event.client)}" if event.kind == ledger.LOGIN else f" from {clean(event.client)}")
    if event.kind == ledger.CONFIG and event.detail:
        parts.append(f" {clean(event.detail)}")
    parts.append(_because(event))
    if event.kind in (ledger.BOUNCED, ledger.WARNED) and event.detail:
        parts.append(f" `mailsrv why {clean(event.detail)}` tells what became of the report.")
    return "".join(parts)


def _remedy(event: Event) -> Remedy | None:
    """What helps against a known refusal by another server."""
    if event.kind not in (ledger.DEFERRED, ledger.BOUNCED, ledger.DROPPED):
        return None
    return remedy_of(event.rule) or remedy_for(event.answer)


def _because(event: Event) -> str:
    """Status, reason, what the other side said and the rule that decided."""
    status = f" ({clean(event.status)})" if event.status else ""
    reason = f": {clean(event.reason).rstrip('.')}" if event.reason else ""
    told = f"{status}{reason}."
    if event.answer:
        host, _, channel = clean(event.remote).partition(", ")
        told += f' {host or "The other side"} said: "{clean(event.answer)}".'
        told += f" Over {channel}." if channel else ""
    elif event.remote:
        told += f" Other side: {clean(event.remote)}."
    if event.rule:
        told += f" Decided by: {clean(event.rule)}."
    return told


def _asked_for(recipient: RecipientState) -> str:
    if recipient.original in ("", recipient.address):
        return ""
    return f" (addressed to {clean(recipient.original)})"
