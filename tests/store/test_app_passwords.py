"""App passwords: how they are written down, which of them a login shows, and what that costs."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import argon2
import pytest
from argon2 import low_level
from twisted.internet.defer import Deferred

from mailsrv.mail.address import Address
from mailsrv.store.accounts import app_passwords
from mailsrv.store.accounts.accounts import Account
from mailsrv.store.accounts.app_passwords import AppPassword
from mailsrv.store.accounts.passwords import Match, hash_password, verify_stored, which
from tests.store.test_passwords import passwords
from tests.worlds.worker import ImmediateWorker

ALICE = Address("alice", "example.org")


def cheap(password: str, salt: bytes = bytes(16)) -> str:
    encoded = low_level.hash_secret(password.encode(), salt, 1, 8, 1, 16, low_level.Type.ID)
    return f"{{ARGON2ID}}{encoded.decode()}"


MAIN = cheap("main")
PHONE = AppPassword("phone", cheap("phone"))
PRINTER = AppPassword("printer", cheap("printer"), ("smtp",))
ACCOUNT = Account(ALICE, MAIN, apps=(PHONE, PRINTER))


def shown(account: Account | None, password: str, service: str = "smtp") -> Match | None:
    found: list[Any] = []
    checker, _ = passwords(ImmediateWorker())
    Deferred.fromCoroutine(checker.verify(account, password, service)).addBoth(found.append)
    answer: Match | None = found[0]
    return answer


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The salts that hashes were computed with."""
    salts: list[bytes] = []
    real: Callable[..., bytes] = low_level.hash_secret_raw

    def hash_secret_raw(secret: bytes, salt: bytes, *arguments: Any) -> bytes:
        salts.append(salt)
        return real(secret, salt, *arguments)

    monkeypatch.setattr(low_level, "hash_secret_raw", hash_secret_raw)
    return salts


@pytest.mark.parametrize("name", ["phone", "a", "0", "k-9.mail_2", "a" * 32])
def test_names(name: str) -> None:
    app_passwords.check_name(name)


@pytest.mark.parametrize("name", ["", "Phone", "-a", "a-", "a b", "a=b", "a:b", "tél", "a" * 33, "a\n", ".."])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name an app password"):
        app_passwords.check_name(name)


def test_services() -> None:
    assert app_passwords.services("") == ()
    assert app_passwords.services("pop3, smtp") == ("smtp", "pop3")
    with pytest.raises(ValueError, match='"imap" is not a service; there are smtp and pop3'):
        app_passwords.services("smtp,imap")


@pytest.mark.parametrize("app", [PHONE, PRINTER, AppPassword("x", MAIN, ("smtp", "pop3"))])
def test_fields(app: AppPassword) -> None:
    value = app_passwords.field_value(app.hash, app.services)
    assert " " not in value
    assert app_passwords.read(app_passwords.field_name(app.name), value) == app


def test_other_fields_are_no_app_passwords() -> None:
    assert app_passwords.read("quota", "5G") is None
    for key, value in (("app-A", MAIN), ("app-x", f"imap:{MAIN}")):
        with pytest.raises(ValueError):
            app_passwords.read(key, value)


def test_each_password_opens_the_account_and_says_which_it_was() -> None:
    assert shown(ACCOUNT, "main") == Match("", MAIN)
    assert shown(ACCOUNT, "phone") == Match("phone", PHONE.hash)
    assert shown(ACCOUNT, "printer") == Match("printer", PRINTER.hash)
    assert shown(ACCOUNT, "wrong") is None


def test_a_password_is_good_for_its_services_only() -> None:
    assert shown(ACCOUNT, "phone", "pop3") == Match("phone", PHONE.hash)
    assert shown(ACCOUNT, "printer", "pop3") is None
    assert shown(ACCOUNT, "printer", "") is None


def test_what_is_remembered_of_one_service_does_not_open_another() -> None:
    checker, _ = passwords(ImmediateWorker())
    for service, right in (("smtp", True), ("pop3", False), ("smtp", True)):
        found: list[Any] = []
        Deferred.fromCoroutine(checker.verify(ACCOUNT, "printer", service)).addBoth(found.append)
        assert (found[0] is not None) is right


def test_a_locked_account_is_locked_for_apps_too() -> None:
    assert shown(Account(ALICE, "!", apps=(PHONE,)), "phone") is None


def test_many_that_share_their_salt_cost_one_computation(computed: list[bytes]) -> None:
    stored = [cheap(str(n)) for n in range(20)]
    assert which(stored, "19") == stored[19]
    assert computed == [bytes(16)]
    computed.clear()
    assert which(stored, "wrong") is None
    assert computed == [bytes(16)]


def test_those_of_other_salts_are_found_too(computed: list[bytes]) -> None:
    stored = [cheap("a"), "{PLAIN}b", cheap("c", b"c" * 16), cheap("d")]
    for password in ("a", "{PLAIN}b", "c", "d"):
        expected = next(each for each in stored if verify_stored(each, password.removeprefix("{PLAIN}")))
        assert which(stored, password.removeprefix("{PLAIN}")) == expected
    computed.clear()
    assert which(stored, "wrong") is None
    assert computed == [bytes(16), b"c" * 16]


def test_hashes_of_another_length_or_cost_are_compared_with_their_own() -> None:
    salt = bytes(16)
    stored = [
        cheap("a", salt),
        "{ARGON2ID}" + low_level.hash_secret(b"b", salt, 1, 8, 1, 32, low_level.Type.ID).decode(),
        "{ARGON2ID}" + low_level.hash_secret(b"c", salt, 2, 8, 1, 16, low_level.Type.ID).decode(),
    ]
    assert [which(stored, password) for password in "abc"] == stored


def test_what_is_broken_opens_nothing_and_hides_nothing() -> None:
    broken = "{ARGON2ID}$argon2id$v=19$m=8,t=1,p=1$AA$!!!!"
    assert which([broken, PHONE.hash], "phone") == PHONE.hash
    assert hash_password("x", os.urandom, [broken])


def test_a_new_password_takes_the_salt_of_the_others() -> None:
    main = hash_password("main", os.urandom)
    app = hash_password("app", os.urandom, ["{PLAIN}x", cheap("y"), main])
    salts = [argon2_salt(each) for each in (main, app)]
    assert salts[0] == salts[1]
    assert main != app
    assert which([main, app], "app") == app
    assert argon2_salt(hash_password("z", os.urandom, [cheap("y")])) != argon2_salt(cheap("y"))


def argon2_salt(stored: str) -> str:
    assert argon2.extract_parameters(stored.removeprefix("{ARGON2ID}"))
    return stored.split("$")[4]


def test_who_has_logged_in_is_out_when_the_password_goes() -> None:
    checker, _ = passwords(ImmediateWorker())
    phone, main = Match("phone", PHONE.hash), Match("", MAIN)
    assert checker.holds(ACCOUNT, phone)
    assert checker.holds(ACCOUNT, Match("printer", PRINTER.hash))
    assert checker.holds(ACCOUNT, main)
    assert not checker.holds(None, main)
    assert not checker.holds(Account(ALICE, "!", apps=(PHONE,)), phone)
    without = Account(ALICE, cheap("new"), apps=(AppPassword("other", PHONE.hash),))
    assert not checker.holds(without, phone)
    assert not checker.holds(without, main)
    # Other changes of the account are nothing to it.
    assert checker.holds(Account(ALICE, MAIN, {"quota": "1G"}, (PHONE,)), phone)
