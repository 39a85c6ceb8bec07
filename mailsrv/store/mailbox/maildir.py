"""Maildirs: how files are named, which folders there are, where a message is now.

A mailbox is a folder with ``new``, ``cur`` and ``tmp``.  A file is named ``<unique>,S=<octets>,W=<octets with CRLF>``
and in ``cur`` ``:2,<flags>`` follows.  ``unique`` is fixed for ever; folder and flags are changed by any program at any
time, so a message is known by ``unique`` and looked for again with ``find`` when its path has gone.

Nothing inside a mailbox that is a symbolic link is followed.  ``mailsrv.store.mailbox.listing`` says what is in it.

All functions that take a filesystem block: they run in a worker.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from mailsrv.outside.interfaces import IFilesystem, Input
from mailsrv.store.mailbox import uidls
from mailsrv.store.mailbox.snapshot import Entry

FOLDERS = ("tmp", "new", "cur")

# Eighteen digits: any size that a disk can hold, and cheap to convert.
_FIELD = re.compile(r",([A-Z])=([0-9]{1,18})(?=[,:]|\Z)")
# What ``unique``, ``imported`` and ``file_name`` write; other programs do not name files so.  The groups are the unique
# part and the size with CRLF.
OWN = (
    r"([0-9]{1,18}\.(?:Q[0-9A-HJKMNP-TV-Z]{11}N[0-9]{1,9}|[0-9]{6}I[0-9A-HJKMNP-TV-Z]{20})"
    r"\.[A-Za-z0-9._-]+),S=[0-9]{1,18},W=([0-9]{1,18})"
)
_OWN = re.compile(OWN)
_UNIQUE_END = re.compile("[,:]")
_HOSTNAME_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Name:
    """A file name, taken apart.  ``size`` is octets in the file, ``virtual_size`` octets with CRLF; None: not told."""

    unique: str
    size: int | None
    virtual_size: int | None
    flags: str


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


@lru_cache(maxsize=8)
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
    return part if uidls.UIDL.fullmatch(part) else uidls.replacement(part)


def ensure(filesystem: IFilesystem, path: str) -> None:
    """Create the mailbox ``path`` (absolute) and the folders above and in it, as far as they are missing.

    They are durable after the caller's next ``sync_all``.  OSError (NotADirectoryError when something else is there).
    """
    make(filesystem, path)
    for folder in FOLDERS:
        make(filesystem, f"{path}/{folder}")
        if filesystem.status(f"{path}/{folder}").kind != "directory":
            raise NotADirectoryError(f"{path}/{folder} is not a folder")


def find(filesystem: IFilesystem, path: str, unique: str) -> str | None:
    """Where the message ``unique`` is now, relative to the mailbox ``path``; None when it has gone."""
    # new before cur: mail moves in that direction, so it is not missed on its way.
    for folder in ("new", "cur"):
        for name in names_in(filesystem, path, folder):
            if name.startswith(unique) and unique_part(name) == unique:
                return f"{folder}/{name}"
    return None


def locate(filesystem: IFilesystem, path: str) -> dict[str, str]:
    """Where every file of the mailbox is now, relative to ``path``, by its unique part."""
    return {
        unique_part(name): f"{folder}/{name}"
        for folder in ("new", "cur")
        for name in names_in(filesystem, path, folder)
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


def names_in(filesystem: IFilesystem, path: str, folder: str) -> list[str]:
    """What may be messages in a folder of the mailbox ``path``: nothing when it is missing (OSError)."""
    try:
        if filesystem.status(f"{path}/{folder}").kind != "directory":
            raise NotADirectoryError(f"{path}/{folder} is not a folder")
        return [name for name in filesystem.list(f"{path}/{folder}") if not name.startswith(".")]
    except FileNotFoundError:
        return []


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
