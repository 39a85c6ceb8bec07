"""``mailsrv account quota``, and quotas in ``account list``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mailsrv.outside.filesystem import Filesystem
from mailsrv.store.mailbox import maildir, maildirsize
from mailsrv.store.mailbox.quota import Quota, Usage

ALICE = "alice@example.org"


@pytest.fixture
def accounts(folder: Path) -> Path:
    file = folder / "accounts"
    file.write_text(f"# ours\n{ALICE}:!::::::app-x={{PLAIN}}x\nbob@example.org:!\n")
    return file


def box(folder: Path) -> Path:
    path = folder / "state/mail/example.org/alice"
    maildir.ensure(Filesystem(), str(path))
    return path


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["--storage", "1 GiB"], "*:storage=1G"),
        (["--storage", "1G", "--messages", "1000"], "*:storage=1G:messages=1000"),
        (["--storage", "1500"], "*:storage=1500B"),
        (["--storage", "2MB"], "*:storage=2000000B"),
        (["--messages", "5"], "*:messages=5"),
        (["--storage", "0", "--messages", "5"], "*:messages=5"),
    ],
)
def test_the_rule_is_written_as_dovecot_has_it(tool: Any, accounts: Path, options: list[str], rule: str) -> None:
    ran = tool("account", "quota", ALICE, *options)
    assert (ran.status, ran.err) == (0, "")
    expected = f"# ours\n{ALICE}:!::::::app-x={{PLAIN}}x userdb_quota_rule={rule}\nbob@example.org:!\n"
    assert accounts.read_text() == expected


def test_one_limit_leaves_the_other_as_it_is(tool: Any, accounts: Path) -> None:
    tool("account", "quota", ALICE, "--storage", "1G", "--messages", "7")
    tool("account", "quota", ALICE, "--storage", "2G")
    assert "userdb_quota_rule=*:storage=2G:messages=7" in accounts.read_text()
    tool("account", "quota", ALICE, "--storage", "0")
    assert "userdb_quota_rule=*:messages=7" in accounts.read_text()
    ran = tool("account", "quota", ALICE, "--none")
    assert ran.out == f"{ALICE} may keep as much as it likes.\n"
    assert "quota" not in accounts.read_text()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--storage", "much"], '"much" is not a size'),
        (["--storage", "-1"], '"-1" is not a size'),
        (["--storage", "5000 GiB"], "is not between"),
        (["--messages", "1_0"], '"1_0" is not a number of messages.'),
        (["--messages", "٣"], "is not a number of messages."),
        (["--none", "--messages", "1"], "--none is for no limit at all"),
    ],
)
def test_what_is_wrong_changes_nothing(tool: Any, accounts: Path, options: list[str], problem: str) -> None:
    before = accounts.read_text()
    ran = tool("account", "quota", ALICE, *options)
    assert ran.status == 1
    assert problem in ran.err
    assert accounts.read_text() == before


def test_unknown_accounts(tool: Any, accounts: Path) -> None:
    for options in ([], ["--storage", "1G"]):
        ran = tool("account", "quota", "carol@example.org", *options)
        problem = "mailsrv: carol@example.org is not an account; 'mailsrv account list' names all.\n"
        assert (ran.status, ran.err) == (1, problem)


def test_what_is_used_is_shown(tool: Any, accounts: Path, folder: Path) -> None:
    assert tool("account", "quota", ALICE).out == f"{ALICE} may keep as much as it likes.\n"
    assert tool("account", "quota", ALICE, "--json").out == "null\n"
    (box(folder) / "new/1.a.host,S=524288,W=1").touch()
    ran = tool("account", "quota", ALICE, "--storage", "1M", "--messages", "10")
    assert ran.out == f"{ALICE} uses 512.0 KiB of 1.0 MiB (50%), 1 of 10 messages.\n"
    maildirsize.write(Filesystem(), str(box(folder)), Quota(1 << 20, 10), Usage(1024, 2), "mark")
    ran = tool("account", "quota", ALICE)
    assert ran.out == f"{ALICE} uses 1.0 KiB of 1.0 MiB (0%), 2 of 10 messages.\n"


def test_list_shows_quotas(tool: Any, accounts: Path, folder: Path) -> None:
    tool("account", "quota", ALICE, "--storage", "1M")
    (box(folder) / "cur/1.a.host,S=600,W=1:2,S").touch()
    listed = tool("account", "list").out.splitlines()
    assert "600 octets of 1.0 MiB (0%)" in next(line for line in listed if line.startswith(ALICE))
    assert " of " not in next(line for line in listed if line.startswith("bob"))
    alice, bob = json.loads(tool("account", "list", "--json").out)
    assert bob["quota"] is None
    assert alice["quota"] == {
        "octets": 600,
        "messages": 1,
        "octets_limit": 1 << 20,
        "messages_limit": None,
        "ignored_folders": [],
    }


def test_a_mailbox_that_cannot_be_read_does_not_end_the_list(tool: Any, accounts: Path, folder: Path) -> None:
    tool("account", "quota", ALICE, "--storage", "1M")
    (box(folder) / "maildirsize").symlink_to("/etc/passwd")
    assert "cannot be read" in tool("account", "list").out
