"""What waits is moved in time: at a jump of the clock, for new settings, at a start."""

from __future__ import annotations

import random

import pytest

from mailsrv.store import queue, rescheduling
from mailsrv.store.rescheduling import BEGIN, Move
from tests.worlds.rows import ALICE, START, Rows, plan

NOW = START + 1000
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
    rescheduling.postpone(rows.connection, [Move(3600.0, NOW, NOW)], START + 1e6)
    for id in (queued, held):
        assert recipients(rows, id, "next_attempt, since") == [(START + 3600, START + 3600)]
    assert recipients(rows, done, "since") == [(START,)]
    rescheduling.postpone(rows.connection, [Move(-3600.0, NOW, NOW)], START + 1e6)
    assert recipients(rows, queued, "next_attempt, since") == [(START, START)]


def test_what_came_after_the_jump_stays_and_nothing_is_moved_out_of_reach(rows: Rows) -> None:
    old, new = rows.accept(at=START), rows.accept(at=START + 4000)
    tried = waiting_after(rows, 1, START + 50)
    rescheduling.postpone(rows.connection, [Move(4000.0, START + 3990, START + 4010)], START + 4030)
    assert next_attempts(rows) == {old: START + 4000, new: START + 4000, tried: START + 4030}


def test_after_several_jumps_each_moves_by_those_that_came_after_it(rows: Rows) -> None:
    """An hour back; two minutes later a day forward: what came in between has lived through the second only."""
    moves = [Move(-3600.0, START - 3610, START - 3480), Move(86400.0, START + 82_910, START + 83_000)]
    before, between, after = rows.accept(at=START), rows.accept(at=START - 3540), rows.accept(at=START + 82_950)
    rescheduling.postpone(rows.connection, moves, START + 1e6)
    expected = {before: START + 82_800, between: START + 82_860, after: START + 82_950}
    assert next_attempts(rows) == expected
    for id, came in ((before, START), (between, START - 3540), (after, START + 82_950)):
        assert recipients(rows, id, "since") == [(expected[id],)]
        assert came + rescheduling.shift(moves, came) == expected[id]


def test_in_memory_and_in_the_database_the_same_moves(rows: Rows) -> None:
    """``shift`` and the statement of ``postpone`` say one thing in two languages."""
    rng = random.Random("moves")
    for _ in range(50):
        moves = []
        for _ in range(rng.randint(1, 5)):
            begin = START + rng.uniform(-1000, 1000)
            moves.append(Move(rng.uniform(-2000, 2000), begin, begin + rng.uniform(0, 500)))
        came = {rows.accept(at=at): at for at in (START + rng.uniform(-2000, 2000) for _ in range(20))}
        rescheduling.postpone(rows.connection, moves, START + 1e6)
        assert next_attempts(rows) == {id: at + rescheduling.shift(moves, at) for id, at in came.items()}
        rows.connection.execute("DELETE FROM recipient")


def test_what_the_operator_has_released_after_the_jump_stays(rows: Rows) -> None:
    """He lives by the new clock, whether the server has seen it or not."""
    id = rows.accept(at=START)
    queue.hold(rows.connection, START, id)
    queue.release(rows.connection, START + 4000, id)
    rescheduling.postpone(rows.connection, [Move(4000.0, START + 3990, START + 4010)], START + 1e6)
    assert recipients(rows, id, "next_attempt, since") == [(START + 4000, START + 4000)]


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


def resume(rows: Rows, now: float, expire: float = 5 * 86400.0, at_once: int = 2) -> int:
    """All that waits, in steps; how many."""
    place, steps = BEGIN, 0
    while True:
        following = rescheduling.resume(rows.connection, place, at_once, now, 30.0, RETRY, expire)
        steps += 1
        if following is None:
            return steps
        place = following


