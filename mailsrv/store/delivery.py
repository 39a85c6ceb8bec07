"""Delivery into own mailboxes, in batches, each message exactly once.

The way of a batch, and why its order is what it is:

1. every copy is written to ``tmp/<name>`` of its Maildir, under the name that was fixed at acceptance;
2. one sync makes all of them durable, and with them the renames of the batch before (few copies are synced one by
   one, because the one sync is of the whole file system, on which others may have much to write);
3. the batch before is marked as delivered in the database, which drops its content;
4. the copies are renamed to ``new/<name>``: from here on readers see them, and what they see is whole.

So under load one sync serves two batches, and when nothing waits one more sync finishes the last batch.  A crash before
4 leaves files in ``tmp`` that nobody sees, written anew later; a crash between 4 and the mark leaves open rows whose
name is already in ``new`` or ``cur``, which the next start finds.  Only there is a look into the folders needed:
names that come fresh from acceptance cannot be there yet.

What goes wrong for one copy (no room, no permission, a folder that is none) defers this copy and touches no other.
A sync that fails defers the whole batch, and it is written anew: what a failed sync left is not trusted.  What became
visible and could not be marked is remembered and marked later, even if its owner has deleted it by then.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailsrv.outside.interfaces import Outside
from mailsrv.store import due, ledger, message, queue_id
from mailsrv.store.database import Database, StorageTrouble
from mailsrv.store.ledger import Event
from mailsrv.store.mailbox.mailbox_writer import Copy, MailboxWriter
from mailsrv.store.mailbox.usage import MailboxUsage
from mailsrv.store.message import Acceptance, Arrival, QueuedMessage, Settlement
from mailsrv.store.spool import Spool, local_head

BATCH = 128  # copies that share one sync
PACE_S = 0.02  # between two batches: under load they grow, and nobody waits for what is stored already
BACKLOG = 16 * 1024 * 1024  # octets of content that waiting copies keep in memory; above it they are read again

ReportSuccess = Callable[[int, Sequence[int]], Awaitable[Sequence[Acceptance]]]

log = Logger()


class _Batch:
    """Copies on their way together, and those who wait until they are marked."""

    __slots__ = ("copies", "mailboxes", "waiting")

    def __init__(self, copies: list[Copy]) -> None:
        self.copies = copies
        self.mailboxes = {copy.mailbox for copy in copies}
        self.waiting: list[tuple[str, Deferred[None]]] = []


class LocalDelivery:
    """Takes what the spool has accepted for own mailboxes."""

    def __init__(
        self,
        outside: Outside,
        database: Database,
        spool: Spool,
        state: str,
        retry_after: Callable[[int], float],
        usage: MailboxUsage,
    ) -> None:
        self._usage = usage
        self._outside = outside
        self._database = database
        self._spool = spool
        self._writer = MailboxWriter(outside.filesystem, os.path.join(state, "mail"), spool.path)
        self._retry_after = retry_after
        self._worker = outside.worker("local-delivery")
        self._waiting: list[Copy] = []
        self._known: set[tuple[int, int]] = set()  # copies between acceptance and mark
        self._shown: set[tuple[int, int]] = set()  # visible, but their mark failed
        self._recovering: set[tuple[int, int]] = set()  # what the last run left, and is not looked after yet
        self._recovery_seen = False  # whether that is all of it
        self._recovery_awaited: list[tuple[str, Deferred[None]]] = []
        self._backlog = 0
        self._running = False
        self._stopping = False
        self._under_way: list[_Batch] = []
        self._idle: list[Deferred[None]] = []
        self.report_success: ReportSuccess = _no_reports
        self.on_delivered: Callable[[Sequence[Copy]], None] = lambda copies: None
        self.on_deferred: Callable[[float], None] = lambda next_attempt: None

    # -- what comes in

    def accepted(self, arrival: Arrival, names: Sequence[str], content: bytes | None) -> None:
        """A message has just been committed: take its copies for own mailboxes, without asking the database."""
        for n, (recipient, name) in enumerate(zip(arrival.recipients, names, strict=True)):
            if not recipient.mailbox or (arrival.id, n) in self._known:
                continue  # a look at the database may have been faster
            head = local_head(arrival.envelope.sender, recipient.address, arrival.prefix)
            kept = content if self._backlog < BACKLOG else None
            copy = Copy(arrival.id, n, recipient.mailbox, name, head, kept, arrival.size, filed=content is None)
            copy.tell_sender = "SUCCESS" in recipient.notify
            self._add(copy)
        self._start()

    def waiting(self, messages: Sequence[QueuedMessage], last: bool = True) -> None:
        """Messages found in the database, after a start, a failure or a change by the operator.

        ``last``: these are all that are due.
        """
        for queued in messages:
            for recipient in queued.recipients:
                key = (queued.id, recipient.n)
                if key not in self._known:
                    head = local_head(queued.envelope.sender, recipient.address, b"")
                    self._add(
                        Copy(
                            *(*key, recipient.mailbox, recipient.name, head, None, queued.size),
                            attempts=recipient.attempts,
                            recovered=True,
                            shown=key in self._shown,
                            tell_sender="SUCCESS" in recipient.notify,
                        )
                    )
                    if not self._recovery_seen:
                        self._recovering.add(key)
        self._recovery_seen = self._recovery_seen or last
        self._recovered()
        self._start()

    def settled(self, mailbox: str) -> Deferred[None] | None:
        """Wait until what may be visible in ``mailbox`` now is marked as delivered; None when it is.

        Who deletes a message before that would see it again after a crash.
        """
        for batch in reversed(self._under_way):
            if mailbox in batch.mailboxes:
                waiter: Deferred[None] = Deferred()
                batch.waiting.append((mailbox, waiter))
                return waiter
        if self._recovering or not self._recovery_seen:
            # What the last run made visible may not be marked either.
            waiter = Deferred()
            self._recovery_awaited.append((mailbox, waiter))
            return waiter
        return None

    async def stop(self) -> None:
        """Finish the batch under way; what waits behind it is found at the next start."""
        self._stopping = True
        if self._running:
            idle: Deferred[None] = Deferred()
            self._idle.append(idle)
            await idle
        self._worker.stop()

    def _add(self, copy: Copy) -> None:
        self._known.add(copy.key)
        if not copy.shown:
            self._usage.expected(copy.mailbox, copy.name)
        self._waiting.append(copy)
        if copy.content is not None:
            self._backlog += copy.size

    def _forget(self, copies: Sequence[Copy]) -> None:
        """They are not our business any more, or not now."""
        keys = [copy.key for copy in copies]
        self._known.difference_update(keys)
        for copy in copies:
            if not copy.placed and not copy.shown:
                self._usage.dropped(copy.mailbox, copy.name)
        if self._recovering:
            self._recovering.difference_update(keys)
            self._recovered()

    def _recovered(self) -> None:
        if self._recovery_seen and not self._recovering and self._recovery_awaited:
            awaited, self._recovery_awaited = self._recovery_awaited, []
            self._release(awaited)

    def _release(self, waiting: Sequence[tuple[str, Deferred[None]]]) -> None:
        for mailbox, waiter in waiting:
            more = self.settled(mailbox)
            if more is None:
                waiter.callback(None)
            else:
                more.chainDeferred(waiter)

    # -- the way of the batches

    def _start(self) -> None:
        if self._waiting and not self._running and not self._stopping:
            self._running = True
            Deferred.fromCoroutine(self._run()).addErrback(self._stumbled)

    def _stumbled(self, failure: object) -> None:
        log.critical("Local delivery stopped: {failure}", failure=failure)
        for batch in list(self._under_way):
            self._later(batch.copies)
            self._leave(batch)
        self._finish()

    def _finish(self) -> None:
        self._running = False
        idle, self._idle = self._idle, []
        for waiting in idle:
            waiting.callback(None)

    async def _run(self) -> None:
        visible: _Batch | None = None
        marking: Deferred[None] | None = None
        while True:
            taken = [] if self._stopping else self._waiting[:BATCH]
            del self._waiting[: len(taken)]
            if not taken and visible is None:
                break
            batch = _Batch(taken)
            self._under_way.append(batch)
            batch.copies = await self._loaded(taken)
            try:
                await self._worker.call(self._writer.write_and_show, batch.copies, visible.copies if visible else [])
            except Exception as error:
                # The sync failed: neither this batch nor the renames of the one before are known to be durable.
                for copy in (*batch.copies, *(visible.copies if visible else ())):
                    copy.error = copy.error or error
            self._usage.placed((copy.mailbox, copy.name, copy.octets) for copy in batch.copies if copy.placed)
            if visible is not None and not self._synced(visible):
                visible = None
            if visible is not None:
                if marking is not None:
                    await marking
                marking = Deferred.fromCoroutine(self._mark(visible))
            visible = batch if self._sort_out(batch) else None
            if len(self._waiting) < BATCH and not self._stopping:
                await deferLater(self._outside.reactor, PACE_S)
        if marking is not None:
            await marking
        self._finish()
        self._start()

    async def _loaded(self, copies: list[Copy]) -> list[Copy]:
        """The copies with their content at hand; those that are open no more are left out."""
        present = []
        for copy in copies:
            if copy.content is not None:
                self._backlog -= copy.size
            elif not (copy.filed and not copy.recovered):
                try:
                    found = await self._spool.load(copy.message)
                    if copy.recovered and copy.n not in await self._database.read(due.still_queued, copy.message):
                        found = None  # it was settled between the look that found it waiting and now
                except StorageTrouble as trouble:
                    log.error("A message waits, because it cannot be read yet: {trouble}", trouble=trouble)
                    self._later([copy])
                    continue
                if found is None:
                    self._forget([copy])
                    continue
                prefix, copy.content = found
                copy.filed = copy.content is None
                if copy.recovered:
                    copy.head += prefix
            present.append(copy)
        return present

    def _sort_out(self, batch: _Batch) -> bool:
        """Put the copies that failed aside; True when others are visible now."""
        failed = [copy for copy in batch.copies if copy.error is not None]
        batch.copies = [copy for copy in batch.copies if copy.error is None]
        for copy in failed:
            Deferred.fromCoroutine(self._defer(copy)).addErrback(self._unmarked)
        if not batch.copies:
            self._leave(batch)
        return bool(batch.copies)

    def _leave(self, batch: _Batch) -> None:
        if batch in self._under_way:
            self._under_way.remove(batch)
            self._release(batch.waiting)

    def _synced(self, batch: _Batch) -> bool:
        """Put the visible copies aside whose names may not be durable; True when there are others, to be marked."""
        self._again([copy for copy in batch.copies if copy.error is not None])
        batch.copies = [copy for copy in batch.copies if copy.error is None]
        if not batch.copies:
            self._leave(batch)
        return bool(batch.copies)

    async def _mark(self, batch: _Batch) -> None:
        items = [(copy.message, copy.n, copy.mailbox, copy.name) for copy in batch.copies]
        try:
            reports = await self._success_reports(batch)
            dropped = await self._database.write(message.delivered, self._outside.wall(), items, reports)
        except Exception as error:
            log.error("Delivered messages could not be marked yet: {error}", error=error)
            self._again(batch.copies)
            self._leave(batch)
            return
        self._forget(batch.copies)
        self._shown.difference_update([copy.key for copy in batch.copies if copy.shown])
        self._spool.dropped(dropped)
        self._leave(batch)
        for report in reports:
            self._spool.on_accepted(report)
        self.on_delivered(batch.copies)

    async def _success_reports(self, batch: _Batch) -> Sequence[Acceptance]:
        wanted: dict[int, list[int]] = {}
        for copy in batch.copies:
            if copy.tell_sender:
                wanted.setdefault(copy.message, []).append(copy.n)
        reports: list[Acceptance] = []
        for number, ns in wanted.items():
            try:
                reports += await self.report_success(number, ns)
            except StorageTrouble:
                raise
            except Exception:
                # What is in the mailbox is there, whether its sender can be told or not.
                log.failure("A report of success about {queue_id} could not be made", queue_id=queue_id.text(number))
        return reports

    def _again(self, copies: Sequence[Copy]) -> None:
        """Visible, but not marked: look again later, and do not deliver again what has been deleted since."""
        self._shown.update(copy.key for copy in copies)
        self._later(copies)

    def _later(self, copies: Sequence[Copy]) -> None:
        """Their rows are still open and due: they come again with the next look into the database."""
        if copies:
            self._forget(copies)
            self.on_deferred(self._outside.wall() + self._retry_after(0))

    async def _defer(self, copy: Copy) -> None:
        now = self._outside.wall()
        next_attempt = now + self._retry_after(copy.attempts)
        event = Event(
            ledger.DEFERRED,
            message=copy.message,
            n=copy.n,
            address=copy.mailbox,
            status="4.3.0",
            reason=f"could not be stored in the mailbox: {copy.error}",
            rule="local trouble never bounces",
            detail=str(next_attempt),
        )
        settlement = Settlement(copy.n, "queued", event, copy.attempts + 1, next_attempt)
        try:
            await self._database.write(message.settle, now, copy.message, (settlement,))
        finally:
            self._forget([copy])
            self.on_deferred(next_attempt)

    def _unmarked(self, failure: object) -> None:
        log.error("A failed delivery could not be recorded: {failure}", failure=failure)


async def _no_reports(message: int, numbers: Sequence[int]) -> Sequence[Acceptance]:
    return ()
