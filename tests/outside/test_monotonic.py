"""Timers do not care when the wall clock is set."""

from __future__ import annotations

import time

import pytest
from twisted.internet.epollreactor import EPollReactor

from mailsrv.outside.monotonic import keep_steady_time


def test_a_reactor_waits_as_long_as_it_was_told_whatever_the_wall_clock_does(monkeypatch: pytest.MonkeyPatch) -> None:
    reactor = EPollReactor()
    called: list[str] = []
    reactor.callLater(0, called.append, "from before")
    reactor.callLater(3600, called.append, "far away")
    keep_steady_time(reactor)
    # Set back by a day: by the wall clock nothing would be due before tomorrow.
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 86400)
    reactor.callLater(0, called.append, "from after")
    reactor.runUntilCurrent()
    assert sorted(called) == ["from after", "from before"]
    left = reactor.timeout()
    assert left is not None and 3500 < left <= 3600
    (call,) = reactor.getDelayedCalls()
    call.cancel()


def test_a_reactors_time_is_the_monotonic_clock() -> None:
    reactor = EPollReactor()
    keep_steady_time(reactor)
    before = time.monotonic()
    assert before <= reactor.seconds() <= time.monotonic()
