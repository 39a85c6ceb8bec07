"""The places from which accounts are used."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from mailsrv.mail.address import Address
from mailsrv.outside.interfaces import Outside
from mailsrv.store import schema
from mailsrv.store.accounts import homes
from mailsrv.store.accounts.accounts import Account
from mailsrv.store.accounts.homes import EVERY_S, KEPT_S, NETWORKS, Home, Homes, HomesKept
from mailsrv.store.accounts.passwords import Match
from mailsrv.store.database import Database, StorageTrouble

ALICE = Account(Address("alice", "example.org"), "{PLAIN}main")
MAIN, PHONE = Match("", "{PLAIN}main"), Match("phone", "{PLAIN}phone")
KEY = ALICE.key
WALL = 1764000000.0


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    schema.prepare(connection, ":memory:")
    yield connection
    connection.close()


class World:
    """What is known in one run, over a database that writes at once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.reactor = Clock()
        self.connection = connection
        self.written = 0
        self.broken = False
        self.homes = Homes(self.reactor.seconds)
        self.homes.on_due = HomesKept(cast(Outside, self), cast(Database, self))

    def wall(self) -> float:
        return WALL + float(self.reactor.seconds())

    def gather(self, operation: Any, item: Any) -> Deferred[None]:
        if self.broken:
            return fail(StorageTrouble("no room", full=True))
        self.written += 1
        operation(self.connection, [item])
        return succeed(None)

    def restart(self, later_s: float = 0.0, **passwords: str) -> World:
        """Another run, in which alice has these passwords."""
        now = {"": MAIN, "phone": PHONE}
        now |= {name: Match(name, stored) for name, stored in passwords.items()}
        again = World(self.connection)
        again.homes.load(
            homes.read(self.connection),
            self.wall() + later_s,
            lambda account, name: now.get(name) if account == KEY else None,
        )
        return again


@pytest.fixture
def world(connection: sqlite3.Connection) -> World:
    return World(connection)


def test_where_somebody_has_logged_in_is_known_and_stays_so_after_a_restart(world: World) -> None:
    world.homes.add(ALICE, MAIN, "192.0.2.1")
    world.homes.add(ALICE, PHONE, "2001:db8::/64")
    for run in (world, world.restart(), world.restart().restart(KEPT_S - 1)):
        assert run.homes.knows(KEY, "192.0.2.1")
        assert run.homes.knows(KEY, "2001:db8::/64")
        assert not run.homes.knows(KEY, "192.0.2.2")
        assert not run.homes.knows("bob@example.org", "192.0.2.1")


def test_it_is_forgotten_after_half_a_year_without_a_login(world: World) -> None:
    world.homes.add(ALICE, MAIN, "192.0.2.1")
    world.reactor.advance(KEPT_S - 1)
    assert world.homes.knows(KEY, "192.0.2.1")
    world.homes.add(ALICE, MAIN, "192.0.2.2")
    world.reactor.advance(1)
    assert not world.homes.knows(KEY, "192.0.2.1")
    assert not world.restart().homes.knows(KEY, "192.0.2.1")
    homes.prune(world.connection, world.wall() - KEPT_S + 0.5)
    assert [home.network for home in homes.read(world.connection)] == ["192.0.2.2"]


def test_it_is_written_once_a_day_at_most(world: World) -> None:
    for _ in range(25):
        world.homes.add(ALICE, PHONE, "192.0.2.1")
        world.reactor.advance(3600)
    assert world.written == 2
    assert homes.read(world.connection) == [Home(KEY, "192.0.2.1", "phone", WALL + EVERY_S)]
    # Another password is told at once, for the network is now known by that one; and not again by the next run.
    world.homes.add(ALICE, MAIN, "192.0.2.1")
    assert world.written == 3
    again = world.restart()
    again.homes.add(ALICE, MAIN, "192.0.2.1")
    assert again.written == 0


def test_few_are_kept_of_each_account_those_used_last(world: World) -> None:
    for n in range(NETWORKS + 4):
        world.reactor.advance(1)
        world.homes.add(ALICE, MAIN, f"192.0.2.{n}")
        world.homes.add(ALICE, MAIN, "203.0.113.1")
        world.homes.add(Account(Address("bob", "example.org")), MAIN, "192.0.2.200")
    for run in (world, world.restart()):
        known = [n for n in range(NETWORKS + 4) if run.homes.knows(KEY, f"192.0.2.{n}")]
        assert len(known) in (NETWORKS - 1, NETWORKS)  # the steady one was written long ago
        assert known[-1] == NETWORKS + 3
    assert world.homes.knows(KEY, "203.0.113.1")
    assert not world.homes.knows_network("192.0.2.0")
    assert len(world.homes._networks) == NETWORKS + 1
    assert world.homes.knows("bob@example.org", "192.0.2.200")


def test_it_goes_with_the_password(world: World) -> None:
    world.homes.add(ALICE, MAIN, "192.0.2.1")
    world.homes.add(ALICE, PHONE, "192.0.2.2")
    world.homes.review(lambda account, match: match == MAIN)
    assert world.homes.knows(KEY, "192.0.2.1")
    assert not world.homes.knows(KEY, "192.0.2.2")
    assert world.homes.knows_network("192.0.2.1")
    assert not world.homes.knows_network("192.0.2.2")
    world.homes.review(lambda account, match: False)
    assert not world.homes.knows_network("192.0.2.1")
    assert not world.homes.knows(KEY, "192.0.2.1")
    homes.forget(world.connection, KEY, "phone")
    again = world.restart()
    assert (again.homes.knows(KEY, "192.0.2.1"), again.homes.knows(KEY, "192.0.2.2")) == (True, False)
    homes.forget(world.connection, KEY)
    assert homes.read(world.connection) == []


def test_what_was_written_of_a_password_that_is_gone_is_not_taken_up(world: World) -> None:
    world.homes.add(ALICE, Match("old", "{PLAIN}old"), "192.0.2.1")
    assert not world.restart().homes.knows(KEY, "192.0.2.1")
    assert world.restart(old="{PLAIN}old").homes.knows(KEY, "192.0.2.1")


def test_a_clock_set_back_forgets_nothing(world: World) -> None:
    world.homes.add(ALICE, MAIN, "192.0.2.1")
    assert world.restart(-10 * KEPT_S).homes.knows(KEY, "192.0.2.1")


def test_it_holds_when_it_cannot_be_written(world: World) -> None:
    world.broken = True
    world.homes.add(ALICE, MAIN, "192.0.2.1")
    assert world.homes.knows(KEY, "192.0.2.1")
