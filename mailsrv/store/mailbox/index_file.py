"""Snapshots on disk, so that the first login after a start need not list 100,000 names or read what others filed.

``mailsrv-index`` in the mailbox is a copy of a ``Snapshot``: it may be removed at any time, and whatever is wrong with
it, it is as if it were not there.  The Maildir alone says what is in the mailbox: an index counts only as long as the
folders have not changed since (``Snapshot.stamp``), but for sizes that had to be measured, which are those of the
messages as long as these are there.  It is not synced: what a crash leaves of it, its checksum tells.

The functions block.
"""

from __future__ import annotations

import contextlib
import json
import sys
import zlib
from array import array
from itertools import accumulate, islice
from typing import Any, Final

from mailsrv.outside.interfaces import IFilesystem
from mailsrv.store.mailbox import uidls
from mailsrv.store.mailbox.snapshot import Snapshot

FILE: Final = "mailsrv-index"
_NEW: Final = "mailsrv-index.new"
_FIRST: Final = b"mailsrv index 1\n"
_BLOCK: Final = 1024 * 1024
_MOST: Final = 1024 * _BLOCK


def read(filesystem: IFilesystem, path: str) -> Snapshot | None:
    """What was kept about the mailbox ``path`` (absolute); None for nothing that can be used."""
    try:
        source = filesystem.open(f"{path}/{FILE}")
    except OSError:
        return None
    try:
        blocks: list[bytes] = []
        while len(blocks) * _BLOCK < _MOST and (block := source.read(_BLOCK)):
            blocks.append(block)
    except OSError:
        return None
    finally:
        source.close()
    data = b"".join(blocks)
    try:
        return _decode(data)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def write(filesystem: IFilesystem, path: str, snapshot: Snapshot) -> None:
    """Keep ``snapshot`` in the mailbox ``path``; OSError, and then there is no index, or an old one."""
    with contextlib.suppress(FileNotFoundError):
        filesystem.unlink(f"{path}/{_NEW}")
    output = filesystem.create(f"{path}/{_NEW}")
    try:
        for block in _encode(snapshot):
            output.write(block)
    except BaseException:
        with contextlib.suppress(OSError):
            filesystem.unlink(f"{path}/{_NEW}")
        raise
    finally:
        output.close()
    filesystem.replace(f"{path}/{_NEW}", f"{path}/{FILE}")
    snapshot.unsaved = False


# The first line, a line of JSON, and one behind the other what ``lengths`` in it gives the octets of.


def _encode(snapshot: Snapshot) -> list[bytes]:
    replaced = array("I", snapshot.uidls)
    identifiers = "\0".join(snapshot.uidls.values()).encode("ascii")
    parts = [
        snapshot.names,
        snapshot.starts.tobytes(),
        snapshot.sizes.tobytes(),
        snapshot.measured.tobytes(),
        replaced.tobytes(),
        identifiers,
    ]
    head = {
        "order": sys.byteorder,
        "stamp": snapshot.stamp,
        "octets": snapshot.octets,
        "problems": snapshot.problems,
        "lengths": [len(part) for part in parts],
        "checksum": _checksum(parts),
    }
    return [_FIRST, json.dumps(head).encode("ascii") + b"\n", *parts]


def _decode(data: bytes) -> Snapshot | None:
    end = data.find(b"\n", len(_FIRST))
    if not data.startswith(_FIRST) or end < 0:
        return None
    head: Any = json.loads(data[len(_FIRST) : end])
    parts = []
    at = end + 1
    for length in head["lengths"]:
        parts.append(data[at : at + length])
        at += length
    if at != len(data) or head["order"] != sys.byteorder or head["checksum"] != _checksum(parts):
        return None
    names, starts, sizes, measured, replaced, identifiers = parts
    if b"/" in names:
        return None  # a checksum keeps nobody from writing a way out of the mailbox
    given = dict(zip(array("I", replaced), identifiers.decode("ascii").split("\0"), strict=False))
    snapshot = Snapshot(
        names,
        array("I", starts),
        array("Q", sizes),
        int(head["octets"]),
        array("I", measured),
        given,
        tuple(head["problems"]),
        None if head["stamp"] is None else tuple(head["stamp"]),
    )
    return snapshot if _is_consistent(snapshot) else None


def _is_consistent(snapshot: Snapshot) -> bool:
    """Whether the parts fit together: who reads them later does not look, and may be the reactor's thread."""
    names, count = snapshot.names, len(snapshot.sizes)
    records = names.split(b"\0")
    starts = accumulate((len(record) + 1 for record in records[:-1]), initial=0)
    return (
        records[-1] == b""
        and len(records) == count + 1
        and all(record[:1] in (b"n", b"c") for record in records[:-1])
        and snapshot.starts == array("I", islice(starts, count))
        and snapshot.octets == sum(snapshot.sizes)
        and max(snapshot.measured, default=-1) < count
        and max(snapshot.uidls, default=-1) < count
        and all(uidls.UIDL.fullmatch(uidl) for uidl in snapshot.uidls.values())
    )


def _checksum(parts: list[bytes]) -> int:
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return checksum
