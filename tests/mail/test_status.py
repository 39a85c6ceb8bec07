"""Status codes in plain words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.mail import status


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("5.1.1", "no mailbox of that name"),
        ("4.1.1", "no mailbox of that name"),
        ("5.1.10", "receives no mail"),
        ("4.2.2", "full"),
        ("5.7.25", "PTR"),
        ("5.7.99", "policy"),
        ("5.9.9", "no particular reason"),
        ("", "no particular reason"),
        ("5.1", "no particular reason"),
        ("2.0.0", "All is well"),
    ],
)
def test_meaning(code: str, words: str) -> None:
    assert words in status.meaning(code)


@pytest.mark.parametrize(
    ("code", "answer", "words"),
    [
        ("5.1.1", "", "typing errors"),
        ("4.1.1", "", "tried again"),
        ("2.0.0", "", "nothing to do"),
        ("5.2.2", "", "full"),
        ("5.7.25", "", "postmaster"),
        ("5.7.1", "", "allow your mail"),
        ("5.7.1", "550 5.7.1 192.0.2.1 is listed at bl.example", "postmaster of your own"),
        ("5.0.0", "550 User alice unknown", "typing errors"),
        ("5.0.0", "no", "See what the server said"),
        ("5.0.0", "552 over quota", "full"),
        ("5.3.4", "552 quota", "smaller"),
        ("", "", "See what the server said"),
        ("5.7.99", "", "postmaster"),
    ],
)
def test_advice(code: str, answer: str, words: str) -> None:
    assert words in status.advice(code, answer)


@given(st.from_regex(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}", fullmatch=True) | st.text(max_size=10), st.text(max_size=40))
def test_there_are_always_words(code: str, answer: str) -> None:
    assert status.meaning(code)
    assert not status.meaning(code).endswith(".")
    assert status.advice(code, answer).endswith(".")
