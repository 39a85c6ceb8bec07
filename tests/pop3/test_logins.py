"""SCRAM and app passwords of POP3 (RFC 5034)."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from twisted.internet.defer import Deferred

from mailsrv.mail.address import Address
from mailsrv.pop3.authorization import LOGINS_LIMIT
from mailsrv.store.accounts import scram_keys
from mailsrv.store.accounts.accounts import Account, Directory
from mailsrv.store.accounts.app_passwords import AppPassword
from tests.pop3.world import _HASH, PASSWORD, Client, World
from tests.store.test_app_passwords import cheap
from tests.worlds.scram import ScramClient

ALICE = "alice@example.org"
EXPORTER = bytes(range(32))
WRONG = "-ERR [AUTH] the user name or the password is wrong\r\n"
KEYS = scram_keys.read(cast(str, scram_keys.make(PASSWORD, _HASH, bytes)), _HASH)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, tls=object)
    apps = (AppPassword("phone", cheap("app")), AppPassword("printer", cheap("ink"), ("smtp",)))
    alice = Account(Address("alice", "example.org"), _HASH, {}, apps, KEYS)
    world.settings.directory = Directory(("example.org",), [alice, Account(Address("bob", "example.org"), _HASH)], {})
    world.deliver(b"hello\n")
    return world


def secured(world: World, exporter: bytes | None = EXPORTER) -> Client:
    """A client under TLS; None: under one that cannot be bound to."""
    client = world.connect("192.0.2.1")
    client.exporter = exporter
    client.say("STLS")
    client.protocol.handshakeCompleted()
    world.settle()
    return client


def scram(client: Client, login: ScramClient, mechanism: str = "SCRAM-SHA-256") -> str:
    """A whole exchange; the last answer."""
    answer = client.say(f"AUTH {mechanism} {login.first()}")
    if not answer.startswith("+ "):
        return answer
    answer = client.say(login.final(answer[2:].strip()))
    return client.say("") if answer.startswith("+ ") else answer


def test_what_is_offered(world: World) -> None:
    assert "\r\nSASL SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN\r\n" in secured(world).say("CAPA")
    assert "\r\nSASL SCRAM-SHA-256 PLAIN\r\n" in secured(world, None).say("CAPA")
    assert "SASL" not in world.connect("192.0.2.1").say("CAPA")


def test_scram(world: World) -> None:
    client = secured(world)
    assert scram(client, ScramClient(ALICE, PASSWORD)) == "+OK 1 message (7 octets)\r\n"
    assert client.say("STAT") == "+OK 1 7\r\n"


def test_scram_bound_to_the_channel(world: World) -> None:
    plus = "SCRAM-SHA-256-PLUS"
    assert scram(secured(world), ScramClient(ALICE, PASSWORD, b"x" * 32), plus) == WRONG
    assert scram(secured(world), ScramClient(ALICE, PASSWORD, flag="y")) == WRONG
    assert scram(secured(world), ScramClient(ALICE, PASSWORD, EXPORTER), plus).startswith("+OK ")
    assert [(event.detail, event.reason) for event in world.ledger] == [
        ("POP3 SCRAM-SHA-256-PLUS", "the channel binding does not match: somebody may sit in between"),
        ("POP3 SCRAM-SHA-256", "the client was kept from seeing that channel binding is offered"),
    ]


def test_under_implicit_tls(world: World) -> None:
    world.factory.implicit_tls = True
    client = world.connect("192.0.2.1")
    client.exporter = EXPORTER
    client.protocol.handshakeCompleted()
    world.settle()
    assert scram(client, ScramClient(ALICE, PASSWORD, EXPORTER), "SCRAM-SHA-256-PLUS").startswith("+OK ")


def test_who_does_not_exist_looks_like_who_does(world: World) -> None:
    shapes = set()
    for name in (ALICE, "nobody@example.org", "bob@example.org"):
        login = ScramClient(name, "wrong")
        client = secured(world)
        answers = {login.salt(client.say(f"AUTH SCRAM-SHA-256 {login.first()}\r\n*").split()[1]) for _ in range(2)}
        assert len(answers) == 1
        shapes.add((len(next(iter(answers))), next(iter(answers)).partition(",")[2], scram(client, login)))
    assert len(shapes) == 1
    assert [told[0] for told in world.doorkeeper.told] == ["failed"] * 3


def test_too_many_wrong_proofs_end_the_connection(world: World) -> None:
    client = secured(world)
    for _ in range(LOGINS_LIMIT):
        assert not client.closed
        scram(client, ScramClient(ALICE, "wrong"))
    assert client.closed


def test_a_client_that_leaves_during_the_delay_costs_nothing(world: World) -> None:
    world.doorkeeper.delay = 5.0
    client, leaving = secured(world), secured(world)
    first = f"AUTH SCRAM-SHA-256 {ScramClient(ALICE, PASSWORD).first()}"
    assert client.say(first) == leaving.say(first) == ""
    leaving.vanish()
    world.clock.advance(5.0)
    assert client.received.splitlines()[-1].startswith(b"+ ")
    ended = Deferred.fromCoroutine(world.factory.shut_down())
    assert client.closed
    assert ended.called


def test_app_passwords(world: World) -> None:
    used: list[tuple[str, str, str]] = []
    world.factory.surroundings.passwords.on_used = lambda account, match, client, service: used.append(
        (match.name, client, service)
    )
    client = secured(world)
    client.say(f"USER {ALICE}")
    assert client.say("PASS ink") == WRONG
    client.say(f"USER {ALICE}")
    assert client.say("PASS app") == "+OK 1 message (7 octets)\r\n"
    assert scram(secured(world), ScramClient(ALICE, "app")) == WRONG
    assert used == [("phone", "192.0.2.1", "pop3")]
