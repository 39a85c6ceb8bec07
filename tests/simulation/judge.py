"""The judge of a simulated world: were the promises kept?

It looks at what is really there - files, rows, what sinks and clients have got - and not at what the program says.
Each complaint is a sentence; no complaint, no broken promise.

1. A message that was answered with 250 is, for each recipient, in its mailbox (or was fetched whole from it), at a
   sink, in the queue, or bounced with a report on its way.  This holds at every instant, also between a crash and the
   next start, and in the end the queue is empty.
2. What is visible in a mailbox is whole: as long as its name says, content as it was sent.
3. The ledger balances.
4. Nothing arrives twice, but where an answer was lost.
5. POP3 gives every message, whole.

What is asked of mail on its way out, beyond that, is in ``judge_outgoing.py``.
"""

from __future__ import annotations

import errno
import os
import random
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from email import message_from_bytes
from itertools import pairwise
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from mailsrv.store import ledger, queue_id
from tests.simulation import errands, judge_outgoing, scenario
from tests.simulation.behaviour import Received
from tests.simulation.clients import Message
from tests.simulation.outside import EPOCH
from tests.worlds.verifier import verified

if TYPE_CHECKING:
    from tests.simulation.world import World

_NAME = re.compile(r".*,S=([0-9]+),W=([0-9]+)(:2,[A-Z]*)?")
_PREFIX = re.compile(
    rb"(?:(?:Return-Path|Delivered-To|Received|Authentication-Results|DKIM-Signature):[^\n]*\n(?:[ \t][^\n]*\n)*)*"
)
_ID = re.compile(rb"^Message-ID: <([^>]*)>", re.MULTILINE)


def raise_fault(step: str, rng: random.Random) -> None:
    """The error with which ``step`` fails."""
    if step.startswith("database"):
        raise sqlite3.OperationalError(rng.choice(("disk I/O error", "database or disk is full", "database is locked")))
    number = errno.ENOSPC if step == "disk: write" and rng.random() < 0.5 else errno.EIO
    if step in ("disk: open", "disk: create") and rng.random() < 0.3:
        number = errno.EMFILE
    raise OSError(number, os.strerror(number), "fault of the simulation")


def after_crash(world: World) -> list[str]:
    """What is broken in what a crash has left, before the program starts again."""
    return [f"after the crash at {world.timeline.now:.3f} s: {text}" for text in _present(world)]


def at_the_end(world: World) -> list[str]:
    """What is broken when everything has come to rest."""
    complaints = list(_present(world))
    complaints += _unfinished(world)
    complaints += _doubled(world)
    complaints += _given_up_too_soon(world)
    complaints += _reports(world)
    complaints += _fetched(world)
    complaints += _signatures(world)
    if world.outgoing:
        complaints += judge_outgoing.at_the_end(world)
    return complaints


def queue_is_empty(world: World) -> bool:
    with _Look(world) as connection:
        found: int = connection.execute("SELECT count(*) FROM recipient WHERE state = 'queued'").fetchone()[0]
    return found == 0


class _Look:
    """A connection to the database, for the judge."""

    def __init__(self, world: World) -> None:
        from tests.simulation.world import DATABASE

        self._connection = world.machine.databases.look(DATABASE)

    def __enter__(self) -> sqlite3.Connection:
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def _mailbox(world: World, mailbox: str) -> dict[str, bytes]:
    local, _, domain = mailbox.partition("@")
    folder = f"/var/lib/mailsrv/mail/{domain}/{local}"
    return world.machine.disk.files(f"{folder}/new") | world.machine.disk.files(f"{folder}/cur")


def _spool_files(world: World) -> set[str]:
    return set(world.machine.disk.files("/var/lib/mailsrv/spool"))


