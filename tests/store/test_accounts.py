from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import argon2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.config import Config, parse
from mailsrv.mail.address import POSTMASTER, Address
from mailsrv.store.accounts.account_files import Texts, edit, replace_file
from mailsrv.store.accounts.accounts import (
    AccountsError,
    Directory,
    Target,
    load_directory,
    mailbox_path,
    parse_directory,
)

HASH = "{ARGON2ID}" + argon2.PasswordHasher(1, 8, 1).hash("secret")
DOMAINS = '["example.org", "bücher.example"]'


def config_in(folder: Path | str, domains: str = DOMAINS) -> Config:
    return parse(f'hostname = "mx.example.org"\ndomains = {domains}\n', f"{folder}/mailsrv.toml")


def directory(accounts: str, aliases: str = "") -> Directory:
    return parse_directory(config_in("/c"), accounts, aliases)


def complaint(accounts: str, aliases: str = "") -> str:
    with pytest.raises(AccountsError) as caught:
        directory(accounts, aliases)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def where(found: Directory, address: str) -> dict[str, str]:
    """Target address to mailbox."""
    return {str(target.address): target.mailbox for target in found.resolve(Address.parse(address))}


def test_the_fields_of_an_account() -> None:
    found = directory(
        "# people\n\n"
        f"Alice@Example.ORG:{HASH}:1000:1000:Alice:/home/a:/bin/sh:quota=5 note=a:b=c flag\r\n"
        f"bob@bücher.example:{HASH}\n"
        "carol@example.org:!::::::\n"
        "dave@example.org\n"
    )
    alice, bob, carol, dave = found.accounts
    assert alice.key == "alice@example.org"
    assert alice.hash == HASH
    assert alice.extra == {"quota": "5", "note": "a:b=c", "flag": ""}
    assert bob.key == "bob@xn--bcher-kva.example"
    assert [account.locked for account in found.accounts] == [False, False, True, True]
    assert found.account(Address.parse("ALICE@example.org")) is alice
    assert found.account(Address.parse("alice+tag@example.org")) is None
    assert mailbox_path(alice.key) == "example.org/alice"
    assert carol.address.local == "carol"
    assert dave.extra == {}


@pytest.mark.parametrize(
    ("accounts", "message"),
    [
        (
            f"alice@example.org:{HASH}\n#\nALICE@example.org:!\n",
            "/c/accounts:3: alice@example.org is already in line 1.",
        ),
        ("alice@example.net:!\n", "/c/accounts:1: alice@example.net: the domain is not one of those"),
        ("\nalice:!\n", "/c/accounts:2: "),
        ("postmaster:!\n", "/c/accounts:1: "),
        ("alice@example.org:secret\n", "the password does not begin with a {SCHEME}."),
        ("alice@example.org:{MD4}x\n", "alice@example.org: the password scheme MD4 is not known"),
        ("alice@example.org:{ARGON2ID}$argon2id$x\n", "not a well-formed ARGON2ID hash, "),
        ("a/b@example.org:!\n", "not fit for the name of a folder."),
        ("../etc@example.org:!\n", "/c/accounts:1: "),
        ('".."@example.org:!\n', "not fit for the name of a folder."),
        ('"a b"@example.org:!\n', "not fit for the name of a folder."),
        ('"a@b"@example.org:!\n', "not fit for the name of a folder."),
    ],
)
def test_wrong_accounts_are_named_with_their_line(accounts: str, message: str) -> None:
    assert message in complaint(accounts)


@pytest.mark.parametrize(
    ("aliases", "message"),
    [
        ("sales@example.org alice@example.org\n", 'is not of the form "address: target, target".'),
        ("#\nsales@example.net: a@example.org\n", "/c/aliases:2: sales@example.net: the domain is not"),
        ("sales@example.org:\n", "/c/aliases:1: sales@example.org has no target."),
        ("sales@example.org: alice\n", '"alice" is not an address'),
        ("sales@example.org: |/bin/sh\n", "is not an address"),
        ("s@example.org: a@x.org\nS@EXAMPLE.org: b@x.org\n", "/c/aliases:2: S@EXAMPLE.org is already in line 1."),
        ("\nalice@example.org: b@x.org\n", "/c/aliases:2: alice@example.org is also an account (/c/accounts:1);"),
        (
            "#\nx@example.org: a@example.org\na@example.org: b@example.org\nb@example.org: c@x.org, a@example.org\n",
            "/c/aliases:3: the aliases go round in a circle: a@example.org -> b@example.org -> a@example.org.",
        ),
        ("a@example.org: A+x@example.org\n", "circle: a@example.org -> a+x@example.org -> a@example.org."),
        ("postmaster: postmaster@example.org\n", "circle: "),
        ("postmaster@example.org: postmaster\n", "circle: postmaster@example.org -> postmaster@example.org."),
        (
            "".join(f"a{n}@example.org: a{n + 1}@example.org\n" for n in range(3000)),
            "/c/aliases:1: more than 50 aliases of aliases, from a0@example.org on.",
        ),
    ],
)
def test_wrong_aliases_are_named_with_their_line(aliases: str, message: str) -> None:
    assert message in complaint(f"alice@example.org:{HASH}\n", aliases)


