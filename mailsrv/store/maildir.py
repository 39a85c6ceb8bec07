"""Maildirs: how files are named, which folders there are, what is in them.

A mailbox is a folder with ``new``, ``cur`` and ``tmp``.  A file is named ``<unique>,S=<octets>,W=<octets with CRLF>``
and in ``cur`` ``:2,<flags>`` follows.  ``unique`` is fixed for ever; folder and flags are changed by any program at any
time, so a message is known by ``unique`` and looked for again with ``find`` when its path has gone.

Promises: nothing inside a mailbox that is a symbolic link is followed, and what is no regular file or cannot be read is
skipped and named in ``Snapshot.problems``, never touched.  A size in a snapshot is what a client gets octet for octet.
The size in a name is believed when the name is one of ours; a file of another program is read once instead, because
others write ``W=`` for a file without a final line end differently, and sometimes wrongly.

All functions that take a filesystem block: they run in a worker.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from mailsrv.outside.interfaces import IFilesystem, Input
from mailsrv.store import uidls
from mailsrv.store.reading import measure

FOLDERS = ("tmp", "new", "cur")

# Eighteen digits: any size that a disk can hold, and cheap to convert.
_FIELD = re.compile(r",([A-Z])=([0-9]{1,18})(?=[,:]|\Z)")
# What ``unique``, ``imported`` and ``file_name`` write; other programs do not name files so.
_OWN = re.compile(
    r"(([0-9]{1,18})\.(?:Q[0-9A-HJKMNP-TV-Z]{11}N[0-9]{1,9}|[0-9]{6}I[0-9A-HJKMNP-TV-Z]{20})"
    r"\.[A-Za-z0-9._-]+),S=[0-9]{1,18},W=([0-9]{1,18})"
)
_UNIQUE_END = re.compile("[,:]")
_HOSTNAME_LENGTH = 64
_RUN = 5000


@dataclass(frozen=True, slots=True)
class Name:
    """A file name, taken apart.  ``size`` is octets in the file, ``virtual_size`` octets with CRLF; None: not told."""

    unique: str
    size: int | None
    virtual_size: int | None
    flags: str


class Entry(NamedTuple):
    """One message.  A tuple, because mailboxes of 100,000 messages are opened.

    ``path`` is relative to the mailbox ("new/...", "cur/..."), ``name`` the part that never changes, ``uidl`` unique
    within the snapshot, ``size`` the octets that a client is sent (with CRLF, before dot-stuffing).
    """

    path: str
    name: str
    uidl: str
    size: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A mailbox at one moment, oldest message first.

    ``octets`` is the sum of the sizes.  ``measured`` holds the sizes that were found by reading, by unique part: give
    it to the next ``scan`` of the same mailbox.  ``problems`` are sentences for the operator.
    """

    messages: tuple[Entry, ...]
    octets: int
    measured: Mapping[str, int]
    problems: tuple[str, ...]


def unique(queue_id: str, n: int, seconds: int, hostname: str) -> str:
    """The unique part for recipient ``n`` of the message ``queue_id`` (its text form), accepted at ``seconds``.

    >>> unique("1J4BS1D7M00", 0, 1764000000, "mx.example.org")
    '1764000000.Q1J4BS1D7M00N0.mx.example.org'
    """
    return f"{seconds}.Q{queue_id}N{n}.{_host(hostname)}"


def imported(mark: str, n: int, seconds: int, hostname: str) -> str:
    """The unique part for a message that another server had, delivered at ``seconds``.

    ``mark`` is 20 letters and digits that say which message it is; ``n`` below a million keeps the order of those that
    share a second.

    >>> imported("0123456789ABCDEFGHJK", 7, 1764000000, "mx.example.org")
    '1764000000.000007I0123456789ABCDEFGHJK.mx.example.org'
    """
    return f"{seconds}.{n:06}I{mark}.{_host(hostname)}"


def _host(hostname: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in ".-") else "_" for c in hostname)[:_HOSTNAME_LENGTH]


def file_name(unique: str, size: int, virtual_size: int) -> str:
    """The whole name in ``new``: ``size`` octets in the file, ``virtual_size`` octets when its line ends are CRLF."""
    return f"{unique},S={size},W={virtual_size}"


