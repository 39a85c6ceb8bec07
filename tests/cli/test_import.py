"""``mailsrv import``: from Maildirs and mbox files into a mailbox that a server may be serving."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mailsrv.cli import import_mail
from mailsrv.outside.filesystem import Filesystem
from mailsrv.store.mailbox import listing, maildir, uidls
from mailsrv.store.migration.letter import Letter
from mailsrv.store.migration.placing import MARKS, Placed, Placing

ADDRESS = "alice@example.org"
OLD = 1_600_000_000
DISK = Filesystem()


@pytest.fixture
def box(folder: Path) -> Path:
    """Alice's mailbox, which does not exist yet."""
    (folder / "accounts").write_text(f"{ADDRESS}:!::::::\nbob@example.org:!::::::\n")
    return folder / "state" / "mail" / "example.org" / "alice"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source"


def put(maildir_path: Path, name: str, content: bytes = b"Subject: x\n\nbody\n", mtime: float = OLD) -> None:
    """A file ``cur/...`` or ``new/...`` in a Maildir, which is made if need be."""
    for part in ("cur", "new", "tmp"):
        (maildir_path / part).mkdir(parents=True, exist_ok=True)
    (maildir_path / name).write_bytes(content)
    os.utime(maildir_path / name, (mtime, mtime))


def files(box: Path) -> list[Path]:
    return sorted(path for part in ("new", "cur") for path in box.glob(f"**/{part}/*"))


def contents(box: Path) -> list[bytes]:
    return [path.read_bytes() for path in files(box)]


def shown(box: Path) -> list[tuple[str, str]]:
    """Place and flags, and unique-id of the messages that POP3 shows, in its order."""
    found = listing.scan(DISK, str(box))
    assert not found.problems
    assert not found.measured, "the names of imported messages tell their size"
    for message in found.messages:
        whole = (box / message.path).read_bytes().replace(b"\n", b"\r\n")
        assert message.size == len(whole) + (0 if whole.endswith(b"\n") else 2)
    return [(message.path[:4] + message.path.partition(":2,")[2], message.uidl) for message in found.messages]


def test_a_maildir_with_flags_dates_and_sizes(tool: Any, box: Path, source: Path) -> None:
    put(source, "cur/1500000000.M1P1.old,S=99:2,FRS", b"Subject: one\r\n\r\nbody\r\n", OLD + 1.5)
    put(source, "cur/1500000001.M2P2.old:2,", b"Subject: two\n\nno line end", OLD + 2)
    put(source, "new/1500000002.M3P3.old", b"Subject: three\n\na\rb\n", OLD + 3)
    put(source, "cur/from-mutt", b"Subject: four\n\n", OLD + 4)
    ran = tool("import", ADDRESS, str(source))
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == "Imported 4 messages (79 octets) for alice@example.org.\n"
    found = files(box)
    assert [(path.parent.name, path.name.partition(":")[2]) for path in found] == [
        ("cur", "2,FRS"),
        ("cur", "2,"),
        ("cur", "2,"),
        ("new", ""),
    ]
    assert [path.name.partition(".")[0] for path in found] == ["1500000000", "1500000001", str(OLD + 4), "1500000002"]
    assert [path.stat().st_mtime for path in found] == [OLD + 1.5, OLD + 2, OLD + 4, OLD + 3]
    assert found[0].read_bytes() == b"Subject: one\n\nbody\n"
    assert found[0].name.endswith(".mx.example.org,S=19,W=22:2,FRS")
    assert {stat.S_IMODE(path.stat().st_mode) for path in found} == {0o600}
    assert [place for place, _ in shown(box)] == ["cur/FRS", "cur/", "new/", "cur/"]
    assert not list(box.glob("tmp/*"))


