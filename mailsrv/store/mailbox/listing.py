"""Listing a mailbox: what is in ``new`` and ``cur``, in which order, how large.

Other programs change these folders while they are listed.  Nothing in them that is a symbolic link is followed, and
what is no regular file or cannot be read is skipped and named in ``Snapshot.problems``, never touched.  A size is what
a client gets octet for octet: believed when it stands in a name of ours; a file of another program is read once
instead, because others write ``W=`` for a file without a final line end differently, and sometimes wrongly.

Mailboxes of 100,000 messages are listed while the reactor's thread works for others, and wants the interpreter back
after a few milliseconds.  So there is no single step that takes long, as sorting 100,000 names does, or freeing them,
and as little Python code for each message as can be.
"""

from __future__ import annotations

import os
import re
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from itertools import accumulate

from mailsrv.outside.interfaces import IFilesystem
from mailsrv.store.mailbox import uidls
from mailsrv.store.mailbox.maildir import OWN, Places, names_in, unique_part
from mailsrv.store.mailbox.reading import measure
from mailsrv.store.mailbox.snapshot import Snapshot

_BLOCK = 1024
_SAMPLE = 32  # of so many names one is looked at to divide all of them into blocks
_REGULAR = re.compile(r"[0-9]{10}\.")
_RECORD = re.compile(rf"(?<![^\0])[nc]{OWN}(?::[^\0]*)?\0")
_ONE = re.compile(rf"[nc]{OWN}(?::.*)?", re.DOTALL)
_UIDL_LENGTH = 70
_LATEST = 9_999_999_999


def scan(filesystem: IFilesystem, path: str, known: Mapping[str, int] | None = None) -> Snapshot:
    """What is in the mailbox ``path`` (absolute); a mailbox that does not exist is empty.

    ``known`` are sizes found earlier (``Snapshot.measured_sizes``); the snapshot is ``unsaved`` when others had to be
    found.  OSError, NotADirectoryError when one of the folders is something else.
    """
    given = uidls.read(filesystem, path)
    blocks = _in_order(filesystem, path)
    scan = _Scan(filesystem, path, known or {}, given, frozenset())
    snapshot = scan.run(blocks)
    if scan.doubled:
        # A file that another program moved or re-flagged while the folders were listed shows up twice; so does a copy.
        parts = Counter(unique_part(record[1:]) for block in blocks for record in _records(block))
        doubled = frozenset(part for part, count in parts.items() if count > 1)
        snapshot = _Scan(filesystem, path, known or {}, given, doubled).run(blocks)
    while blocks:
        blocks.pop()
    return snapshot