def parse(name: str) -> Name:
    """Take a file name apart.  Never fails: what is not understood is not told."""
    base, _, info = name.partition(":")
    fields = dict(_FIELD.findall(base))
    size = fields.get("S")
    virtual_size = fields.get("W")
    return Name(
        unique=base.partition(",")[0],
        size=None if size is None else int(size),
        virtual_size=None if virtual_size is None else int(virtual_size),
        flags=info[2:] if info.startswith("2,") else "",
    )


def unique_part(name: str) -> str:
    """What of a file name never changes: all before the first comma or colon."""
    found = _UNIQUE_END.search(name)
    return name if found is None else name[: found.start()]


def is_own(name: str) -> bool:
    """Whether a file name is one that a mailsrv made, here or elsewhere."""
    return _OWN.fullmatch(name.partition(":")[0]) is not None


def uidl(name: str) -> str:
    """The unique-id (RFC 1939 7) for a file name: its unique part, or a hash of that when it does not qualify."""
    part = unique_part(name)
    return part if uidls.UIDL.fullmatch(part) else _hash(part)


def ensure(filesystem: IFilesystem, path: str) -> None:
    """Create the mailbox ``path`` (absolute) and the folders above and in it, as far as they are missing.

    They are durable after the caller's next ``sync_all``.  OSError (NotADirectoryError when something else is there).
    """
    make(filesystem, path)
    for folder in FOLDERS:
        make(filesystem, f"{path}/{folder}")
        if filesystem.status(f"{path}/{folder}").kind != "directory":
            raise NotADirectoryError(f"{path}/{folder} is not a folder")


def scan(filesystem: IFilesystem, path: str, measured: Mapping[str, int] | None = None) -> Snapshot:
    """What is in the mailbox ``path`` (absolute); ``measured`` comes from the last snapshot of the same mailbox.

    OSError when ``new`` or ``cur`` cannot be listed.  A mailbox that does not exist yet is an empty one.
    """
    return _Scan(filesystem, path, measured or {}).run()


def find(filesystem: IFilesystem, path: str, unique: str) -> str | None:
    """Where the message ``unique`` is now, relative to the mailbox ``path``; None when it has gone."""
    # new before cur: mail moves in that direction, so it is not missed on its way.
    for folder in ("new", "cur"):
        for name in _names(filesystem, path, folder):
            if name.startswith(unique) and unique_part(name) == unique:
                return f"{folder}/{name}"
    return None


def locate(filesystem: IFilesystem, path: str) -> dict[str, str]:
    """Where every file of the mailbox is now, relative to ``path``, by its unique part."""
    return {
        unique_part(name): f"{folder}/{name}" for folder in ("new", "cur") for name in _names(filesystem, path, folder)
    }


class Places:
    """Opens the messages of one mailbox, however other programs move and re-flag them after a snapshot."""

    def __init__(self, filesystem: IFilesystem, path: str) -> None:
        self._filesystem = filesystem
        self._path = path
        self._moved: dict[str, str] = {}

    def open(self, unique: str, path: str) -> Input:
        """Open the message ``unique``, seen last at ``path``.

        FileNotFoundError when it has gone, another OSError when it cannot be read or is no regular file.
        """
        try:
            return self._filesystem.open(f"{self._path}/{self._moved.get(unique, path)}")
        except FileNotFoundError:
            # All names at once: who moves one message often moves many, and listing a large folder takes a while.
            self._moved = locate(self._filesystem, self._path)
            if unique not in self._moved:
                raise
            return self._filesystem.open(f"{self._path}/{self._moved[unique]}")


def remove(filesystem: IFilesystem, path: str, entries: Iterable[Entry]) -> tuple[list[Entry], list[str]]:
    """Remove messages, wherever they are now, and make that durable.

    Returns those that were removed and sentences about those that could not be.  One that had gone already is neither.
    """
    removed: list[Entry] = []
    problems: list[str] = []
    folders: set[str] = set()

    def unlink(entry: Entry, at: str) -> bool:
        """False when it is not there."""
        try:
            filesystem.unlink(f"{path}/{at}")
        except FileNotFoundError:
            return False
        except OSError as error:
            problems.append(f"{path}/{ascii(at)[1:-1]} cannot be removed: {error.strerror or error}")
            return True
        folders.add(at[:3])
        removed.append(entry)
        return True

    missing = [entry for entry in entries if not unlink(entry, entry.path)]
    if missing:
        places = locate(filesystem, path)
        for entry in missing:
            if entry.name in places:
                unlink(entry, places[entry.name])
    for folder in sorted(folders):
        try:
            filesystem.sync_directory(f"{path}/{folder}")
        except OSError as error:
            problems.append(f"{path}/{folder} cannot be synced: {error.strerror or error}")
    return removed, problems