def test_a_tree_with_folders(tool: Any, box: Path, source: Path) -> None:
    put(source, "cur/1.a:2,S", b"a: inbox\n\n")
    put(source / ".Sent", "cur/1.a:2,S", b"a: sent\n\n")
    put(source / ".Archive.2024", "new/1.a", b"a: archive\n\n")
    put(source / ".Entw&APw-rfe", "cur/1.a:2,DS", b"a: draft\n\n")
    (source / ".no-maildir").mkdir()
    assert tool("import", ADDRESS, str(source)).status == 0
    assert {(path.parent.parent.name, path.read_bytes()) for path in files(box)} == {
        ("alice", b"a: inbox\n\n"),
        (".Sent", b"a: sent\n\n"),
        (".Archive.2024", b"a: archive\n\n"),
        (".Entw&APw-rfe", b"a: draft\n\n"),
    }
    assert (box / ".Sent" / "maildirfolder").exists()
    assert (box / ".Sent" / "tmp").is_dir()
    assert len(shown(box)) == 1
    # Everything below one folder.
    assert tool("import", ADDRESS, str(source), "--folder", "Old/Mail").status == 0
    assert contents(box / ".Old.Mail.Sent") == [b"a: sent\n\n"]
    assert contents(box / ".Old.Mail") == [b"a: inbox\n\n"]


def test_plain_folders_of_a_dovecot(tool: Any, box: Path, source: Path) -> None:
    put(source, "cur/1.a:2,S", b"a: inbox\n\n")
    put(source / "Sent", "cur/1.a:2,S", b"a: sent\n\n")
    put(source / "Archive" / "2024", "cur/1.a:2,S", b"a: archive\n\n")
    assert tool("import", ADDRESS, str(source)).status == 0
    assert contents(box / ".Sent") == [b"a: sent\n\n"]
    assert contents(box / ".Archive.2024") == [b"a: archive\n\n"]


MBOX = b"""From bob@example.net Mon Jan  1 10:04:05 2024
Subject: one
Status: RO
X-Status: A

>From me
it goes on

From bob@example.net Mon Jan  1 10:04:05 2024
Subject: two

again

From bob@example.net Mon Jan  1 10:04:05 2024
Subject: two

again

"""


def test_an_mbox_file(tool: Any, box: Path, source: Path) -> None:
    source.write_bytes(MBOX)
    ran = tool("import", ADDRESS, str(source))
    assert (ran.status, ran.err) == (0, "")
    assert sorted(contents(box)) == [b"Subject: one\n\nFrom me\nit goes on\n"] + [b"Subject: two\n\nagain\n"] * 2
    assert [place for place, _ in shown(box)] == ["cur/RS", "new/", "new/"]
    assert {path.stat().st_mtime for path in files(box)} == {1704103445}
    assert {path.name[:17] for path in files(box)} == {f"1704103445.00000{n}" for n in range(3)}
    # Two that are alike are two, but not four after the next time.
    ran = tool("import", ADDRESS, str(source))
    assert ran.out == "Imported 0 messages (0 octets) for alice@example.org; 3 were there already.\n"
    assert len(files(box)) == 3


def test_an_mbox_that_has_grown_and_lost(tool: Any, box: Path, source: Path) -> None:
    source.write_bytes(MBOX)
    tool("import", ADDRESS, str(source))
    grown = MBOX.partition(b"again\n\n")[2] + b"From bob@example.net Tue Jan  2 10:04:05 2024\nSubject: three\n\nx\n\n"
    source.write_bytes(grown.replace(b"Subject: two\n", b"Subject: two\nStatus: RO\n"))
    assert "Imported 1 message" in tool("import", ADDRESS, str(source)).out
    assert len(files(box)) == 4


def test_dates_where_the_from_line_has_none(tool: Any, box: Path, source: Path) -> None:
    source.write_bytes(
        b"From a\nReceived: from b by c;\n Mon, 1 Jan 2024 10:04:05 +0000\nDate: Sun, 31 Dec 2023 00:00:00 +0000\n\nx\n"
    )
    tool("import", ADDRESS, str(source))
    source.write_bytes(b"From a\nDate: Sun, 31 Dec 2023 00:00:00 +0100\n\nx\n")
    tool("import", ADDRESS, str(source))
    source.write_bytes(b"From a\nDate: when it was\n\nx\n")
    os.utime(source, (OLD, OLD))
    tool("import", ADDRESS, str(source))
    assert [path.name[:10] for path in files(box)] == [str(OLD), "1703977200", "1704103445"]


