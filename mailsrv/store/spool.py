"""The spool: messages between acceptance and their last recipient.

**A message counts as accepted at the instant when the transaction that holds its content, its envelope and its ledger
event commits; only then may 250 be written.**

=====================  ====================================  =====================================================
state                  where it is                           what a crash here leads to
=====================  ====================================  =====================================================
arriving               memory, above ``KEPT`` octets         forgotten; the client has no answer and sends again; the
                       ``spool/<id>`` being written          file has no row and is swept at the next start
sealed                 ``spool/<id>`` and its folder synced  the same
committing             the writer's transaction              the commit is durable: accepted, the client may send it
                                                             again (no answer came); it is not: as arriving
commit failed          ``spool/<id>`` until a later commit   the flush may have been all that failed: as committing
accepted, queued       rows of message, content, recipient   found again at the start and delivered
own mailbox: written   ``tmp/<name>`` in the Maildir         the row is still open: written anew under the same name
own mailbox: visible   ``new/<name>``; what it says was      the row is still open: the name is found in ``new`` or
                       synced before it got this name        ``cur`` and not delivered twice
own mailbox: settled   the row is final, content dropped     nothing is left to do
elsewhere: sent        the final dot is answered             sent again: the one case of a duplicate, as small as the
                                                             time from that answer to the commit
elsewhere: settled     the row is final, content dropped     a spool file without a row is swept at the next start
held                   the rows, from acceptance or later    unchanged
                       on, until the operator acts
=====================  ====================================  =====================================================

Content is immutable: what arrived is stored as it came, and the headers that are ours stand apart in ``prefix``.
Local trouble (no room, no permission, I/O error) is never a reason to lose or to bounce: before acceptance it is a 4xx
answer, after it another attempt.  A file that failed to sync is never trusted again: the message is written anew.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence

from twisted.internet.defer import Deferred, succeed

from mailsrv.mail import trace
from mailsrv.mail.address import Address
from mailsrv.outside.interfaces import Output, Outside
from mailsrv.store import message, queue_id
from mailsrv.store.database import Database, StorageTrouble
from mailsrv.store.mailbox import maildir
from mailsrv.store.message import Acceptance, Arrival
from mailsrv.store.secret import lasting

KEPT = 256 * 1024  # octets of a message that are kept in memory and stored in the database
KEPT_WHEN_BUSY = 16 * 1024  # the same while MEMORY is used up
MEMORY = 32 * 1024 * 1024  # octets of content that all arriving messages together keep in memory
BLOCK = 256 * 1024  # octets that are read from a spool file at once

Also = Callable[[sqlite3.Connection], Sequence[Acceptance]]


class Draft:
    """The content of a message on its way in."""

    __slots__ = ("_chunks", "_created", "_kept", "_output", "_spool", "_writing", "id", "size", "trouble")

    def __init__(self, spool: Spool, number: int) -> None:
        self.id = number
        self.size = 0
        self.trouble: OSError | None = None  # what kept the content from being stored
        self._spool = spool
        self._chunks: list[bytes] = []
        self._kept = 0
        self._output: Output | None = None  # while it is open
        self._created = False
        self._writing: Deferred[None] | None = None

    @property
    def filed(self) -> bool:
        """The content is in a file and not in memory."""
        return self._writing is not None

    def head(self) -> bytes:
        """The beginning, at most KEPT octets: enough for every header block that is worth reading."""
        return b"".join(self._chunks)

    async def content(self) -> AsyncIterator[bytes]:
        """All of it in pieces, once everything has come (StorageTrouble)."""
        if not self.filed:
            yield self.head()
            return
        offset, block = 0, b""
        while offset < self.size:
            try:
                block = await self._spool.read_file(self.id, offset)
            except OSError as error:
                raise _trouble(error) from error
            if not block:
                raise _trouble(self.trouble or OSError(errno.EIO, "the file is too short"))
            offset += len(block)
            yield block

    def append(self, chunk: bytes) -> Deferred[None] | None:
        """Take more content.  A Deferred that is answered asks the caller to wait before it brings more."""
        self.size += len(chunk)
        self._spool.used(len(chunk))
        if self.trouble is not None:
            return None
        if not self.filed:
            # What is over the limit goes to a file; what is under it stays, for the header is read from memory.
            room = max(self._spool.allowance() - self._kept, 0)
            kept, chunk = chunk[:room], chunk[room:]
            self._chunks.append(kept)
            self._kept += len(kept)
            self._spool.memory += len(kept)
            if not chunk:
                return None
        self._writing = self._spool.blocking(self._write, chunk)
        return self._writing

    def _write(self, chunk: bytes) -> None:
        """In the worker's thread."""
        try:
            if self._output is None:
                self._output = self._spool.create(self.id)
                self._created = True
                for kept in self._chunks:
                    self._output.write(kept)
            self._output.write(chunk)
        except Exception as error:
            # Nobody looks at the failure of a single piece: whatever it is, the whole is not to be accepted.
            self.trouble = error if isinstance(error, OSError) else OSError(errno.EIO, str(error))

    def seal(self) -> None:
        """Make a filed content durable; in the worker's thread."""
        if self.trouble is None and self._output is not None:
            try:
                self._output.sync()
                self._close_file()
                self._spool.sync_folder()
            except OSError as error:
                self.trouble = error

    def _close_file(self) -> None:
        # Once only, whatever it says: soon the same descriptor may be somebody else's.
        output, self._output = self._output, None
        if output is not None:
            output.close()

    def close(self) -> None:
        """Forget what is in memory."""
        self._spool.memory -= self._kept
        self._kept = 0
        self._chunks = []

    def leave(self) -> None:
        """The content is the spool's: ``discard`` takes nothing from it any more."""
        self.close()
        self._writing = None

    def discard(self) -> None:
        """The message is not accepted: nothing of it stays."""
        self.close()
        if self._writing is not None:
            # A file that cannot be removed now is swept at the next start.
            self._writing.addBoth(lambda result: self._spool.blocking(self._remove)).addErrback(lambda failure: None)
            self._writing = None

    def _remove(self) -> None:
        try:
            self._close_file()
        except OSError:
            pass
        if self._created:
            self._spool.remove_file(self.id)


