"""``mailsrv export``: a mailbox as a Maildir or an mbox."""

from __future__ import annotations

import mailbox
import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from mailsrv.outside.filesystem import Filesystem
from mailsrv.store.mailbox import listing, uidls
from mailsrv.store.migration import export

ADDRESS = "alice@example.org"
OLD = 1_704_103_445  # Mon Jan  1 10:04:05 2024 UTC
ONE = "1500000000.000000I0123456789ABCDEFGHJK.mx.example.org"
TWO = "1500000001.M2P2.foreign"
DISK = Filesystem()


def put(box: Path, name: str, content: bytes) -> None:
    for part in ("cur", "new", "tmp"):
        (box / part).mkdir(parents=True, exist_ok=True)
    (box / name).write_bytes(content)
    os.utime(box / name, (OLD, OLD))


@pytest.fixture
def box(folder: Path) -> Path:
    """Alice's mailbox: two messages in the inbox, one in a folder."""
    (folder / "accounts").write_text(f"{ADDRESS}:!::::::\nbob@example.org:!::::::\n")
    path = folder / "state" / "mail" / "example.org" / "alice"
    put(path, f"cur/{ONE},S=33,W=37:2,FS", b"Return-Path: <b@c>\n\nFrom here\n>x\n")
    put(path, f"new/{TWO}", b"Subject: two\r\n\r\nbody")
    put(path / ".Sent", "cur/1.a:2,Sa", b"Subject: sent\n\n")
    (path / ".Sent" / "dovecot-keywords").write_text("0 x\n")
    uidls.add(str(path), {ONE: "000000016553f100"})
    return path


def tree(path: Path) -> dict[str, bytes]:
    return {str(found.relative_to(path)): found.read_bytes() for found in path.rglob("*") if found.is_file()}


def test_a_maildir_with_everything(tool: Any, box: Path, tmp_path: Path) -> None:
    before = tree(box)
    out = tmp_path / "deep" / "out"
    ran = tool("export", ADDRESS, str(out))
    assert (ran.status, ran.out, ran.err) == (0, "Exported 3 messages of alice@example.org.\n", "")
    found = tree(out)
    header, *lines = found.pop("dovecot-uidlist").splitlines()
    assert re.fullmatch(rb"3 V[0-9]+ N3 G[0-9a-f]{32}", header)
    assert lines == [
        f"1 P000000016553f100 :{ONE},S=33,W=37".encode(),
        f"2 P{TWO} :{TWO},S=18,W=22".encode(),
    ]
    assert found == {
        f"cur/{ONE},S=33,W=37:2,FS": b"Return-Path: <b@c>\n\nFrom here\n>x\n",
        f"new/{TWO},S=18,W=22": b"Subject: two\n\nbody",
        ".Sent/cur/1.a,S=15,W=17:2,Sa": b"Subject: sent\n\n",
        ".Sent/dovecot-keywords": b"0 x\n",
        ".Sent/maildirfolder": b"",
    }
    assert {path.stat().st_mtime for path in out.rglob("*,S=*")} == {OLD}
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert tree(box) == before