UIDLIST = "3 V1700000000 N4 G0\n1 :1500000000.M1P1.old,S=9:2,S\n2 Pgiven :1500000001.M2P2.old\n"


def test_unique_ids_of_a_dovecot_stay(tool: Any, box: Path, source: Path) -> None:
    put(source, "cur/1500000000.M1P1.old,S=9:2,FS")
    put(source, "new/1500000001.M2P2.old")
    put(source, "new/1500000002.M3P3.old")
    put(source / ".Sent", "cur/1500000000.M1P1.old,S=9:2,FS")
    (source / "dovecot-uidlist").write_text(UIDLIST)
    (source / ".Sent" / "dovecot-uidlist").write_text(UIDLIST)
    ran = tool("import", ADDRESS, str(source))
    assert (ran.status, ran.err) == (0, "")
    (first, uidl), (second, given), (_, own) = shown(box)
    assert (first, uidl, second, given) == ("cur/FS", "000000016553f100", "new/", "given")
    assert own.startswith("1500000002.")
    assert len((box / uidls.FILE).read_text().splitlines()) == 2
    # The next time nothing changes.
    before = shown(box), (box / uidls.FILE).read_text()
    assert tool("import", ADDRESS, str(source)).status == 0
    assert (shown(box), (box / uidls.FILE).read_text()) == before


def test_the_order_of_the_old_server_stays_within_a_second(tool: Any, box: Path, source: Path) -> None:
    names = ["M999P1", "M1000P1", "M10P2", "M2P2", "z", "a"]
    for name in names:
        put(source, f"cur/1500000000.{name}:2,S", name.encode() + b": x\n\n")
    tool("import", ADDRESS, str(source))
    assert [content.partition(b":")[0] for content in contents(box)] == [
        b"M2P2",
        b"M10P2",
        b"M999P1",
        b"M1000P1",
        b"a",
        b"z",
    ]
    lines = "".join(f"{uid} :1500000000.{name}\n" for uid, name in enumerate(names, 1))
    (source / "dovecot-uidlist").write_text(f"3 V1700000000 N9 G0\n{lines}")
    tool("import", "bob@example.org", str(source))
    assert [uidl for _, uidl in shown(box.parent / "bob")] == [f"{uid:08x}6553f100" for uid in range(1, 7)]


def test_another_format_of_unique_ids(tool: Any, box: Path, source: Path) -> None:
    put(source, "cur/1500000000.M1P1.old,S=9:2,FS")
    (source / "dovecot-uidlist").write_text(UIDLIST)
    assert tool("import", ADDRESS, str(source), "--uidl-format", "%v.%u").status == 0
    assert shown(box) == [("cur/FS", "1700000000.1")]
    assert "pop3_uidl_format" in tool("import", ADDRESS, str(source), "--uidl-format", "%m").err


def test_unique_ids_of_a_courier_stay(tool: Any, box: Path, source: Path) -> None:
    put(source, "cur/1500000000.M1P1.old,S=9:2,S")
    put(source, "cur/1500000001.M2P2.old,S=9:2,")
    (source / "courierpop3dsizelist").write_text(
        "/3 9 1700000000\n1500000000.M1P1.old,S=9:2, 17 7:1700000000:0\n1500000001.M2P2.old,S=9:2, 17 0:0:0\n"
    )
    assert tool("import", ADDRESS, str(source)).status == 0
    assert shown(box) == [("cur/S", "UID7-1700000000"), ("cur/", "1500000001.M2P2.old,S=9")]


