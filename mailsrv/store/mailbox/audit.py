"""``maildirsize`` kept and audited: what ``mailsrv.store.mailbox.usage`` has done in its one thread, in order.

The set ``untold`` has the unique parts of messages of ours that may be visible and are not in the file yet.  The
reactor adds to it before a message can be seen, and this thread takes out what it tells: so a count knows of each
message whether the file has it.
"""

from __future__ import annotations

from dataclasses import dataclass

from mailsrv.outside.interfaces import IFilesystem
from mailsrv.store.mailbox import maildirsize
from mailsrv.store.mailbox.maildirsize import Told
from mailsrv.store.mailbox.quota import Quota, Usage


@dataclass(frozen=True, slots=True)
class Audit:
    """``told`` is None when the file is missing or damaged; ``steady``: it said the same before and after the count."""

    told: Told | None
    counted: Usage
    steady: bool


@dataclass(frozen=True, slots=True)
class Line:
    """One to be written: the sum of ``parts``, the messages of these unique parts."""

    mailbox: str
    path: str
    change: Usage
    parts: tuple[str, ...]
    untold: set[str]


def tell(disk: IFilesystem, lines: list[Line]) -> list[bool | OSError]:
    """Write lines; for each: True when it is written, False where no file is."""
    outcomes: list[bool | OSError] = []
    for line in lines:
        try:
            outcomes.append(maildirsize.append(disk, line.path, line.change))
        except OSError as error:
            outcomes.append(error)
        line.untold.difference_update(line.parts)
    return outcomes


def audit(disk: IFilesystem, path: str, quota: Quota, untold: set[str]) -> Audit:
    """Read and count; ``untold`` are messages that are not in the file yet (OSError)."""
    before = maildirsize.read(disk, path)
    counted = maildirsize.count(disk, path, quota.ignored, untold)
    after = maildirsize.read(disk, path)
    return Audit(after, counted, steady=before == after)


def make_anew(disk: IFilesystem, path: str, quota: Quota, untold: set[str], mark: str) -> Told:
    """Count and write the file (OSError); ``length`` 0: there is no mailbox yet in which it could be."""
    counted = maildirsize.count(disk, path, quota.ignored, untold)
    try:
        return maildirsize.write(disk, path, quota, counted, mark)
    except FileNotFoundError:
        return Told(counted, b"", 0)