def test_what_is_there_is_not_written_again(tool: Any, box: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tool("export", ADDRESS, str(out))
    os.rename(out / f"new/{TWO},S=18,W=22", out / f"cur/{TWO},S=18,W=22:2,S")
    put(box, "new/1500000005.x", b"a: b\n\n")
    ran = tool("export", ADDRESS, str(out))
    assert ran.out == "Exported 1 message of alice@example.org; 3 messages were there already.\n"
    assert len(listing.scan(DISK, str(out)).messages) == 3
    assert b"3 P1500000005.x :" in (out / "dovecot-uidlist").read_bytes()
    # A Dovecot that has opened it keeps a list of its own.
    (out / "dovecot.index.log").write_text("")
    (out / "dovecot-uidlist").write_text("its own")
    tool("export", ADDRESS, str(out))
    assert (out / "dovecot-uidlist").read_text() == "its own"


def test_one_folder(tool: Any, box: Path, tmp_path: Path) -> None:
    assert tool("export", ADDRESS, str(tmp_path / "out"), "--folder", "Sent").status == 0
    assert [path.name for path in (tmp_path / "out").glob("cur/*")] == ["1.a,S=15,W=17:2,Sa"]
    assert not (tmp_path / "out" / ".Sent").exists()


MBOX = b"""\
From b@c Mon Jan  1 10:04:05 2024
Return-Path: <b@c>
Status: RO
X-Status: F

>From here
>x

From MAILER-DAEMON Mon Jan  1 10:04:05 2024
Subject: two

body

"""


def test_an_mbox(tool: Any, box: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = tool("export", ADDRESS, str(out), "--format", "mbox")
    assert (ran.status, ran.out) == (0, "Exported 2 messages of alice@example.org.\n")
    assert "holds the inbox only, and not Sent: name one with --folder" in ran.err
    # ">x" has no mark to take away: only lines that become "From " have.
    assert out.read_bytes() == MBOX
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    read = mailbox.mbox(out, create=False)
    assert len(read) == 2
    read.close()
    ran = tool("export", ADDRESS, str(out), "--format", "mbox")
    assert ran.status == 1
    assert "there is such a file already" in ran.err
    assert out.read_bytes() == MBOX


def test_an_mbox_for_each_folder(tool: Any, box: Path, tmp_path: Path) -> None:
    ran = tool("export", ADDRESS, f"{tmp_path}/out/", "--format", "mbox")
    assert (ran.status, ran.err) == (0, "")
    assert (tmp_path / "out" / "INBOX").read_bytes() == MBOX
    assert (tmp_path / "out" / "Sent").read_bytes().startswith(b"From MAILER-DAEMON Mon Jan  1 10:04:05 2024\nSubj")


def test_out_and_in_again(tool: Any, box: Path, folder: Path, tmp_path: Path) -> None:
    tool("export", ADDRESS, str(tmp_path / "out"))
    tool("export", ADDRESS, f"{tmp_path}/boxes/", "--format", "mbox")
    tool("import", "bob@example.org", str(tmp_path / "out"))
    other = box.parent / "bob"

    def shown(path: Path) -> list[tuple[str, int, bytes]]:
        found = listing.scan(DISK, str(path)).messages
        return [(one.uidl, one.size, (path / one.path).read_bytes().replace(b"\r\n", b"\n")) for one in found]

    assert shown(other) == shown(box)
    assert [path.read_bytes() for path in other.glob(".Sent/cur/*")] == [b"Subject: sent\n\n"]
    # What has a name of ours is known where it came from; the others were never imported there.
    assert "1 was there already" in tool("import", ADDRESS, str(tmp_path / "out")).out


def test_what_cannot_be_read_is_reported(tool: Any, box: Path, tmp_path: Path) -> None:
    (box / "cur" / "1400000000.link").symlink_to("/etc/passwd")
    ran = tool("export", ADDRESS, str(tmp_path / "out"))
    assert ran.status == 1
    assert "1400000000.link" in ran.err
    assert ran.out == "Exported 3 messages of alice@example.org.\n"


def test_messages_that_move_meanwhile(box: Path) -> None:
    folder = export.Folder(DISK, str(box), "")
    os.rename(box / f"new/{TWO}", box / f"cur/{TWO}:2,RS")
    (box / f"cur/{ONE},S=33,W=37:2,FS").unlink()
    (found,) = folder.messages()
    assert isinstance(found, export.Message)
    assert (found.entry.name, found.flags, found.new) == (TWO, "RS", False)


def test_an_export_that_fails_leaves_no_mbox(
    tool: Any, box: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> bytes:
        raise OSError(28, "No space left on device", "out")

    monkeypatch.setattr("mailsrv.mail.mbox.entry", full)
    ran = tool("export", ADDRESS, str(tmp_path / "out"), "--format", "mbox")
    assert ran.status == 1
    assert "No space left on device" in ran.err
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("carol@example.org", "out"), "is not an account"),
        (("bob@example.org", "out"), "has no mail yet"),
        ((ADDRESS, "out", "--folder", "Drafts"), "has no folder Drafts"),
    ],
)
def test_wrong_use(tool: Any, box: Path, arguments: tuple[str, ...], words: str) -> None:
    ran = tool("export", *arguments)
    assert ran.status == 1
    assert words in ran.err
