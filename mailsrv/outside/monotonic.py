"""A steady clock for Twisted's reactor.

Twisted counts time by the wall clock, and whoever sets that makes every timer late or early: clients are cut off, or
retries wait for as long as the clock went back.  ``keep_steady_time`` gives a reactor the clock that only goes forward.
"""

from __future__ import annotations

import time
from typing import Any


def keep_steady_time(reactor: Any) -> None:
    """Let ``reactor.seconds`` and all timers, those that run already included, go by the monotonic clock."""
    ahead = reactor.seconds() - time.monotonic()
    for call in reactor.getDelayedCalls():
        call.time -= ahead
        call.seconds = time.monotonic
    reactor.seconds = time.monotonic
