"""Opening mailboxes: what is remembered of them, in memory and on disk, and when it is not believed."""

from __future__ import annotations

import errno
import os
import time
import zlib
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from mailsrv.outside.filesystem import Filesystem
from mailsrv.outside.interfaces import FileStatus, Output
from mailsrv.store.mailbox import index_file, listing, mailboxes, maildir, uidls
from mailsrv.store.mailbox.mailboxes import MailboxSession, MailStore
from mailsrv.store.mailbox.snapshot import Snapshot
from tests.worlds.worker import ImmediateWorker

LATER_S = 10.0  # by then a change of now is old


class Disk(Filesystem):
    """The real disk, and what was asked of it.

    With ``ages``, the time of a change is different for each content and long ago, so that no test has to wait until
    the real clock of the disk has moved on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.listed = 0
        self.opened: list[str] = []
        self.broken: set[str] = set()
        self.ages = True

    def status(self, path: str) -> FileStatus:
        found = super().status(path)
        if not self.ages:
            return found
        content = "/".join(sorted(os.listdir(path))).encode() if found.kind == "directory" else b"x" * found.size
        return replace(found, changed=1.0 + (zlib.crc32(content) >> 4))

    def list(self, path: str) -> list[str]:
        self.listed += 1
        return super().list(path)

    def open(self, path: str) -> Any:
        self.opened.append(os.path.basename(path))
        return super().open(path)

    def create(self, path: str) -> Any:
        if "create" in self.broken:
            raise OSError(errno.ENOSPC, "No space left on device")
        output = super().create(path)
        return Full(output) if "write" in self.broken else output


class Full:
    """A file on a disk that is full."""

    def __init__(self, output: Output) -> None:
        self.close = output.close

    def write(self, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


class Outside:
    """``ahead_s``: how far the clock is ahead of that of the disk."""

    def __init__(self) -> None:
        self.filesystem: Any = Disk()
        self.ahead_s = LATER_S

    def wall(self) -> float:
        return time.time() + self.ahead_s

    def worker(self, name: str, threads: int = 1) -> ImmediateWorker:
        return ImmediateWorker()


class World:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.outside = Outside()
        self.start()
        self.box = root / "example.org" / "alice"
        maildir.ensure(self.disk, str(self.box))

    def start(self) -> None:
        """The server, with nothing in its memory."""
        self.store = MailStore(self.outside, str(self.root), lambda mailbox: None)  # type: ignore[arg-type]

    @property
    def disk(self) -> Disk:
        disk: Disk = self.outside.filesystem
        return disk

    def put(self, name: str, content: bytes = b"Subject: x\n\nx\n") -> None:
        (self.box / name).write_bytes(content)

    def fill(self, messages: int) -> None:
        for n in range(messages):
            self.put(f"new/{maildir.file_name(f'{1764000000 + n}.Q1J4BS1D7M00N{n}.mx.example.org', 14, 17)}")

    def open(self, mailbox: str = "alice@example.org") -> MailboxSession:
        opened: list[Any] = []
        Deferred.fromCoroutine(self.store.open(mailbox)).addBoth(opened.append)
        [session] = opened
        assert isinstance(session, MailboxSession), session
        session.release()
        return session

    def look(self) -> tuple[Snapshot, int]:
        """What opening shows, and how many folders were listed for it."""
        before = self.disk.listed
        return self.open().messages, self.disk.listed - before


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(mailboxes, "INDEXED", 10)
    return World(tmp_path)


def test_a_mailbox_that_has_not_changed_is_not_listed_again(world: World) -> None:
    world.fill(3)
    first, listed = world.look()
    assert listed == 2
    second, listed = world.look()
    assert listed == 0
    assert second.messages == first.messages


@pytest.mark.parametrize("change", ["deliver", "remove", "flag", "move", "give a unique-id"])
def test_every_change_is_seen(world: World, change: str) -> None:
    world.fill(20)
    world.look()
    name = maildir.file_name("1764000003.Q1J4BS1D7M00N3.mx.example.org", 14, 17)
    if change == "deliver":
        world.put("new/1764000099.M1.host")
    elif change == "remove":
        (world.box / "new" / name).unlink()
    elif change in ("flag", "move"):
        os.rename(world.box / "new" / name, world.box / "cur" / f"{name}:2,S")
    else:
        uidls.add(str(world.box), {"1764000003.Q1J4BS1D7M00N3.mx.example.org": "other"})
    found, listed = world.look()
    assert listed == 2
    assert found.messages == listing.scan(Filesystem(), str(world.box)).messages
    world.start()
    assert world.look()[0].messages == found.messages


def test_a_folder_that_has_just_changed_is_not_believed(world: World) -> None:
    world.disk.ages = False
    world.outside.ahead_s = 1.0  # a change of the same second would not show on every disk
    world.fill(20)
    assert world.look()[1] == 2
    assert world.look()[1] == 2
    world.outside.ahead_s = -3600.0  # nor is one from the future
    assert world.look()[1] == 2
    assert not (world.box / index_file.FILE).exists()
    world.put("new/1.foreign.host")
    assert world.look()[1] == 2
    assert (world.box / index_file.FILE).exists(), "what was measured is kept all the same"
    world.start()
    assert world.look()[1] == 2
    world.outside.ahead_s = LATER_S
    assert world.look()[1] == 2
    assert world.look()[1] == 0


def test_a_large_mailbox_is_known_after_a_restart(world: World) -> None:
    world.fill(20)
    world.put("new/1.foreign.host", b"no line end")
    (world.box / "new/2.folder.host").mkdir()
    uidls.add(str(world.box), {"1764000003.Q1J4BS1D7M00N3.mx.example.org": "given"})
    before, _ = world.look()
    world.start()
    after, listed = world.look()
    assert listed == 0
    assert after.messages == before.messages
    assert (after.octets, after.problems) == (before.octets, before.problems)
    assert after.measured_sizes() == before.measured_sizes() == {"1.foreign.host": 13}
    assert len(after.problems) == 1


def test_a_small_mailbox_leaves_nothing_behind(world: World) -> None:
    world.fill(9)
    world.look()
    assert sorted(os.listdir(world.box)) == ["cur", "new", "tmp"]


@pytest.mark.parametrize("settled", [True, False])
def test_a_message_that_had_to_be_read_is_read_once(world: World, settled: bool) -> None:
    world.fill(2)
    if not settled:
        world.disk.ages = False
        world.outside.ahead_s = 0.0
    for n in range(5):
        world.put(f"new/{n}.foreign.host")
        world.disk.opened.clear()
        assert len(world.look()[0]) == 3 + n
        assert [name for name in world.disk.opened if "foreign" in name] == [f"{n}.foreign.host"]
        world.start()
        world.disk.opened.clear()
        assert len(world.look()[0]) == 3 + n
        assert index_file.FILE in world.disk.opened
        assert not any("foreign" in name for name in world.disk.opened)


def test_what_was_measured_is_still_known_when_other_mail_has_come_and_gone(world: World) -> None:
    world.put("new/1.foreign.host", b"\n" * 100)
    world.put("new/2.foreign.host")
    world.look()
    index = os.stat(world.box / index_file.FILE).st_ino
    os.rename(world.box / "new/1.foreign.host", world.box / "cur/1.foreign.host:2,S")
    (world.box / "new/2.foreign.host").unlink()
    world.fill(5)
    for _ in range(2):
        world.disk.opened.clear()
        assert world.look()[0].size(0) == 200
        assert not any("foreign" in name for name in world.disk.opened)
        world.start()
    assert os.stat(world.box / index_file.FILE).st_ino == index, "it says nothing new"


def test_what_was_measured_is_known_when_no_memory_was_left_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailboxes, "REMEMBERED_OCTETS", 0)
    world.put("new/1.foreign.host")
    world.look()
    world.disk.opened.clear()
    world.look()
    assert world.disk.opened == [index_file.FILE]


def test_copies_are_no_reason_to_write_an_index_again(world: World) -> None:
    world.put("new/1.foreign.host")
    world.put("cur/1.foreign.host:2,S", b"longer\n" * 9)
    world.look()
    assert not (world.box / index_file.FILE).exists()
    world.put("new/2.foreign.host")
    world.look()
    index = os.stat(world.box / index_file.FILE).st_ino
    world.fill(1)
    world.look()
    assert os.stat(world.box / index_file.FILE).st_ino == index
    assert sorted(world.look()[0].sizes) == [17, 17, 17, 72]


def test_what_is_learnt_is_kept(world: World) -> None:
    world.fill(20)
    world.open().learn(4, 99)
    again, listed = world.look()
    assert (again.size(4), again.octets, listed) == (99, 19 * 17 + 99, 0)
    world.start()
    again, listed = world.look()
    assert (again.size(4), again.octets, listed) == (99, 19 * 17 + 99, 0)
    world.put("new/9.foreign.host")
    assert world.look()[0].size(5) == 99


@pytest.mark.parametrize("broken", ["create", "write"])
@pytest.mark.parametrize("size", ["large", "small"])
def test_an_index_that_cannot_be_kept_is_no_trouble(world: World, broken: str, size: str) -> None:
    if size == "large":
        world.fill(20)
    else:
        world.put("new/1.foreign.host")
    world.disk.broken.add(broken)
    count = len(world.look()[0])
    assert count == (20 if size == "large" else 1)
    world.fill(3)
    world.look()
    assert sorted(os.listdir(world.box)) == ["cur", "new", "tmp"]
    world.disk.broken.clear()
    world.look()
    assert (world.box / index_file.FILE).exists()


def test_an_index_that_is_damaged_is_as_if_it_were_not_there(world: World) -> None:
    world.fill(20)
    expected = world.look()[0].messages
    path = world.box / index_file.FILE
    whole = path.read_bytes()
    damaged = [whole[:length] for length in range(0, len(whole), 37)]
    damaged += [
        whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :] for at in range(0, len(whole), 11) for bit in (1, 128)
    ]
    damaged += [b"\0" * len(whole), whole + b"x", b"mailsrv index 1\n[]\n", b"mailsrv index 1\n{}\n"]
    for data in damaged:
        path.write_bytes(data)
        world.start()
        found, listed = world.look()
        assert found.messages == expected
        assert listed in (0, 2)


def test_an_index_leads_nowhere_out_of_the_mailbox(world: World) -> None:
    world.fill(20)
    world.put("new/../../secret")
    snapshot, _ = world.look()
    forged = Snapshot(
        snapshot.names.replace(b"n1764000000.Q1J4BS1D7M00N0.mx.example.org,S=14,W=17", b"n../../secret" + b"x" * 40),
        snapshot.starts,
        snapshot.sizes,
        snapshot.octets,
        snapshot.measured,
        {},
        stamp=snapshot.stamp,
    )
    index_file.write(world.disk, str(world.box), forged)
    world.start()
    found, listed = world.look()
    assert listed == 2
    assert ".." not in found.path(0)


def forged(snapshot: Snapshot, **changed: Any) -> Snapshot:
    """An index as another program might write it, with a checksum that is right."""
    parts = ("names", "starts", "sizes", "octets", "measured", "uidls", "problems", "stamp")
    return Snapshot(**{part: getattr(snapshot, part) for part in parts} | changed)


def forgeries(true: Snapshot) -> list[Snapshot]:
    few, many = array("I", true.starts[:-1]), array("I", [*true.starts, 0])
    return [
        forged(true, names=true.names.replace(b"\0", b"x")),
        forged(true, names=true.names[:-1]),
        forged(true, names=b"x" + true.names[1:]),
        forged(true, names=true.names.replace(b"\0n", b"\0", 1)),
        forged(true, starts=few),
        forged(true, starts=many),
        forged(true, starts=array("I", [true.starts[0] + 1, *true.starts[1:]])),
        forged(true, starts=array("I", [4_000_000_000] * len(true))),
        forged(true, sizes=array("Q", true.sizes[:-1])),
        forged(true, sizes=array("Q", [*true.sizes, 17])),
        forged(true, octets=true.octets + 1),
        forged(true, measured=array("I", [len(true)])),
        forged(true, uidls={len(true): "x"}),
        forged(true, uidls={0: "x\r\n.\r\n-ERR"}),
        forged(true, uidls={0: ""}),
    ]


def test_a_forged_index_is_as_if_it_were_not_there(world: World) -> None:
    world.fill(20)
    true = world.look()[0]
    expected = true.messages
    for index in forgeries(true):
        index_file.write(world.disk, str(world.box), index)
        world.start()
        found, listed = world.look()
        assert (found.messages, found.octets, listed) == (expected, true.octets, 2)


def test_a_forged_index_of_an_older_state_is_as_if_it_were_not_there(world: World) -> None:
    world.fill(20)
    true = world.look()[0]
    expected = true.messages
    for index in forgeries(true):
        index.stamp = (1.0, 1.0, 1.0)
        index_file.write(world.disk, str(world.box), index)
        world.start()
        assert world.look()[0].messages == expected


def test_an_index_of_nothing_but_brackets_is_as_if_it_were_not_there(world: World) -> None:
    world.fill(20)
    expected = world.look()[0].messages
    (world.box / index_file.FILE).write_bytes(b"mailsrv index 1\n" + b"[" * 1_000_000 + b"\n")
    world.start()
    assert world.look()[0].messages == expected


def test_an_index_is_not_read_through_a_link(world: World, tmp_path: Path) -> None:
    world.fill(20)
    world.look()
    os.rename(world.box / index_file.FILE, tmp_path / "elsewhere")
    (world.box / index_file.FILE).symlink_to(tmp_path / "elsewhere")
    world.start()
    assert world.look()[1] == 2


def test_memory_is_bounded_over_all_mailboxes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.fill(20)
    monkeypatch.setattr(mailboxes, "REMEMBERED_OCTETS", 3 * world.open().messages.memory)
    for name in ("bob", "carol", "dave"):
        os.rename(world.box, world.box.parent / name)
        world.open(f"{name}@example.org")
        os.rename(world.box.parent / name, world.box)
    assert list(world.store._snapshots) == [f"{name}@example.org" for name in ("bob", "carol", "dave")]


def test_what_a_snapshot_says_of_itself(world: World) -> None:
    world.fill(3)
    world.put("cur/1764000001.Q1J4BS1D7M00N7.mx.example.org,S=14,W=18:2,S")
    world.put("cur/nödate")
    snapshot = world.open().messages
    assert len(snapshot) == 5
    assert snapshot.octets == sum(snapshot.sizes) == 4 * 17 + 18
    assert [snapshot.path(n)[:4] for n in range(5)] == ["cur/", "new/", "new/", "cur/", "new/"]
    assert snapshot.path(0) == "cur/nödate"
    assert list(snapshot.some_sizes(1, 4)) == [17, 17, 18]
    assert snapshot.unique_ids(0, 5) == [entry.uidl.encode() for entry in snapshot.messages]
    assert snapshot.unique_ids(5, 5) == []
    assert [entry.path for entry in snapshot.entries([3, 0])] == [snapshot.path(3), snapshot.path(0)]
    assert snapshot.memory > len(snapshot.names)


def test_many_messages_are_in_the_order_of_delivery(world: World) -> None:
    names = [f"{1764000000 + n * 7919 % 3000}.Q1J4BS1D7M00N{n}.mx.example.org,S=14,W={n + 20}" for n in range(3000)]
    for name in names:
        os.close(os.open(world.box / "new" / name, os.O_CREAT | os.O_WRONLY))
    snapshot = world.open().messages
    assert [snapshot.path(n)[4:] for n in range(3000)] == sorted(names)
    assert list(snapshot.sizes) == [int(name.rpartition("=")[2]) for name in sorted(names)]
