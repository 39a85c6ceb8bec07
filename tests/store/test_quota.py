"""Quotas in the accounts file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.mail.address import Address
from mailsrv.store.accounts.accounts import AccountsError, parse_accounts
from mailsrv.store.mailbox import quota
from mailsrv.store.mailbox.quota import Quota, Usage


@pytest.mark.parametrize(
    ("value", "octets", "messages"),
    [
        ("*:storage=1G:messages=10000", 1 << 30, 10000),
        ("*:storage=100", 100 * 1024, 0),  # Dovecot's unit
        ("*:storage=100B", 100, 0),
        ("*:bytes=100", 100, 0),
        ("*:bytes=2k", 2048, 0),
        ("*:storage=3m", 3 << 20, 0),
        ("*:storage=1T", 1 << 40, 0),
        ("*:messages=7", 0, 7),
    ],
)
def test_rules_as_dovecot_reads_them(value: str, octets: int, messages: int) -> None:
    assert quota.read({"userdb_quota_rule": value}) == Quota(octets, messages)


def test_no_rule_and_no_limit_are_no_quota() -> None:
    assert quota.read({}) is None
    assert quota.read({"userdb_quota_rule": "*:storage=0"}) is None
    assert quota.read({"userdb_quota_rule2": "Trash:ignore"}) is None
    assert quota.read({"userdb_quota": "maildir:User quota"}) is None


def test_folders_that_do_not_count() -> None:
    found = quota.read({"userdb_quota_rule": "*:storage=1M", "userdb_quota_rule2": "Trash:ignore"})
    assert found == Quota(1 << 20, 0, frozenset({".Trash"}))


@pytest.mark.parametrize(
    "value",
    ["", "*", "storage=1G", "*:", "*:storage=", "*:storage=1X", "*:storage=-1", "*:storage=+1G", "*:storage=10%",
     "*:storage=١G", "*:messages=1k", "*:messages=", "*:size=1G", "Trash:storage=+10%", "Trash/*:ignore", "../x:ignore",
     "*:ignore", "*:storage=1G:noenforcing"],
)  # fmt: skip
def test_what_is_not_understood_names_file_and_line(value: str) -> None:
    source = f"# one\nalice@example.org:!::::::userdb_quota_rule={value}\n"
    with pytest.raises(AccountsError, match=r"^accounts:2: alice@example\.org: userdb_quota_rule: .*\.$"):
        parse_accounts(source, "accounts", ["example.org"])


def test_an_account_has_its_quota() -> None:
    source = "alice@example.org:!::::::app-x={PLAIN}x userdb_quota_rule=*:storage=1M:messages=5\nbob@example.org:!\n"
    alice, bob = (account for _, account in parse_accounts(source, "accounts", ["example.org"]))
    assert alice.address == Address.parse("alice@example.org")
    assert alice.quota == Quota(1 << 20, 5)
    assert bob.quota is None


@given(octets=st.integers(0, 10**14), messages=st.integers(0, 10**9))
def test_a_rule_that_is_written_reads_the_same(octets: int, messages: int) -> None:
    found = quota.read({quota.FIELD: quota.rule(octets, messages)}) if octets or messages else None
    assert found == (Quota(octets, messages) if octets or messages else None)


def test_what_fits() -> None:
    limit = Quota(100, 3)
    assert limit.holds(Usage(100, 3))
    assert not limit.holds(Usage(101, 1))
    assert not limit.holds(Usage(1, 4))
    assert not limit.full(Usage(99, 2))
    assert limit.full(Usage(100, 2))
    assert limit.full(Usage(1, 3))
    assert Quota(messages=3).holds(Usage(10**15, 3))
    assert Quota(octets=3).holds(Usage(3, 10**9))
    assert limit.share(Usage(50, 3)) == 1.0
    assert limit.share(Usage(50, 0)) == 0.5
