"""App passwords as the operator sees them, and SCRAM's keys as the tool makes them."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from mailsrv.sasl.scram import derive_keys
from mailsrv.store import schema
from mailsrv.store.accounts import logins
from mailsrv.store.accounts.app_passwords import LIMIT
from mailsrv.store.accounts.logins import Use
from mailsrv.store.accounts.passwords import verify_stored
from tests.cli.test_account import account

ALICE = "alice@example.org"


@pytest.fixture(autouse=True)
def _alice(tool: Any, folder: Path) -> None:
    assert tool("account", "add", ALICE, "--password-stdin", stdin=b"main\n").status == 0


def apps(folder: Path) -> dict[str, tuple[str, ...]]:
    found = account(folder, ALICE)
    assert found is not None
    return {app.name: app.services for app in found.apps}


def opens(folder: Path, name: str, password: str) -> bool:
    found = account(folder, ALICE)
    assert found is not None
    return verify_stored(next(app.hash for app in found.apps if app.name == name), password)


def use(folder: Path, *uses: Use) -> None:
    """As a server would have noted it."""
    (folder / "state").mkdir(exist_ok=True)
    connection = sqlite3.connect(folder / "state" / "mailsrv.db", isolation_level=None)
    schema.prepare(connection, "mailsrv.db")
    logins.write(connection, uses)
    connection.close()


def test_a_password_set_by_the_tool_has_scram_keys(tool: Any, folder: Path) -> None:
    for password in ("main", "new"):
        if password == "new":
            assert tool("account", "passwd", ALICE, "--password-stdin", stdin=b"new\n").status == 0
        found = account(folder, ALICE)
        assert found is not None
        assert found.scram is not None
        assert found.scram == derive_keys(password, found.scram.salt)


def test_a_password_that_scram_cannot_have(tool: Any, folder: Path) -> None:
    assert tool("account", "passwd", ALICE, "--password-stdin", stdin="pass\u0221word\n".encode()).status == 0
    found = account(folder, ALICE)
    assert found is not None
    assert found.scram is None
    assert "scram" not in (folder / "accounts").read_text()


def test_one_is_made_up_and_shown_once(tool: Any, folder: Path) -> None:
    ran = tool("account", "passwd", ALICE, "--app", "phone")
    assert (ran.status, ran.err) == (0, "")
    shown = re.match(r"Password: (\S+)\nalice@example.org has the app password \"phone\".\n", ran.out)
    assert shown
    assert re.fullmatch(r"(?:[a-z2-9]{4}-){4}[a-z2-9]{4}", shown[1])
    assert opens(folder, "phone", shown[1])
    assert shown[1] not in (folder / "accounts").read_text()
    # The main one is as it was.
    found = account(folder, ALICE)
    assert found is not None
    assert verify_stored(found.hash, "main")
    assert found.scram is not None
    # A second time it is another.
    again = tool("account", "passwd", ALICE, "--app", "phone").out.split()[1]
    assert again != shown[1]
    assert opens(folder, "phone", again)
    assert apps(folder) == {"phone": ()}


def test_one_may_be_given(tool: Any, folder: Path) -> None:
    ran = tool("account", "passwd", ALICE, "--app", "phone", "--password-stdin", stdin=b"my own\n")
    assert ran.status == 0
    assert "my own" not in ran.out
    assert opens(folder, "phone", "my own")


def test_one_may_be_for_some_services_only(tool: Any, folder: Path) -> None:
    ran = tool("account", "passwd", ALICE, "--app", "printer", "--for", "smtp")
    assert ran.status == 0
    assert ran.out.endswith("It is good for smtp only.\n")
    tool("account", "passwd", ALICE, "--app", "phone", "--for", "pop3,smtp")
    assert apps(folder) == {"printer": ("smtp",), "phone": ("smtp", "pop3")}


def test_they_share_their_salt(tool: Any, folder: Path) -> None:
    for name in ("a", "b"):
        tool("account", "passwd", ALICE, "--app", name)
    tool("account", "passwd", ALICE, "--password-stdin", stdin=b"new\n")
    assert len(set(re.findall(r"p=1\$([^$]+)\$", (folder / "accounts").read_text()))) == 1
    # Without app passwords there is no reason for it.
    for name in ("a", "b"):
        tool("account", "passwd", ALICE, "--remove-app", name)
    before = (folder / "accounts").read_text()
    tool("account", "passwd", ALICE, "--password-stdin", stdin=b"new\n")
    assert len(set(re.findall(r"p=1\$([^$]+)\$", before + (folder / "accounts").read_text()))) == 2


def test_one_is_removed(tool: Any, folder: Path) -> None:
    for name in ("phone", "printer"):
        tool("account", "passwd", ALICE, "--app", name)
    ran = tool("account", "passwd", ALICE, "--remove-app", "phone")
    assert (ran.status, ran.out) == (0, 'alice@example.org has no app password "phone" any more.\n')
    assert apps(folder) == {"printer": ()}
    ran = tool("account", "passwd", ALICE, "--remove-app", "phone")
    assert ran.status == 1
    assert "account list alice@example.org" in ran.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--app", "My Phone"], "cannot name an app password"),
        (["--app", ""], "cannot name an app password"),
        (["--app", "phone", "--for", "imap"], "is not a service"),
        (["--for", "smtp"], "needs --app"),
    ],
)
def test_what_cannot_be_is_said(tool: Any, folder: Path, arguments: list[str], said: str) -> None:
    before = (folder / "accounts").read_text()
    ran = tool("account", "passwd", ALICE, *arguments)
    assert ran.status == 1
    assert said in ran.err
    assert ran.err.count("\n") == 1
    assert (folder / "accounts").read_text() == before


def test_usage(tool: Any) -> None:
    assert tool("account", "passwd", ALICE, "--app", "a", "--remove-app", "b").status == 2
    assert tool("account", "passwd", "bob@example.org", "--app", "a").status == 1


def test_there_is_a_limit(tool: Any, folder: Path) -> None:
    for n in range(LIMIT):
        assert tool("account", "passwd", ALICE, "--app", f"n{n}", "--password-stdin", stdin=b"x\n").status == 0
    ran = tool("account", "passwd", ALICE, "--app", "more")
    assert ran.status == 1
    assert "has 20 app passwords" in ran.err
    assert tool("account", "passwd", ALICE, "--app", "n3").status == 0
    assert len(apps(folder)) == LIMIT
    # Dovecot refuses a login with more than 16,384 octets of extra fields.
    assert max(map(len, (folder / "accounts").read_text().splitlines())) < 8000


def test_list_shows_the_last_use(tool: Any, folder: Path) -> None:
    for name, services in (("phone", ""), ("printer", "smtp")):
        tool("account", "passwd", ALICE, "--app", name, "--for", services)
    use(
        folder, Use(ALICE, "", 1764000000.0, "192.0.2.1", "pop3"), Use(ALICE, "phone", 1764000060.0, "\x1b[31m", "smtp")
    )
    main, phone, printer = tool("account", "list").out.splitlines()[1:]
    assert re.search(r"active +20\d\d-\d\d-\d\d \d\d:\d\d:\d\d pop3 from 192.0.2.1$", main)
    assert re.search(r"^  app phone +20\d\d-\d\d-\d\d \d\d:\d\d:\d\d smtp from \\x1b\[31m$", phone)
    assert re.search(r"^  app printer +smtp only +never$", printer)
    (found,) = json.loads(tool("account", "list", "--json").out)
    assert found["last_login"] == {"at": 1764000000.0, "service": "pop3", "client": "192.0.2.1"}
    assert found["app_passwords"] == [
        {
            "name": "phone",
            "services": [],
            "last_login": {"at": 1764000060.0, "service": "smtp", "client": "\x1b[31m"},
        },
        {"name": "printer", "services": ["smtp"], "last_login": None},
    ]


def test_a_new_password_of_an_old_name_was_never_used(tool: Any, folder: Path) -> None:
    tool("account", "passwd", ALICE, "--app", "phone")
    use(folder, *(Use(ALICE, name, 1764000000.0, "192.0.2.1", "pop3") for name in ("", "phone")))
    tool("account", "passwd", ALICE, "--app", "phone")
    (found,) = json.loads(tool("account", "list", "--json").out)
    assert found["app_passwords"][0]["last_login"] is None
    assert found["last_login"] is not None
    tool("account", "passwd", ALICE, "--password-stdin", stdin=b"other\n")
    (found,) = json.loads(tool("account", "list", "--json").out)
    assert found["last_login"] is None
    use(folder, Use(ALICE, "", 1764000000.0, "192.0.2.1", "pop3"))
    tool("account", "remove", ALICE)
    tool("account", "add", ALICE, "--password-stdin", stdin=b"main\n")
    (found,) = json.loads(tool("account", "list", "--json").out)
    assert found["last_login"] is None
