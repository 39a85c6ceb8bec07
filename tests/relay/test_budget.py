"""The budget: never more than there is, in the order of asking, and whoever leaves keeps nobody waiting."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred

from mailsrv.relay.budget import Budget


class Asker:
    def __init__(self, budget: Budget, octets: int) -> None:
        self.octets = octets
        self.outcome: list[Any] = []
        self.asked: Deferred[None] = budget.take(octets)
        self.asked.addBoth(self.outcome.append)

    @property
    def has(self) -> bool:
        return self.outcome == [None]

    @property
    def was_sent_away(self) -> bool:
        return bool(self.outcome) and self.outcome[0] is not None and bool(self.outcome[0].check(CancelledError))


def test_in_the_order_of_asking() -> None:
    budget = Budget(100)
    first, large, small = Asker(budget, 60), Asker(budget, 50), Asker(budget, 1)
    assert [first.has, large.has, small.has] == [True, False, False]
    budget.give_back(60)
    assert [large.has, small.has] == [True, True]


def test_who_leaves_keeps_nobody_waiting() -> None:
    budget = Budget(100)
    first, large, small = Asker(budget, 60), Asker(budget, 50), Asker(budget, 40)
    large.asked.cancel()
    assert large.was_sent_away
    assert small.has
    budget.give_back(40)
    budget.give_back(60)
    assert first.has
    assert Asker(budget, 100).has


def test_who_wants_more_than_all_has_all_alone() -> None:
    budget = Budget(100)
    first, huge, small = Asker(budget, 1), Asker(budget, 1000), Asker(budget, 1)
    assert [first.has, huge.has, small.has] == [True, False, False]
    budget.give_back(1)
    assert [huge.has, small.has] == [True, False]
    budget.give_back(1000)
    assert small.has
    budget.give_back(1)
    assert Asker(budget, 100).has


def test_close_sends_away_who_waits_and_who_comes() -> None:
    budget = Budget(100)
    first, second, third = Asker(budget, 60), Asker(budget, 50), Asker(budget, 10)
    budget.close()
    assert second.was_sent_away
    assert third.was_sent_away
    assert Asker(budget, 1).was_sent_away
    budget.give_back(first.octets)
    assert not Asker(budget, 1).has


@given(st.lists(st.tuples(st.sampled_from(["take", "give", "leave"]), st.integers(0, 150)), max_size=60))
def test_never_more_than_there_is_and_everybody_in_the_end(steps: list[tuple[str, int]]) -> None:
    budget = Budget(100)
    askers: list[Asker] = []
    using: list[Asker] = []
    for step, number in steps:
        waiting = [asker for asker in askers if not asker.outcome]
        if step == "take":
            askers.append(Asker(budget, number))
        elif step == "give" and using:
            gone = using.pop(number % len(using))
            askers.remove(gone)
            budget.give_back(gone.octets)
        elif step == "leave" and waiting:
            waiting[number % len(waiting)].asked.cancel()
        using = [asker for asker in askers if asker.has]
        used = sum(min(asker.octets, 100) for asker in using)
        assert used <= 100
        still = [asker for asker in askers if not asker.outcome]
        # Whoever waits could not be served, and nobody has overtaken anybody.
        assert not still or min(still[0].octets, 100) + used > 100
        assert all(askers.index(each) < askers.index(still[0]) for each in using if still)
    while using:
        budget.give_back(using[0].octets)
        askers.remove(using[0])
        using = [asker for asker in askers if asker.has]
    assert all(asker.was_sent_away for asker in askers)
