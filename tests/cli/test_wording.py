"""What strangers sent, made safe to show; times and durations for people."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.cli.wording import as_json, clean, counted, moment, span


@given(st.text())
def test_clean_leaves_nothing_that_a_terminal_obeys(text: str) -> None:
    cleaned = clean(text)
    assert all(character == " " or character.isprintable() or character.isspace() for character in cleaned)
    assert not set(cleaned).intersection("\r\n\t\x0b\x0c\x1b\x7f\x85\x9b\u2028\u2029\u200b\u202e\u2066")
    assert len(cleaned.splitlines()) <= 1


@pytest.mark.parametrize("text", ["", "alice@example.org", "bücher 本 ☃", 'say "hello" \\ there'])
def test_clean_leaves_what_is_harmless(text: str) -> None:
    assert clean(text) == text


def test_clean_shows_what_was_there() -> None:
    assert clean("\x1b[2J\r\n\x9b\u202e\U000e0001") == "\\x1b[2J\\x0d\\x0a\\x9b\\u202e\\U000e0001"


@given(st.text())
def test_json_is_printable_ascii_and_says_the_same(text: str) -> None:
    printed = as_json([text])
    assert printed.replace("\n", "").isprintable()
    assert printed.isascii()
    assert json.loads(printed) == [text]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        *((-5, "0 seconds"), (0, "0 seconds"), (1, "1 second"), (90, "90 seconds"), (120, "2 minutes")),
        *((3600, "60 minutes"), (7200, "2 hours"), (86400, "24 hours"), (5 * 86400, "5 days")),
    ],
)
def test_spans(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_moments() -> None:
    assert len(moment(1_764_000_000.9)) == len("2025-11-24 16:00:00")
    assert moment(1e300) == moment(float("nan")) == "at a time that no calendar has"


def test_counts() -> None:
    assert (counted(1, "gap"), counted(0, "gap"), counted(2000, "gap")) == ("1 gap", "0 gaps", "2,000 gaps")
