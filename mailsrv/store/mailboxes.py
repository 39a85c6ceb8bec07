"""Mailboxes, opened for one session at a time.

``MailStore.open`` takes a mailbox for itself (RFC 1939 8: no other session may disturb it) and reads what is in it; the
session sees this snapshot until ``release``.  All work on the disk happens in threads of its own; nothing is removed
but by ``remove``, and only after local deliveries to the mailbox are settled, lest a crash deliver a removed message
again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from twisted.logger import Logger

from mailsrv.outside.interfaces import Outside
from mailsrv.store import maildir
from mailsrv.store.accounts import mailbox_path
from mailsrv.store.maildir import Entry, Places, Snapshot
from mailsrv.store.reading import Reading

THREADS = 4
REMEMBERED_LIMIT = 200_000  # sizes found by reading, over all mailboxes
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
        self._root = root
        self._settled = settled
        self._worker = outside.worker("mailboxes", THREADS)
        self._open: set[str] = set()
        self._measured: dict[str, dict[str, int]] = {}  # by mailbox, the one used last at the end
        # Who keeps count of what is in a mailbox: ``on_removed`` follows each ``on_removing``, with the names of files.
        self.on_removing: Callable[[str], None] = lambda mailbox: None
        self.on_removed: Callable[[str, Sequence[str]], None] = lambda mailbox, names: None

    async def open(self, mailbox: str) -> MailboxSession:
        """Take ``mailbox`` (the key of its account) and read it: InUse; OSError when it cannot be read.

        It is the caller's until ``MailboxSession.release``.
        """
        if mailbox in self._open:
            raise InUse(mailbox)
        self._open.add(mailbox)
        path = f"{self._root}/{mailbox_path(mailbox)}"
        try:
            known = self._measured.get(mailbox, {})
            snapshot = await self._worker.call(maildir.scan, self._filesystem, path, known)
        except BaseException:
            self._open.discard(mailbox)
            raise
        for problem in snapshot.problems[:PROBLEMS_LOGGED]:
            log.warn("{problem}", problem=problem)
        if len(snapshot.problems) > PROBLEMS_LOGGED:
            log.warn("{path}: {n} more files are skipped", path=path, n=len(snapshot.problems) - PROBLEMS_LOGGED)
        self._remember(mailbox, snapshot.measured)
        return MailboxSession(self, mailbox, path, snapshot)

    def stop(self) -> None:
        """End the threads; call once every session is released."""
        self._worker.stop()

    def _remember(self, mailbox: str, measured: Mapping[str, int]) -> None:
        self._measured.pop(mailbox, None)
        if measured:
            self._measured[mailbox] = dict(measured)
        total = sum([len(sizes) for sizes in self._measured.values()])
        while total > REMEMBERED_LIMIT:
            total -= len(self._measured.pop(next(iter(self._measured))))

    def _learn(self, mailbox: str, name: str, size: int) -> None:
        self._measured.setdefault(mailbox, {})[name] = size


class MailboxSession:
    """One mailbox while a session has it.  Messages are known by their index in ``messages``."""

    def __init__(self, store: MailStore, mailbox: str, path: str, snapshot: Snapshot) -> None:
        self.mailbox = mailbox
        self.messages: Sequence[Entry] = snapshot.messages
        self.octets = snapshot.octets
        self._store = store
        self._path = path
        self._places = Places(store._filesystem, path)
        self._held = True

    async def read(self, index: int, lines: int | None = None) -> MessageReader:
        """Begin to read a message, or its header and ``lines`` lines: FileNotFoundError when it has gone, OSError."""
        store = self._store
        entry = self.messages[index]
        reading, chunk = await store._worker.call(_begin, self._places, entry, lines)
        return MessageReader(store, reading, chunk)

    def learn(self, index: int, size: int) -> None:
        """The message turned out to have another size than its name tells: announce this one from now on."""
        self._store._learn(self.mailbox, self.messages[index].name, size)

    async def remove(self, indices: Sequence[int]) -> Removal:
        """Remove messages for good; they are durably gone when this returns.  What had gone already is no problem."""
        settled = self._store._settled(self.mailbox)
        if settled is not None:
            await settled
        entries = [self.messages[index] for index in indices]
        store = self._store
        removed: list[Entry] = []
        store.on_removing(self.mailbox)
        try:
            removed, problems = await store._worker.call(maildir.remove, store._filesystem, self._path, entries)
        finally:
            store.on_removed(self.mailbox, [entry.path.partition("/")[2] for entry in removed])
        return Removal(tuple(entry.name for entry in removed), tuple(problems))

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
    reading = Reading(places.open(entry.name, entry.path), lines)
    try:
        chunk = reading.next_chunk()
    except BaseException:
        reading.close()
        raise
    if reading.done:
        reading.close()
    return reading, chunk
