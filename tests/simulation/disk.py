"""A disk that forgets: what was not synced may be gone, kept or torn after a crash, as the seed says.

There are two views of each file and folder: what the running system sees, and what would be there after a power
failure.  ``sync`` carries the octets of a file over, ``sync_directory`` the names of a folder, ``sync_all`` everything.
As on ext4 and XFS a single change of names (create, rename, unlink, new folder) is atomic; beyond what was synced
each may have reached the disk or not, except that none does without those that it rests on.  A file whose octets
were not synced is whole, cut off anywhere (often at nothing) or full of zeros behind the cut.

After a failed sync the octets count as clean and are not: a second sync of the same file succeeds and stores
nothing, as Linux does.

``SimulatedFilesystem`` is the disk as the program sees it, by ``IFilesystem``; ``Disk`` is what outlasts the program.
"""

from __future__ import annotations

import errno
import os
import random
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from zope.interface import implementer

from mailsrv.outside.interfaces import CACHED_LIMIT, FileStatus, IFilesystem, Input, Output
from tests.simulation.timeline import Life

_NAME_MAX = 255
_MOST_LINKS = 8


@dataclass(slots=True, eq=False)
class File:
    octets: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    synced: bool = True  # nothing to carry over, or so the system believes
    suspect: bool = False  # a sync has failed
    modified: float = 0.0


@dataclass(slots=True, eq=False)
class Link:
    """A symbolic link."""

    target: str


@dataclass(slots=True, eq=False)
class Folder:
    names: dict[str, Node] = field(default_factory=dict)
    durable: dict[str, Node] = field(default_factory=dict)
    modified: float = 0.0
    device: int = 0


Node = File | Folder | Link


@dataclass(slots=True, eq=False)
class _Change:
    """Names that change together.  ``edits`` are ``(folder, name, node)``; no node: the name goes."""

    edits: tuple[tuple[Folder, str, Node | None], ...]

    @property
    def device(self) -> int:
        return self.edits[0][0].device

    def make_durable(self) -> None:
        for folder, name, node in self.edits:
            if node is None:
                folder.durable.pop(name, None)
            else:
                folder.durable[name] = node

    def rests_on(self, other: _Change) -> bool:
        return any(
            folder is earlier and name == earlier_name
            for folder, name, _ in self.edits
            for earlier, earlier_name, _ in other.edits
        )


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)