def _copies(world: World, mailbox: str) -> Counter[str]:
    """How often each message is, or was, in a mailbox.  LF line ends count as CRLF."""
    contents = {name.partition(",")[0]: octets for name, octets in _mailbox(world, mailbox).items()}
    ids = Counter(_id(octets) for octets in contents.values())
    there = {_lf(octets) for octets in contents.values()}
    ids.update(_id(octets) for octets in world.fetched[mailbox].values() if _lf(octets) not in there)
    return ids


def identifier(content: bytes) -> str:
    """The Message-ID of a message as it is on the wire."""
    return _id(_lf(content))


def _id(octets: bytes) -> str:
    found = _ID.search(octets)
    return found.group(1).decode() if found else ""


def _lf(octets: bytes) -> bytes:
    return octets.replace(b"\r\n", b"\n")


def _present(world: World) -> Iterator[str]:
    """Promises 1 to 3, as they hold at every instant."""
    copies = {mailbox: _copies(world, mailbox) for mailbox in scenario.MAILBOXES}
    sinks = _at_sinks(world)
    with _Look(world) as connection:
        if not connection.execute("PRAGMA user_version").fetchone()[0]:
            return
        rows: dict[tuple[str, str], set[str]] = {}
        for identifier, address, state in connection.execute(
            "SELECT message.message_id, CASE mailbox WHEN '' THEN recipient.address ELSE mailbox END, recipient.state"
            " FROM recipient JOIN message ON message.id = recipient.message"
        ):
            rows.setdefault((identifier, address), set()).add(state)
        connection.execute("BEGIN")
        balance = ledger.verify(connection, _spool_files(world))
        connection.execute("COMMIT")
        yield from (f"the ledger does not balance: {gap}" for gap in balance.gaps)
        yield from _damaged_spool(world, connection)
    for message in world.sent:
        for recipients in message.accepted:
            for recipient in recipients:
                for target in scenario.targets(recipient):
                    there = copies[target][message.id] if target in copies else sinks[message.id, target]
                    states = rows.get((message.id, target), set())
                    if not there and not states & {"queued", "held", "bounced", "dropped", "removed"}:
                        yield f"LOST: {message.id} for {target} was answered with 250 and is nowhere; states {states}"
    for mailbox in scenario.MAILBOXES:
        yield from _damaged(world, mailbox)


def _damaged(world: World, mailbox: str) -> Iterator[str]:
    by_id = {message.id: message for message in world.sent}
    for name, octets in _mailbox(world, mailbox).items():
        found = _NAME.fullmatch(name)
        if found is None:
            yield f"{mailbox}: {name} has no sizes in its name"
            continue
        lines = octets.count(b"\n")
        if (len(octets), len(octets) + lines) != (int(found.group(1)), int(found.group(2))):
            yield f"{mailbox}: {name} holds {len(octets)} octets and {lines} lines"
        yield from _altered(mailbox, octets, by_id)


def _altered(where: str, octets: bytes, by_id: dict[str, Message], *, seven_bit: bool = False) -> Iterator[str]:
    """Content is what was sent, behind trace headers and nothing else; or says the same in ``seven_bit``."""
    identifier = _id(octets)
    prefix = _PREFIX.match(octets)
    assert prefix is not None
    if not prefix.group() and b"multipart/report" not in octets:
        yield f"{where}: a message without trace headers: {octets[:200]!r}"
    if identifier in by_id:
        content = _lf(by_id[identifier].content)
        arrived = octets[prefix.end() :]
        if arrived != content and not (seven_bit and _says_the_same(arrived, content)):
            yield f"{where}: {identifier} is not what was sent: {octets!r}"
    elif b"multipart/report" not in octets:
        yield f"{where}: a message that nobody sent: {octets[:500]!r}"


def _says_the_same(arrived: bytes, content: bytes) -> bool:
    """Whether a simple text was encoded, and its header only added to."""
    header, _, body = content.partition(b"\n\n")
    return arrived.startswith(header) and message_from_bytes(arrived).get_payload(decode=True) == body