# A file that may be a message: seconds, unique part, name without flags, relative path, size told in a name of ours.
# The first three are the order of delivery.  A plain tuple, which the garbage collector soon forgets about.
_Found = tuple[int, str, str, str, int]
_UNTOLD = -1


class _Scan:
    """One reading of a mailbox."""

    def __init__(self, filesystem: IFilesystem, path: str, known: Mapping[str, int]) -> None:
        self._filesystem = filesystem
        self._path = path
        self._known = known
        self._places = Places(filesystem, path)
        self._doubled: set[str] = set()
        self._measured: dict[str, int] = {}
        self._problems: list[str] = []

    def run(self) -> Snapshot:
        given = uidls.read(self._filesystem, self._path)
        messages = []
        taken: set[str] = set()
        for _, part, _, path, told in _in_order(self._files()):
            # A file that another program moved or re-flagged while the folders were listed shows up twice.
            if part in self._doubled and not self._is_there(path):
                continue
            size = self._size(part, path, told)
            if size is not None:
                identifier = _free_uidl(part, given.get(part), taken)
                taken.add(identifier)
                messages.append(Entry(path, part, identifier, size))
        octets = sum([message.size for message in messages])
        return Snapshot(tuple(messages), octets, self._measured, tuple(self._problems))

    def _files(self) -> Iterator[_Found]:
        parts: set[str] = set()
        for folder in ("new", "cur"):
            for name in _names(self._filesystem, self._path, folder):
                base = name.partition(":")[0]
                own = _OWN.fullmatch(base)
                if own:
                    seconds, part, told = int(own[2]), own[1], int(own[3])
                else:
                    seconds, part, told = _seconds(base), base.partition(",")[0], _UNTOLD
                if part in parts:
                    self._doubled.add(part)
                parts.add(part)
                yield seconds, part, base, f"{folder}/{name}", told

    def _is_there(self, path: str) -> bool:
        try:
            self._filesystem.status(f"{self._path}/{path}")
        except FileNotFoundError:
            return False
        return True

    def _size(self, part: str, path: str, told: int) -> int | None:
        """The octets to announce, or None for what is no message."""
        known = None if part in self._doubled else self._known.get(part)
        if known is None and told != _UNTOLD:
            return told
        size = self._measure(part, path) if known is None else known
        if size is not None:
            self._measured[part] = size
        return size

    def _measure(self, part: str, path: str) -> int | None:
        try:
            source = self._places.open(part, path)
            try:
                return measure(source)
            finally:
                source.close()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._problems.append(f"{self._path}/{ascii(path)[1:-1]} is skipped: {error.strerror or error}")
            return None


def _in_order(found: Iterator[_Found]) -> Iterator[_Found]:
    """Sorted in runs: one sort of 100,000 names would keep the interpreter from every other thread for too long."""
    runs = []
    while run := sorted(islice(found, _RUN)):
        runs.append(run)
    return heapq.merge(*runs)


def _names(filesystem: IFilesystem, path: str, folder: str) -> list[str]:
    try:
        if filesystem.status(f"{path}/{folder}").kind != "directory":
            raise NotADirectoryError(f"{path}/{folder} is not a folder")
        return [name for name in filesystem.list(f"{path}/{folder}") if not name.startswith(".")]
    except FileNotFoundError:
        return []


def _seconds(base: str) -> int:
    seconds = base.partition(".")[0]
    return int(seconds) if len(seconds) <= 18 and seconds.isascii() and seconds.isdigit() else 0


def _free_uidl(part: str, given: str | None, taken: set[str]) -> str:
    """Two files of one unique part (a copy made by hand) get different unique-ids, the same ones every time."""
    identifier = given or (part if uidls.UIDL.fullmatch(part) else _hash(part))
    copy = 2
    while identifier in taken:
        identifier = _hash(f"{part},{copy}")
        copy += 1
    return identifier


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:40]


def make(filesystem: IFilesystem, path: str) -> None:
    """One folder and those above it, as far as they are missing (OSError)."""
    try:
        filesystem.make_directory(path)
    except FileExistsError:
        pass
    except FileNotFoundError:
        parent = path.rpartition("/")[0]
        if not parent:
            raise
        make(filesystem, parent)
        filesystem.make_directory(path)  # not make: above a link that leads nowhere this would never end
