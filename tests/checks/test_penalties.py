"""Delays for those who guess, and for nobody else."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from mailsrv.checks import penalties
from mailsrv.checks.clients import network_of
from mailsrv.checks.penalties import (
    FORGOTTEN_AFTER_S,
    FREE,
    LONGEST_ACCOUNT_S,
    LONGEST_CLIENT_S,
    LONGEST_HOME_LINE_S,
    LONGEST_LINE_S,
    Penalties,
)

ALICE = "alice@example.org"
HOME, STRANGER = "192.0.2.1", "198.51.100.7"


class Doorkeeper(Penalties):
    """Penalties with a switch and a clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.on = True
        self.homes: set[tuple[str, str]] = set()
        super().__init__(lambda: self.on, self.clock.seconds, lambda account, network: (account, network) in self.homes)

    def succeeded(self, client: str, account: str) -> None:
        super().succeeded(client, account)
        self.homes.add((account, network_of(client)))

    def fail(self, client: str, times: int = 1, account: str = ALICE) -> None:
        for _ in range(times):
            self.failed(client, account)


@pytest.fixture
def doorkeeper() -> Doorkeeper:
    return Doorkeeper()


def test_who_gave_no_cause_does_not_wait(doorkeeper: Doorkeeper) -> None:
    assert doorkeeper.delay_s(HOME, ALICE) == 0.0
    doorkeeper.fail(HOME, FREE - 1)
    assert doorkeeper.delay_s(HOME, ALICE) == 0.0


def test_each_failure_doubles_the_delay_of_a_client_up_to_a_limit(doorkeeper: Doorkeeper) -> None:
    delays = []
    for _ in range(12):
        doorkeeper.fail(STRANGER, account="")
        delays.append(doorkeeper.delay_s(STRANGER, "bob@example.org"))
        doorkeeper.clock.advance(delays[-1])
    assert delays == [0.0, 0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, *[LONGEST_CLIENT_S] * 4]
    doorkeeper.fail(STRANGER, 10_000)
    doorkeeper.clock.advance(1)
    assert doorkeeper.delay_s(STRANGER, "bob@example.org") == LONGEST_CLIENT_S


def test_a_64_is_one_client(doorkeeper: Doorkeeper) -> None:
    for n in range(FREE + 2):
        doorkeeper.fail(f"2001:db8::{n}", account="")
    assert doorkeeper.delay_s("2001:db8::ffff", ALICE) == 2.0
    assert doorkeeper.delay_s("2001:db8:0:1::1", ALICE) == 0.0


def test_an_account_that_many_guess_at_is_slow_for_strangers(doorkeeper: Doorkeeper) -> None:
    for n in range(FREE):
        doorkeeper.fail(f"198.51.100.{n}")
    assert 0.0 < doorkeeper.delay_s("198.51.100.99", ALICE) < 0.5
    for n in range(200):
        doorkeeper.fail(f"198.51.100.{n}")
    assert doorkeeper.delay_s("203.0.113.9", ALICE) == LONGEST_ACCOUNT_S
    assert doorkeeper.delay_s("203.0.113.9", "bob@example.org") == 0.0


def test_strangers_cannot_slow_the_owner_down(doorkeeper: Doorkeeper) -> None:
    doorkeeper.succeeded(HOME, ALICE)
    for n in range(200):
        doorkeeper.fail(f"198.51.100.{n}")
    assert doorkeeper.delay_s(HOME, ALICE) == 0.0
    assert doorkeeper.delay_s(HOME, "carol@example.org") == 0.0


def test_the_network_of_the_owner_pays_for_its_own_failures(doorkeeper: Doorkeeper) -> None:
    doorkeeper.succeeded(HOME, ALICE)
    doorkeeper.fail(HOME, FREE + 1)
    assert doorkeeper.delay_s(HOME, ALICE) == 1.0


