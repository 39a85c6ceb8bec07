"""What an attempt comes to: one outcome for each recipient, out of what several servers did."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from mailsrv.mail.address import Address
from mailsrv.mail.envelope import Envelope, Recipient
from mailsrv.mail.outcome import Outcome, Result
from mailsrv.relay.attempt import Attempt, Trouble, together
from mailsrv.relay.job import Job

REFUSED = Outcome(Result.FAILED, "5.7.25", "six refused the recipient.", "550 5.7.25 no PTR", "six [2001:db8::1]:25")
TAKEN = Outcome(Result.DELIVERED, "2.0.0", "four took the message.", "250 ok", "four [192.0.2.1]:25")
AWAY = Outcome(Result.DEFERRED, "4.4.1", "four did not answer within 30 seconds.", remote="four [192.0.2.1]:25")


def attempt(recipients: int = 2) -> Attempt:
    bobs = tuple(Recipient(Address(f"bob{n}", "example.net")) for n in range(recipients))
    return Attempt(Job("0", Envelope(None), bobs, "example.net", cast(Any, None), 0, False))


def test_whoever_was_refused_for_our_address_waits_for_the_other_family() -> None:
    present = attempt(3)
    present.settled[0] = TAKEN
    present.refused[1] = REFUSED
    assert present.waiting() == [2]
    present.turn(REFUSED)
    assert present.waiting() == [1, 2]


def test_both_answers_are_told() -> None:
    present = attempt()
    present.refused[0] = REFUSED
    present.turn(REFUSED)
    present.settled.update({0: TAKEN, 1: TAKEN})
    for outcome in present.outcomes():
        assert outcome == replace(TAKEN, reason=outcome.reason)
        assert outcome.reason == (
            "four took the message. Before that six [2001:db8::1]:25 had refused the address of this server: "
            "550 5.7.25 no PTR"
        )


def test_a_note_is_told_unless_there_is_more_to_tell() -> None:
    present = attempt()
    present.note = "IPv4 was tried first."
    present.settled.update({0: TAKEN, 1: TAKEN})
    present.refused[1] = REFUSED
    first, second = present.outcomes()
    assert first.reason == "four took the message. IPv4 was tried first."
    assert "tried first" not in second.reason


def test_nothing_is_given_up_while_the_other_family_may_yet_take_it() -> None:
    present = attempt(1)
    present.troubles.append(Trouble(replace(AWAY, reason="Something else.")))
    present.refused[0] = REFUSED
    present.turn(REFUSED)
    present.troubles.append(Trouble(AWAY))
    (outcome,) = present.outcomes()
    assert (outcome.result, outcome.status, outcome.answer) == (Result.DEFERRED, "4.7.25", REFUSED.answer)
    assert outcome.reason.endswith("was of no use just now: four did not answer within 30 seconds.")


@pytest.mark.parametrize("troubles", [[], [Trouble(AWAY, unreachable=True)]])
def test_a_family_that_this_machine_does_not_have_changes_nothing(troubles: list[Trouble]) -> None:
    present = attempt(1)
    present.refused[0] = REFUSED
    present.turn(REFUSED)
    present.troubles += troubles
    assert present.outcomes() == [REFUSED]


def test_together_the_last_that_spoke_explains_most() -> None:
    never = Outcome(Result.FAILED, "5.3.2", "never", "521 never")
    busy = Outcome(Result.DEFERRED, "4.3.2", "busy", "421 busy")
    assert together([never, busy, AWAY]) is busy
    assert together([never, AWAY]) is AWAY
    assert together([never, never]) is never
    assert together([]).result is Result.DEFERRED
