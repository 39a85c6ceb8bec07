"""Retry, warning and expiry as arithmetic."""

from __future__ import annotations

import pytest

from mailsrv.relay.schedule import expired, next_attempt, warn_due

RETRY = (60.0, 300.0, 900.0)


@pytest.mark.parametrize(("attempts", "delay"), [(0, 60), (1, 60), (2, 300), (3, 900), (4, 900), (999, 900)])
def test_the_last_delay_repeats(attempts: int, delay: float) -> None:
    assert next_attempt(RETRY, attempts, 1000.0, 0.0) == 1000.0 + delay


def test_jitter_comes_early_and_never_late() -> None:
    assert next_attempt(RETRY, 2, 0.0, 1.0) == pytest.approx(270)
    assert all(270 <= next_attempt(RETRY, 2, 0.0, n / 10) <= 300 for n in range(11))


def test_expiry() -> None:
    assert not expired(100.0, 199.9, 100.0)
    assert expired(100.0, 200.0, 100.0)


def test_a_warning_once() -> None:
    assert not warn_due(100.0, 199.9, 100.0, warned=False)
    assert warn_due(100.0, 200.0, 100.0, warned=False)
    assert not warn_due(100.0, 200.0, 100.0, warned=True)