def test_at_the_start_nothing_is_further_away_than_the_schedule_has_it(rows: Rows) -> None:
    ids = [waiting_after(rows, attempts, NOW + 80_000) for attempts in (1, 2, 3, 7)]
    near = waiting_after(rows, 3, NOW + 5)
    resume(rows, NOW)
    assert next_attempts(rows) == {
        **dict(zip(ids, (NOW + 60, NOW + 300, NOW + 900, NOW + 900), strict=True)),
        near: NOW + 5,
    }


def test_at_the_start_nothing_is_later_than_its_expiry(rows: Rows) -> None:
    id = waiting_after(rows, 3, NOW + 800)
    resume(rows, NOW, NOW - START + 100)
    assert next_attempts(rows) == {id: NOW + 100}


def test_when_the_clock_went_back_between_two_runs_nothing_waits_for_it_to_catch_up(rows: Rows) -> None:
    """A machine without a clock of its own starts in the past."""
    local, remote = rows.accept([ALICE], at=START), waiting_after(rows, 1, START + 40)
    before = START - 86400
    resume(rows, before)
    assert next_attempts(rows) == {local: before, remote: before + 60}
    assert recipients(rows, local, "since") == [(before,)]


def test_a_second_start_in_the_past_takes_nothing_from_the_time_that_mail_may_wait(rows: Rows) -> None:
    """It has begun to wait at the first start, however often the machine crashes before an attempt is over."""
    local = rows.accept([ALICE], at=START)
    before = START - 86400
    for start in range(3):
        resume(rows, before + start)
    assert next_attempts(rows) == {local: before}
    assert recipients(rows, local, "since") == [(before,)]


def test_a_clock_that_is_a_little_behind_moves_nothing(rows: Rows) -> None:
    local = rows.accept([ALICE], at=START)
    resume(rows, START - 20)
    assert next_attempts(rows) == {local: START}


def test_an_empty_database_resumes_nothing(rows: Rows) -> None:
    resume(rows, NOW)


def test_a_start_goes_through_all_that_waits_in_steps(rows: Rows) -> None:
    """Of any state, lane and destination, however many are of one time, and in whatever steps."""
    for at_once in (1, 3, 100):
        ids = [
            rows.accept([ALICE, f"{n}@d{n % 3}.example"], account=f"{n % 2}", at=NOW + 900 + n // 4) for n in range(9)
        ]
        for id in ids[::3]:
            queue.hold(rows.connection, START, id)
        steps = resume(rows, NOW, at_once=at_once)
        assert rows.value("SELECT count(*) FROM recipient WHERE since <> ?", NOW) == 0
        assert rows.value("SELECT count(*) FROM recipient WHERE next_attempt <> ?", NOW) == 0
        assert steps == {1: 20, 3: 8, 100: 2}[at_once]
        rows.connection.execute("DELETE FROM recipient")


def test_a_start_that_did_not_get_through_is_finished_by_the_next(rows: Rows) -> None:
    ids = [rows.accept(at=NOW + 86400 + n) for n in range(6)]
    rescheduling.resume(rows.connection, BEGIN._replace(state="queued"), 3, NOW, 30.0, RETRY, 5 * 86400.0)
    assert sorted(next_attempts(rows).values()) == [NOW] * 3 + [NOW + 86400 + n for n in (3, 4, 5)]
    resume(rows, NOW + 10)
    assert next_attempts(rows) == dict(zip(ids, [NOW] * 3 + [NOW + 10] * 3, strict=True))


def test_what_is_done_costs_a_start_nothing(rows: Rows) -> None:
    """It goes by the index of what is open; there may be millions of others."""
    lines = plan(rows, rescheduling.resume, BEGIN, 10, NOW, 30.0, RETRY, 5 * 86400.0)
    index = "(state=? AND (lane,destination,next_attempt,message,n)>(?,?,?,?,?))"
    assert lines[0] == f"SEARCH recipient USING INDEX recipient_open {index}"
    assert not [line for line in lines if "SCAN" in line or "TEMP" in line]