def test_the_list_that_was_written_last_counts(tool: Any, box: Path, source: Path) -> None:
    put(source, "cur/1500000000.M1P1.old,S=9:2,S")
    (source / "courierpop3dsizelist").write_text("/2 9 17\n1500000000.M1P1.old,S=9:2, 17 7:17\n")
    (source / "dovecot-uidlist").write_text(UIDLIST)
    os.utime(source / "courierpop3dsizelist", (OLD, OLD))
    tool("import", ADDRESS, str(source))
    assert shown(box) == [("cur/S", "000000016553f100")]


def test_unique_ids_that_cannot_be_kept_are_reported(tool: Any, box: Path, source: Path) -> None:
    for n in range(4):
        put(source, f"cur/150000000{n}.M.old:2,S")
    (source / "dovecot-uidlist").write_text(
        "3 V1700000000 N9 G0\n1 Ptwice :1500000000.M.old\n2 Ptwice :1500000001.M.old\n"
        f"3 P{'x' * 71} :1500000002.M.old\n4 P{'x' * 70} :1500000003.M.old\n"
    )
    ran = tool("import", ADDRESS, str(source))
    assert ran.status == 1
    assert ran.out == "Imported 4 messages (68 octets) for alice@example.org; 2 problems, named above.\n"
    assert "1500000001.M.old:2,S: its POP3 unique-id is not kept: twice is that of another message.\n" in ran.err
    assert "is not 1 to 70 printable characters.\n" in ran.err
    found = [uidl for _, uidl in shown(box)]
    assert (found[0], found[3]) == ("twice", "x" * 70)
    assert len(set(found)) == 4
    # One that a message here has got meanwhile is not given away either.
    put(source, "cur/1500000009.M.old:2,S")
    (source / "dovecot-uidlist").write_text(f"3 V1 N9 G0\n1 P{found[1]} :1500000009.M.old\n")
    assert "is that of another message" in tool("import", ADDRESS, str(source)).err


def test_a_list_of_unique_ids_that_is_none_is_reported(tool: Any, box: Path, source: Path) -> None:
    put(source, "cur/1500000000.M.old:2,S")
    (source / "dovecot-uidlist").write_text("garbage")
    ran = tool("import", ADDRESS, str(source))
    assert ran.status == 1
    assert "the list of POP3 unique-ids cannot be used: it does not begin as a dovecot-uidlist does." in ran.err
    assert len(files(box)) == 1


def test_again_nothing_is_doubled_whatever_became_of_it(tool: Any, box: Path, source: Path) -> None:
    for n in range(5):
        put(source, f"cur/150000000{n}.M.old:2,S", b"a: %d\n\n" % n)
    tool("import", ADDRESS, str(source))
    one, two, three, *_ = files(box)
    one.unlink()
    two.rename(f"{two}F")
    (box / ".Trash" / "cur").mkdir(parents=True)
    three.rename(box / ".Trash" / "cur" / three.name)
    put(source, "cur/1500000004.M.old:2,FRS", b"a: 4\n\n")
    (source / "cur/1500000004.M.old:2,S").unlink()
    put(source, "new/1500000005.M.old", b"a: 5\n\n")
    ran = tool("import", ADDRESS, str(source))
    assert ran.status == 0
    assert ran.out == (
        "Imported 1 message (6 octets) for alice@example.org; 3 were there already; "
        "2 had been imported before and deleted since (--again brings them back).\n"
    )
    assert sorted(contents(box)) == [b"a: %d\n\n" % n for n in (1, 2, 3, 4, 5)]
    assert "Imported 2 messages" in tool("import", ADDRESS, str(source), "--again").out


def test_a_name_that_two_maildirs_share_does_not_make_two_messages_one(tool: Any, box: Path, tmp_path: Path) -> None:
    put(tmp_path / "one", "cur/1.a:2,S", b"a: one\n\n")
    put(tmp_path / "two", "cur/1.a:2,S", b"a: two\n\n")
    put(tmp_path / "two", "cur/2.a:2,S", b"a: two\n\n")
    tool("import", ADDRESS, str(tmp_path / "one"), str(tmp_path / "two"))
    assert sorted(contents(box)) == [b"a: one\n\n", b"a: two\n\n", b"a: two\n\n"]