class Disk:
    """``space`` is how many octets are free.  ``lies_about`` is "names" or "octets" when a sync stores none of them."""

    def __init__(self, wall: Callable[[], float] = lambda: 0.0, space: int = 1 << 40) -> None:
        self.root = Folder()
        self.space = space
        self.lies_about = ""
        self.wall = wall
        self._pending: list[_Change] = []
        self._devices = 0

    # Paths.

    def parent(self, path: str) -> tuple[Folder, str]:
        """The folder that holds ``path``, and the last name of it.  Links on the way are followed."""
        names = [name for name in path.split("/") if name]
        if not names:
            return self.root, ""
        if len(names[-1].encode()) > _NAME_MAX:
            raise _error(errno.ENAMETOOLONG, path)
        return self._folder(names[:-1], path), names[-1]

    def folder(self, path: str) -> Folder:
        """The folder at ``path``, or where a link there leads to."""
        return self._folder([name for name in path.split("/") if name], path)

    def _folder(self, names: list[str], path: str) -> Folder:
        folder, links = self.root, 0
        todo = list(reversed(names))
        while todo:
            node = folder.names.get(todo.pop())
            if node is None:
                raise _error(errno.ENOENT, path)
            if isinstance(node, Link):
                links += 1
                if links > _MOST_LINKS:
                    raise _error(errno.ELOOP, path)
                folder = self.root
                todo.extend(reversed([name for name in node.target.split("/") if name]))
            elif isinstance(node, Folder):
                folder = node
            else:
                raise _error(errno.ENOTDIR, path)
        return folder

    def node(self, path: str) -> Node:
        """What is at ``path``, links at its end not followed."""
        folder, name = self.parent(path)
        if not name:
            return folder
        node = folder.names.get(name)
        if node is None:
            raise _error(errno.ENOENT, path)
        return node

    # For tests and for the judge of a world, who sees the disk without the program.

    def make_folders(self, path: str) -> None:
        """Folders that were there before the world began."""
        folder = self.root
        for name in path.split("/"):
            if name:
                node = folder.names.setdefault(name, Folder(device=folder.device))
                assert isinstance(node, Folder)
                folder.durable[name] = node
                folder = node

    def mount(self, path: str) -> None:
        """Another file system, empty, on a new folder; it is synced on its own."""
        self.make_folders(path)
        self._devices += 1
        self.folder(path).device = self._devices

    def link(self, path: str, target: str) -> None:
        """A symbolic link to an absolute path, made by somebody else."""
        folder, name = self.parent(path)
        if name in folder.names:
            raise _error(errno.EEXIST, path)
        folder.names[name] = folder.durable[name] = Link(target)

    def files(self, path: str) -> dict[str, bytes]:
        """The files in a folder with their octets; {} when there is no such folder."""
        try:
            folder = self.folder(path)
        except OSError:
            return {}
        return {name: bytes(node.octets) for name, node in folder.names.items() if isinstance(node, File)}

    def folders(self, path: str) -> list[str]:
        try:
            folder = self.folder(path)
        except OSError:
            return []
        return [name for name, node in folder.names.items() if isinstance(node, Folder)]

    # Changes, and what makes them last.

    def change(self, *edits: tuple[Folder, str, Node | None]) -> None:
        for folder, name, node in edits:
            if node is None:
                del folder.names[name]
            else:
                folder.names[name] = node
            folder.modified = self.wall()
        self._pending.append(_Change(edits))

    def sync_file(self, file: File) -> None:
        if not file.synced and not file.suspect and self.lies_about != "octets":
            file.durable = bytes(file.octets)
        file.synced = True

    def sync_folder(self, folder: Folder) -> None:
        if self.lies_about == "names":
            return
        wanted: list[_Change] = []
        for change in reversed(self._pending):
            if any(edited is folder for edited, _, _ in change.edits) or any(
                later.rests_on(change) for later in wanted
            ):
                wanted.append(change)
        for change in reversed(wanted):
            change.make_durable()
            self._pending.remove(change)

    def sync_device(self, device: int) -> None:
        if self.lies_about != "names":
            for change in self._pending:
                if change.device == device:
                    change.make_durable()
            self._pending = [change for change in self._pending if change.device != device]
        for file in self.files_of(device):
            self.sync_file(file)

    def fail_sync(self, files: list[File]) -> None:
        """A sync has failed: what was to be written is lost, and nobody will be told again."""
        for file in files:
            if not file.synced:
                file.suspect = file.synced = True

    def files_of(self, device: int) -> list[File]:
        found: list[File] = []
        todo = [self.root]
        while todo:
            folder = todo.pop()
            for node in folder.names.values():
                if isinstance(node, Folder):
                    todo.append(node)
                elif isinstance(node, File) and folder.device == device:
                    found.append(node)
        return found

    # The end of a life.

    def stop_program(self) -> None:
        """The program is killed, the system lives on and forgets nothing."""

    def lose_power(self, rng: random.Random) -> None:
        """What was synced stays; the rest is up to ``rng``: all of it lost, or each change and file for itself."""
        chance = rng.choice((0.0, 0.5, 0.9))
        lost: list[_Change] = []
        for change in self._pending:
            if rng.random() < chance and not any(change.rests_on(earlier) for earlier in lost):
                change.make_durable()
            else:
                lost.append(change)
        self._pending.clear()
        self._restore(self.root, rng, chance, set())

    def _restore(self, folder: Folder, rng: random.Random, chance: float, seen: set[int]) -> None:
        folder.names = dict(folder.durable)
        for node in folder.names.values():
            if id(node) in seen or isinstance(node, Link):
                continue
            seen.add(id(node))
            if isinstance(node, Folder):
                self._restore(node, rng, chance, seen)
            else:
                self._restore_file(node, rng, chance)

    def _restore_file(self, file: File, rng: random.Random, chance: float) -> None:
        octets = bytes(file.octets)
        if octets != file.durable and not rng.random() < chance:
            # Nothing that was synced is ever lost: the programs here only append to files.
            kept = rng.choice((len(file.durable), rng.randint(len(file.durable), len(octets))))
            octets = octets[:kept] + bytes(len(octets) - kept) * rng.randrange(2)
        file.octets, file.durable = bytearray(octets), octets
        file.synced, file.suspect = True, False


class _Output:
    __slots__ = ("_file", "_life", "_owner")

    def __init__(self, owner: Disk, life: Life, file: File) -> None:
        self._owner = owner
        self._life = life
        self._file: File | None = file

    def _open_file(self) -> File:
        if self._file is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._file

    def write(self, data: bytes) -> None:
        self._life.step("disk: write")
        file, disk = self._open_file(), self._owner
        room = disk.space
        disk.space -= min(room, len(data))
        file.octets += data[:room]
        file.synced = False
        file.modified = disk.wall()
        if len(data) > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self) -> None:
        file = self._open_file()
        try:
            self._life.step("disk: sync file")
        except OSError:
            self._owner.fail_sync([file])
            raise
        self._owner.sync_file(file)
        self._life.step("disk: synced file")

    def close(self) -> None:
        self._life.check()
        self._open_file()
        self._file = None


class _Input:
    __slots__ = ("_file", "_life", "_offset")

    def __init__(self, life: Life, file: File) -> None:
        self._life = life
        self._file: File | None = file
        self._offset = 0

    def read(self, size: int) -> bytes:
        self._life.step("disk: read")
        if self._file is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        octets = bytes(self._file.octets[self._offset : self._offset + size])
        self._offset += len(octets)
        return octets

    def seek(self, offset: int) -> int:
        self._life.check()
        if self._file is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._offset = offset
        return offset

    def close(self) -> None:
        self._life.check()
        if self._file is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        self._file = None


