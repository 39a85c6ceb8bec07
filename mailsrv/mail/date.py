"""Dates as mail writes them (RFC 5322 3.3), always in UTC, never in the words of a locale."""

from __future__ import annotations

import datetime
import functools

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def rfc5322_date(seconds: float) -> str:
    """``Mon, 23 Nov 2026 18:04:00 +0000`` for seconds since 1970; fractions are cut off."""
    return _of_second(int(seconds))


@functools.lru_cache(maxsize=64)  # many messages share a second
def _of_second(seconds: int) -> str:
    at = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return (
        f"{_DAYS[at.weekday()]}, {at.day:02} {_MONTHS[at.month - 1]} {at.year:04} "
        f"{at.hour:02}:{at.minute:02}:{at.second:02} +0000"
    )