class _Scan:
    """One pass over the files.  ``doubled`` are the unique parts that more than one has, as far as that is known."""

    def __init__(
        self,
        filesystem: IFilesystem,
        path: str,
        known: Mapping[str, int],
        given: Mapping[str, str],
        doubled: frozenset[str],
    ) -> None:
        self.doubled = bool(doubled)  # and afterwards, whether any may be
        self._filesystem = filesystem
        self._path = path
        self._known = known
        self._given = given
        self._doubles = doubled
        self._places = Places(filesystem, path)
        self._taken: set[str] = set()  # unique-ids
        self._renamed: set[str] = set()  # unique parts of messages with another unique-id
        self._names: list[bytes] = []
        self._starts = array("I")
        self._octets = 0  # of the names
        self._sizes = array("Q")
        self._measured = array("I")
        self._uidls: dict[int, str] = {}
        self._problems: list[str] = []
        self._found_sizes = False

    def run(self, blocks: list[list[str]]) -> Snapshot:
        for block in blocks:
            records = _records(block)
            if not self._all_own(records):
                self._one_by_one(records)
        while self._taken:
            self._taken.pop()
        names = b"".join(self._names)
        octets = sum(self._sizes)
        problems = tuple(self._problems)
        snapshot = Snapshot(names, self._starts, self._sizes, octets, self._measured, self._uidls, problems)
        snapshot.unsaved = self._found_sizes
        return snapshot

    def _all_own(self, records: list[str]) -> bool:
        """Take a block of files that all have names of ours and nothing else about them; False when it is none."""
        text = "\0".join(records) + "\0"
        found = _RECORD.findall(text)
        if len(found) != len(records) or self._doubles:
            return False
        parts = [part for part, _ in found]
        if (
            max(map(len, parts)) > _UIDL_LENGTH
            or not self._taken.isdisjoint(parts)
            or not self._renamed.isdisjoint(parts)
            or not (self._known.keys().isdisjoint(parts) and self._given.keys().isdisjoint(parts))
        ):
            return False
        before = len(self._taken)
        self._taken.update(parts)
        if len(self._taken) != before + len(parts):
            self._taken.difference_update(parts)
            return False
        self._add(records, [int(size) for _, size in found])
        return True

    def _one_by_one(self, records: list[str]) -> None:
        for record in records:
            part = unique_part(record[1:])
            path = f"{'new' if record[0] == 'n' else 'cur'}/{record[1:]}"
            if part in self._taken or part in self._renamed:
                self.doubled = True
            if part in self._doubles and not self._is_there(path):
                continue
            size = self._size(record, part, path)
            if size is not None:
                self._take_uidl(part)
                self._add([record], [size])

    def _add(self, records: list[str], sizes: list[int]) -> None:
        text = "\0".join(records) + "\0"
        names = os.fsencode(text)
        if len(names) == len(text):
            lengths = [len(record) + 1 for record in records]
        else:
            lengths = [len(os.fsencode(record)) + 1 for record in records]
        self._names.append(names)
        starts = list(accumulate(lengths, initial=self._octets))
        self._octets = starts.pop()
        self._starts.extend(starts)
        self._sizes.extend(sizes)

    def _is_there(self, path: str) -> bool:
        try:
            self._filesystem.status(f"{self._path}/{path}")
        except FileNotFoundError:
            return False
        return True

    def _size(self, record: str, part: str, path: str) -> int | None:
        """The octets to announce, or None for what is no message."""
        known = None if part in self._doubles else self._known.get(part)
        own = _ONE.fullmatch(record)
        if known is None and own is not None:
            return int(own[2])
        size = self._measure(part, path) if known is None else known
        if size is not None:
            self._measured.append(len(self._sizes))
            # Of two files of one unique part nobody could say later which one had which size.
            self._found_sizes |= known is None and part not in self._doubles
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

    def _take_uidl(self, part: str) -> None:
        """Two files of one unique part (a copy made by hand) get different unique-ids, the same ones every time."""
        identifier = self._given.get(part) or (part if uidls.UIDL.fullmatch(part) else uidls.replacement(part))
        copy = 2
        while identifier in self._taken:
            identifier = uidls.replacement(f"{part},{copy}")
            copy += 1
        self._taken.add(identifier)
        if identifier != part:
            self._renamed.add(part)
            self._uidls[len(self._sizes)] = identifier


def _in_order(filesystem: IFilesystem, path: str) -> list[list[str]]:
    """Every file as ``name/n`` or ``name/c``, in the order of delivery, in blocks.

    Nearly all names begin with the seconds since 1970, in ten digits; others get those in front, and a slash.
    """
    runs: list[list[str]] = []
    # new before cur: mail moves in that direction, so it is not missed on its way.
    for folder in ("new", "cur"):
        names = names_in(filesystem, path, folder)
        while names:
            run = [f"{name if _REGULAR.match(name) else _dated(name)}/{folder[0]}" for name in names[-_BLOCK:]]
            del names[-_BLOCK:]
            run.sort()
            runs.append(run)
    return runs if len(runs) < 2 else _divided(runs)


def _divided(runs: list[list[str]]) -> list[list[str]]:
    """What is in sorted runs, sorted through all of them: cut at the same places, and what belongs together joined."""
    samples: list[str] = []
    for run in runs:
        samples += run[::_SAMPLE]
    samples.sort()
    blocks: list[list[str]] = [[] for _ in range(0, len(samples), _BLOCK // _SAMPLE)]
    edges = samples[_BLOCK // _SAMPLE :: _BLOCK // _SAMPLE]
    for run in runs:
        start = 0
        for block, edge in zip(blocks, edges, strict=False):
            stop = bisect_left(run, edge, start)
            block += run[start:stop]
            start = stop
        blocks[-1] += run[start:]
    for block in blocks:
        block.sort()
    return [block for block in blocks if block]


def _dated(name: str) -> str:
    seconds = name.partition(".")[0]
    number = int(seconds) if len(seconds) <= 18 and seconds.isascii() and seconds.isdigit() else 0
    return f"{min(number, _LATEST):010}./{name}"


def _records(items: list[str]) -> list[str]:
    """As in ``Snapshot.names``, without the NUL."""
    return [item[-1] + item[item.rfind("/", 0, -2) + 1 : -2] for item in items]
