"""When to try again, when to warn, when to give up (RFC 5321 4.5.4.1).  Pure arithmetic on times that are passed in."""

from __future__ import annotations

from collections.abc import Sequence

_SPREAD = 0.1  # retries come up to this share early, so that what failed together does not come back together


def next_attempt(retry: Sequence[float], attempts: int, now: float, jitter: float) -> float:
    """The time of the next attempt, in the units of ``now`` (seconds).

    ``retry`` are the waiting times in seconds, the last of which repeats; ``attempts`` counts the attempts made so far
    (at least 1); ``jitter`` from 0 to 1 moves the attempt forward, never beyond what the schedule says.
    """
    delay = retry[min(max(attempts, 1), len(retry)) - 1]
    return now + delay * (1 - _SPREAD * jitter)


def expired(since: float, now: float, expire: float) -> bool:
    """Whether a message that has waited from ``since`` is to be given up; ``expire`` in seconds."""
    return now - since >= expire


def warn_due(since: float, now: float, warn: float, warned: bool) -> bool:
    """Whether the sender is now to be told of the delay, once; ``warn`` in seconds."""
    return not warned and now - since >= warn
