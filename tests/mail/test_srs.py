"""Senders of forwarded mail: out, back, and not for those who make their own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.mail.address import Address
from mailsrv.mail.srs import VALID_DAYS, NotOurs, is_rewritten, restore, rewrite

SECRET = b"s" * 32
DAY_S = 86400.0
NOW = 20_000 * DAY_S
SENDER = Address("alice", "example.net")


def rewritten(sender: Address = SENDER, domain: str = "example.org", at: float = NOW) -> Address:
    found = rewrite(sender, domain, SECRET, at)
    assert found is not None
    return found


def test_there_and_back() -> None:
    address = rewritten()
    assert str(address).startswith("SRS0=")
    assert str(address).endswith("=example.net=alice@example.org")
    assert is_rewritten(address)
    assert restore(address, SECRET, NOW) == SENDER


def test_letter_case_may_be_lost() -> None:
    assert restore(Address(rewritten().local.lower(), "example.org"), SECRET, NOW) == SENDER
    assert restore(Address(rewritten().local.upper(), "example.org"), SECRET, NOW).key == SENDER.key


@given(st.text("abcXYZ09.+=-_", min_size=1, max_size=30), st.integers(0, VALID_DAYS), st.integers(0, 3000))
def test_any_local_part_comes_back(local: str, age: int, day: int) -> None:
    sender = Address(local, "example.net")
    address = rewrite(sender, "example.org", SECRET, day * DAY_S)
    if address is not None and not is_rewritten(sender):
        assert restore(address, SECRET, (day + age) * DAY_S) == sender


def test_what_another_forwarder_rewrote_goes_back_to_that_one() -> None:
    other = Address("SRS0=HHHH=TT=example.com=bob", "forwarder.example")
    once = rewritten(other)
    assert once.local.startswith("SRS1=")
    assert restore(once, SECRET, NOW) == other


def test_a_long_chain_stays_short() -> None:
    other = Address("SRS1=HHHH=first.example==HHHH=TT=x.example=b", "second.example")
    again = rewritten(other)
    assert "second.example" not in again.local
    assert restore(again, SECRET, NOW) == Address("SRS0=HHHH=TT=x.example=b", "first.example")


@pytest.mark.parametrize(
    "local",
    [
        "SRS0=AAAAAAAA=AA=example.net=alice",
        "SRS0=AAAA=AA=example.net=alice",
        "SRS0",
        "SRS0=",
        "SRS1=AAAAAAAA=example.net==AAAA=AA=example.com=bob",
    ],
)
def test_nobody_makes_their_own(local: str) -> None:
    with pytest.raises(NotOurs):
        restore(Address(local, "example.org"), SECRET, NOW)


def test_another_recipient_needs_another_signature() -> None:
    stolen = rewritten().local.replace("alice", "mallory")
    with pytest.raises(NotOurs):
        restore(Address(stolen, "example.org"), SECRET, NOW)


def test_it_is_good_for_some_weeks() -> None:
    restore(rewritten(), SECRET, NOW + VALID_DAYS * DAY_S)
    with pytest.raises(NotOurs):
        restore(rewritten(), SECRET, NOW + (VALID_DAYS + 1) * DAY_S)


def test_a_secret_of_ones_own() -> None:
    with pytest.raises(NotOurs):
        restore(rewritten(), b"t" * 32, NOW)


def test_what_does_not_fit_is_not_rewritten() -> None:
    assert rewrite(Address("a" * 40, "a-long-name.example.net"), "example.org", SECRET, NOW) is None
