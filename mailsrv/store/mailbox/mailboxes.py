"""Mailboxes, opened for one session at a time.

``MailStore.open`` takes a mailbox for itself (RFC 1939 8: no other session may disturb it) and reads what is in it; the
session sees this snapshot until ``release``.  All work on the disk happens in threads of its own; nothing is removed
but by ``remove``, and only after local deliveries to the mailbox are settled, lest a crash deliver a removed message
again.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from twisted.logger import Logger

from mailsrv.outside.interfaces import IFilesystem, Outside
from mailsrv.store.accounts.accounts import mailbox_path
from mailsrv.store.mailbox import index_file, listing, maildir, uidls
from mailsrv.store.mailbox.maildir import Places
from mailsrv.store.mailbox.reading import CHUNK, Reading, to_crlf
from mailsrv.store.mailbox.snapshot import Entry, Snapshot, Stamp

THREADS = 4
AT_ONCE = CHUNK  # octets with CRLF of a message that is read in the reactor's thread, when it is in memory
REMEMBERED_OCTETS = 32 * 1024 * 1024  # of snapshots, over all mailboxes
SETTLED_S = 2.0  # as coarse as clocks of file systems are: a younger change may be followed by one of the same time
INDEXED = 5000  # messages; fewer are listed as soon as an index is read
PROBLEMS_LOGGED = 10  # of one mailbox at one login

log = Logger()

Settled = Callable[[str], Awaitable[None] | None]


class InUse(Exception):
    """Another session has the mailbox open."""


@dataclass(frozen=True, slots=True)
class Removal:
    """What ``remove`` did: ``names`` (unique parts) are gone, ``problems`` are sentences about those that are not."""

    names: tuple[str, ...]
    problems: tuple[str, ...]


class MailStore:
    """The Maildirs below ``root`` (absolute).  ``settled(mailbox)`` waits for deliveries that are not yet recorded."""

    def __init__(self, outside: Outside, root: str, settled: Settled) -> None:
        self._filesystem = outside.filesystem
        self._wall = outside.wall
        self._root = root
        self._settled = settled
        self._worker = outside.worker("mailboxes", THREADS)
        self._open: set[str] = set()
        # Who keeps count of what is in a mailbox: ``on_removed`` follows each ``on_removing``, with the names of files.
        self.on_removing: Callable[[str], None] = lambda mailbox: None
        self.on_removed: Callable[[str, Sequence[str]], None] = lambda mailbox, names: None
        self._snapshots: dict[str, tuple[Snapshot, int]] = {}  # with its memory; the one used last at the end
        self._remembered = 0  # octets of them

    async def open(self, mailbox: str) -> MailboxSession:
        """Take ``mailbox`` (the key of its account) and read it: InUse; OSError when it cannot be read.

        It is the caller's until ``MailboxSession.release``.
        """
        if mailbox in self._open:
            raise InUse(mailbox)
        self._open.add(mailbox)
        path = f"{self._root}/{mailbox_path(mailbox)}"
        try:
            known = self._forget(mailbox) if mailbox in self._snapshots else None
            snapshot = await self._worker.call(_snapshot, self._filesystem, path, known, self._wall())
        except BaseException:
            self._open.discard(mailbox)
            raise
        if snapshot is not known:
            _report(path, snapshot.problems)
        self._remember(mailbox, snapshot)
        return MailboxSession(self, mailbox, path, snapshot)

    def stop(self) -> None:
        """End the threads; call once every session is released."""
        self._worker.stop()

    def _remember(self, mailbox: str, snapshot: Snapshot) -> None:
        if not len(snapshot):
            return  # listed again in no time
        memory = snapshot.memory
        self._snapshots[mailbox] = (snapshot, memory)
        self._remembered += memory
        while self._remembered > REMEMBERED_OCTETS:
            self._forget(next(iter(self._snapshots)))

    def _forget(self, mailbox: str) -> Snapshot:
        snapshot, memory = self._snapshots.pop(mailbox)
        self._remembered -= memory
        return snapshot


class MailboxSession:
    """One mailbox while a session has it.  Messages are known by their index in ``messages``."""

    def __init__(self, store: MailStore, mailbox: str, path: str, snapshot: Snapshot) -> None:
        self.mailbox = mailbox
        self.messages = snapshot
        self._store = store
        self._path = path
        self._octets = os.fsencode(path)
        self._places = Places(store._filesystem, path)
        self._held = True

    def read_at_once(self, index: int) -> bytes | None:
        """A message with CRLF, if it is not large and can be read without waiting; else, or for trouble, None."""
        if self.messages.sizes[index] > AT_ONCE:
            return None
        content = self._store._filesystem.read_cached(b"%b/%b" % (self._octets, self.messages.path_octets(index)))
        return None if content is None else to_crlf(content)

    async def read(self, index: int, lines: int | None = None) -> MessageReader:
        """Begin to read a message, or its header and ``lines`` lines: FileNotFoundError when it has gone, OSError."""
        store = self._store
        entry = self.messages.entry(index)
        reading, chunk = await store._worker.call(_begin, self._places, entry, lines)
        return MessageReader(store, reading, chunk)

    def learn(self, index: int, size: int) -> None:
        """The message turned out to have another size than its name tells: announce this one from now on."""
        self.messages.learn(index, size)

    async def remove(self, indices: Sequence[int]) -> Removal:
        """Remove messages for good; they are durably gone when this returns.  What had gone already is no problem."""
        settled = self._store._settled(self.mailbox)
        if settled is not None:
            await settled
        store = self._store
        files: list[str] = []
        store.on_removing(self.mailbox)
        try:
            return await store._worker.call(
                _remove, store._filesystem, self._path, self.messages, tuple(indices), files
            )
        finally:
            store.on_removed(self.mailbox, files)

    def release(self) -> None:
        """Give the mailbox back; harmless when done twice."""
        if self._held:
            self._held = False
            self._store._open.discard(self.mailbox)


class MessageReader:
    """A message being read: ``chunk`` is the first piece, ``next_chunk`` the ones after it until ``done``."""

    def __init__(self, store: MailStore, reading: Reading, chunk: bytes) -> None:
        self.chunk = chunk
        self._store = store
        self._reading = reading
        self._closed = reading.done

    @property
    def done(self) -> bool:
        """Whether there is nothing after the last piece."""
        return self._reading.done

    @property
    def size(self) -> int:
        """Octets of the message read so far."""
        return self._reading.size

    async def next_chunk(self) -> bytes:
        """The next piece (OSError)."""
        return await self._store._worker.call(self._reading.next_chunk)

    async def close(self) -> None:
        """Close the file, once no ``next_chunk`` is under way."""
        if not self._closed:
            self._closed = True
            await self._store._worker.call(self._reading.close)


def _begin(places: Places, entry: Entry, lines: int | None) -> tuple[Reading, bytes]:
    """Open, read the first piece, and close when that was all: one visit to the worker for most messages."""
    reading = Reading(places.open(entry.name, entry.path), lines, entry.size)
    try:
        chunk = reading.next_chunk()
    except BaseException:
        reading.close()
        raise
    if reading.done:
        reading.close()
    return reading, chunk


def _remove(
    filesystem: IFilesystem, path: str, snapshot: Snapshot, indices: Sequence[int], files: list[str]
) -> Removal:
    """``files`` gets the names of those that are gone."""
    removed, problems = maildir.remove(filesystem, path, snapshot.entries(indices))
    files += [entry.path.partition("/")[2] for entry in removed]
    return Removal(tuple([entry.name for entry in removed]), tuple(problems))


def _snapshot(filesystem: IFilesystem, path: str, known: Snapshot | None, now: float) -> Snapshot:
    """The mailbox as it is: as it was known, or as an index says, when nothing has changed since; else listed anew.

    An index is written of a large mailbox, and of any when messages had to be read to know their size: of those it
    counts even when the mailbox has changed.
    """
    stamp = _stamp(filesystem, path, now)
    if known is None:
        known = index_file.read(filesystem, path)
    if known is not None and stamp is not None and known.stamp == stamp:
        snapshot = known
    else:
        measured = {} if known is None else known.measured_sizes()
        snapshot = listing.scan(filesystem, path, measured)
        snapshot.stamp = stamp
        if (known is not None and known.unsaved) or (stamp is not None and len(snapshot) >= INDEXED):
            snapshot.unsaved = True
    if snapshot.unsaved:
        try:
            index_file.write(filesystem, path, snapshot)
        except OSError as error:
            log.warn("no index can be kept in {path}: {error}", path=path, error=error)
    return snapshot


def _stamp(filesystem: IFilesystem, path: str, now: float) -> Stamp | None:
    """What a snapshot that is taken after this rests on; None when that may still change without showing."""
    stamp = []
    for name in ("new", "cur", uidls.FILE):
        try:
            stamp.append(filesystem.status(f"{path}/{name}").changed)
        except FileNotFoundError:
            stamp.append(0.0)
    return tuple(stamp) if max(stamp) < now - SETTLED_S else None


def _report(path: str, problems: Sequence[str]) -> None:
    for problem in problems[:PROBLEMS_LOGGED]:
        log.warn("{problem}", problem=problem)
    if len(problems) > PROBLEMS_LOGGED:
        log.warn("{path}: {n} more files are skipped", path=path, n=len(problems) - PROBLEMS_LOGGED)
