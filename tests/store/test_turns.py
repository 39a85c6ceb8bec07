"""Who waits, whose turn it is, and who is turned away."""

from __future__ import annotations

import pytest

from mailsrv.store.accounts.turns import Lane


def fill(lane: Lane[str], *words: str) -> list[str | None]:
    """``a1`` waits under a; who was turned away for each."""
    return [lane.add(word[0], 0.0, word) for word in words]


def drain(lane: Lane[str]) -> str:
    return " ".join(lane.next() for _ in range(len(lane)))


def test_keys_take_turns_and_the_oldest_of_one_comes_first() -> None:
    lane: Lane[str] = Lane(10)
    assert not lane
    fill(lane, "a1", "a2", "a3", "b1", "c1", "c2")
    assert len(lane) == 6
    assert drain(lane) == "a1 b1 c1 a2 c2 a3"
    with pytest.raises(IndexError):
        lane.next()


def test_who_has_taken_the_most_places_loses_the_newest() -> None:
    lane: Lane[str] = Lane(4)
    assert fill(lane, "a1", "a2", "a3", "a4", "b1", "c1", "c2") == [None, None, None, None, "a4", "a3", "c2"]
    assert drain(lane) == "a1 b1 c1 a2"


def test_one_key_alone_turns_its_own_newcomers_away() -> None:
    lane: Lane[str] = Lane(2)
    assert fill(lane, "a1", "a2", "a3") == [None, None, "a3"]
    assert drain(lane) == "a1 a2"


def test_among_equals_the_one_to_blame_goes_and_else_the_newcomer() -> None:
    lane: Lane[str] = Lane(3)
    for word, blame in (("a1", 0.5), ("b1", 30.0), ("c1", 1.0)):
        lane.add(word[0], blame, word)
    assert lane.add("d", 0.0, "d1") == "b1"
    assert lane.add("e", 2.0, "e1") == "e1"
    assert lane.add("f", 0.0, "f1") == "c1"
    assert lane.add("g", 0.0, "g1") == "a1"
    assert lane.add("h", 0.0, "h1") == "h1"
    assert drain(lane) == "d1 f1 g1"


def test_nothing_is_kept_of_who_has_gone() -> None:
    lane: Lane[str] = Lane(3)
    for n in range(100):
        lane.add(str(n), float(n), str(n))
    drain(lane)
    assert not lane
    assert (dict(lane._waiting), lane._blame) == ({}, {})