def test_what_cannot_be_read_is_reported_and_the_rest_is_taken(
    tool: Any, box: Path, source: Path, tmp_path: Path
) -> None:
    put(source, "cur/1500000000.M.old:2,S")
    put(source, "cur/1500000001.empty:2,S", b"")
    put(source, "cur/1500000002.locked:2,S", b"CRYPTED\x03\x07xyz")
    (source / "cur/link").symlink_to("/etc/passwd")
    (source / "cur/folder").mkdir()
    (source / ".dotfile").write_text("x")
    (source / "cur/.hidden").write_text("x")
    put(tmp_path / "other", "cur/1.secret:2,S")
    (source / ".linked").symlink_to(tmp_path / "other")
    (tmp_path / "text").write_text("Subject: x\n\n")
    (tmp_path / "empty").mkdir()
    ran = tool("import", ADDRESS, *(str(tmp_path / name) for name in ("source", "text", "missing", "empty")))
    assert ran.status == 1
    assert sorted(line.removeprefix(f"mailsrv: {tmp_path}") for line in ran.err.splitlines()) == [
        "/empty is no Maildir: there is no cur in it.",
        "/missing does not exist.",
        "/source/.linked is a symbolic link, which is not followed.",
        "/source/cur/1500000001.empty:2,S is empty.",
        "/source/cur/1500000002.locked:2,S is encrypted; let doveadm write it in clear first.",
        "/source/cur/folder cannot be read: not a regular file.",
        "/source/cur/link is a symbolic link, which is not followed.",
        "/text is no mbox file: it does not begin with a From_ line.",
    ]
    assert len(files(box)) == 1


def test_control_characters_of_names_do_not_reach_the_terminal(tool: Any, box: Path, source: Path) -> None:
    put(source, "cur/1.\x1b[2J:2,S", b"")
    assert "\\x1b[2J" in tool("import", ADDRESS, str(source)).err


def test_json(tool: Any, box: Path, source: Path) -> None:
    put(source, "cur/1.a:2,S")
    put(source, "cur/2.a:2,S", b"")
    ran = tool("import", ADDRESS, str(source), "--json")
    assert ran.status == 1
    assert json.loads(ran.out) == {
        "imported": 1,
        "octets": 17,
        "present": 0,
        "removed": 0,
        "interrupted": False,
        "problems": [{"origin": f"{source}/cur/2.a:2,S", "problem": "is empty"}],
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("carol@example.org", "x"), "mailsrv account add carol@example.org"),
        (("alice+tag@example.org", "x"), "is not an account"),
        (("alice", "x"), "is not an address"),
        ((ADDRESS, "x", "--folder", "a//b"), "--folder: "),
    ],
)
def test_wrong_use(tool: Any, box: Path, arguments: Sequence[str], words: str) -> None:
    ran = tool("import", *arguments)
    assert ran.status == 1
    assert words in ran.err
    assert ran.err.count("\n") == 1
    assert not box.exists()


def test_a_mailbox_is_not_imported_into_itself(tool: Any, box: Path) -> None:
    put(box, "cur/1.a:2,S")
    ran = tool("import", ADDRESS, f"{box}/")
    assert ran.status == 1
    assert "is the mailbox itself" in ran.err
    assert len(files(box)) == 1


def test_keywords_come_with_what_they_mean(tool: Any, box: Path, source: Path) -> None:
    put(source, "cur/1.a:2,Sab")
    (source / "dovecot-keywords").write_text("0 $Label1\n1 NonJunk\n")
    put(source / ".Sent", "cur/1.a:2,Sc", b"a: b\n\n")
    assert tool("import", ADDRESS, str(source)).status == 0
    assert (box / "dovecot-keywords").read_text() == "0 $Label1\n1 NonJunk\n"
    assert [path.name.partition(":2,")[2] for path in files(box)] == ["S", "Sab"]
    # Where they have other letters already, these are used.
    (box / "dovecot-keywords").write_text("3 NonJunk\n")
    put(source, "cur/2.a:2,Sab", b"a: b\n\n")
    ran = tool("import", ADDRESS, str(source))
    assert ran.status == 1
    assert "INBOX: the keywords $Label1 are not kept.\n" in ran.err
    assert sorted(path.name.partition(":2,")[2] for path in files(box)) == ["S", "Sab", "Sd"]


