"""What waits keeps step with the clock, however it jumps and whatever the database takes, and with the settings."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from mailsrv.relay import clock
from mailsrv.relay.clock import LATE_S, QueueClock
from mailsrv.store import queue
from mailsrv.store.database import StorageTrouble
from tests.worlds.queue import CONFIG, DEFERRED, FAILED, QueueWorld

BOB = "bob@example.net"
DAVE = "dave@example.com"
DAY_S = 86400.0


@pytest.fixture
def world() -> Iterator[QueueWorld]:
    world = QueueWorld().boot()
    world.advance(1)
    yield world
    world.close()


def attempts(world: QueueWorld, address: str = BOB) -> int:
    return world.agent.recipients().count(address)


def fail_commits(world: QueueWorld) -> None:
    world.fail("database: commit", times=10_000, error=lambda: sqlite3.OperationalError("disk I/O error"))


def jump(world: QueueWorld, seconds: float) -> None:
    world.machine.clock_offset_s += seconds


def age(world: QueueWorld, message: int, n: int = 0) -> float:
    """For how long it has waited, as the database has it."""
    since: float = world.row(message, n)["since"]
    return world.machine.wall() - since


def wait_in_vain(world: QueueWorld, *to: str) -> int:
    """A message whose first attempt has come to nothing, a second after it was accepted."""
    for address in to:
        world.agent.answers[address] = DEFERRED
    id = world.submit(*to)
    world.advance(1)
    return id


# -- jumps


def test_when_the_clock_jumps_forward_nothing_expires_and_nothing_is_early(world: QueueWorld) -> None:
    world.agent.answers[BOB] = DEFERRED
    id = world.submit(BOB)
    world.advance(1)
    world.machine.clock_offset_s += 30 * 86400
    world.queue.wake()
    world.advance(40)
    assert attempts(world) == 1
    world.advance(30)
    assert attempts(world) == 2
    assert world.row(id)["state"] == "queued"


def test_when_the_clock_jumps_back_nothing_waits_for_it_to_catch_up(world: QueueWorld) -> None:
    world.agent.answers[BOB] = DEFERRED
    id = world.submit(BOB)
    world.advance(1)
    world.machine.clock_offset_s -= 30 * 86400
    world.advance(130)
    assert attempts(world) == 2
    assert world.row(id)["state"] == "queued"


def test_an_attempt_during_which_the_clock_jumps_is_judged_by_the_time_that_went_by(world: QueueWorld) -> None:
    world.agent.answers[BOB] = DEFERRED
    world.agent.slow.add("example.net")
    id = world.submit(BOB)
    world.advance(1)
    world.machine.clock_offset_s += 30 * 86400
    world.agent.finish()
    world.advance(1)
    assert world.row(id)["state"] == "queued"
    assert world.reports_in() == []
    assert 0 < world.row(id)["next_attempt"] - world.machine.wall() <= 60
    assert abs(world.row(id)["since"] - world.machine.wall()) < 60


def test_a_clock_that_went_back_while_the_server_was_down_delays_nothing(world: QueueWorld) -> None:
    world.agent.answers[BOB] = DEFERRED
    id = world.submit(BOB)
    world.advance(1)
    world.crash()
    world.machine.clock_offset_s -= 86400
    world.boot()
    world.advance(70)
    assert world.row(id)["state"] == "delivered"


# -- jumps that the database does not hear of


def test_an_attempt_that_waits_to_be_recorded_is_judged_by_the_time_that_went_by(world: QueueWorld) -> None:
    """The clock jumps while the database does not take what it came to: world 71243+o."""
    world.agent.slow.add("example.net")
    id = wait_in_vain(world, BOB)
    fail_commits(world)
    world.agent.finish()
    world.advance(1)
    jump(world, 30 * DAY_S)
    world.advance(60)
    world.healthy()
    world.advance(10)
    assert (world.row(id)["state"], world.row(id)["attempts"]) == ("queued", 1)
    assert abs(age(world, id) - 73) < 2
    assert 0 < world.row(id)["next_attempt"] - world.machine.wall() <= 60
    assert world.reports_in() == []


@pytest.mark.parametrize(("first", "second"), [(-4000.0, 30 * DAY_S), (30 * DAY_S, -4000.0), (DAY_S, -DAY_S)])
def test_of_several_jumps_each_moves_what_came_before_it(world: QueueWorld, first: float, second: float) -> None:
    """They are written late and together, and are not one jump by the sum of both."""
    before = wait_in_vain(world, BOB)
    world.advance(4)
    world.agent.slow.add("example.com")
    jump(world, first)
    between = wait_in_vain(world, DAVE)
    fail_commits(world)
    world.queue.wake()
    world.advance(40)
    jump(world, second)
    world.advance(40)
    world.agent.finish()
    world.healthy()
    world.advance(6)
    assert abs(age(world, before) - 92) < 1
    assert abs(age(world, between) - 87) < 1
    assert [world.row(id)["state"] for id in (before, between)] == ["queued", "queued"]


def test_a_message_of_which_a_report_is_written_while_the_clock_jumps(world: QueueWorld) -> None:
    world.agent.answers[DAVE] = FAILED
    written: list[Deferred[None]] = []
    judge = world.reports.judge

    async def slow(*arguments: Any) -> object:
        verdict = await judge(*arguments)
        if not written:
            written.append(Deferred())
            await written[0]
        return verdict

    world.reports.judge = slow  # type: ignore[assignment, method-assign]
    world.agent.answers["carol@example.com"] = DEFERRED
    id = world.submit("carol@example.com", DAVE)
    world.advance(1)
    jump(world, -30 * DAY_S)
    world.queue.wake()
    world.advance(1)
    written[0].callback(None)
    world.advance(1)
    assert (world.row(id)["state"], world.row(id, 1)["state"]) == ("queued", "bounced")
    assert 0 < world.row(id)["next_attempt"] - world.machine.wall() <= 60
    assert len(world.reports_in()) == 1
    assert world.gaps() == []


def clock_of(world: QueueWorld) -> tuple[QueueClock, list[tuple[Any, Deferred[None]]]]:
    """A clock whose writes, with what they write, are answered by the test."""
    made = QueueClock(world.settings, world.outside, world.database)
    written: list[tuple[Any, Deferred[None]]] = []

    def write(operation: object, *arguments: Any) -> Deferred[None]:
        written.append((arguments[0], Deferred()))
        return written[-1][1]

    world.database.write = write  # type: ignore[assignment, method-assign]
    return made, written


def test_what_waits_is_moving_until_the_last_of_several_jumps_is_written(world: QueueWorld) -> None:
    made, written = clock_of(world)
    jump(world, 3600)
    results: list[bool] = []
    for _ in range(2):
        Deferred.fromCoroutine(made.mind()).addCallback(results.append)
    jump(world, 4000)
    Deferred.fromCoroutine(made.mind()).addCallback(results.append)
    assert [[move.seconds for move in moves] for moves, _ in written] == [[3600]]
    written[0][1].callback(None)
    assert (made.moving, made.is_right(), results) == (True, False, [])
    assert [[move.seconds for move in moves] for moves, _ in written[1:]] == [[4000]]
    written[1][1].callback(None)
    assert (made.moving, made.is_right(), made.jumps) == (False, True, 2)
    assert sorted(results) == [False, False, True]


def test_a_jump_that_could_not_be_written_is_owed_even_when_the_clock_goes_back(world: QueueWorld) -> None:
    made, written = clock_of(world)
    failures: list[object] = []
    jump(world, 3600)
    for _ in range(2):
        Deferred.fromCoroutine(made.mind()).addErrback(failures.append)
    written[0][1].errback(StorageTrouble("database is locked"))
    assert len(failures) == 2
    jump(world, -3600)
    assert (made.moving, made.is_right()) == (True, False)
    Deferred.fromCoroutine(made.mind())
    assert [move.seconds for move in written[1][0]] == [3600, -3600]
    written[1][1].callback(None)
    assert (made.moving, made.is_right()) == (False, True)


def test_what_was_accepted_by_the_clock_before_a_jump_may_be_told_after_it(world: QueueWorld) -> None:
    made, written = clock_of(world)
    old = world.machine.wall()
    jump(world, -4000)
    Deferred.fromCoroutine(made.mind())
    written[0][1].callback(None)
    jump(world, 30 * DAY_S)
    between = world.machine.wall() - 30 * DAY_S
    Deferred.fromCoroutine(made.mind())
    written[1][1].callback(None)
    assert [made.jumps_before(at) for at in (old, between, world.machine.wall())] == [0, 1, 2]
    world.advance(LATE_S + 1)
    assert made.jumps_before(world.machine.wall()) == 2


def test_only_so_many_jumps_are_remembered(world: QueueWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "JUMPS", 3)
    made, written = clock_of(world)
    for n in range(5):
        jump(world, 3600)
        Deferred.fromCoroutine(made.mind())
        written[n][1].callback(None)
    assert (made.jumps, len(made._moves), len(made._noticed)) == (5, 3, 3)
    assert made.jumps_before(world.machine.wall()) == 5


# -- a crash, and the start after it


def crash_with_a_jump_owed(world: QueueWorld, seconds: float) -> None:
    fail_commits(world)
    jump(world, seconds)
    world.queue.wake()
    world.advance(1)
    world.crash()
    world.healthy()


def test_a_crash_before_a_jump_back_is_written_delays_nothing_and_gives_nothing_up(world: QueueWorld) -> None:
    id = wait_in_vain(world, BOB)
    crash_with_a_jump_owed(world, -30 * DAY_S)
    world.boot()
    world.agent.answers[BOB] = DEFERRED
    world.advance(4.9 * DAY_S)
    assert world.row(id)["state"] == "queued"
    assert 300 < world.row(id)["attempts"] < 500
    world.advance(0.2 * DAY_S)
    assert world.row(id)["state"] == "bounced"


def test_a_crash_before_a_jump_forward_is_written_leaves_one_more_attempt(world: QueueWorld) -> None:
    """For all that the next start can know the machine was off for so long."""
    lucky, late = wait_in_vain(world, BOB), wait_in_vain(world, DAVE)
    crash_with_a_jump_owed(world, 30 * DAY_S)
    world.boot()
    world.agent.answers[DAVE] = DEFERRED
    world.advance(61)
    assert (attempts(world, BOB), attempts(world, DAVE)) == (1, 1)
    assert [world.row(id)["state"] for id in (lucky, late)] == ["delivered", "bounced"]


def many_that_wait(world: QueueWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start with a clock that is a day behind what waits, of which it looks at a little at a time."""
    monkeypatch.setattr(clock, "ROWS", 10)
    world.agent.slow.add("example.net")
    world.fill(300, destination="'d' || more || '.example'", next_attempt="next_attempt + 1000 + more", attempts="1")
    world.crash()
    jump(world, -DAY_S)
    world.boot()