class Spool:
    """Takes messages in and gives their content out again."""

    def __init__(self, outside: Outside, database: Database, state: str, hostname: Callable[[], str]) -> None:
        self.memory = 0
        self.secret = b""  # for the senders of forwarded mail
        self._outside = outside
        self._database = database
        self._state = state
        self._folder = os.path.join(state, "spool")
        self._hostname = hostname
        self._worker = outside.worker("spool", 4)
        self._ids = queue_id.QueueIds(0)
        self._room = 0
        self._room_read = 0.0
        self._room_asked = False
        self._filed: set[int] = set()
        self._doubtful: list[int] = []  # whose commit failed, and whose file is still there
        self.on_accepted: Callable[[Acceptance], None] = lambda acceptance: None

    def open(self, connection: sqlite3.Connection) -> None:
        """Before anything else runs: make the folder, read the last id, sweep what a crash has left behind."""
        self._ids = queue_id.QueueIds(message.last_id(connection))
        self._filed = message.filed(connection)
        self.secret = lasting(connection, "srs", self._outside.random)
        self._sweep(self._filed)
        self._room_read = self._outside.reactor.seconds()

    def _sweep(self, filed: set[int]) -> None:
        disk = self._outside.filesystem
        try:
            disk.make_directory(self._folder)
        except FileExistsError:
            pass
        disk.sync_directory(self._state)
        for name in disk.list(self._folder):
            number = queue_id.number(name)
            if number is not None and number not in filed:
                disk.unlink(os.path.join(self._folder, name))
        self._room = disk.free(self._state)

    def stop(self) -> None:
        """End the threads."""
        self._worker.stop()

    # -- taking in

    def room(self) -> int:
        """Octets free on the disk, less what has come since it was asked, at most a second ago.

        Nobody waits for the disk to hear it.
        """
        now = self._outside.reactor.seconds()
        if now - self._room_read > 1 and not self._room_asked:
            self._room_asked = True
            if self._doubtful:
                # Perhaps it is they who take the room, and then there is no acceptance that would end the doubt.
                self._database.write(_something).addCallbacks(lambda _: self._certain(), lambda failure: None)
            self._worker.call(self._outside.filesystem.free, self._state).addCallbacks(
                self._room_is, self._room_unknown
            )
        return self._room

    def used(self, octets: int) -> None:
        """So much content has come: it takes room twice, in the spool and in a mailbox."""
        self._room -= 2 * octets

    def _room_is(self, octets: int) -> None:
        self._room = octets
        self._room_read = self._outside.reactor.seconds()
        self._room_asked = False

    def _room_unknown(self, failure: object) -> None:
        self._room_is(0)

    def allowance(self) -> int:
        return KEPT if self.memory < MEMORY else KEPT_WHEN_BUSY

    def draft(self) -> Draft:
        """Begin a message; it gets its queue id here."""
        return Draft(self, self.next_id())

    async def with_head(self, draft: Draft, length: int, head: bytes) -> Draft:
        """The same content in a new draft, its first ``length`` octets replaced; the old draft is gone."""
        changed = self.draft()
        kept = draft.head()
        pieces = head + kept[length:] if not draft.filed else head
        try:
            await (changed.append(pieces) or succeed(None))
            offset = length
            while draft.filed and draft.trouble is None and (block := await self.read_file(draft.id, offset)):
                offset += len(block)
                await (changed.append(block) or succeed(None))
        except BaseException:
            changed.discard()
            raise
        changed.trouble = changed.trouble or draft.trouble
        draft.discard()
        return changed

    async def accept(self, draft: Draft, arrival: Arrival, also: Also | None = None) -> None:
        """Take responsibility.  Returns once the message is on stable storage; raises StorageTrouble otherwise.

        ``also`` runs in the same transaction, and gives further messages that it has accepted there.
        """
        if draft.filed:
            await self._worker.call(draft.seal)
            if draft.trouble is not None:
                draft.discard()
                raise _trouble(draft.trouble)
            content = None
        else:
            content = draft.head()
        names = self.names(arrival)
        try:
            acceptance = Acceptance(self._outside.wall(), arrival, names, content)
            further: Sequence[Acceptance] = ()
            if also is None:
                await self._database.gather(message.insert, acceptance)
            else:
                further = await self._database.write(_insert_with, acceptance, also)
        except Exception:
            if draft.filed:
                self._doubtful.append(draft.id)
            draft.leave()
            raise
        if draft.filed:
            self._filed.add(draft.id)
        draft.leave()
        self._certain()
        for each in (acceptance, *further):
            self.on_accepted(each)

    def _certain(self) -> None:
        """A commit that changes something has succeeded, and taken the place of those before it that failed.

        Until then a crash may bring a failed one back, if only the flush was what failed: its file has to be there.
        """
        for number in self._doubtful:
            self._worker.call(self.remove_file, number)
        self._doubtful.clear()

    def next_id(self) -> int:
        """A queue id for a message of our own."""
        return self._ids.next(self._outside.wall())

    def names(self, arrival: Arrival) -> tuple[str, ...]:
        """The file name of each recipient's copy in its Maildir, "" for recipients elsewhere."""
        hostname = self._hostname()
        names = []
        for n, recipient in enumerate(arrival.recipients):
            if not recipient.mailbox:
                names.append("")
                continue
            unique = maildir.unique(queue_id.text(arrival.id), n, arrival.id // 1_000_000, hostname)
            head = local_head(arrival.envelope.sender, recipient.address, arrival.prefix)
            octets = len(head) + arrival.size
            names.append(maildir.file_name(unique, octets - head.count(b"\n") - arrival.lines, octets))
        return tuple(names)

    # -- giving out

    async def load(self, number: int) -> tuple[bytes, bytes | None] | None:
        """Prefix and content of an open message; the content is None when it has to be read from its file."""
        return await self._database.read(message.content, number)

    async def load_prefix(self, number: int) -> tuple[bytes | None, bool]:
        """The prefix of an open message, and whether its content is a file; None when it has gone."""
        return await self._database.read(message.prefix, number)

    async def load_block(self, number: int, offset: int, octets: int) -> bytes:
        """Up to ``octets`` of a content that is in the database."""
        return await self._database.read(message.content_block, number, offset, octets)

    def is_filed(self, number: int) -> bool:
        """Whether the content of an open message is a file."""
        return number in self._filed

    def path(self, number: int) -> str:
        return os.path.join(self._folder, queue_id.text(number))

    def blocking(self, function: Callable[..., None], *arguments: object) -> Deferred[None]:
        return self._worker.call(function, *arguments)

    async def read_file(self, number: int, offset: int) -> bytes:
        """Up to BLOCK octets of a content that is a file."""

        def read() -> bytes:
            file = self._outside.filesystem.open(self.path(number))
            try:
                file.seek(offset)
                return file.read(BLOCK)
            finally:
                file.close()

        return await self._worker.call(read)

    def dropped(self, numbers: Sequence[int]) -> None:
        """The content rows of these messages have gone; their files follow.  A file that stays is swept later."""
        for number in self._filed.intersection(numbers):
            self._filed.discard(number)
            self._worker.call(self.remove_file, number)

    # -- in the worker's thread

    def create(self, number: int) -> Output:
        return self._outside.filesystem.create(self.path(number))

    def sync_folder(self) -> None:
        self._outside.filesystem.sync_directory(self._folder)

    def remove_file(self, number: int) -> None:
        try:
            self._outside.filesystem.unlink(self.path(number))
        except OSError:
            pass


def _insert_with(connection: sqlite3.Connection, acceptance: Acceptance, also: Also) -> Sequence[Acceptance]:
    message.insert(connection, [acceptance])
    return also(connection)


def _something(connection: sqlite3.Connection) -> None:
    """A change that leaves everything as it was, and is written all the same."""
    connection.execute("INSERT INTO secret (name, octets) VALUES ('', x'')")
    connection.execute("DELETE FROM secret WHERE name = ''")


def _trouble(error: OSError) -> StorageTrouble:
    return StorageTrouble(str(error), error.errno in (errno.ENOSPC, errno.EDQUOT))


def local_head(sender: Address | None, address: Address, prefix: bytes) -> bytes:
    """The headers in front of a message in an own mailbox: Return-Path, Delivered-To and the prefix."""
    return trace.return_path(sender) + trace.delivered_to(address) + prefix