def test_an_export_of_ours_keeps_its_names(tool: Any, box: Path, source: Path) -> None:
    own = "1764000000.Q1J4BS1D7M00N0.mx.example.org"
    put(source, f"cur/{own},S=6,W=8:2,S", b"a: b\n\n")
    (source / "dovecot-uidlist").write_text(f"3 V1 N2 G0\n1 P{own} :{own},S=6,W=8\n")
    tool("import", ADDRESS, str(source))
    assert [path.name for path in files(box)] == [f"{own},S=6,W=8:2,S"]
    assert shown(box) == [("cur/S", own)]
    assert not (box / uidls.FILE).exists()
    assert "1 was there already" in tool("import", ADDRESS, str(source)).out


def test_the_quota_file_of_maildir_is_kept(tool: Any, box: Path, source: Path) -> None:
    maildir.ensure(DISK, str(box))
    (box / "maildirsize").write_text("1000000S\n100 1\n")
    put(source, "cur/1.a:2,S", b"a: b\n\n")
    put(source, "cur/2.a:2,ST", b"a: deleted\n\n")
    put(source / ".Trash", "cur/1.a:2,S", b"a: trash\n\n")
    put(source / ".Sent", "cur/1.a:2,S", b"a: sent\n\n")
    tool("import", ADDRESS, str(source))
    assert (box / "maildirsize").read_text() == "1000000S\n100 1\n15 2\n"


def test_what_an_import_that_was_killed_left_is_no_hindrance(tool: Any, box: Path, source: Path) -> None:
    put(source, "cur/1.a:2,S", b"a: b\n\n")
    tool("import", ADDRESS, str(source))
    (path,) = files(box)
    name = path.name.partition(":")[0]
    # As if it had ended before the rename, and while it wrote its notes.
    path.unlink()
    (box / "tmp" / name).write_bytes(b"a: ")
    (box / MARKS).write_text("ABCDEF")
    assert tool("import", ADDRESS, str(source)).status == 0
    assert contents(box) == [b"a: b\n\n"]
    assert not list(box.glob("tmp/*"))
    assert len((box / MARKS).read_text().splitlines()[-1]) == 20


def letter(n: int, content: bytes = b"a: b\n\n") -> Letter:
    return Letter("", content, b"%d" % n, OLD, float(OLD), "S", False, f"uidl-{n}", "", "here", len(content))


def test_a_failing_disk_leaves_whole_messages_only(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Filesystem):
        syncs = 0

        def sync_all(self, folders: Any) -> None:
            self.syncs += 1
            if self.syncs == 2:
                raise OSError(errno.EIO, "broken")
            super().sync_all(folders)

    monkeypatch.setattr("mailsrv.store.migration.placing.BATCH", 3)
    with pytest.raises(OSError, match="broken"), Placing(Failing(), str(box), "mx.example.org") as placing:
        for n in range(9):
            placing.place(letter(n))
    # The first batch is there; of the second, whose sync failed, nothing.
    assert len(files(box)) == 3
    assert not list(box.glob("tmp/*"))
    assert (box / MARKS).read_text() == ""
    with Placing(DISK, str(box), "mx.example.org") as placing:
        assert [placing.place(letter(n)).how for n in range(9)] == ["present"] * 3 + ["imported"] * 6
    assert sorted(uidl for _, uidl in shown(box)) == [f"uidl-{n}" for n in range(9)]
    assert len(set((box / MARKS).read_text().split())) == 6


