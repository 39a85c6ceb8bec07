"""How slow a client may be: for a command, for content, for a transaction as a whole.

An idle timer alone lets a client hold a connection for ever with an octet now and then.  So a command must be whole
within IDLE_S, content must come at a minimum rate after GRACE_S, and a transaction has a deadline.  Pure arithmetic on
times that are passed in, in seconds of a monotonic clock.
"""

from __future__ import annotations

from typing import Protocol

IDLE_S = 300.0  # RFC 5321 4.5.3.2.7: five minutes for the next command, or the next piece of content
GRACE_S = 60.0  # of content that may come as slowly as it likes


class Limits(Protocol):
    @property
    def minimum_rate(self) -> int: ...

    @property
    def transaction_time(self) -> float: ...


class Pace:
    """One connection."""

    __slots__ = ("_content_since", "_mail_since", "_moved", "_octets")

    def __init__(self, now: float) -> None:
        self._moved = now
        self._mail_since: float | None = None
        self._content_since: float | None = None
        self._octets = 0

    def moved(self, now: float) -> None:
        """A command was whole, or an answer of ours has gone out."""
        self._moved = now

    def transaction(self, now: float) -> None:
        """MAIL."""
        self._mail_since = now

    def content(self, now: float) -> None:
        """DATA, or the first BDAT."""
        self._content_since = now
        self._octets = 0

    def received(self, octets: int, now: float) -> None:
        """So much more content, whether it is kept or not."""
        self._octets += octets
        self._moved = now

    def over(self) -> None:
        """The transaction has ended in one way or the other."""
        self._mail_since = self._content_since = None

    def deadline(self, limits: Limits) -> float:
        """When patience ends if nothing more happens."""
        deadline = self._moved + IDLE_S
        if self._content_since is not None:
            deadline = min(deadline, self._content_since + GRACE_S + self._octets / limits.minimum_rate)
        if self._mail_since is not None:
            deadline = min(deadline, self._mail_since + limits.transaction_time)
        return deadline