@implementer(IFilesystem)
class SimulatedFilesystem:
    """A disk in the hands of one life of the program; the steps that may crash or fail are numbered there."""

    def __init__(self, disk: Disk, life: Life | None = None) -> None:
        self.disk = disk
        self._life = life or Life()

    def create(self, path: str) -> Output:
        self._life.step("disk: create")
        folder, name = self.disk.parent(path)
        if not name or name in folder.names:
            raise _error(errno.EEXIST, path)
        file = File(modified=self.disk.wall())
        self.disk.change((folder, name, file))
        self._life.step("disk: created")
        return _Output(self.disk, self._life, file)

    def open(self, path: str) -> Input:
        self._life.step("disk: open")
        node = self.disk.node(path)
        if isinstance(node, Link):
            raise _error(errno.ELOOP, path)
        if not isinstance(node, File):
            raise _error(errno.EINVAL, path)
        return _Input(self._life, node)

    def append(self, path: str, data: bytes) -> None:
        self._life.step("disk: append")
        node = self.disk.node(path)
        if isinstance(node, Link):
            raise _error(errno.ELOOP, path)
        if not isinstance(node, File):
            raise _error(errno.EISDIR, path)
        _Output(self.disk, self._life, node).write(data)

    def replace(self, source: str, target: str) -> None:
        self._life.step("disk: replace")
        source_folder, source_name = self.disk.parent(source)
        target_folder, target_name = self.disk.parent(target)
        node = self.disk.node(source)
        there = target_folder.names.get(target_name)
        if isinstance(there, Folder):
            raise _error(errno.EISDIR, target)
        if source_folder.device != target_folder.device:
            raise _error(errno.EXDEV, target)
        self.disk.change((target_folder, target_name, node), (source_folder, source_name, None))
        if isinstance(there, File) and there is not node:
            self.disk.space += len(there.octets)
        self._life.step("disk: replaced")

    def read_cached(self, path: bytes) -> bytes | None:
        """Half of the files are in memory, by their names."""
        self._life.check()
        try:
            node = self.disk.node(os.fsdecode(path))
        except OSError:
            return None
        if not isinstance(node, File) or not 0 < len(node.octets) <= CACHED_LIMIT or zlib.crc32(path) % 2:
            return None
        return bytes(node.octets)

    def rename(self, source: str, target: str) -> None:
        self._life.step("disk: rename")
        # In the order of Linux: both folders, both names, then whether the one is within the other.
        source_folder, source_name = self.disk.parent(source)
        target_folder, target_name = self.disk.parent(target)
        node = self.disk.node(source)
        if self._exists(target):
            raise _error(errno.EEXIST, target)
        if not source_name or (isinstance(node, Folder) and self._within(target_folder, node)):
            raise _error(errno.EINVAL, source)
        if source_folder.device != target_folder.device:
            raise _error(errno.EXDEV, target)
        self.disk.change((target_folder, target_name, node), (source_folder, source_name, None))
        self._life.step("disk: renamed")

    def _exists(self, path: str) -> bool:
        try:
            self.disk.node(path)
        except OSError:
            return False
        return True

    def _within(self, folder: Folder, ancestor: Folder) -> bool:
        return folder is ancestor or any(
            self._within(folder, node) for node in ancestor.names.values() if isinstance(node, Folder)
        )

    def unlink(self, path: str) -> None:
        self._life.step("disk: unlink")
        node = self.disk.node(path)
        folder, name = self.disk.parent(path)
        if isinstance(node, Folder):
            raise _error(errno.EISDIR, path)
        self.disk.change((folder, name, None))
        if isinstance(node, File):
            self.disk.space += len(node.octets)
        self._life.step("disk: unlinked")

    def list(self, path: str) -> list[str]:
        self._life.step("disk: list")
        return list(self.disk.folder(path).names)

    def status(self, path: str) -> FileStatus:
        self._life.step("disk: status")
        node = self.disk.node(path)
        if isinstance(node, File):
            return FileStatus("file", len(node.octets), node.modified, node.modified)
        if isinstance(node, Folder):
            return FileStatus("directory", 4096, node.modified, node.modified)
        return FileStatus("link", len(node.target), 0.0, 0.0)

    def make_directory(self, path: str) -> None:
        self._life.step("disk: make folder")
        folder, name = self.disk.parent(path)
        if not name or name in folder.names:
            raise _error(errno.EEXIST, path)
        self.disk.change((folder, name, Folder(modified=self.disk.wall(), device=folder.device)))
        self._life.step("disk: made folder")

    def sync_directory(self, path: str) -> None:
        self._life.step("disk: sync folder")
        self.disk.sync_folder(self.disk.folder(path))
        self._life.step("disk: synced folder")

    def sync_all(self, folders: Collection[str]) -> None:
        for device in dict.fromkeys(self.disk.folder(folder).device for folder in folders):
            try:
                self._life.step("disk: sync all")
            except OSError:
                self.disk.fail_sync(self.disk.files_of(device))
                raise
            self.disk.sync_device(device)
            self._life.step("disk: synced all")

    def free(self, path: str) -> int:
        self._life.step("disk: free")
        self.disk.node(path)
        return self.disk.space