PEOPLE = "alice@example.org:!\nbob@example.org:!\nbob+work@example.org:!\nalice@bücher.example:!\n"


def test_accounts_and_subaddresses() -> None:
    found = directory(PEOPLE)
    assert where(found, "ALICE@EXAMPLE.org") == {"alice@example.org": "alice@example.org"}
    assert where(found, "alice+Tag@example.org") == {"alice+Tag@example.org": "alice@example.org"}
    assert where(found, "alice+a+b@example.org") == {"alice+a+b@example.org": "alice@example.org"}
    assert where(found, "bob+work@example.org") == {"bob+work@example.org": "bob+work@example.org"}
    assert where(found, "alice@bücher.example") == {"alice@xn--bcher-kva.example": "alice@xn--bcher-kva.example"}
    for nobody in ("carol@example.org", "+@example.org", "+alice@example.org", "alice-x@example.org"):
        assert where(found, nobody) == {}


@pytest.mark.parametrize(
    "trick",
    [
        "alice@example.net",
        "bob%example.net@example.org",
        '"alice@example.net"@example.org',
        "example.net!alice@example.org",
        "alice@[192.0.2.1]",
        "alice@sub.example.org",
    ],
)
def test_tricks_resolve_to_nothing(trick: str) -> None:
    assert where(directory(PEOPLE), trick) == {}


def test_aliases_here_and_elsewhere() -> None:
    found = directory(
        PEOPLE,
        "# groups\n"
        "Team@example.org: alice@example.org, bob@example.org, carol@example.net, Alice@example.org\n"
        "all@example.org: team@example.org, alice@bücher.example, carol@example.net, later@example.org\n"
        'odd@example.org: "a, b"@example.net\n'
        "later2@example.org: later@example.org\n"
        "tagged@example.org: alice+t@example.org\n",
    )
    team = {
        "alice@example.org": "alice@example.org",
        "bob@example.org": "bob@example.org",
        "carol@example.net": "",
    }
    assert where(found, "team@example.org") == team
    assert where(found, "TEAM+x@example.org") == team
    assert where(found, "all@example.org") == team | {"alice@xn--bcher-kva.example": "alice@xn--bcher-kva.example"}
    assert where(found, "odd@example.org") == {'"a, b"@example.net': ""}
    assert where(found, "later2@example.org") == {}
    assert where(found, "tagged@example.org") == {"alice+t@example.org": "alice@example.org"}
    assert [(alias, str(target)) for alias, target in found.dangling()] == [
        ("all@example.org", "later@example.org"),
        ("later2@example.org", "later@example.org"),
    ]


def test_is_own() -> None:
    found = directory(PEOPLE)
    assert found.is_own("example.org")
    assert found.is_own("xn--bcher-kva.example")
    assert not found.is_own("example.net")
    assert not found.is_own("sub.example.org")
    assert not found.is_own("")


def test_postmaster_is_always_somebody() -> None:
    """RFC 5321 4.5.1."""
    first = {"alice@example.org": "alice@example.org"}
    found = directory(PEOPLE)
    for name in ("postmaster", "PostMaster@example.org", "postmaster@bücher.example", "postmaster+x@example.org"):
        assert where(found, name) == first
    alias = directory(PEOPLE, "postmaster: bob@example.org, x@example.net\n")
    for name in ("postmaster", "postmaster@example.org", "postmaster@bücher.example"):
        assert where(alias, name) == {"bob@example.org": "bob@example.org", "x@example.net": ""}
    own = directory(PEOPLE, "postmaster: bob@example.org\npostmaster@example.org: x@example.net\n")
    assert where(own, "postmaster") == {"x@example.net": ""}
    assert where(own, "postmaster@bücher.example") == {"bob@example.org": "bob@example.org"}
    account = directory(PEOPLE + "postmaster@bücher.example:!\n", "postmaster: bob@example.org\n")
    assert where(account, "postmaster@bücher.example") == {
        "postmaster@xn--bcher-kva.example": "postmaster@xn--bcher-kva.example"
    }
    assert where(account, "postmaster@example.org") == {"bob@example.org": "bob@example.org"}
    group = directory(PEOPLE, "hosts@example.org: postmaster, bob@example.org\n")
    assert where(group, "hosts@example.org") == first | {"bob@example.org": "bob@example.org"}
    assert directory("").resolve(POSTMASTER) == ()
    assert where(directory(PEOPLE), "postmaster@example.net") == {}