def behind(world: QueueWorld) -> int:
    """How many are still as the last run left them."""
    found: int = world.rows("SELECT count(*) FROM recipient WHERE next_attempt > ?", world.machine.wall() + 1000)[0][0]
    return found


def test_new_mail_does_not_wait_until_a_start_has_looked_through_the_queue(
    world: QueueWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    many_that_wait(world, monkeypatch)
    world.agent.answers[DAVE] = DEFERRED
    id = world.submit(DAVE)
    assert behind(world) > 200
    world.advance(2)
    assert behind(world) == 0
    assert world.row(id)["attempts"] == 1
    world.agent.answers.clear()
    world.advance(65)
    assert world.row(id)["state"] == "delivered"
    assert len(set(world.agent.recipients())) > 1


def test_a_start_that_is_stopped_or_killed_on_its_way_through_the_queue(
    world: QueueWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    many_that_wait(world, monkeypatch)
    for _ in range(4):
        world.submit(DAVE)
    world.crash()
    left = behind(world)
    assert 200 < left < 300
    world.boot()
    for _ in range(4):
        world.submit(DAVE)
    begun = world.timeline.now
    world.wait(world.queue.stop())
    world.wait(world.database.close())
    assert world.timeline.now - begun < 0.1
    assert 0 < behind(world) < left
    world.crash()
    world.boot()
    world.advance(2)
    assert behind(world) == 0


def test_a_jump_while_a_start_goes_through_the_queue(world: QueueWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is moved then may come before the place where the start has got to."""
    many_that_wait(world, monkeypatch)
    for _ in range(4):
        world.submit(DAVE)
    assert 200 < behind(world) < 300
    jump(world, -5000)
    world.advance(2)
    assert behind(world) == 0
    rows = world.rows("SELECT since FROM recipient WHERE state = 'queued'")
    assert max(since for (since,) in rows) <= world.machine.wall()


# -- the operator's hand while an attempt is under way


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("notify", [(), ("NEVER",)])
def test_what_is_held_during_an_attempt_does_not_expire_with_it(
    world: QueueWorld, released: bool, notify: tuple[str, ...]
) -> None:
    """Nor what is released again: from then on its time counts."""
    world.agent.answers[BOB] = world.agent.answers["carol@example.net"] = DEFERRED
    id = world.submit(BOB, "carol@example.net", notify=notify)
    world.advance(5 * DAY_S - 900)
    world.agent.slow.add("example.net")
    while not world.agent.running:
        world.advance(10)
    before = world.row(id)["attempts"]
    world.advance(1000)
    world.operator(queue.hold, id)
    if released:
        world.operator(queue.release, id)
    world.agent.finish()
    world.advance(1)
    for n in range(2):
        row = world.row(id, n)
        assert (row["state"], row["attempts"]) == ("queued" if released else "held", before + 1)
    assert not [report for report in world.reports_in() if b"given up" in report]
    assert world.kinds()[-1] == "deferred"
    world.agent.slow.clear()
    if not released:
        world.advance(10 * DAY_S)
        world.operator(queue.release, id)
    world.advance(4.9 * DAY_S)
    assert world.row(id)["state"] == "queued"
    world.advance(0.2 * DAY_S)
    assert world.row(id)["state"] == ("dropped" if notify else "bounced")
    assert world.gaps() == []


def test_what_is_held_during_an_attempt_is_told_when_it_fails(world: QueueWorld) -> None:
    """What another server has refused for good is no matter of time."""
    world.agent.slow.add("example.net")
    world.agent.answers[BOB] = FAILED
    id = world.submit(BOB)
    world.advance(1)
    world.operator(queue.hold, id)
    world.agent.finish()
    world.advance(1)
    assert world.row(id)["state"] == "bounced"


# -- settings


def test_new_queue_settings_hold_for_what_waits(world: QueueWorld) -> None:
    world.agent.answers[BOB] = DEFERRED
    world.submit(BOB)
    world.advance(400)
    assert attempts(world) == 3  # the next one would be in fifteen minutes
    world.settings.change(CONFIG.replace('["1m", "5m", "15m"]', '["10s"]'))
    world.queue.reconfigured()
    world.advance(1)
    assert attempts(world) >= 3
    world.advance(30)
    assert attempts(world) >= 5


def test_new_queue_settings_are_taken_up_when_the_database_can_be_written_again(world: QueueWorld) -> None:
    world.agent.answers[BOB] = DEFERRED
    world.submit(BOB)
    world.advance(400)
    fail_commits(world)
    world.settings.change(CONFIG.replace('["1m", "5m", "15m"]', '["10s"]'))
    world.queue.reconfigured()
    world.advance(20)
    world.healthy()
    world.advance(40)
    assert attempts(world) >= 5


def test_settings_that_changed_while_the_server_was_down_hold_too(world: QueueWorld) -> None:
    world.agent.answers[BOB] = DEFERRED
    id = world.submit(BOB)
    world.advance(400)
    world.crash()
    world.settings.change(CONFIG.replace('["1m", "5m", "15m"]', '["10s"]'))
    world.boot()
    world.advance(15)
    assert world.row(id)["state"] == "delivered"
