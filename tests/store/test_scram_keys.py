"""SCRAM's keys in the accounts file."""

from __future__ import annotations

import os
from typing import cast

import pytest

from mailsrv import config
from mailsrv.mail.address import Address
from mailsrv.sasl import scram
from mailsrv.sasl.scram import derive_keys
from mailsrv.store.accounts import scram_keys
from mailsrv.store.accounts.account_files import Texts
from mailsrv.store.accounts.accounts import Account, AccountsError, parse_directory
from tests.store.test_app_passwords import MAIN, PHONE, cheap
from tests.store.test_passwords import passwords
from tests.worlds.worker import ImmediateWorker

CONFIG = config.parse('hostname = "mx.example.org"\ndomains = ["example.org"]\n', "/c/mailsrv.toml")
ALICE = Address("alice", "example.org")
FIELD = cast(str, scram_keys.make("main", MAIN, os.urandom))


def account(text: str) -> Account:
    (found,) = parse_directory(CONFIG, text, "").accounts
    return found


def test_keys_are_of_the_password_and_belong_to_its_hash() -> None:
    keys = scram_keys.read(FIELD, MAIN)
    assert keys is not None
    assert keys == derive_keys("main", keys.salt)
    assert len(keys.salt) == scram.SALT_OCTETS
    assert scram_keys.read(FIELD, cheap("new")) is None
    assert not set(FIELD) & set(" :")
    assert scram_keys.make("main", MAIN, os.urandom) != FIELD


def test_what_rfc_4013_prohibits_has_no_keys() -> None:
    assert scram_keys.make("pass\u0221word", MAIN, os.urandom) is None
    assert not scram_keys.possible("pass\u0221word")
    assert scram_keys.possible("пароль")


def test_an_account_has_the_keys_of_its_line() -> None:
    line = f"alice@example.org:{MAIN}::::::"
    assert account(line).scram is None
    assert account(f"{line}scram-sha-256={FIELD}").scram == scram_keys.read(FIELD, MAIN)


def test_a_hash_that_another_program_has_changed_ends_the_keys() -> None:
    line = f"alice@example.org:{cheap('new')}::::::scram-sha-256={FIELD}"
    assert account(line).scram is None
    assert account(f"alice@example.org:!::::::scram-sha-256={FIELD}").scram is None


@pytest.mark.parametrize("field", ["", "x", "4096,a,b,c,d", FIELD.partition(",")[2]])
def test_keys_that_are_not_well_formed_are_named_with_their_line(field: str) -> None:
    with pytest.raises(AccountsError, match=r"^/c/accounts:1: alice@example.org: SCRAM keys that .*\.$"):
        account(f"alice@example.org:{MAIN}::::::scram-sha-256={field}")


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("app-Phone=x", '"Phone" cannot name an app password'),
        ("app-phone=x", "does not begin with a"),
        ("app-phone=!", "does not begin with a"),
        ("app-phone=imap:{PLAIN}x", '"imap" is not a service'),
    ],
)
def test_app_passwords_that_are_wrong_are_named_with_their_line(field: str, message: str) -> None:
    with pytest.raises(AccountsError, match=r"^/c/accounts:1: alice@example.org: .*\.$") as caught:
        account(f"alice@example.org:{MAIN}::::::{field}")
    assert message in str(caught.value)


def test_extra_fields_are_changed_and_nothing_else() -> None:
    before = f"# people\nbob@example.org:!\n  alice@example.org:{MAIN}:1:2:A:/h:/s:quota=5 app-phone=old x\r\n# end\n"
    texts = Texts(before, "").with_extra(ALICE, "app-phone", PHONE.hash)
    assert texts.accounts == before.replace("app-phone=old x\r\n", f"x app-phone={PHONE.hash}\n")
    assert account_of(texts).apps == (PHONE,)
    assert account_of(texts).extra["quota"] == "5"
    assert texts.with_extra(ALICE, "app-phone", None).accounts == before.replace(" app-phone=old x\r", " x")


@pytest.mark.parametrize("line", ["alice@example.org", "alice@example.org:!", "alice@example.org:!::::::"])
def test_lines_without_extra_fields_get_them(line: str) -> None:
    texts = Texts(f"{line}\n", "").with_extra(ALICE, "quota", "5")
    assert account_of(texts).extra == {"quota": "5"}
    assert account_of(texts.with_extra(ALICE, "quota", None)).extra == {}
    with pytest.raises(ValueError):
        texts.with_extra(Address("bob", "example.org"), "quota", "5")


def account_of(texts: Texts) -> Account:
    found = parse_directory(CONFIG, texts.accounts, "").account(ALICE)
    assert found is not None
    return found


def test_who_has_no_keys_gets_some_that_look_like_others() -> None:
    checker, _ = passwords(ImmediateWorker())
    alice = account(f"alice@example.org:{MAIN}::::::scram-sha-256={FIELD}")
    real = checker.server_first(alice, alice.key).keys
    assert real == alice.scram
    none = checker.server_first(None, "alice@example.org").keys
    assert none != real
    assert (none.iterations, len(none.salt)) == (real.iterations, len(real.salt))
    assert checker.server_first(None, "alice@example.org").keys == none
    assert checker.server_first(None, "bob@example.org").keys != none
    for other in (Account(ALICE, MAIN), Account(ALICE, "!", scram=alice.scram)):
        assert checker.server_first(other, alice.key).keys == none
    checker.secret = b"another"
    assert checker.server_first(None, "alice@example.org").keys != none
