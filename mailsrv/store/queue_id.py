"""Queue ids: how a message is named from acceptance on, in replies, headers, file names and the ledger.

As a number it is the row id of the message; as text, eleven characters of Crockford's base 32, which a person can read
out over a telephone and which sort by age.
"""

from __future__ import annotations

_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(high + low for high in _DIGITS for low in _DIGITS)
_VALUES = {digit: value for value, digit in enumerate(_DIGITS)} | {"O": 0, "I": 1, "L": 1}
LENGTH = 11


def text(number: int) -> str:
    """``text(1764000000000000)`` is ``"1J4BS1D7M00"`` or the like."""
    pairs = _PAIRS
    return (
        _DIGITS[number >> 50 & 31]
        + pairs[number >> 40 & 1023]
        + pairs[number >> 30 & 1023]
        + pairs[number >> 20 & 1023]
        + pairs[number >> 10 & 1023]
        + pairs[number & 1023]
    )


def number(text: str) -> int | None:
    """The number again, in any case and with the usual misreadings; None when the text is no queue id."""
    if len(text) != LENGTH or not text.isascii():
        return None
    value = 0
    for character in text.upper():
        digit = _VALUES.get(character)
        if digit is None:
            return None
        value = value * 32 + digit
    return value


class QueueIds:
    """Gives out ids: microseconds since 1970, but always above the one before, whatever the clock does."""

    def __init__(self, last: int) -> None:
        self._last = last

    def next(self, now: float) -> int:
        """``now`` in seconds since 1970."""
        self._last = max(self._last + 1, int(now * 1_000_000))
        return self._last
