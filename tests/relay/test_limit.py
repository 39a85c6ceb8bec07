"""What attempts tell of a destination, and what it gets for that."""

from __future__ import annotations

import pytest

from mailsrv.mail.outcome import Outcome, Result
from mailsrv.relay.limit import MOST, REFUSALS, SHARED_S, STALLED_S, Failure, Limit, Said, Standing, said

WELL = Outcome(Result.DELIVERED, "2.0.0", "took it", "250 ok")
GREYLISTED = Outcome(Result.DEFERRED, "4.7.1", "not now", "451 4.7.1 greylisted")
BUSY = Outcome(Result.DEFERRED, "4.7.0", "not now", "421 4.7.0 too many connections")
FLOOD = Outcome(Result.DEFERRED, "4.7.28", "not now", "450 4.7.28 slow down")
REFUSED = Outcome(Result.FAILED, "5.1.1", "no", "550 who?")
SILENT = Outcome(Result.DEFERRED, "4.4.1", "no connection")
NO_DNS = Outcome(Result.DEFERRED, "4.4.3", "DNS does not answer")
LOST = Outcome(Result.DEFERRED, "4.4.2", "the connection ended")
UNVERIFIED = Outcome(Result.DEFERRED, "4.7.5", "the certificate does not prove it")
LOCAL = Outcome(Result.DEFERRED, "4.3.0", "local trouble")
NOWHERE = Outcome(Result.FAILED, "5.1.2", "no such domain")


@pytest.mark.parametrize(
    ("outcomes", "alive", "seconds", "expected"),
    [
        ([WELL], True, 1, Said.WELL),
        ([REFUSED, WELL, BUSY], True, 1, Said.WELL),
        ([GREYLISTED], False, 1, Said.ANSWERED),
        ([REFUSED], False, 1, Said.ANSWERED),
        ([BUSY], False, 1, Said.SLOW_DOWN),
        ([GREYLISTED, FLOOD], False, 1, Said.SLOW_DOWN),
        ([SILENT], False, 1, Said.UNREACHABLE),
        ([SILENT, SILENT], False, 30, Said.UNREACHABLE),
        ([NO_DNS], False, 5, Said.UNREACHABLE),
        ([LOST], False, STALLED_S, Said.UNREACHABLE),  # it lets everybody wait for its greeting
        ([LOST], False, 1, Said.SLOW_DOWN),  # it may be about this mail
        ([LOST], True, 600, Said.SLOW_DOWN),  # no answer after the last dot
        ([UNVERIFIED], False, 1, Said.NOTHING),
        ([LOCAL], True, 1, Said.NOTHING),
        ([NOWHERE], False, 1, Said.NOTHING),
        ([], False, 1, Said.NOTHING),
    ],
)
def test_what_an_attempt_tells(outcomes: list[Outcome], alive: bool, seconds: float, expected: Said) -> None:
    assert said(outcomes, alive, seconds) is expected


def grown(attempts: int) -> Limit:
    limit = Limit()
    for now in range(attempts):
        limit.ended(Said.WELL, now - 0.5, float(now))
    return limit


def failure(begun: float = 1000.0, ended: float = 30.0) -> Failure:
    return Failure(begun, ended, "1K0YS8BW921", SILENT)


def test_it_begins_with_one_and_the_first_sign_of_life_allows_a_second() -> None:
    limit = Limit()
    assert (limit.places, limit.standing) == (1, Standing.UNPROVEN)
    limit.alive(0.0)
    assert (limit.places, limit.standing) == (2, Standing.PROVEN)
    limit.alive(1.0)
    assert limit.places == 2


def test_it_grows_by_one_with_each_success_up_to_a_most() -> None:
    assert [grown(attempts).places for attempts in (1, 2, 3, 10, 18, 100)] == [3, 4, 5, 12, MOST, MOST]


def test_answers_that_say_nothing_of_load_let_it_stay() -> None:
    limit = grown(8)
    for now in range(8, 20):
        limit.ended(Said.ANSWERED, now - 0.5, float(now))
        limit.ended(Said.NOTHING, now - 0.5, float(now))
    assert limit.places == 10


def test_a_brake_halves_once_for_all_that_were_under_way_and_never_below_one() -> None:
    limit = grown(100)
    for _ in range(MOST):
        limit.ended(Said.SLOW_DOWN, 99.5, 100.0)
    assert limit.places == MOST // 2
    for now in range(101, 120):
        limit.ended(Said.SLOW_DOWN, now - 0.5, float(now))
    assert limit.places == 1


def test_after_a_brake_it_grows_by_one_in_a_round() -> None:
    limit = grown(100)
    limit.ended(Said.SLOW_DOWN, 99.5, 100.0)
    for now in range(101, 101 + 11):
        limit.ended(Said.WELL, now - 0.5, float(now))
    assert limit.places == MOST // 2 + 1


def test_a_first_answer_that_asks_for_less_leaves_one() -> None:
    limit = Limit()
    limit.ended(Said.SLOW_DOWN, 0.0, 1.0)
    assert (limit.places, limit.standing) == (1, Standing.PROVEN)


def test_a_destination_that_nobody_answers_at_is_down_until_somebody_does() -> None:
    limit = grown(10)
    limit.ended(Said.UNREACHABLE, 20.0, 50.0, failure())
    assert (limit.places, limit.standing, limit.failure) == (1, Standing.DOWN, failure())
    limit.ended(Said.NOTHING, 51.0, 52.0)
    assert limit.standing is Standing.DOWN
    limit.alive(60.0)
    assert (limit.places, limit.standing, limit.failure) == (2, Standing.PROVEN, None)


def test_a_failure_beside_attempts_that_work_is_a_brake_only() -> None:
    limit = grown(10)
    limit.ended(Said.UNREACHABLE, 5.0, 35.0, failure())
    assert (limit.places, limit.standing) == (6, Standing.PROVEN)


def test_a_failure_stands_for_what_was_due_when_it_began_and_for_a_while() -> None:
    assert failure().stands_for(999.0, 30.0)
    assert failure().stands_for(1000.0, 30.0 + SHARED_S)
    assert not failure().stands_for(1000.1, 30.0)
    assert not failure().stands_for(1000.0, 31.0 + SHARED_S)
    shared = failure().shared()
    assert (shared.result, shared.status) == (Result.DEFERRED, "4.4.1")
    assert shared.reason == "Not tried by itself, as an attempt with 1K0YS8BW921 has just failed: no connection"


def test_one_that_sends_us_away_again_and_again_is_as_good_as_down() -> None:
    limit = Limit()
    standings = []
    for now in range(REFUSALS + 2):
        limit.ended(Said.SLOW_DOWN, now - 0.5, float(now), failure())
        standings.append(limit.standing)
        assert limit.places == 1
    assert standings == [Standing.PROVEN] * (REFUSALS - 1) + [Standing.DOWN] * 3
    limit.ended(Said.ANSWERED, 10.0, 11.0)
    assert limit.standing is Standing.PROVEN
    limit.ended(Said.SLOW_DOWN, 12.0, 13.0, failure())
    assert limit.standing is Standing.PROVEN


def test_connections_lost_while_mail_was_taken_stand_for_nobody_else() -> None:
    limit = Limit()
    for now in range(10):
        limit.ended(Said.SLOW_DOWN, now - 0.5, float(now))
    assert (limit.places, limit.standing) == (1, Standing.PROVEN)
