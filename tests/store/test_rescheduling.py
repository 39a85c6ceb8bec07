"""What waits is moved in time: at a jump of the clock, for new settings, at a start."""

from __future__ import annotations

import pytest

from mailsrv.store import queue, rescheduling
from tests.worlds.rows import ALICE, START, Rows

NOW = START + 1000
NEVER = (0.0, 0.0)
RETRY = (60.0, 300.0, 900.0)


@pytest.fixture
def rows() -> Rows:
    return Rows()


def recipients(rows: Rows, id: int, columns: str = "state") -> list[tuple[object, ...]]:
    return rows.connection.execute(f"SELECT {columns} FROM recipient WHERE message = ? ORDER BY n", (id,)).fetchall()


def next_attempts(rows: Rows) -> dict[int, float]:
    return dict(rows.connection.execute("SELECT message, next_attempt FROM recipient"))


def test_when_the_clock_jumps_everything_that_waits_moves_along(rows: Rows) -> None:
    queued, held, done = rows.accept(), rows.accept(), rows.accept()
    queue.hold(rows.connection, START, held)
    rows.finish(done)
    rescheduling.postpone(rows.connection, 3600.0, NEVER, START + 1e6)
    for id in (queued, held):
        assert recipients(rows, id, "next_attempt, since") == [(START + 3600, START + 3600)]
    assert recipients(rows, done, "since") == [(START,)]
    rescheduling.postpone(rows.connection, -3600.0, NEVER, START + 1e6)
    assert recipients(rows, queued, "next_attempt, since") == [(START, START)]


def test_what_came_after_the_jump_stays_and_nothing_is_moved_out_of_reach(rows: Rows) -> None:
    old, new = rows.accept(at=START), rows.accept(at=START + 4000)
    tried = waiting_after(rows, 1, START + 50)
    rescheduling.postpone(rows.connection, 4000.0, (START + 3990, START + 4010), START + 4030)
    assert next_attempts(rows) == {old: START + 4000, new: START + 4000, tried: START + 4030}


def waiting_after(rows: Rows, attempts: int, next_attempt: float) -> int:
    id = rows.accept()
    rows.connection.execute(
        "UPDATE recipient SET attempts = ?, next_attempt = ? WHERE message = ?", (attempts, next_attempt, id)
    )
    return id


def test_a_new_schedule_moves_what_waits_by_the_difference(rows: Rows) -> None:
    fresh = waiting_after(rows, 0, START)
    once, twice, often = (waiting_after(rows, attempts, NOW) for attempts in (1, 2, 9))
    held = waiting_after(rows, 1, NOW)
    queue.hold(rows.connection, START, held)
    rescheduling.reschedule(rows.connection, [(1, -50.0), (2, 100.0)], 5 * 86400.0, 2)
    assert next_attempts(rows) == {fresh: START, once: NOW - 50, twice: NOW + 100, often: NOW + 100, held: NOW}


def test_no_attempt_is_later_than_the_expiry(rows: Rows) -> None:
    soon, late = waiting_after(rows, 1, START + 10), waiting_after(rows, 1, START + 86400)
    rescheduling.reschedule(rows.connection, [], 3600.0, 1)
    assert next_attempts(rows) == {soon: START + 10, late: START + 3600}


def test_at_the_start_nothing_is_further_away_than_the_schedule_has_it(rows: Rows) -> None:
    ids = [waiting_after(rows, attempts, NOW + 80_000) for attempts in (1, 2, 3, 7)]
    near = waiting_after(rows, 3, NOW + 5)
    rescheduling.resume(rows.connection, NOW, 30.0, RETRY, 5 * 86400.0)
    assert next_attempts(rows) == {
        **dict(zip(ids, (NOW + 60, NOW + 300, NOW + 900, NOW + 900), strict=True)),
        near: NOW + 5,
    }


def test_at_the_start_nothing_is_later_than_its_expiry(rows: Rows) -> None:
    id = waiting_after(rows, 3, NOW + 800)
    rescheduling.resume(rows.connection, NOW, 30.0, RETRY, NOW - START + 100)
    assert next_attempts(rows) == {id: NOW + 100}


def test_when_the_clock_went_back_between_two_runs_nothing_waits_for_it_to_catch_up(rows: Rows) -> None:
    """A machine without a clock of its own starts in the past."""
    local, remote = rows.accept([ALICE], at=START), waiting_after(rows, 1, START + 40)
    before = START - 86400
    rescheduling.resume(rows.connection, before, 30.0, RETRY, 5 * 86400.0)
    assert next_attempts(rows) == {local: before, remote: before + 60}
    assert recipients(rows, local, "since") == [(before,)]


def test_a_second_start_in_the_past_takes_nothing_from_the_time_that_mail_may_wait(rows: Rows) -> None:
    """It has begun to wait at the first start, however often the machine crashes before an attempt is over."""
    local = rows.accept([ALICE], at=START)
    before = START - 86400
    for start in range(3):
        rescheduling.resume(rows.connection, before + start, 30.0, RETRY, 5 * 86400.0)
    assert next_attempts(rows) == {local: before}
    assert recipients(rows, local, "since") == [(before,)]


def test_a_clock_that_is_a_little_behind_moves_nothing(rows: Rows) -> None:
    local = rows.accept([ALICE], at=START)
    rescheduling.resume(rows.connection, START - 20, 30.0, RETRY, 5 * 86400.0)
    assert next_attempts(rows) == {local: START}


def test_an_empty_database_resumes_nothing(rows: Rows) -> None:
    rescheduling.resume(rows.connection, NOW, 30.0, RETRY, 5 * 86400.0)
