"""``mailsrv check``: mailboxes that other programs write to as well."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mailsrv.cli import check_mailboxes
from mailsrv.cli.check_mailboxes import mailboxes
from mailsrv.cli.finding import Finding
from mailsrv.config import Config, load
from mailsrv.mail.address import Address
from mailsrv.outside.filesystem import Filesystem
from mailsrv.store.accounts.accounts import Account
from mailsrv.store.mailbox import maildir, maildirsize
from mailsrv.store.mailbox.quota import Quota, Usage

NOW = 1_760_000_000.0
DISK = Filesystem()
ALICE = Account(Address.parse("alice@example.org"), quota=Quota(1 << 20))


@pytest.fixture
def config(folder: Path) -> Config:
    (folder / "state").mkdir()
    return load(str(folder / "mailsrv.toml"))


@pytest.fixture
def box(folder: Path, config: Config) -> Path:
    path = folder / "state/mail/example.org/alice"
    for place in (path, path / ".Sent"):
        maildir.ensure(DISK, str(place))
    (path / "new/1.a.host,S=5,W=6").write_bytes(b"hello")
    (path / "cur/2.b.host:2,S").write_bytes(b"hello")
    return path


def found(config: Config, *accounts: Account) -> list[Finding]:
    return list(mailboxes(config, accounts or (ALICE,), NOW))


def problems(config: Config) -> list[tuple[str, str]]:
    return [(finding.verdict, finding.text) for finding in found(config) if finding.verdict != "ok"]


def test_all_in_order(config: Config, box: Path) -> None:
    bob = Account(Address.parse("bob@example.org"))  # no mail yet
    maildirsize.write(DISK, str(box), Quota(1 << 20), Usage(10, 2), "mark")
    assert [(finding.verdict, finding.text) for finding in found(config, ALICE, bob)] == [
        ("ok", "2 of 2 in order; 2 messages in all")
    ]


def test_the_mailbox_itself_may_be_a_link(config: Config, box: Path, tmp_path_factory: Any) -> None:
    elsewhere = tmp_path_factory.mktemp("disk") / "alice"
    box.rename(elsewhere)
    box.symlink_to(elsewhere)
    assert problems(config) == []
    box.unlink()
    box.symlink_to("/nowhere")
    assert problems(config) == [("wrong", f"{box} is no folder")]


def test_what_is_a_link_inside(config: Config, box: Path) -> None:
    (box / "cur/3.link").symlink_to("/etc/passwd")
    (box / "cur/4.link").symlink_to("/etc/passwd")
    (box / ".Linked").symlink_to(box / ".Sent")
    (box / ".Sent/new").rmdir()
    (box / ".Sent/new").symlink_to(box / "new")
    ((verdict, text),) = problems(config)
    assert verdict == "warning"
    assert text.endswith(" is a link, which is not followed (and 3 more)")


def test_what_is_missing_and_what_is_no_folder(config: Config, box: Path) -> None:
    (box / ".Sent/tmp").rmdir()
    (box / "tmp").rmdir()
    (box / "tmp").write_bytes(b"x")
    (box / ".plain").mkdir()  # no folder of mail
    assert problems(config) == [("wrong", f"{box}/tmp is no folder"), ("warning", f"{box}/.Sent/tmp is missing")]


def test_what_is_no_message(config: Config, box: Path) -> None:
    (box / "cur/folder").mkdir()
    os.mkfifo(box / "new/fifo")
    ((verdict, text),) = problems(config)
    assert (verdict, text.partition(" ")[2]) == ("warning", "is no file (and 1 more)")


def test_names_are_shown_without_what_a_terminal_would_obey(config: Config, box: Path) -> None:
    (box / "cur/\x1b[31mred").mkdir()
    assert problems(config) == [("warning", f"{box}/cur/\\x1b[31mred is no file")]


def test_sizes_in_names_that_are_wrong(config: Config, box: Path) -> None:
    (box / "cur/9.z.host,S=4:2,").write_bytes(b"hello")
    assert problems(config) == [("warning", f"{box}/cur/9.z.host,S=4:2, tells a wrong size")]


def test_what_is_left_in_tmp(config: Config, box: Path) -> None:
    for name, age_h in (("old", 37), ("young", 35)):
        (box / ".Sent/tmp" / name).touch()
        os.utime(box / ".Sent/tmp" / name, (NOW, NOW - age_h * 3600))
    assert problems(config) == [("warning", f"{box}/.Sent/tmp/old is left from a delivery")]


def test_what_the_server_cannot_read(config: Config, box: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(config.state, 65534, 65534)
    (box / "new/1.a.host,S=5,W=6").chmod(0o600)
    (box / "cur/2.b.host:2,S").chmod(0o644)
    assert problems(config) == [("warning", f"{box}/new/1.a.host,S=5,W=6 cannot be read by the server")]


def test_a_count_that_is_wrong(config: Config, box: Path) -> None:
    maildirsize.write(DISK, str(box), Quota(1 << 20), Usage(110, 1), "mark")
    ((verdict, text),) = problems(config)
    assert verdict == "warning"
    assert text == "alice@example.org: maildirsize tells of 100 octets and -1 messages more than there are"


@pytest.mark.parametrize("quota", [Quota(10), Quota(messages=2)])
def test_a_mailbox_that_is_full(config: Config, box: Path, quota: Quota) -> None:
    maildirsize.write(DISK, str(box), quota, Usage(10, 2), "mark")
    (finding,) = found(config, Account(ALICE.address, quota=quota))
    assert (finding.verdict, finding.text) == ("warning", "alice@example.org is full, and new mail is put off")


def test_a_quota_of_another_program(config: Config, box: Path) -> None:
    maildirsize.write(DISK, str(box), Quota(5000), Usage(10, 2), "mark")
    assert problems(config) == [("warning", 'alice@example.org: maildirsize is for the quota "5000S"')]


def test_a_maildirsize_that_is_a_link(config: Config, box: Path) -> None:
    (box / "maildirsize").symlink_to("/etc/passwd")
    ((verdict, text),) = problems(config)
    assert (verdict, text.partition(":")[0]) == ("warning", f"{box}/maildirsize")


def test_very_many_files(config: Config, box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_mailboxes, "FILES", 1)
    assert problems(config) == [("warning", f"{box} has more than 1 messages; the others were not looked at")]


def test_it_is_part_of_check(tool: Any, config: Config, folder: Path, box: Path) -> None:
    (folder / "accounts").write_text("alice@example.org:!\n")
    (box / "cur/folder").mkdir()
    ran = tool("check", "--no-dns")
    assert f"warning  mailbox: {box}/cur/folder is no file -> move it away" in ran.out
