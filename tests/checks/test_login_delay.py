"""What the ledger is told of logins that come too soon: that there are some, and how many, not each."""

from __future__ import annotations

from twisted.internet.task import Clock

from mailsrv.checks.login_delay import TOLD_EVERY_S, LoginDelay


def delay(clock: Clock, seconds: float = 90.0) -> LoginDelay:
    return LoginDelay(lambda: seconds, clock.seconds)


def test_a_program_that_looks_every_second_is_told_of_once_an_hour() -> None:
    clock = Clock()
    logins = delay(clock)
    told: list[str] = []
    for _ in range(2 * int(TOLD_EVERY_S)):
        if logins.too_soon("alice@example.org"):
            told += filter(None, [logins.refused("alice@example.org")])
        else:
            logins.logged_in("alice@example.org")
        clock.advance(1)
    assert told == [
        "the last login was 1 s ago, and 90 s have to pass",
        "the last login was 1 s ago, and 90 s have to pass; so were 3559 more since this was last told",
    ]


def test_accounts_are_told_of_each_by_itself_and_forgotten() -> None:
    clock = Clock()
    logins = delay(clock)
    for n in range(50):
        logins.logged_in(f"user{n}@example.org")
        assert logins.refused(f"user{n}@example.org")
        assert not logins.refused(f"user{n}@example.org")
    clock.advance(TOLD_EVERY_S)
    assert logins.refused("alice@example.org")
    assert list(logins._told) == ["alice@example.org"]
    assert logins._untold == {}
