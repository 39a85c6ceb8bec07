"""How soon an account may log in again to fetch its mail (RFC 2449 6.5, LOGIN-DELAY).

Only logins that succeeded count, and a restart forgets them.
"""

from __future__ import annotations

from collections.abc import Callable


class LoginDelay:
    """``delay_s`` is asked each time, 0.0 for none; ``clock`` gives seconds that only go forward."""

    def __init__(self, delay_s: Callable[[], float], clock: Callable[[], float]) -> None:
        self._delay_s = delay_s
        self._clock = clock
        self._last: dict[str, float] = {}

    def too_soon(self, account: str) -> bool:
        """Whether the last login of the account is less than the delay ago."""
        last = self._last.get(account)
        return last is not None and self._clock() < last + self._delay_s()

    def logged_in(self, account: str) -> None:
        """The account has logged in."""
        if self._delay_s():
            self._last.pop(account, None)
            self._last[account] = self._clock()
            self._forget()
        else:
            self._last.clear()

    def _forget(self) -> None:
        """Drop what no longer counts, the oldest first."""
        limit = self._clock() - self._delay_s()
        while self._last:
            oldest = next(iter(self._last))
            if self._last[oldest] > limit:
                return
            del self._last[oldest]
