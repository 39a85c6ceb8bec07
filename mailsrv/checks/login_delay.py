"""How soon an account may log in again to fetch its mail (RFC 2449 6.5, LOGIN-DELAY).

Only logins that succeeded count, and a restart forgets them.  Reports: the first refusal of an account, and then one
an hour with the number of those between, so that a program that looks for mail every second fills no ledger.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

TOLD_EVERY_S: Final = 3600.0


class LoginDelay:
    """``delay_s`` is asked each time, 0.0 for none; ``clock`` gives seconds that only go forward."""

    def __init__(self, delay_s: Callable[[], float], clock: Callable[[], float]) -> None:
        self._delay_s = delay_s
        self._clock = clock
        self._last: dict[str, float] = {}
        self._told: dict[str, float] = {}  # when a refusal was last told, the longest ago first
        self._untold: dict[str, int] = {}  # refusals since then

    def too_soon(self, account: str) -> bool:
        """Whether the last login of the account is less than the delay ago."""
        last = self._last.get(account)
        return last is not None and self._clock() < last + self._delay_s()

    def refused(self, account: str) -> str:
        """The account was refused as too soon: the reason for the ledger, "" when it need not be told again yet."""
        now = self._clock()
        if now < self._told.get(account, float("-inf")) + TOLD_EVERY_S:
            self._untold[account] = self._untold.get(account, 0) + 1
            return ""
        self._told.pop(account, None)
        self._told[account] = now
        untold = self._untold.pop(account, 0)
        _forget(self._told, now - TOLD_EVERY_S, self._untold)
        more = f"; so were {untold} more since this was last told" if untold else ""
        ago = now - self._last.get(account, now)
        return f"the last login was {ago:.0f} s ago, and {self._delay_s():g} s have to pass{more}"

    def logged_in(self, account: str) -> None:
        """The account has logged in."""
        if self._delay_s():
            self._last.pop(account, None)
            self._last[account] = self._clock()
            _forget(self._last, self._clock() - self._delay_s())
        else:
            self._last.clear()


def _forget(times: dict[str, float], limit: float, with_them: dict[str, int] | None = None) -> None:
    """Drop what is no later than ``limit``; the oldest come first."""
    while times:
        oldest = next(iter(times))
        if times[oldest] > limit:
            return
        del times[oldest]
        if with_them is not None:
            with_them.pop(oldest, None)
