"""How the verbs put stored things into words: text from strangers, times, durations, JSON.

What strangers sent is stored as it came.  Here it becomes safe for a terminal: no control character, no invisible one,
none that turns the direction of writing gets through.
"""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, datetime
from typing import Any

_UNITS = ((86400, "days"), (3600, "hours"), (60, "minutes"))


def clean(text: str) -> str:
    """``text`` on one line, with everything that a terminal would obey rather than show written as an escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if _is_shown(character) else _escape(ord(character)) for character in text)


def _is_shown(character: str) -> bool:
    # Controls, formats (direction and joiners), surrogates, private and unassigned; separators of lines and paragraphs.
    category = unicodedata.category(character)
    return category[0] != "C" and category not in ("Zl", "Zp")


def _escape(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def as_json(value: Any) -> str:
    """``value`` as indented JSON in printable ASCII only, so that it is as safe to look at as it is to parse."""
    return json.dumps(value, indent=2).replace("\x7f", "\\u007f")


def now() -> float:
    """Seconds since 1970, for what a verb writes down and for how long something still takes."""
    return datetime.now(UTC).timestamp()


def moment(at: float) -> str:
    """``2026-11-23 18:21:58`` in the time zone of this machine."""
    try:
        return datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "at a time that no calendar has"


def span(seconds: float) -> str:
    """``45 seconds``, ``4 minutes``, ``36 hours``: in the largest unit of which there are at least two."""
    for unit, name in _UNITS:
        if seconds >= 2 * unit:
            return f"{round(seconds / unit)} {name}"
    return counted(max(0, round(seconds)), "second")


def counted(number: int, name: str) -> str:
    """``1 message``, ``2,000 messages``."""
    return f"{number:,} {name}" if number == 1 else f"{number:,} {name}s"