def test_who_has_to_wait_stands_in_line(doorkeeper: Doorkeeper) -> None:
    """Fifty connections at once try out no more passwords than one does."""
    doorkeeper.fail(STRANGER, FREE + 4, "bob@example.org")
    delays = [doorkeeper.delay_s(STRANGER, f"{n}@example.org") for n in range(50)]
    assert delays == [8.0 * min(n, LONGEST_LINE_S / 8) for n in range(1, 51)]
    doorkeeper.clock.advance(LONGEST_LINE_S)
    assert doorkeeper.delay_s(STRANGER, ALICE) == 8.0
    # Others stand in a line of their own, and so does the owner at home.
    doorkeeper.homes.add((ALICE, STRANGER))
    assert doorkeeper.delay_s(STRANGER, ALICE) == 0.0
    assert doorkeeper.delay_s(HOME, "carol@example.org") == 0.0


def test_at_a_place_of_the_owner_only_failures_with_that_account_count_and_gently(doorkeeper: Doorkeeper) -> None:
    doorkeeper.homes.add((ALICE, HOME))
    doorkeeper.fail(HOME, 100, "bob@example.org")
    assert doorkeeper.delay_s(HOME, ALICE) == 0.0
    assert doorkeeper.delay_s(HOME, "bob@example.org") == LONGEST_CLIENT_S
    doorkeeper.fail(HOME, 100)
    assert doorkeeper.delay_s(HOME, ALICE) == LONGEST_ACCOUNT_S
    assert [doorkeeper.delay_s(HOME, ALICE) for _ in range(50)][-1] == LONGEST_HOME_LINE_S


def test_a_login_does_not_make_good_for_guessing_at_others(doorkeeper: Doorkeeper) -> None:
    doorkeeper.fail(STRANGER, FREE + 1, "bob@example.org")
    doorkeeper.fail(STRANGER, 2)
    assert doorkeeper.delay_s(STRANGER, "bob@example.org") == 4.0
    doorkeeper.clock.advance(60)
    doorkeeper.succeeded(STRANGER, ALICE)
    assert doorkeeper.delay_s(STRANGER, "bob@example.org") == 1.0
    assert doorkeeper.delay_s("203.0.113.9", ALICE) == 0.0


def test_success_makes_up_for_failures(doorkeeper: Doorkeeper) -> None:
    doorkeeper.fail(HOME, FREE + 3)
    doorkeeper.succeeded(HOME, ALICE)
    assert doorkeeper.delay_s(HOME, ALICE) == 0.0


def test_failures_are_forgotten_after_an_hour(doorkeeper: Doorkeeper) -> None:
    doorkeeper.fail(STRANGER, 10)
    doorkeeper.clock.advance(FORGOTTEN_AFTER_S - 1)
    assert doorkeeper.delay_s(STRANGER, ALICE) == LONGEST_CLIENT_S
    doorkeeper.clock.advance(1)
    assert doorkeeper.delay_s(STRANGER, ALICE) == 0.0
    doorkeeper.fail(STRANGER)
    assert doorkeeper.delay_s(STRANGER, ALICE) == 0.0


def test_penalties_can_be_turned_off_and_on(doorkeeper: Doorkeeper) -> None:
    doorkeeper.fail(STRANGER, 10)
    doorkeeper.on = False
    assert doorkeeper.delay_s(STRANGER, ALICE) == 0.0
    doorkeeper.on = True
    assert doorkeeper.delay_s(STRANGER, ALICE) == LONGEST_CLIENT_S


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first(
    doorkeeper: Doorkeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(penalties, "REMEMBERED", 50)
    doorkeeper.fail("203.0.113.1", FREE, "first@example.org")
    doorkeeper.fail("203.0.113.2", FREE, "second@example.org")
    for n in range(48):
        doorkeeper.fail(f"198.51.100.{n}", 1, f"{n}@example.org")
    doorkeeper.fail("203.0.113.1", 1, "first@example.org")
    doorkeeper.fail("198.51.100.200", 1, "one-more@example.org")
    assert doorkeeper.delay_s("203.0.113.1", "first@example.org") == 1.0
    assert doorkeeper.delay_s("203.0.113.2", "second@example.org") == 0.0
    for n in range(200):
        doorkeeper.fail(f"198.51.100.{n}", FREE)
        doorkeeper.delay_s(f"198.51.100.{n}", ALICE)
    for kept in (
        doorkeeper._clients._counts,
        doorkeeper._accounts._counts,
        doorkeeper._pairs._counts,
        doorkeeper._lines,
    ):
        assert len(kept) <= 50
