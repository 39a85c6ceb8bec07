"""POP3 unique-ids that messages brought along from another server.

A message has its own unique part as unique-id (RFC 1939 7) unless ``mailsrv-uidls`` in its mailbox says otherwise:
text, one line ``unique SP unique-id`` for each message whose clients know it by another one.  Lines are only ever
added, by ``add``; the last one for a message counts, one without its line end is not there yet, and what is no such
line is passed over.  A mailbox into which nothing was imported has no such file and costs one look.

The functions block.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Mapping
from typing import Final

from mailsrv.outside.interfaces import IFilesystem

FILE: Final = "mailsrv-uidls"

# RFC 1939 7: 1 to 70 characters in the range 0x21 to 0x7E.
UIDL: Final = re.compile(r"[\x21-\x7e]{1,70}")
_LINE: Final = re.compile(rb"^([^\n]+) ([\x21-\x7e]{1,70})$", re.MULTILINE)
# Small enough that no other thread waits long for the interpreter.
_BLOCK: Final = 64 * 1024


def replacement(text: str) -> str:
    """A unique-id for what cannot be one itself, always the same."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:40]


def read(filesystem: IFilesystem, path: str) -> dict[str, str]:
    """The unique-ids given in the mailbox ``path`` (absolute), by unique part.  OSError when they cannot be read."""
    try:
        source = filesystem.open(f"{path}/{FILE}")
    except FileNotFoundError:
        return {}
    given: dict[str, str] = {}
    rest = b""
    try:
        while block := source.read(_BLOCK):
            lines, end, rest = (rest + block).rpartition(b"\n")
            if end:
                for found in _LINE.finditer(lines):
                    given[os.fsdecode(found[1])] = found[2].decode("ascii")
            elif len(rest) > _BLOCK:
                rest = b""
    finally:
        source.close()
    return given


def add(path: str, given: Mapping[str, str]) -> None:
    """Give unique-ids to messages of the mailbox ``path``, on the real disk.

    Whoever calls this has the mailbox for itself among those who add, and makes it durable before the messages are
    seen.  ValueError for what is no unique-id; OSError.
    """
    if not all(UIDL.fullmatch(uidl) and "\n" not in part for part, uidl in given.items()):
        raise ValueError("not a unique-id")
    append(f"{path}/{FILE}", b"".join(os.fsencode(f"{part} {uidl}\n") for part, uidl in given.items()))


def append(path: str, lines: bytes) -> None:
    """Add whole lines to a file, made with the owner of its folder if it is missing; a torn last one goes (OSError)."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        folder = os.stat(os.path.dirname(path))
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, folder.st_uid, folder.st_gid)
        _cut_torn_line(descriptor)
        left = memoryview(lines)
        while left:
            left = left[os.write(descriptor, left) :]
    finally:
        os.close(descriptor)


def _cut_torn_line(descriptor: int) -> None:
    """What a crash left of a line at the end would spoil the next one."""
    at = size = os.fstat(descriptor).st_size
    while at:
        start = max(at - 4096, 0)
        block = os.pread(descriptor, at - start, start)
        found = block.rfind(b"\n")
        if found >= 0:
            at = start + found + 1
            break
        at = start
    if at != size:
        os.ftruncate(descriptor, at)
