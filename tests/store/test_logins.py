"""The last use of each password, and secrets that last."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from mailsrv.mail.address import Address
from mailsrv.outside.interfaces import Outside
from mailsrv.store import schema, secret
from mailsrv.store.accounts import logins
from mailsrv.store.accounts.accounts import Account
from mailsrv.store.accounts.logins import EVERY_S, Logins, Use
from mailsrv.store.accounts.passwords import Match
from mailsrv.store.database import Database, StorageTrouble

ALICE = Account(Address("alice", "example.org"), "{PLAIN}main")
MAIN, PHONE = Match("", "{PLAIN}main"), Match("phone", "{PLAIN}phone")


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    schema.prepare(connection, ":memory:")
    yield connection
    connection.close()


class World:
    """What ``Logins`` asks for: a clock, and a database that writes at once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.reactor = Clock()
        self.connection = connection
        self.written = 0
        self.broken = False
        self.logins = Logins(cast(Outside, self), cast(Database, self))

    def wall(self) -> float:
        return 1764000000.0 + float(self.reactor.seconds())

    def gather(self, operation: Any, item: Any) -> Deferred[None]:
        if self.broken:
            return fail(StorageTrouble("no room", full=True))
        self.written += 1
        operation(self.connection, [item])
        return succeed(None)

    def uses(self) -> Sequence[Use]:
        return list(logins.read(self.connection).values())


def test_each_password_has_its_last_use(connection: sqlite3.Connection) -> None:
    world = World(connection)
    world.logins.used(ALICE, MAIN, "192.0.2.1", "smtp")
    world.logins.used(ALICE, PHONE, "2001:db8::7", "pop3")
    first = Use("alice@example.org", "", 1764000000.0, "192.0.2.1", "smtp")
    phone = Use("alice@example.org", "phone", 1764000000.0, "2001:db8::7", "pop3")
    assert world.uses() == [first, phone]
    world.reactor.advance(EVERY_S)
    world.logins.used(ALICE, MAIN, "192.0.2.2", "pop3")
    assert world.uses() == [Use("alice@example.org", "", 1764000000.0 + EVERY_S, "192.0.2.2", "pop3"), phone]


def test_it_is_written_once_a_minute_at_most(connection: sqlite3.Connection) -> None:
    world = World(connection)
    for _ in range(100):
        world.logins.used(ALICE, PHONE, "192.0.2.1", "smtp")
        world.reactor.advance(1)
    assert world.written == 2
    # A new password of an old name was never used.
    world.logins.used(ALICE, Match("phone", "{PLAIN}new"), "192.0.2.1", "smtp")
    assert world.written == 3


def test_what_is_remembered_is_bounded(connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "_REMEMBERED_LIMIT", 10)
    world = World(connection)
    for n in range(100):
        world.logins.used(ALICE, Match(f"app{n}", f"{{PLAIN}}{n}"), "192.0.2.1", "smtp")
    assert len(world.logins._written) == 10


def test_logins_go_on_when_it_cannot_be_written(connection: sqlite3.Connection) -> None:
    world = World(connection)
    world.broken = True
    world.logins.used(ALICE, MAIN, "192.0.2.1", "smtp")
    assert world.uses() == []


def test_what_was_known_of_a_password_can_be_forgotten(connection: sqlite3.Connection) -> None:
    uses = [Use(account, name, 1.0, "", "smtp") for account in ("a@x", "b@x") for name in ("", "phone", "pc")]
    logins.write(connection, uses)
    logins.forget(connection, "a@x", "phone")
    assert [(use.account, use.password) for use in logins.read(connection).values() if use.account == "a@x"] == [
        ("a@x", ""),
        ("a@x", "pc"),
    ]
    logins.forget(connection, "a@x", "")
    assert ("a@x", "pc") in logins.read(connection)
    logins.forget(connection, "b@x")
    assert {use.account for use in logins.read(connection).values()} == {"a@x"}


def test_secrets_last(connection: sqlite3.Connection) -> None:
    made = secret.lasting(connection, "scram", lambda octets: b"a" * octets)
    assert made == b"a" * 32
    assert secret.lasting(connection, "scram", lambda octets: b"b" * octets) == made
    assert secret.lasting(connection, "other", lambda octets: b"b" * octets) == b"b" * 32
