"""Held mail on the whole server: it goes nowhere by itself, is not lost, and is sent when the operator says so."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from mailsrv.mail.address import Address
from mailsrv.mail.envelope import Envelope
from mailsrv.store import ledger, queue
from mailsrv.store.key_states import Keys
from mailsrv.store.message import Arrival, FinalRecipient, Hold
from mailsrv.tls import ServerCertificate
from tests.simulation.behaviour import HEALTHY, Behaviour
from tests.simulation.clients import dot_stuffed
from tests.simulation.reactor import SimulatedReactor
from tests.simulation.sink import Sink
from tests.simulation.timeline import Life
from tests.test_app import CONFIG, LETTER, World, certificate
from tests.worlds.keys import pair
from tests.worlds.store import wait
from tests.worlds.verifier import verified

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


def test_what_waits_while_the_keys_change_leaves_with_a_signature_that_verifies(world: World) -> None:
    """However long it waits: the records of the old keys are gone by then."""
    there = SimulatedReactor(world.timeline, world.machine.network, "there", ("192.0.2.9",), Life("there"))
    sink = Sink("mx.example.net", there, random.Random(0))
    world.records.records["example.net", "MX"] = [(10, "mx.example.net")]
    world.records.records["mx.example.net", "A"] = ["192.0.2.9"]
    world.reconfigure("trusted_networks = ['198.51.100.0/24']\n" + CONFIG + '[queue]\nretry = ["1h"]\n')
    world.settings.keys = Keys({"example.org": pair()}, {})
    sink.behaviour = Behaviour({"greeting 421": 1.0})
    for content in (LETTER, LARGE):
        client = world.connect()
        for command in (b"EHLO x", b"MAIL FROM:<alice@example.org>", b"RCPT TO:<bob@example.net>", b"DATA"):
            assert world.say(client, command)[:1] in b"23"
        written = content.replace(b"bob@example.net", b"alice@example.org")
        assert world.say(client, dot_stuffed(written)[:-2]).startswith(b"250")
        client.close()
    world.advance(10)
    for (number,) in world.rows("SELECT id FROM message"):
        world.operator(queue.hold, number)
    world.advance(10)
    world.settings.keys = Keys({"example.org": pair(end="2")}, {})
    sink.behaviour = HEALTHY
    assert sink.messages == []
    for (number,) in world.rows("SELECT id FROM message"):
        world.operator(queue.release, number)
    world.advance(60)
    assert [verified(message.content, pair(end="2")) for message in sink.messages] == [[True, True]] * 2
