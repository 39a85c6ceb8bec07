import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mailsrv.config import load
from mailsrv.mail.address import Address
from mailsrv.store.accounts.accounts import Account, load_directory
from mailsrv.store.accounts.passwords import verify_stored

ROOT = Path(__file__).parents[2]


def account(folder: Path, address: str) -> Account | None:
    return load_directory(load(str(folder / "mailsrv.toml"))).account(Address.parse(address))


def has_password(folder: Path, address: str, password: str) -> bool:
    found = account(folder, address)
    return found is not None and verify_stored(found.hash, password)


@pytest.mark.parametrize(
    ("line", "password"),
    [
        (b"secret\n", "secret"),
        (b"secret", "secret"),
        (b"secret\r\nmore\n", "secret"),
        (b" a:b {PLAIN} $x #\\ ' \" \t\n", " a:b {PLAIN} $x #\\ ' \" \t"),
        ("пароль 🔑\n".encode(), "пароль 🔑"),
    ],
)
def test_add_takes_one_line_of_any_characters(tool: Any, folder: Path, line: bytes, password: str) -> None:
    ran = tool("account", "add", "Alice@Example.ORG", "--password-stdin", stdin=line)
    assert (ran.status, ran.err) == (0, "")
    assert f"{folder}/state/mail/example.org/alice" in ran.out
    assert has_password(folder, "alice@example.org", password)
    assert password not in (folder / "accounts").read_text()


@pytest.mark.parametrize("line", [b"", b"\n", b"\xff\n", b"a\0b\n", b"a\rb\n"])
def test_what_no_client_could_send_is_no_password(tool: Any, folder: Path, line: bytes) -> None:
    ran = tool("account", "add", "alice@example.org", "--password-stdin", stdin=line)
    assert ran.status == 1
    assert ran.err.startswith("mailsrv: the password ")
    assert not (folder / "accounts").exists()


@pytest.mark.parametrize(
    "address", ["alice", "alice@example.com", '"a/b"@example.org', "a/b@example.org", "@example.org"]
)
def test_addresses_that_cannot_be_accounts(tool: Any, folder: Path, address: str) -> None:
    ran = tool("account", "add", address, "--password-stdin", stdin=b"x\n")
    assert ran.status == 1
    assert ran.err.count("\n") == 1
    assert not (folder / "accounts").exists()


def test_adding_twice_and_over_an_alias_is_refused(tool: Any, folder: Path) -> None:
    assert tool("account", "add", "alice@example.org", "--password-stdin", stdin=b"one\n").status == 0
    ran = tool("account", "add", "ALICE@example.org", "--password-stdin", stdin=b"two\n")
    assert ran.status == 1
    assert "account passwd" in ran.err
    assert has_password(folder, "alice@example.org", "one")
    tool("alias", "add", "sales@example.org", "alice@example.org")
    ran = tool("account", "add", "sales@example.org", "--password-stdin", stdin=b"two\n")
    assert ran.status == 1
    assert "is an alias" in ran.err


def test_passwd(tool: Any, folder: Path) -> None:
    tool("account", "add", "alice@example.org", "--password-stdin", stdin=b"one\n")
    tool("account", "add", "bob@example.org", "--password-stdin", stdin=b"one\n")
    ran = tool("account", "passwd", "alice@example.org", "--password-stdin", stdin=b"two\n")
    assert ran.status == 0
    assert has_password(folder, "alice@example.org", "two")
    assert has_password(folder, "bob@example.org", "one")
    assert tool("account", "passwd", "carol@example.org", "--password-stdin", stdin=b"two\n").status == 1