def test_a_message_is_seen_only_when_it_is_durable_with_its_unique_id(box: Path) -> None:
    class Watching(Filesystem):
        def __init__(self) -> None:
            super().__init__()
            self.durable: set[str] = set()

        def sync_all(self, folders: Any) -> None:
            assert str(box) in folders
            self.durable = {path.name for path in box.glob("tmp/*")}
            self.given = uidls.read(self, str(box))

        def rename(self, source: str, target: str) -> None:
            assert os.path.basename(source) in self.durable
            assert maildir.unique_part(os.path.basename(source)) in self.given
            super().rename(source, target)

    with Placing(Watching(), str(box), "mx.example.org") as placing:
        for n in range(600):
            assert placing.place(letter(n)) == Placed("imported")
    assert len(files(box)) == 600


def test_one_import_at_a_time(tool: Any, box: Path, source: Path) -> None:
    put(source, "cur/1.a:2,S")
    box.mkdir(parents=True)
    with (box / MARKS).open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        ran = tool("import", ADDRESS, str(source))
    assert ran.status == 1
    assert ran.err == "mailsrv: another import into the mailbox of alice@example.org is at work.\n"
    assert files(box) == []


def test_interrupted_and_gone_on_with(tool: Any, box: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(20):
        put(source, f"cur/15000000{n:02}.M.old:2,S", b"a: %d\n\n" % n)
    before = signal.getsignal(signal.SIGINT)
    place = import_mail._place
    seen: list[Letter] = []

    def interrupted(letter: Letter, *others: Any) -> None:
        seen.append(letter)
        if len(seen) == 7:
            signal.raise_signal(signal.SIGINT)
        place(letter, *others)

    monkeypatch.setattr(import_mail, "_place", interrupted)
    ran = tool("import", ADDRESS, str(source))
    assert ran.status == 1
    assert ran.err == "mailsrv: interrupted; run it again to go on.\n"
    assert "Imported 7 messages" in ran.out
    assert len(files(box)) == 7
    assert signal.getsignal(signal.SIGINT) is before
    assert "Imported 13 messages" in tool("import", ADDRESS, str(source)).out
    assert sorted(contents(box)) == sorted(b"a: %d\n\n" % n for n in range(20))


def test_a_mailbox_may_be_a_link_and_nothing_in_it(tool: Any, box: Path, source: Path, tmp_path: Path) -> None:
    put(source, "cur/1.a:2,S")
    box.parent.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    box.symlink_to(tmp_path / "elsewhere")
    assert tool("import", ADDRESS, str(source)).status == 0
    assert len(files(tmp_path / "elsewhere")) == 1
    put(source / ".Sent", "cur/1.a:2,S")
    (tmp_path / "foreign").mkdir()
    (box / ".Sent").symlink_to(tmp_path / "foreign")
    ran = tool("import", ADDRESS, str(source))
    assert ran.status == 1
    assert "Not a directory" in ran.err
    assert list((tmp_path / "foreign").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_everything_gets_the_owner_of_its_folder(tool: Any, box: Path, source: Path, folder: Path) -> None:
    put(source, "cur/1.a:2,S")
    put(source / ".Sent", "cur/1.a:2,Sa")
    (source / "dovecot-uidlist").write_text("3 V1 N2 G0\n1 :1.a\n")
    (source / ".Sent" / "dovecot-keywords").write_text("0 x\n")
    (folder / "state").mkdir()
    os.chown(folder / "state", 12345, 54321)
    assert tool("import", ADDRESS, str(source)).status == 0
    made = list((folder / "state").rglob("*"))
    assert len(made) > 15
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(12345, 54321)}


def test_a_bar_on_a_terminal(tool: Any, box: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(10):
        put(source, f"cur/{n}.a:2,S", b"a: %d\n\n" % n)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    ran = tool("import", ADDRESS, str(source))
    assert "[###############               ]  50%  5 messages" in ran.err
    assert ran.err.endswith("\r\x1b[K")
