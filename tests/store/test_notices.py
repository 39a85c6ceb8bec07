"""Notices: told once for each cause, in the transaction of what they tell of, and lost by no crash."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator

import pytest

from mailsrv.mail.address import POSTMASTER, Address
from mailsrv.store import ledger, notices
from mailsrv.store.message import Acceptance
from mailsrv.store.notices import QUIET_S, Notice, Notices
from tests.worlds.queue import CONFIG, QueueSettings
from tests.worlds.store import Store

ALICE = Address("alice", "example.org")
ACCOUNTS = "alice@example.org:!\n"
DAY_S = 86400.0


class World(Store):
    def begin(self, aliases: str = "postmaster: alice@example.org\n") -> World:
        self.boot()
        self.settings = QueueSettings(CONFIG, ACCOUNTS, aliases)
        self.notices = Notices(self.settings, self.outside, self.spool, self.database, self.sign)
        return self

    async def sign(self, domain: str, message: bytes) -> bytes:
        return b"X-Signed: %b %d\r\n" % (domain.encode(), len(message))

    def compose(self, to: Address, subject: str, text: str) -> Acceptance:
        return self.wait(self.notices.compose(to, subject, text, self.machine.wall()))

    def tell(self, cause: str = "cause", to: Address = POSTMASTER, **how: float) -> bool:
        acceptance = self.compose(to, "Something is the matter", "It is so.\n")
        told = self.wait(self.notices.tell(Notice(cause, acceptance, **how)))  # type: ignore[arg-type]
        self.settle()
        return told

    def notices_in(self, mailbox: str = "alice@example.org") -> list[bytes]:
        return list(self.mailbox(mailbox).values())


@pytest.fixture
def world() -> Iterator[World]:
    world = World().begin()
    yield world
    assert world.gaps() == []
    world.close()


def test_the_postmaster_is_told(world: World) -> None:
    assert world.tell()
    (octets,) = world.notices_in()
    assert octets.startswith(b"Return-Path: <>\n")
    assert b"To: postmaster@example.org\n" in octets
    assert b"\nIt is so.\n" in octets
    head, _, body = octets.partition(b"From:")
    assert re.search(rb"\nX-Signed: example\.org [0-9]+\nDate: ", head), "signed by the domain that it is from"
    assert body.startswith(b" Mail Delivery System <MAILER-DAEMON@example.org>\n")
    assert world.rows("SELECT sender, protocol, account FROM message") == [("", "notice", "")]
    assert world.rows("SELECT notify, state FROM recipient") == [("NEVER", "delivered")]
    assert world.rows("SELECT reason FROM event WHERE kind = 'accepted'") == [("a notice: Something is the matter",)]


def test_a_user_is_told_and_where_there_is_none_the_postmaster(world: World) -> None:
    assert world.tell("one", ALICE)
    assert world.tell("two", Address("nobody", "example.org"))
    assert len(world.notices_in()) == 2


def test_an_alias_may_lead_elsewhere() -> None:
    world = World().begin("postmaster: admin@example.net\n")
    assert world.tell()
    assert world.rows("SELECT address, original, destination, state FROM recipient") == [
        ("admin@example.net", "postmaster@example.org", "example.net", "queued")
    ]
    world.close()


def test_once_for_each_cause_however_often_it_happens(world: World) -> None:
    assert [world.tell() for _ in range(3)] == [True, False, False]
    assert world.tell("another")
    assert len(world.notices_in()) == 2
    (other, count) = world.wait(world.database.read(notices.counts))
    assert (other.cause, other.times) == ("another", 1)
    assert (count.cause, count.times) == ("cause", 3)
    assert count.told < count.seen


def test_again_when_it_comes_back_after_some_quiet(world: World) -> None:
    assert world.tell()
    world.advance(QUIET_S - DAY_S)
    assert not world.tell()
    world.advance(QUIET_S - DAY_S)
    assert not world.tell(), "there was no month without"
    world.advance(QUIET_S)
    assert world.tell()


def test_again_after_a_time_although_it_goes_on(world: World) -> None:
    assert world.tell(again_s=7 * DAY_S)
    told = []
    for day in range(1, 20):
        world.advance(DAY_S)
        if world.tell(again_s=7 * DAY_S):
            told.append(day)
    assert told == [7, 14]


def test_nobody_is_left_untold_until_a_clock_that_was_set_back_has_caught_up(world: World) -> None:
    assert world.tell(again_s=7 * DAY_S)
    world.machine.clock_offset_s -= 20 * DAY_S
    assert world.tell(again_s=7 * DAY_S)
    assert not world.tell(again_s=7 * DAY_S)
    world.machine.clock_offset_s -= 365 * DAY_S
    assert world.tell()
    assert not world.tell()


def test_a_restart_forgets_nothing(world: World) -> None:
    assert world.tell()
    world.crash()
    world.begin()
    assert not world.tell()


def test_what_is_only_counted_is_told_when_there_is_somebody_to_tell(world: World) -> None:
    world.wait(world.notices.tell(Notice("cause", times=5)))
    assert world.notices_in() == []
    assert world.tell()
    assert [(count.times, count.told > 0) for count in world.wait(world.database.read(notices.counts))] == [(6, True)]


def test_it_is_accepted_with_the_change_that_it_tells_of_or_not_at_all(world: World) -> None:
    notice = Notice("cause", world.compose(ALICE, "Told", "x\n"))

    def change(connection: sqlite3.Connection, fails: bool) -> None:
        notices.accept(connection, world.machine.wall(), [notice])
        if fails:
            raise RuntimeError("the change came to nothing")

    with pytest.raises(RuntimeError):
        world.wait(world.database.write(change, True))
    assert world.rows("SELECT (SELECT count(*) FROM message), (SELECT count(*) FROM notice)") == [(0, 0)]
    world.wait(world.database.write(change, False))
    assert world.rows("SELECT (SELECT count(*) FROM message), (SELECT count(*) FROM notice)") == [(1, 1)]


def test_a_crash_behind_the_commit_loses_no_notice(world: World) -> None:
    world.wait(world.database.read(lambda connection: None))
    acceptance = world.compose(ALICE, "Told", "x\n")
    world.wait(world.database.write(notices.accept, world.machine.wall(), (Notice("cause", acceptance),)))
    world.crash(power=1)
    world.begin()
    world.settle()
    assert len(world.notices_in()) == 1


def test_what_was_not_seen_for_long_is_forgotten(world: World) -> None:
    assert world.tell()
    world.wait(world.database.write(ledger.prune, world.machine.wall() - DAY_S))
    assert len(world.wait(world.database.read(notices.counts))) == 1
    world.wait(world.database.write(ledger.prune, world.machine.wall() + DAY_S))
    assert world.wait(world.database.read(notices.counts)) == []


def test_what_is_not_due_is_not_even_written(world: World) -> None:
    def wanted(cause: str) -> Notice:
        return world.wait(world.notices.wanted(Notice(cause), ALICE, "Told", "x\n", world.machine.wall()))

    first = wanted("cause")
    assert first.acceptance is not None
    world.wait(world.notices.tell(first))
    assert wanted("cause").acceptance is None
    assert wanted("other").acceptance is not None
    world.advance(QUIET_S)
    assert wanted("cause").acceptance is not None
    world.settle()
