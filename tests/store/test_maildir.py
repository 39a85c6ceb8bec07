"""Maildirs: names, folders, snapshots, and what other programs do to them meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.outside.filesystem import Filesystem
from mailsrv.store.mailbox import listing, maildir
from mailsrv.store.mailbox.maildir import Name
from mailsrv.store.mailbox.snapshot import Entry, Snapshot

OWN = "1764000000.Q1J4BS1D7M00N0.mx.example.org"


class Box:
    """A mailbox on the real disk."""

    def __init__(self, root: Path) -> None:
        self.path = root / "mail" / "example.org" / "alice"
        self.filesystem = Filesystem()
        maildir.ensure(self.filesystem, str(self.path))

    def put(self, at: str, content: bytes = b"Subject: x\n\nx\n") -> None:
        (self.path / at).write_bytes(content)

    def scan(self, measured: dict[str, int] | None = None) -> Snapshot:
        return listing.scan(self.filesystem, str(self.path), measured)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_names() -> None:
    part = maildir.unique("1J4BS1D7M00", 0, 1764000000, "mx.example.org")
    assert part == OWN
    name = maildir.file_name(part, 10, 12)
    assert name == f"{OWN},S=10,W=12"
    assert maildir.parse(name) == Name(OWN, 10, 12, "")
    assert maildir.parse(f"{name}:2,FS") == Name(OWN, 10, 12, "FS")
    assert maildir.uidl(f"{name}:2,S") == maildir.uidl(name) == OWN


@pytest.mark.parametrize("hostname", ["a/b:c,d", "..", "mx\nx", "mäx", "", "x" * 300])
def test_a_hostname_cannot_spoil_a_name(hostname: str) -> None:
    part = maildir.unique("1J4BS1D7M00", 12, 1764000000, hostname)
    name = maildir.file_name(part, 10, 12)
    assert maildir.parse(name) == Name(part, 10, 12, "")
    assert "/" not in name
    assert name.isascii()
    assert name.isprintable()
    assert len(name) < 150
    assert 1 <= len(maildir.uidl(name)) <= 70


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("123.abc.host", Name("123.abc.host", None, None, "")),
        ("123.abc.host:2,", Name("123.abc.host", None, None, "")),
        ("123.abc.host,S=5:2,RS", Name("123.abc.host", 5, None, "RS")),
        ("123.abc.host,W=7,S=5", Name("123.abc.host", 5, 7, "")),
        ("123.abc,S=+5,W=1_0", Name("123.abc", None, None, "")),
        ("123.abc,S=٣", Name("123.abc", None, None, "")),
        ("123.abc,S=9999999999999999999999", Name("123.abc", None, None, "")),
        ("123.abc:1,S=3", Name("123.abc", None, None, "")),
        ("", Name("", None, None, "")),
    ],
)
def test_foreign_names(name: str, parsed: Name) -> None:
    assert maildir.parse(name) == parsed


@given(st.one_of(st.text(st.characters(codec="utf-8")), st.binary(max_size=100).map(os.fsdecode)))
def test_a_unique_id_is_always_printable_and_stable(name: str) -> None:
    identifier = maildir.uidl(name)
    assert 1 <= len(identifier) <= 70
    assert all("!" <= character <= "~" for character in identifier)
    assert maildir.uidl(maildir.unique_part(name) + ",S=1,W=1:2,S") == identifier


def test_ensure_is_repeatable_and_private(box: Box) -> None:
    maildir.ensure(box.filesystem, str(box.path))
    assert sorted(os.listdir(box.path)) == ["cur", "new", "tmp"]
    assert box.path.stat().st_mode & 0o777 == 0o700


def test_a_mailbox_may_be_a_link_and_nothing_in_it(tmp_path: Path) -> None:
    box = Box(tmp_path)
    linked = box.path.parent / "bob"
    linked.symlink_to(box.path)
    maildir.ensure(box.filesystem, str(linked))
    box.put(f"new/{OWN},S=1,W=2")
    assert len(listing.scan(box.filesystem, str(linked)).messages) == 1
    (box.path / "cur").rmdir()
    (box.path / "cur").symlink_to(tmp_path)
    for action in (maildir.ensure, listing.scan):
        with pytest.raises(NotADirectoryError):
            action(box.filesystem, str(box.path))


def test_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "alice").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        maildir.ensure(Filesystem(), str(tmp_path / "alice"))


def test_a_mailbox_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    assert listing.scan(Filesystem(), str(tmp_path / "nobody")).messages == ()


def test_a_snapshot_is_in_the_order_of_delivery(box: Box) -> None:
    box.put("cur/100.M1.host:2,S")
    box.put("new/20.M1.host")
    box.put("new/100.M0.host")
    box.put("cur/none:2,")
    box.put("tmp/1.M1.host")
    box.put("cur/.hidden")
    snapshot = box.scan()
    assert [message.uidl for message in snapshot.messages] == ["none", "20.M1.host", "100.M0.host", "100.M1.host"]
    assert [message.path for message in snapshot.messages][1:3] == ["new/20.M1.host", "new/100.M0.host"]
    assert snapshot.octets == sum(message.size for message in snapshot.messages) == 4 * 17
    assert snapshot.problems == ()


def test_moving_and_flagging_changes_neither_order_nor_ids(box: Box) -> None:
    for n in range(5):
        box.put(f"new/100.M{n}.host,S=14,W=17")
    before = box.scan()
    for n in (3, 1):
        os.rename(box.path / f"new/100.M{n}.host,S=14,W=17", box.path / f"cur/100.M{n}.host,S=14,W=17:2,FS")
    after = box.scan()
    assert [message.uidl for message in after.messages] == [message.uidl for message in before.messages]
    assert after.messages[3].path == "cur/100.M3.host,S=14,W=17:2,FS"


def test_sizes_of_ours_are_believed_and_those_of_others_measured(box: Box) -> None:
    box.put(f"new/{OWN},S=3,W=4")
    box.put("new/1764000001.M1.host,S=3,W=4")
    box.put("new/1764000002.M1.host", b"no line end")
    snapshot = box.scan()
    assert [message.size for message in snapshot.messages] == [4, 17, 13]
    assert snapshot.measured_sizes() == {"1764000001.M1.host": 17, "1764000002.M1.host": 13}


def test_what_was_measured_is_not_read_again(box: Box) -> None:
    box.put("new/1.M1.host", b"x\n")
    snapshot = box.scan({"1.M1.host": 99, "2.gone": 5})
    assert [message.size for message in snapshot.messages] == [99]
    assert snapshot.measured_sizes() == {"1.M1.host": 99}


def test_what_was_learnt_about_a_file_of_ours_counts(box: Box) -> None:
    box.put(f"new/{OWN},S=3,W=4")
    assert box.scan({OWN: 17}).messages[0].size == 17


def test_what_is_no_message_is_skipped_and_reported(box: Box) -> None:
    box.put("new/1.good.host")
    (box.path / "new/2.folder.host").mkdir()
    (box.path / "new/3.link.host").symlink_to("/etc/passwd")
    os.mkfifo(box.path / "cur/4.pipe.host")
    (box.path / "cur/5.dangling\x1b.host").symlink_to("nowhere")
    snapshot = box.scan()
    assert [message.uidl for message in snapshot.messages] == ["1.good.host"]
    assert len(snapshot.problems) == 4
    assert all(problem.isprintable() for problem in snapshot.problems)


def test_copies_of_one_message_get_ids_of_their_own(box: Box) -> None:
    box.put("new/1.a.host", b"new\n")
    box.put("cur/1.a.host:2,S", b"read, and longer\n")
    box.put("cur/1.a.host,S=5:2,S", b"five\n")
    first = box.scan()
    identifiers = [message.uidl for message in first.messages]
    assert len(set(identifiers)) == 3
    assert identifiers[0] == "1.a.host"
    assert box.scan(first.measured_sizes()).messages == first.messages
    assert sorted(message.size for message in first.messages) == [5, 6, 18]


def test_a_file_seen_twice_while_it_moves_counts_once(box: Box) -> None:
    class Moving(Filesystem):
        """Another program moves the mail between the listings of the folders."""

        def list(self, path: str) -> list[str]:
            names = super().list(path)
            if path.endswith("/new"):
                os.rename(f"{path}/{OWN},S=1,W=2", f"{path[:-3]}cur/{OWN},S=1,W=2:2,S")
            return names

    box.put(f"new/{OWN},S=1,W=2")
    [message] = listing.scan(Moving(), str(box.path)).messages
    assert message.path == f"cur/{OWN},S=1,W=2:2,S"


def test_names_that_are_not_utf_8(box: Box) -> None:
    with open(os.fsencode(box.path) + b"/new/1.\xff\xfe.host", "wb") as file:
        file.write(b"x\n")
    [message] = box.scan().messages
    assert message.size == 3
    assert len(message.uidl) == 40
    assert message.uidl.isascii()


def test_find(box: Box) -> None:
    box.put(f"cur/{OWN},S=1,W=2:2,S")
    box.put(f"cur/{OWN}0,S=1,W=2:2,S")
    path = str(box.path)
    assert maildir.find(box.filesystem, path, OWN) == f"cur/{OWN},S=1,W=2:2,S"
    assert maildir.find(box.filesystem, path, OWN[:-1]) is None
    assert maildir.locate(box.filesystem, path)[f"{OWN}0"] == f"cur/{OWN}0,S=1,W=2:2,S"


def test_remove_takes_messages_where_they_are_and_no_others(box: Box) -> None:
    for n in range(4):
        box.put(f"new/{n}.m.host")
    (box.path / "new/4.m.host").mkdir()
    entries = [*box.scan().messages, Entry("new/4.m.host", "4.m.host", "x", 0)]
    os.rename(box.path / "new/1.m.host", box.path / "cur/1.m.host:2,S")
    (box.path / "new/2.m.host").unlink()
    removed, problems = maildir.remove(box.filesystem, str(box.path), entries[1:])
    assert [entry.name for entry in removed] == ["3.m.host", "1.m.host"]
    assert len(problems) == 1
    assert sorted(os.listdir(box.path / "new")) == ["0.m.host", "4.m.host"]
    assert os.listdir(box.path / "cur") == []