def _damaged_spool(world: World, connection: sqlite3.Connection) -> Iterator[str]:
    """What waits in the queue is as whole as what has arrived."""
    by_id = {message.id: message for message in world.sent}
    files = world.machine.disk.files("/var/lib/mailsrv/spool")
    for number, identifier, size, data in connection.execute(
        "SELECT message.id, message.message_id, message.size, content.data"
        " FROM content JOIN message ON message.id = content.message"
    ):
        content = files.get(queue_id.text(number), b"") if data is None else data
        if len(content) != size:
            yield f"DAMAGED: {identifier} waits with {len(content)} octets of {size}"
        if identifier in by_id and content != by_id[identifier].content:
            yield f"DAMAGED: {identifier} waits with other content than was sent"


def _at_sinks(world: World) -> Counter[tuple[str, str]]:
    return Counter(
        (identifier(received.content), recipient)
        for sink in world.sinks.values()
        for received in sink.messages
        for recipient in received.recipients
    )


def _unfinished(world: World) -> Iterator[str]:
    with _Look(world) as connection:
        for identifier, address, answer in connection.execute(
            "SELECT message.message_id, recipient.address, recipient.answer"
            " FROM recipient JOIN message ON message.id = recipient.message"
            " WHERE recipient.state IN ('queued', 'held')"
        ):
            yield f"{identifier} for {address} still waits, though nothing is wrong any more: {answer}"
    if not world.machine.life.alive:
        yield "the program is not running"
    for message in world.sent:
        if not message.done:
            yield f"{message.id} could not be handed over: {[told.value for told in message.told]} {message.answers}"
    # One that could not be removed stays until the next start sweeps it.
    if "disk: unlink" not in world.faults.steps and (files := _spool_files(world)):
        yield f"files stay in the spool: {files}"
    by_id = {message.id: message for message in world.sent}
    for sink in world.sinks.values():
        for received in sink.messages:
            yield from _altered(sink.name, _lf(received.content), by_id, seven_bit=received.seven_bit)


def _signatures(world: World) -> Iterator[str]:
    """What is from our users and from us is signed, wherever it has arrived, and nothing else is."""
    arrived = [(sink.name, received.content) for sink in world.sinks.values() for received in sink.messages]
    for mailbox in scenario.MAILBOXES:
        arrived += [(mailbox, octets.replace(b"\n", b"\r\n")) for octets in _mailbox(world, mailbox).values()]
    senders = {message.id: message.sender for message in world.sent}
    for where, octets in arrived:
        identifier = _id(_lf(octets))
        ours = senders.get(identifier, "").endswith("@example.org") or b"multipart/report" in octets
        found = verified(octets, world.settings.keys.signing["example.org"])
        if found != [True] * ours:
            yield f"{where}: {identifier} has signatures that are {found}: {octets!r}"


def _given_up_too_soon(world: World) -> Iterator[str]:
    """Mail expires by the time that passes, whatever the wall clock says (RFC 3463 4.4.7)."""
    if world.restarts:
        return  # how long a machine was off, only the wall clock knows
    shortest = world.settings.config.queue.expire
    with _Look(world) as connection:
        for message, at in connection.execute(
            "SELECT message, at FROM event WHERE kind = 'bounced' AND status = '4.4.7'"
        ):
            waited = at - EPOCH - world.machine.clock_offset_s
            if waited < shortest:
                yield f"{queue_id.text(message)} was given up {waited:.0f} s after the world began"


def _doubled(world: World) -> Iterator[str]:
    """Promise 4.  A client that got no answer sends again, and so do we; each such case allows one copy more."""
    arrivals: dict[tuple[str, str], list[Received]] = {}
    for sink in world.sinks.values():
        for received in sink.messages:
            for recipient in received.recipients:
                arrivals.setdefault((identifier(received.content), recipient), []).append(received)
    for message in world.sent:
        tries = Counter(
            target
            for recipients in (*message.accepted, *message.doubtful)
            for target in {target for recipient in recipients for target in scenario.targets(recipient)}
        )
        for target, allowed in tries.items():
            if target in scenario.MAILBOXES:
                # Several recipients of one message may end in one mailbox; each of them may have its copy.
                ends = sum(scenario.targets(recipient).count(target) for recipient in message.recipients)
                copies = _copies(world, target)[message.id]
                if copies > allowed * ends:
                    yield f"DOUBLED: {message.id} is {copies} times in {target}, {allowed} times taken"
            else:
                copies = _needless(world, arrivals.get((message.id, target), []))
                if copies > allowed:
                    yield f"DOUBLED: {message.id} arrived {copies} times for {target}, {allowed} times taken"


