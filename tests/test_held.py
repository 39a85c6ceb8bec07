"""Held mail on the whole server: it goes nowhere by itself, is not lost, and is sent when the operator says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mailsrv.mail.address import Address
from mailsrv.mail.envelope import Envelope
from mailsrv.store import ledger, queue
from mailsrv.store.message import Arrival, FinalRecipient, Hold
from mailsrv.tls import ServerCertificate
from tests.test_app import CONFIG, LETTER, World, certificate
from tests.worlds.store import wait

__all__ = ["certificate"]

ALICE = Address("alice", "example.org")
BOB = Address("bob", "example.net")
LARGE = LETTER + b"0123456789abcde\r\n" * 30_000


@pytest.fixture
def world(certificate: ServerCertificate) -> Iterator[World]:
    world = World(certificate)
    world.records.records["example.net", "MX"] = []
    world.start()
    yield world
    connection = world.machine.databases.look("/state/mailsrv.db")
    assert ledger.verify(connection, set(world.disk.files("/state/spool"))).gaps == []
    connection.close()
    world.close()


def hold(world: World, content: bytes = LETTER) -> int:
    """A submission to a colleague and to somebody elsewhere is accepted and held."""
    spool: Any = world.server._spool
    draft = spool.draft()
    writing = draft.append(content)
    if writing is not None:
        wait(world.timeline, writing)
    arrival = Arrival(
        id=draft.id,
        envelope=Envelope(ALICE),
        recipients=(
            FinalRecipient(ALICE, ALICE, ALICE.key),
            FinalRecipient(BOB, BOB, ""),
        ),
        prefix=b"",
        message_id="1@example.net",
        account=ALICE.key,
        client="203.0.113.9",
        helo="laptop",
        protocol="ESMTPSA",
        size=len(content),
        lines=content.count(b"\n"),
        hold=Hold("it is unusual", "limits.first_time_recipients"),
    )
    wait(world.timeline, spool.accept(draft, arrival))
    number: int = draft.id
    return number


def states(world: World) -> list[str]:
    return [
        state for (state,) in world.rows("SELECT state FROM recipient WHERE message = (SELECT min(id) FROM message)")
    ]


def test_it_waits_for_the_operator_and_for_nobody_else(world: World) -> None:
    number = hold(world)
    world.advance(60)
    assert (states(world), world.mailbox()) == (["held", "held"], [])
    assert world.rows("SELECT kind, reason, rule FROM event WHERE message = ? ORDER BY id", number) == [
        ("accepted", "the message is stored", ""),
        ("held", "it is unusual", "limits.first_time_recipients"),
    ]
    world.operator(queue.retry_all)
    world.advance(60)
    assert (states(world), world.mailbox()) == (["held", "held"], [])
    world.operator(queue.release, number)
    world.advance(60)
    assert states(world)[0] == "delivered"
    assert len([octets for octets in world.mailbox() if b"Subject: hello" in octets]) >= 1


@pytest.mark.parametrize("content", [LETTER, LARGE], ids=["in the database", "in a file"])
def test_restarts_other_settings_and_time_change_nothing(world: World, content: bytes) -> None:
    number = hold(world, content)
    world.machine.life.end()
    world.disk.stop_program()
    world.start(CONFIG + '[queue]\nexpire = "10m"\nwarn = "5m"\nretry = ["5s"]\n')
    world.advance(900)
    assert states(world) == ["held", "held"]
    world.operator(lambda connection, now: ledger.prune(connection, now))
    world.stop()
    world.machine.life.end()
    world.start()
    world.advance(60)
    assert (states(world), world.mailbox()) == (["held", "held"], [])
    world.operator(queue.release, number)
    world.advance(60)
    assert states(world)[0] == "delivered"
    assert content.replace(b"\r\n", b"\n") in next(octets for octets in world.mailbox() if b"multipart" not in octets)


def test_what_the_operator_removes_goes_nowhere(world: World) -> None:
    number = hold(world)
    world.operator(queue.remove, number)
    world.advance(60)
    assert (states(world), world.mailbox()) == (["removed", "removed"], [])
    assert world.rows("SELECT * FROM content") == []