def test_list(tool: Any, folder: Path) -> None:
    assert "There are no accounts" in tool("account", "list").out
    assert json.loads(tool("account", "list", "--json").out) == []
    tool("account", "add", "alice@example.org", "--password-stdin", stdin=b"one\n")
    with (folder / "accounts").open("a") as file:
        file.write("bob@example.net:!\n")
    assert json.loads(tool("account", "--config", str(folder / "mailsrv.toml"), "list", "--json").out) == [
        {
            "address": "alice@example.org",
            "mailbox": f"{folder}/state/mail/example.org/alice",
            "state": "active",
            "quota": None,
            "scram": True,
            "last_login": None,
            "app_passwords": [],
        },
        {
            "address": "bob@example.net",
            "mailbox": f"{folder}/state/mail/example.net/bob",
            "state": "locked",
            "quota": None,
            "scram": False,
            "last_login": None,
            "app_passwords": [],
        },
    ]
    assert [line.split()[2:] for line in tool("account", "list").out.splitlines()] == [
        ["state", "quota", "last", "login"],
        ["active", "never"],
        ["locked", "never"],
    ]
    assert len(json.loads(tool("account", "list", "bob@example.net", "--json").out)) == 1
    assert tool("account", "list", "carol@example.net").status == 1


def test_remove_keeps_the_mail_and_says_where(tool: Any, folder: Path) -> None:
    for name in ("alice", "bob"):
        tool("account", "add", f"{name}@example.org", "--password-stdin", stdin=b"one\n")
    tool("alias", "add", "sales@example.org", "alice@example.org")
    mailbox = folder / "state" / "mail" / "example.org" / "alice"
    (mailbox / "cur").mkdir(parents=True)
    ran = tool("account", "remove", "alice@example.org")
    assert ran.status == 0
    assert f"stays in {mailbox}" in ran.out
    assert "sales@example.org still names it" in ran.out
    assert mailbox.is_dir()
    assert account(folder, "alice@example.org") is None
    assert account(folder, "bob@example.org") is not None
    assert tool("account", "remove", "alice@example.org").status == 1
    assert "had no mail" in tool("account", "remove", "bob@example.org").out


def test_files_that_are_wrong_are_not_changed(tool: Any, folder: Path) -> None:
    (folder / "accounts").write_text("# mine\nalice@example.org:secret\n")
    ran = tool("account", "add", "bob@example.org", "--password-stdin", stdin=b"x\n")
    assert ran.status == 1
    assert f"{folder}/accounts:2: " in ran.err
    assert (folder / "accounts").read_text() == "# mine\nalice@example.org:secret\n"


def test_without_terminal_and_option_it_says_what_to_do(tool: Any, folder: Path) -> None:
    ran = tool("account", "add", "alice@example.org")
    assert ran.status == 1
    assert "--password-stdin" in ran.err


def at_terminal(arguments: list[str], answers: list[tuple[str, str]]) -> tuple[int, str]:
    """Run the tool on a terminal of its own: each answer is typed when its question has come."""
    terminal, theirs = os.openpty()
    command = [sys.executable, "-m", "mailsrv.cli.main", *arguments]
    program = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, cwd=ROOT)
    os.close(theirs)
    shown = ""
    waiting = list(answers)
    while True:
        try:
            octets = os.read(terminal, 1024)
        except OSError:  # EIO: the other end is closed
            break
        shown += octets.decode()
        if waiting and waiting[0][0] in shown:
            os.write(terminal, waiting.pop(0)[1].encode() + b"\n")
    os.close(terminal)
    return program.wait(30), shown


def test_a_terminal_is_asked_twice(folder: Path) -> None:
    status, shown = at_terminal(
        ["account", "add", "alice@example.org"], [("Password for alice@example.org", "geheim"), ("again", "geheim")]
    )
    assert status == 0
    assert "geheim" not in shown
    assert has_password(folder, "alice@example.org", "geheim")
    status, shown = at_terminal(
        ["account", "passwd", "alice@example.org"], [("Password for alice@example.org", "one"), ("again", "two")]
    )
    assert status == 1
    assert "differ" in shown
    assert has_password(folder, "alice@example.org", "geheim")


def test_a_password_is_made_up_on_request(folder: Path) -> None:
    status, shown = at_terminal(["account", "add", "alice@example.org"], [("make one up", "")])
    assert status == 0
    generated = shown.split("Password: ")[1].split()[0]
    assert has_password(folder, "alice@example.org", generated)
