"""The ledger as a log: a line for each event, and in a storm their number."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.logger import capturedLogs

from mailsrv.store import ledger
from mailsrv.store.ledger import Event
from mailsrv.store.tail import LINES, PER_S, Tail
from tests.smtp.world import DATABASE, World
from tests.worlds.store import wait


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.end()


@pytest.fixture
def tail(world: World) -> Tail:
    write(world, "before")
    connection = world.machine.databases.look(DATABASE)
    try:
        return Tail(world.database, connection, world.outside.reactor.seconds)
    finally:
        connection.close()


def write(world: World, *reasons: object) -> None:
    events = [Event(ledger.REFUSED, reason=str(each)) for each in reasons]
    wait(world.timeline, world.database.write(ledger.write, world.outside.wall(), events))


def look(world: World, tail: Tail) -> list[object]:
    """What one look logs."""
    with capturedLogs() as events:
        wait(world.timeline, tail.look())
    return [event["line"] if "line" in event else event["more"] for event in events]


def test_only_what_is_new_is_logged_and_once(world: World, tail: Tail) -> None:
    assert look(world, tail) == []
    write(world, "one", "two")
    assert look(world, tail) == ["refused one", "refused two"]
    assert look(world, tail) == []


def test_control_characters_do_not_reach_the_log(world: World, tail: Tail) -> None:
    write(world, "a\nb\x1b[31m\u2028\u202e")
    assert look(world, tail) == ["refused a?b?[31m??"]


def test_a_storm_is_counted(world: World, tail: Tail) -> None:
    write(world, *range(LINES + 300))
    lines = look(world, tail)
    assert lines[:LINES] == [f"refused {n}" for n in range(LINES)]
    assert lines[LINES:] == [300]
    write(world, "next")
    assert look(world, tail) == [1]


def test_exactly_as_many_as_are_allowed_are_no_storm(world: World, tail: Tail) -> None:
    write(world, *range(LINES))
    assert len(look(world, tail)) == LINES


def test_nothing_is_left_of_the_ledger(world: World, tail: Tail) -> None:
    write(world, *range(LINES))
    look(world, tail)
    wait(world.timeline, world.database.write(lambda connection: connection.execute("DELETE FROM event").rowcount))
    assert look(world, tail) == []
    world.run(60)
    write(world, "the first again")
    assert look(world, tail) == ["refused the first again"]


def test_lines_come_back_with_time(world: World, tail: Tail) -> None:
    write(world, *range(LINES))
    look(world, tail)
    world.run(1.0)
    write(world, *range(LINES))
    lines = look(world, tail)
    assert lines[-1] == LINES - (len(lines) - 1)
    assert len(lines) - 1 == int(PER_S)
    world.run(1e6)
    write(world, *range(LINES + 1))
    assert look(world, tail)[-1] == 1
