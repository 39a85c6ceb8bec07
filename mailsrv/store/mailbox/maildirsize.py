"""``maildirsize``: what a mailbox holds, in the file that Dovecot, Courier and others keep up to date too (Maildir++).

Its first line is the quota, ``10485760S,1000C``.  Each line after it is ``octets SP messages``: the first one what was
counted when the file was made, the others what has come (positive) or gone (negative) since.  Their sum is what the
mailbox holds.  Whoever adds or removes messages appends a line in one write (O_APPEND), so nobody's line is lost;
whoever counts anew writes a file in ``tmp`` and renames it into place.  That is due when the first line is not the
quota any more, and when the file has more than 5120 octets.

The size of a message is that of its file: what ``S=`` in its name says, or else what the disk says.  All folders count
(``.Sent`` and the like, and ``.Trash`` unless a rule ignores it), and so do messages that are marked as deleted: both
as Dovecot does it.

The functions block.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Iterator
from dataclasses import dataclass
from typing import Final

from mailsrv.outside.interfaces import IFilesystem
from mailsrv.store.mailbox import maildir
from mailsrv.store.mailbox.quota import Quota, Usage

FILE: Final = "maildirsize"
LONGEST: Final = 5120  # octets; above it the file is made anew

_READ = 1 << 20
_LINES = re.compile(rb"(?: *-?[0-9]{1,18} +-?[0-9]{1,18} *\n)+")
_SIZE = re.compile(r",S=([0-9]{1,18})(?=[,:]|\Z)")


@dataclass(frozen=True, slots=True)
class Told:
    """What the file says.  ``base`` are its first two lines: others mean that somebody has made it anew."""

    usage: Usage
    base: bytes
    length: int

    def quota_line(self) -> bytes:
        return self.base.partition(b"\n")[0]


def quota_line(quota: Quota) -> bytes:
    """The first line, without its end.

    >>> quota_line(Quota(10485760, 1000))
    b'10485760S,1000C'
    """
    return ",".join([f"{quota.octets}S"] * bool(quota.octets) + [f"{quota.messages}C"] * bool(quota.messages)).encode()


def read(filesystem: IFilesystem, path: str) -> Told | None:
    """What the file in the mailbox ``path`` says; None when there is none, or it is damaged (OSError)."""
    try:
        source = filesystem.open(f"{path}/{FILE}")
    except FileNotFoundError:
        return None
    try:
        text = source.read(_READ)
    finally:
        source.close()
    quota, _, lines = text.partition(b"\n")
    if not _LINES.fullmatch(lines):
        return None  # or a line without its end: torn by a crash
    numbers = list(map(int, lines.split()))
    first = lines.partition(b"\n")[0]
    return Told(Usage(sum(numbers[::2]), sum(numbers[1::2])), quota + b"\n" + first, len(text))


def append(filesystem: IFilesystem, path: str, change: Usage) -> bool:
    """Tell of what has come or gone; False when there is no such file (OSError)."""
    try:
        filesystem.append(f"{path}/{FILE}", b"%d %d\n" % change)
    except FileNotFoundError:
        return False
    return True


def write(filesystem: IFilesystem, path: str, quota: Quota, usage: Usage, mark: str) -> Told:
    """Put a new file in the place of the old one; ``mark`` makes its name in ``tmp`` unique (OSError)."""
    base = quota_line(quota) + b"\n%d %d" % usage
    temporary = f"{path}/{maildir.FOLDERS[0]}/{mark}.{FILE}"
    output = filesystem.create(temporary)
    try:
        try:
            output.write(base + b"\n")
        finally:
            output.close()
        filesystem.replace(temporary, f"{path}/{FILE}")
    except BaseException:
        filesystem.unlink(temporary)
        raise
    return Told(usage, base, len(base) + 1)


def count(
    filesystem: IFilesystem, path: str, ignored: Collection[str] = (), without: Container[str] = frozenset()
) -> Usage:
    """What is in the mailbox, but for the messages of the unique parts ``without`` (OSError).

    Links are not followed.  A message that another program moves meanwhile may be missed or, from ``new`` to ``cur``,
    is counted once.
    """
    octets = messages = 0
    for folder in folders(filesystem, path):
        if folder in ignored:
            continue
        seen: set[str] = set()
        for part in ("new", "cur"):
            place = f"{path}/{folder}/{part}" if folder else f"{path}/{part}"
            for name in _names(filesystem, place):
                unique = name.partition(":")[0].partition(",")[0]
                if unique in without or (part == "cur" and unique in seen):
                    continue
                if part == "new":
                    seen.add(unique)
                size = _size(filesystem, place, name)
                if size is not None:
                    octets += size
                    messages += 1
    return Usage(octets, messages)


def folders(filesystem: IFilesystem, path: str) -> Iterator[str]:
    """ "" for the inbox, and the names of the other folders: each begins with a dot (OSError)."""
    yield ""
    try:
        names = filesystem.list(path)
    except FileNotFoundError:
        return
    for name in names:
        if name.startswith(".") and _is_folder(filesystem, f"{path}/{name}"):
            yield name


def _is_folder(filesystem: IFilesystem, path: str) -> bool:
    try:
        return filesystem.status(path).kind == "directory"
    except FileNotFoundError:
        return False


def _names(filesystem: IFilesystem, path: str) -> list[str]:
    try:
        return (
            [name for name in filesystem.list(path) if not name.startswith(".")] if _is_folder(filesystem, path) else []
        )
    except FileNotFoundError:
        return []


def size_told(name: str) -> int | None:
    """The octets that a file name tells of, None when it does not."""
    found = _SIZE.search(name)
    return None if found is None else int(found[1])


def _size(filesystem: IFilesystem, place: str, name: str) -> int | None:
    told = size_told(name)
    if told is not None:
        return told
    try:
        found = filesystem.status(f"{place}/{name}")
    except FileNotFoundError:
        return None
    return found.size if found.kind == "file" else None