@given(st.text(max_size=12), st.text(max_size=12))
def test_a_path_never_leaves_the_folder_of_its_domain(local: str, rest: str) -> None:
    try:
        found = directory(f"{local}@example.org:!{rest}\n")
    except AccountsError:
        return
    for account in found.accounts:
        domain, _, name = mailbox_path(account.key).partition("/")
        assert domain == "example.org"
        assert name and "/" not in name and "\0" not in name and not name.startswith(".")


def test_resolution_is_fast_for_many() -> None:
    accounts = "".join(f"u{n}@example.org:!\n" for n in range(20_000))
    aliases = f"all@example.org: {', '.join(f'u{n}@example.org' for n in range(20_000))}\n"
    found = directory(accounts, aliases)
    address = Address.parse("u19999+tag@example.org")
    started = time.process_time()
    for _ in range(10_000):
        found.resolve(address)
    assert time.process_time() - started < 1
    assert len(found.resolve(Address.parse("all@example.org"))) == 20_000


def test_loading(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    with pytest.raises(AccountsError, match="accounts: does not exist; 'mailsrv account add"):
        load_directory(config)
    (tmp_path / "accounts").write_text("alice@example.org:!\n")
    assert load_directory(config).resolve(POSTMASTER) == (Target(Address("alice", "example.org"), "alice@example.org"),)
    (tmp_path / "aliases").write_bytes(b"#\n# \xff\n")
    with pytest.raises(AccountsError, match="aliases:2: not UTF-8 text"):
        load_directory(config)


# Changing the files.


def test_comments_blank_lines_and_other_fields_stay(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    (tmp_path / "accounts").write_text("# one\n\nalice@example.org:!:1::::: k=v\n# two\nbob@example.org:!")
    alice, bob, carol = (Address(name, "example.org") for name in ("alice", "bob", "carol"))
    edit(config, lambda texts, _: texts.with_account(alice, HASH).with_account(carol, HASH).without_account(bob))
    assert (tmp_path / "accounts").read_text() == (
        f"# one\n\nalice@example.org:{HASH}:1::::: k=v\n# two\ncarol@example.org:{HASH}::::::\n"
    )
    edit(config, lambda texts, _: texts.with_alias("team@example.org", [alice, Address("x", "example.net")]))
    edit(config, lambda texts, _: texts.with_alias("postmaster@", [carol]))
    assert (tmp_path / "aliases").read_text() == (
        "team@example.org: alice@example.org, x@example.net\npostmaster: carol@example.org\n"
    )
    edit(config, lambda texts, _: texts.with_alias("team@example.org", []))
    edit(config, lambda texts, _: texts.with_alias("postmaster@", [alice]))
    assert (tmp_path / "aliases").read_text() == "postmaster: alice@example.org\n"


def test_nothing_is_written_that_could_not_be_loaded(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    (tmp_path / "aliases").write_text("a@example.org: b@example.org\n")
    with pytest.raises(AccountsError, match="circle"):
        edit(config, lambda texts, _: texts.with_alias("b@example.org", [Address("a", "example.org")]))
    assert (tmp_path / "aliases").read_text() == "a@example.org: b@example.org\n"
    assert sorted(os.listdir(tmp_path)) == ["aliases"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "accounts"
    path.write_text("old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        replace_file(str(path), b"new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["accounts"]


def test_mode_and_links_of_a_replaced_file(tmp_path: Path) -> None:
    replace_file(str(tmp_path / "new"), b"1")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600
    (tmp_path / "real").write_text("1")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link").symlink_to("real")
    replace_file(str(tmp_path / "link"), b"2")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "2"
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_file_gets_the_owner_of_its_folder(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 23456)
    replace_file(str(tmp_path / "accounts"), b"1")
    status = (tmp_path / "accounts").stat()
    assert (status.st_uid, status.st_gid) == (12345, 23456)


def _add_many(folder: str, start: int) -> None:
    config = config_in(folder)
    for number in range(start, start + 15):
        address = Address(f"u{number}", "example.org")
        edit(config, lambda texts, _, address=address: texts.with_account(address, "!"))  # type: ignore[misc]


def test_several_programs_at_once(tmp_path: Path) -> None:
    # The lock belongs to an open file, so threads meet it as programs do.
    programs = [threading.Thread(target=_add_many, args=(str(tmp_path), start)) for start in (0, 100, 200)]
    for program in programs:
        program.start()
    for program in programs:
        program.join(30)
    found = load_directory(config_in(tmp_path))
    assert len(found.accounts) == 45
    assert sorted(os.listdir(tmp_path)) == ["accounts"]


def test_texts_are_untouched_by_what_is_not_there() -> None:
    texts = Texts("# a\n", "# b\n")
    assert texts.without_account(Address("x", "example.org")) == texts
    assert texts.with_alias("x@example.org", []) == texts
