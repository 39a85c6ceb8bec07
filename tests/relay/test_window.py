"""The window by itself: whatever happens in whatever order, everybody gets a turn, once, and bounds hold."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.mail.address import Address
from mailsrv.mail.envelope import Envelope
from mailsrv.mail.outcome import Outcome, Result
from mailsrv.relay import window as window_module
from mailsrv.relay.limit import STALLED_S, Failure, Said, Standing
from mailsrv.relay.pairs import Item
from mailsrv.relay.window import FORGET_S, LANE, Window
from mailsrv.store.due import Pair
from mailsrv.store.message import QueuedMessage, QueuedRecipient

ADDRESS = Address.parse("bob@example.net")
SILENT = Outcome(Result.DEFERRED, "4.4.1", "no connection")


def item(number: int, lane: str = "alice", destination: str = "example.net", due: float = 0.0) -> Item:
    recipient = QueuedRecipient(0, ADDRESS, ADDRESS, None, "", "", (), "", 0, 0.0, False, due)
    queued = QueuedMessage(number, 0.0, Envelope(None), "", "", "", "", 0, 0, (recipient,))
    return Item(queued, Pair(lane, destination), cast(Any, None), 0, 0)


def begun(window: Window, wall: float = 0.0, now: float = 0.0) -> list[Item]:
    """Everything that may begin."""
    found = []
    while (each := window.next(wall, now)) is not None:
        found.append(each)
    return found


def end(window: Window, each: Item, what: Said = Said.WELL, now: float = 1.0, failure: Failure | None = None) -> None:
    window.ended(each, what, now, failure)
    window.release(each)


def prove(window: Window, destination: str = "example.net", successes: int = 1) -> None:
    for _ in range(successes):
        window.take(item(10_000, "prover", destination), 0.0)
        for each in begun(window):
            end(window, each)


def test_lanes_of_a_destination_take_turns() -> None:
    window = Window()
    prove(window, successes=1)
    for number in range(10):
        window.take(item(number, "alice"), 0.0)
    for number in range(10, 13):
        window.take(item(number, "bob"), 0.0)
    order = []
    while running := begun(window):
        order += [each.pair.lane for each in running]
        for each in running:
            end(window, each)
    assert order[:7].count("bob") == 3


def test_lanes_take_turns_when_places_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_module, "IN_ALL", 2)
    monkeypatch.setitem(window_module._SHARES, Standing.UNPROVEN, 2)
    window = Window()
    for number in range(20):
        window.take(item(number, "alice", f"domain{number}.example"), 0.0)
    window.take(item(20, "bob", "domain20.example"), 0.0)
    order: list[int] = []
    while running := begun(window):
        assert len(running) <= 2
        order += [each.queued.id for each in running]
        for each in running:
            end(window, each)
    assert order.index(20) <= 3
    assert sorted(order) == list(range(21))


def test_a_lane_with_nothing_under_way_gets_a_place_beyond_the_limit() -> None:
    window = Window()
    prove(window, successes=2)
    for number in range(30):
        window.take(item(number), 0.0)
    assert len(begun(window)) == 4
    for number in range(5):
        window.take(item(100 + number, f"other{number}"), 0.0)
    assert [each.queued.id for each in begun(window)] == [100, 101]


def test_a_lane_has_so_many_in_memory_and_the_first_of_a_pair_beyond_that() -> None:
    window = Window()
    number = 0
    while window.admits(Pair("alice", "example.net")):
        window.take(item(number := number + 1), 0.0)
    assert number < 50
    while window.admits(key := Pair("alice", f"domain{number}.example")):
        window.take(item(number := number + 1, key.lane, key.destination), 0.0)
        window.take(item(number := number + 1, key.lane, key.destination), 0.0)
    assert 2 * LANE <= window.known <= 2 * LANE + 1
    assert window.admits(Pair("bob", "example.net"))


def test_what_is_behind_others_in_the_database_waits_for_its_turn() -> None:
    window = Window()
    key = Pair("alice", "example.net")
    window.more(key)
    assert not window.admits(key)
    assert list(window.hungry) == [key]


def test_an_attempt_that_shows_no_life_does_not_hold_its_destination_up() -> None:
    window = Window()
    window.take(item(1), 0.0)
    window.take(item(2), 0.0)
    assert [each.queued.id for each in begun(window)] == [1]
    window.stalled(STALLED_S - 1)
    assert begun(window) == []
    window.stalled(STALLED_S)
    assert [each.queued.id for each in begun(window, now=STALLED_S)] == [2]


def test_limits_are_forgotten_after_a_while_without_mail() -> None:
    window = Window()
    prove(window, successes=5)
    window.take(item(1), 0.0)
    (running,) = begun(window)
    window.forget(FORGET_S + 10)
    end(window, running, now=FORGET_S)
    window.forget(FORGET_S + 10)
    assert list(window._limits) == ["example.net"]
    window.forget(2 * FORGET_S + 10)
    assert window._limits == {}


def test_when_pairs_are_too_many_all_lanes_are_looked_through_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_module, "PAIRS", 10)
    monkeypatch.setattr(window_module, "SPARE", 2)
    window = Window()
    for number in range(20):
        window.more(Pair("alice", f"domain{number}.example"))
    assert len(window.pairs) == 10
    assert window.missed
    assert not window.has_room()


LANES = st.sampled_from(["alice", "bob", "carol"])
DESTINATIONS = st.sampled_from(["example.net", "example.com", "example.org"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), LANES, DESTINATIONS),
        st.tuples(st.just("begin")),
        st.tuples(st.just("alive"), st.integers(0, 9)),
        st.tuples(st.just("end"), st.integers(0, 9), st.sampled_from(Said)),
        st.tuples(st.just("stall")),
    ),
    max_size=60,
)


@given(STEPS)
def test_everybody_gets_one_turn_whatever_happens(steps: list[tuple[Any, ...]]) -> None:
    window = Window()
    running: list[Item] = []
    came: list[int] = []
    now, taken = 0.0, 0

    def begin() -> None:
        for each in begun(window, now, now):
            came.append(each.queued.id)
            if each.failure is None:
                running.append(each)
            else:
                end(window, each, Said.NOTHING, now)

    def stop(each: Item, what: Said) -> None:
        failure = Failure(each.begun, now, "", SILENT) if what is Said.UNREACHABLE else None
        end(window, each, what, now, failure)

    for name, *facts in steps:
        now += 1.0
        if name == "take":
            taken += 1
            window.take(item(taken, facts[0], facts[1], now), now)
        elif name == "begin":
            begin()
        elif name == "stall":
            now += STALLED_S
            window.stalled(now)
        elif running:
            each = running[facts[0] % len(running)]
            if name == "alive":
                window.alive(each, now)
            else:
                running.remove(each)
                stop(each, facts[1])
        places = {standing: sum(each.standing is standing for each in running) for standing in Standing}
        assert window._places == places
    for _ in range(1000):
        now += 1.0
        begin()
        if not running:
            break
        stop(running.pop(0), Said.ANSWERED)
    assert sorted(came) == list(range(1, taken + 1))
    assert window.known == 0
    assert not (window.pairs or window.lanes or window._destinations)
    assert set(window._places.values()) == {0}
