"""Dates in header fields."""

from __future__ import annotations

import email.utils

from hypothesis import given
from hypothesis import strategies as st

from mailsrv.mail.date import rfc5322_date


def test_examples() -> None:
    assert rfc5322_date(1795457040.999) == "Mon, 23 Nov 2026 18:04:00 +0000"
    assert rfc5322_date(0) == "Thu, 01 Jan 1970 00:00:00 +0000"


@given(st.floats(0, 4e9))
def test_python_agrees(seconds: float) -> None:
    assert rfc5322_date(seconds) == email.utils.formatdate(int(seconds)).replace("-0000", "+0000")
