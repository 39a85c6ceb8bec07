"""A mailbox at one moment, in a few large pieces of memory instead of objects for each message.

100,000 messages take some 10 MB, nothing of it is of interest to the garbage collector, and what is asked of many
messages at once is answered without Python code for each.  ``mailsrv.store.mailbox.listing`` makes snapshots from
folders, ``mailsrv.store.mailbox.index_file`` keeps them.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_UNIQUE = re.compile(rb"(?<![^\0])[nc]([^,:\0]*)")
_FOLDERS = {ord("n"): b"new/", ord("c"): b"cur/"}


class Entry(NamedTuple):
    """One message.

    ``path`` is relative to the mailbox ("new/...", "cur/..."), ``name`` the part that never changes, ``uidl`` unique
    within the snapshot, ``size`` the octets that a client is sent (with CRLF, before dot-stuffing).
    """

    path: str
    name: str
    uidl: str
    size: int


# When the parts of a mailbox that a snapshot rests on were last changed; 0.0 for one that is not there.
Stamp = tuple[float, ...]


class Snapshot:
    """Messages by their index, oldest first.

    ``names`` has a record for each: "n" or "c" for the folder, the file name, NUL; ``starts`` is where each begins.
    ``uidls`` are the unique-ids that are not the unique part of the name.  ``measured`` are the indices of sizes that
    the name does not tell, for whoever lists the mailbox again.  ``octets`` is the sum of the sizes, ``problems`` are
    sentences for the operator.  ``stamp`` says how long it is true; None: nobody can say.
    """

    __slots__ = ("measured", "names", "octets", "problems", "sizes", "stamp", "starts", "uidls", "unsaved")

    def __init__(
        self,
        names: bytes,
        starts: array[int],
        sizes: array[int],
        octets: int,
        measured: array[int],
        uidls: dict[int, str],
        problems: tuple[str, ...] = (),
        stamp: Stamp | None = None,
    ) -> None:
        self.names = names
        self.starts = starts
        self.sizes = sizes
        self.octets = octets
        self.measured = measured
        self.uidls = uidls
        self.problems = problems
        self.stamp = stamp
        self.unsaved = False  # there is something in it that no index has, and is worth one

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def memory(self) -> int:
        """About how many octets it takes."""
        return len(self.names) + 12 * len(self.sizes) + 4 * len(self.measured) + 150 * len(self.uidls) + 1000

    def path(self, index: int) -> str:
        return os.fsdecode(self.path_octets(index))

    def path_octets(self, index: int) -> bytes:
        """``path`` as the file system has it."""
        start = self.starts[index]
        return _FOLDERS[self.names[start]] + self.names[start + 1 : self.names.index(b"\0", start)]

    def entry(self, index: int) -> Entry:
        (uidl,) = self.unique_ids(index, index + 1)
        (part,) = self._unique_parts(index, index + 1)
        return Entry(self.path(index), os.fsdecode(part), uidl.decode("ascii"), self.sizes[index])

    def entries(self, indices: Iterable[int]) -> list[Entry]:
        return [self.entry(index) for index in indices]

    @property
    def messages(self) -> Sequence[Entry]:
        """All of them as objects."""
        return tuple(self.entries(range(len(self))))

    def size(self, index: int) -> int:
        return self.sizes[index]

    def some_sizes(self, start: int, stop: int) -> Sequence[int]:
        """Those from ``start`` up to and without ``stop``."""
        return self.sizes[start:stop]

    def unique_ids(self, start: int, stop: int) -> Sequence[bytes]:
        """Those from ``start`` up to and without ``stop`` (RFC 1939 7)."""
        found = self._unique_parts(start, stop)
        if self.uidls:
            for index in range(start, stop):
                if index in self.uidls:
                    found[index - start] = self.uidls[index].encode("ascii")
        return found

    def learn(self, index: int, size: int) -> None:
        """A message turned out to have another size."""
        self.octets += size - self.sizes[index]
        self.sizes[index] = size
        self.measured.append(index)
        self.unsaved = True

    def measured_sizes(self) -> dict[str, int]:
        """The sizes that the names do not tell, by unique part."""
        return {os.fsdecode(self._unique_parts(index, index + 1)[0]): self.sizes[index] for index in self.measured}

    def _unique_parts(self, start: int, stop: int) -> list[bytes]:
        end = self.starts[stop] if stop < len(self.starts) else len(self.names)
        return _UNIQUE.findall(self.names, self.starts[start], end) if start < stop else []
