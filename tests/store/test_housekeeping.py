"""What is done in mailboxes once a day."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailsrv.outside.filesystem import Filesystem
from mailsrv.store.mailbox import maildir
from mailsrv.store.mailbox.housekeeping import EVERY_S, FIRST_S, OLD_S, Housekeeping, sweep
from mailsrv.store.mailbox.quota import Quota, Usage
from tests.store.test_usage import BOX, Mailbox
from tests.worlds.store import STATE, disk_error

DISK = Filesystem()
NOW = 1_760_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    maildir.ensure(DISK, str(tmp_path))
    maildir.ensure(DISK, str(tmp_path / ".Sent"))
    return tmp_path


def put(path: Path, age_s: float) -> Path:
    path.write_bytes(b"x")
    os.utime(path, (NOW, NOW - age_s), follow_symlinks=False)
    return path


def test_old_files_go_from_tmp_of_all_folders(path: Path) -> None:
    old = [put(path / "tmp/a", OLD_S + 1), put(path / ".Sent/tmp/b", OLD_S + 1)]
    kept = [
        put(path / "tmp/young", OLD_S - 1),
        put(path / "tmp/future", -1000),
        put(path / "new/1.a.host", 10 * OLD_S),
        put(path / ".Sent/cur/2.a.host:2,S", 10 * OLD_S),
        put(path / "dovecot-uidlist", 10 * OLD_S),
    ]
    swept = sweep(DISK, str(path), NOW)
    assert sorted(swept.gone) == [".Sent/tmp/b", "tmp/a"]
    assert swept.problems == ()
    assert not any(file.exists() for file in old)
    assert all(file.exists() for file in kept)


def test_links_are_not_followed_and_not_removed(path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    victim = put(elsewhere / "victim", 10 * OLD_S)
    (elsewhere / "tmp").mkdir()
    other = put(elsewhere / "tmp/victim", 10 * OLD_S)
    (path / "tmp/link").symlink_to(victim)
    os.utime(path / "tmp/link", (NOW, NOW - 10 * OLD_S), follow_symlinks=False)
    (path / "tmp/folder").mkdir()
    (path / ".linked").symlink_to(elsewhere)
    (path / ".half").mkdir()
    (path / ".half/tmp").symlink_to(elsewhere / "tmp")
    assert sweep(DISK, str(path), NOW).gone == ()
    assert victim.exists()
    assert other.exists()
    assert (path / "tmp/link").is_symlink()


def test_a_mailbox_that_is_not_there_and_folders_without_tmp_are_no_problem(path: Path) -> None:
    (path / ".Drafts").mkdir()
    (path / "tmp").rmdir()
    for place in (path, path / "none"):
        swept = sweep(DISK, str(place), NOW)
        assert (swept.gone, swept.problems) == ((), ())


@pytest.fixture
def box() -> Iterator[Mailbox]:
    mailbox = Mailbox(Quota(1000)).boot()
    yield mailbox
    mailbox.close()


def age(box: Mailbox, name: str) -> None:
    box.elsewhere.create(f"{BOX}/tmp/{name}").close()
    box.advance(OLD_S + 1)


def test_soon_after_the_start_and_daily(box: Mailbox) -> None:
    maildir.ensure(box.elsewhere, BOX)
    age(box, "first")
    keeping = Housekeeping(box.outside, f"{STATE}/mail", box.accounts, box.usage)
    keeping.start()
    box.advance(FIRST_S - 1)
    assert "first" in box.disk.files(f"{BOX}/tmp")
    box.advance(2)
    assert box.disk.files(f"{BOX}/tmp") == {}
    assert box.file() == b"1000S\n0 0\n"  # and audited
    age(box, "second")
    box.advance(EVERY_S)
    assert box.disk.files(f"{BOX}/tmp") == {}
    age(box, "third")
    keeping.stop()
    box.advance(2 * EVERY_S)
    assert set(box.disk.files(f"{BOX}/tmp")) == {"third"}


def test_what_another_program_did_not_tell_is_put_right_daily(box: Mailbox) -> None:
    maildir.ensure(box.elsewhere, BOX)
    keeping = Housekeeping(box.outside, f"{STATE}/mail", box.accounts, box.usage)
    box.wait(keeping.run())
    box.put(500, ".Sent", told=False)
    box.advance(EVERY_S)
    box.wait(keeping.run())
    box.advance(10.0)
    assert box.told() == Usage(500, 1)
    keeping.stop()


def test_a_failing_disk_is_survived(box: Mailbox) -> None:
    maildir.ensure(box.elsewhere, BOX)
    age(box, "old")
    keeping = Housekeeping(box.outside, f"{STATE}/mail", box.accounts, box.usage)
    box.fail("disk: unlink", error=disk_error)
    box.wait(keeping.run())
    assert set(box.disk.files(f"{BOX}/tmp")) == {"old"}
    box.wait(keeping.run())
    assert box.disk.files(f"{BOX}/tmp") == {}
    keeping.stop()