def _needless(world: World, arrivals: list[Received]) -> int:
    """How many copies of one message for one recipient there are, but for those that could not be avoided.

    Those are what nobody heard the answer for, and what came before a crash that may have fallen between the answer and
    its commit.  A stop in order is a crash where the database took nothing at that time.
    """
    times = sorted(received.at for received in arrivals if received.answered)
    crashes = [end for end in world.ends if world.faults.locked_s or world.faults.steps or end not in world.in_order]
    excused = sum(any(earlier <= crash <= later for crash in crashes) for earlier, later in pairwise(times))
    return len(times) - excused


def _reports(world: World) -> Iterator[str]:
    """Whoever's message bounced has been told, or else the postmaster, when it was a report of ours that was lost."""
    with _Look(world) as connection:
        bounced = connection.execute(
            "SELECT message.id, message.message_id, recipient.address, message.sender, message.protocol FROM recipient"
            " JOIN message ON message.id = recipient.message WHERE recipient.state = 'bounced'"
        ).fetchall()
        undeliverable = {
            row[0]
            for row in connection.execute(
                "SELECT event.detail FROM event JOIN recipient ON recipient.message = event.message"
                " WHERE event.kind = 'accepted' AND event.detail <> '' AND recipient.state IN ('dropped', 'bounced')"
            )
        }
    for number, identifier, address, sender, protocol in bounced:
        if not sender and protocol != "report":
            yield f"{identifier} for {address} had a null sender, and there is a bounce"
            continue
        sender = sender or scenario.POSTMASTER
        told: list[bytes]
        if sender in scenario.MAILBOXES:
            told = [*_mailbox(world, sender).values(), *world.fetched[sender].values()]
        else:
            told = [received.content for sink in world.sinks.values() for received in sink.messages]
        reported = any(b"multipart/report" in octets and address.encode() in octets for octets in told)
        if not reported and queue_id.text(number) not in undeliverable:
            yield f"{identifier} for {address} bounced, and {sender} was not told"


def _fetched(world: World) -> Iterator[str]:
    """Promise 5, in calm weather."""
    for mailbox in scenario.MAILBOXES:
        found: list[dict[str, bytes]] = []
        world.watch(Deferred.fromCoroutine(errands.fetch_at_last(world, mailbox)).addCallback(found.append))
        world.timeline.run(world.timeline.now + 1800.0, lambda: bool(found))  # noqa: B023 used before the next round
        on_disk = sorted(_mailbox(world, mailbox).values())
        if not found or sorted(_lf(octets) for octets in found[0].values()) != on_disk:
            yield f"POP3 of {mailbox} gave {len(found[0]) if found else 'no'} messages, {len(on_disk)} are there"


def transcript(world: World) -> str:
    """All that has happened and all that is left, as text."""
    lines = [f"{world.timeline.now!r} {world.timeline.turns} {world.restarts}", *world.machine.steps.trace]
    for mailbox in scenario.MAILBOXES:
        lines += [f"{mailbox} {name} {octets!r}" for name, octets in sorted(_mailbox(world, mailbox).items())]
    for sink in world.sinks.values():
        lines += [f"{sink.name} {received!r}" for received in sink.messages]
    for message in world.sent:
        lines.append(repr(message))
    with _Look(world) as connection:
        lines += list(connection.iterdump())
    return "\n".join(lines)
