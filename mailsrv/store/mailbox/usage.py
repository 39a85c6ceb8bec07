"""What own mailboxes hold against their quota, exactly, while other programs change them too.

``maildirsize`` in the mailbox is the account book that all programs share; this module keeps our own side of it.  It
costs accounts without a quota one attempt to open that file for each batch, and the others five small reads a second
at most.

What a mailbox holds is what the file tells, and what has been accepted for it and is not yet in the file: reservations
of transactions at the end of their content, then copies on their way.  So messages that come at the same time see each
other.

=========================  ===========================================  ==============================================
state                      where it counts                              what a crash here leads to
=========================  ===========================================  ==============================================
reserved                   ``reserved``, in memory                      not accepted, nothing to count
accepted, on its way       ``expected``, in memory                      found again at the start, and expected again
visible, not told          ``expected``; an audit passes over its name  the next life counts the file (first audit)
told                       a line in ``maildirsize``                    the line may be lost, it is not synced: the
                                                                        same audit finds the difference
being removed              as before; no audit is believed meanwhile    the same
=========================  ===========================================  ==============================================

An audit compares the file with a count of the folders.  It is made at the first use in each life, before a refusal,
after another program made the file anew, every quarter of an hour of use, and daily.  What another program has made
visible and not told yet shows as a difference for a moment; so only a difference that is the same twice is one, and
then the file is made anew, and audited again a moment later, because a line may have come into the new file for a
message that was counted already.  Until then decisions follow the count.  All work on these files is done in order by
one thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import Enum

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from mailsrv.outside.interfaces import Outside
from mailsrv.store.accounts.accounts import mailbox_path
from mailsrv.store.mailbox import audit, maildir, maildirsize
from mailsrv.store.mailbox.audit import Line
from mailsrv.store.mailbox.maildirsize import Told
from mailsrv.store.mailbox.quota import NOTHING, Quota, Usage
from mailsrv.store.settings import Settings

FRESH_S = 0.2  # so old what was read may be
SURE_S = 10.0  # a refusal is not given on an older audit
AUDIT_EVERY_S = 900.0  # of a mailbox in use
AGAIN_S = 1.0  # after a difference; twice as long each time
QUARREL_S = 900.0  # another program wants another first line: ours is written so often

log = Logger()


class Room(Enum):
    """Whether a message fits into a mailbox."""

    FITS = "fits"
    OVER = "over"  # it does not, smaller ones would
    FULL = "full"


class _Mailbox:
    """One with a quota."""

    __slots__ = (
        "audited_at",
        "base",
        "correction",
        "delay_s",
        "difference",
        "expected",
        "looking",
        "name",
        "on_its_way",
        "path",
        "quota",
        "quota_written_at",
        "read_at",
        "removals",
        "removing",
        "reserved",
        "timer",
        "told",
        "trouble",
        "untold",
    )

    def __init__(self, name: str, path: str, quota: Quota) -> None:
        self.name = name
        self.path = path
        self.quota = quota
        self.told: Usage | None = None  # what the file says, None before the first look
        self.base = b""
        self.correction = NOTHING  # what has been counted beyond it
        self.difference: Usage | None = None  # the last one that an audit has found
        self.reserved = NOTHING
        self.expected: dict[str, int] = {}  # octets of copies on their way, by unique part
        self.on_its_way = NOTHING  # their sum
        self.untold: set[str] = set()  # the same unique parts for the worker's thread, which takes out what it tells
        self.removing = 0
        self.removals = 0  # begun so far
        self.read_at = self.audited_at = self.quota_written_at = float("-inf")
        self.delay_s = AGAIN_S
        self.timer: IDelayedCall | None = None
        # What is being done, and who waits for it.
        self.looking: tuple[Callable[[_Mailbox], Awaitable[None]], list[Deferred[None]]] | None = None
        self.trouble = ""  # why nothing is known, as the log was told

    def usage(self) -> Usage:
        """What is in the mailbox, as far as is known."""
        return NOTHING if self.told is None else self.told.plus(self.correction)

    def taken(self) -> Usage:
        return self.usage().plus(self.reserved).plus(self.on_its_way)


class MailboxUsage:
    """Of the mailboxes below ``root`` (absolute).  ``on_usage`` hears of each change of one with a quota."""

    def __init__(self, outside: Outside, root: str, settings: Settings) -> None:
        self._outside = outside
        self._root = root
        self._settings = settings
        self._worker = outside.worker("usage")
        self._mailboxes: dict[str, _Mailbox] = {}
        self._stopped = False
        self.on_usage: Callable[[str, Quota, Usage], None] = lambda mailbox, quota, usage: None

    def stop(self) -> None:
        """End the thread."""
        self._stopped = True
        for mailbox in self._mailboxes.values():
            if mailbox.timer is not None:
                mailbox.timer.cancel()
                mailbox.timer = None
        self._worker.stop()

    # -- is there room?

    def limited(self, mailbox: str) -> bool:
        """Whether the mailbox (the key of its account) has a quota."""
        return self._settings.directory.quota(mailbox) is not None

    async def look(self, octets: Mapping[str, int]) -> None:
        """Know these mailboxes well enough to say whether messages of so many octets fit in: then ask ``room``."""
        for name, size in octets.items():
            mailbox = self._limited(name)
            if mailbox is None:
                continue
            now = self._outside.reactor.seconds()
            if mailbox.told is None:
                await self._once(mailbox, self._audit)
            elif now - mailbox.read_at >= FRESH_S:
                await self._once(mailbox, self._read)
            if self.room(name, size) is not Room.FITS and now - mailbox.audited_at >= SURE_S:
                await self._once(mailbox, self._audit)
            if now - mailbox.audited_at >= AUDIT_EVERY_S:
                self._audit_later(mailbox)

    def room(self, name: str, octets: int) -> Room:
        """Whether a message fits in now; it does where nothing is known, and where there is no quota."""
        mailbox = self._limited(name)
        if mailbox is None or mailbox.told is None:
            return Room.FITS
        taken = mailbox.taken()
        if mailbox.quota.full(taken):
            return Room.FULL
        return Room.FITS if mailbox.quota.holds(taken.plus(Usage(octets, 1))) else Room.OVER

    def reserve(self, octets: Mapping[str, int]) -> Callable[[], None]:
        """Count messages that are about to be accepted; what is returned takes that back."""
        reserved = [(found, size) for name, size in octets.items() if (found := self._limited(name)) is not None]
        for mailbox, size in reserved:
            mailbox.reserved = mailbox.reserved.plus(Usage(size, 1))

        def release() -> None:
            while reserved:
                mailbox, size = reserved.pop()
                mailbox.reserved = mailbox.reserved.minus(Usage(size, 1))

        return release

    # -- what comes and goes

    def expected(self, name: str, file_name: str) -> None:
        """A message is accepted for the mailbox, its file will have this name."""
        mailbox = self._limited(name)
        if mailbox is not None:
            part, octets = maildir.unique_part(file_name), maildirsize.size_told(file_name) or 0
            if part not in mailbox.expected:
                mailbox.expected[part] = octets
                mailbox.untold.add(part)
                mailbox.on_its_way = mailbox.on_its_way.plus(Usage(octets, 1))

    def dropped(self, name: str, file_name: str) -> None:
        """It is not on its way any more and has not been placed by us."""
        mailbox = self._mailboxes.get(name)
        if mailbox is not None:
            part = maildir.unique_part(file_name)
            mailbox.untold.discard(part)
            self._arrived(mailbox, (part,))

    def placed(self, files: Iterable[tuple[str, str, int]]) -> None:
        """These are in ``new`` now: mailbox, file name and octets of each."""
        grouped: dict[str, list[tuple[str, int]]] = {}
        for name, file_name, octets in files:
            grouped.setdefault(name, []).append((file_name, octets))
        lines = []
        for name, placed in grouped.items():
            change = Usage(sum(octets for _, octets in placed), len(placed))
            # One that never had a quota has nothing on its way.
            known = name in self._mailboxes
            parts = tuple(maildir.unique_part(file_name) for file_name, _ in placed) if known else ()
            lines.append(self._line(name, change, parts))
        self._tell(lines)

    def removing(self, name: str) -> None:
        """Files are about to be removed from the mailbox; ``removed`` must follow."""
        mailbox = self._limited(name)
        if mailbox is not None:
            mailbox.removing += 1
            mailbox.removals += 1

    def removed(self, name: str, file_names: Iterable[str]) -> None:
        """These files have been removed by us."""
        sizes = [maildirsize.size_told(file_name) for file_name in file_names]
        told = [size for size in sizes if size is not None]
        mailbox = self._mailboxes.get(name)
        done = self._tell([self._line(name, Usage(-sum(told), -len(told)), ())] if told else [])

        def over(result: object) -> None:
            if mailbox is not None and mailbox.removing:
                mailbox.removing -= 1
                if len(told) < len(sizes):
                    self._audit_later(mailbox)  # how much they held is not known

        done.addBoth(over)

    def _line(self, name: str, change: Usage, parts: tuple[str, ...]) -> Line:
        mailbox = self._limited(name)
        untold = set() if mailbox is None else mailbox.untold
        return Line(name, self._path(name), change, parts, untold)

    def _tell(self, lines: list[Line]) -> Deferred[None]:
        if not lines:
            done: Deferred[None] = Deferred()
            done.callback(None)
            return done
        return self._worker.call(audit.tell, self._outside.filesystem, lines).addCallbacks(
            self._have_told, lambda failure: log.failure("The use of mailboxes could not be told", failure), (lines,)
        )

    def _have_told(self, told: list[bool | OSError], lines: list[Line]) -> None:
        for line, outcome in zip(lines, told, strict=True):
            mailbox = self._mailboxes.get(line.mailbox)
            if isinstance(outcome, OSError):
                log.warn("{file} cannot be kept up to date: {error}", file=line.path, error=outcome)
            if mailbox is None:
                continue
            if mailbox.told is not None:
                mailbox.told = mailbox.told.plus(line.change)
            self._arrived(mailbox, line.parts)
            if outcome is not True:
                self._audit_later(mailbox)
            self._changed(mailbox)

    def _arrived(self, mailbox: _Mailbox, parts: Iterable[str]) -> None:
        for part in parts:
            octets = mailbox.expected.pop(part, None)
            if octets is not None:
                mailbox.on_its_way = mailbox.on_its_way.minus(Usage(octets, 1))

    def _changed(self, mailbox: _Mailbox) -> None:
        if mailbox.told is not None and self.limited(mailbox.name):
            self.on_usage(mailbox.name, mailbox.quota, mailbox.usage())

    # -- reading and auditing

    async def audit(self, name: str) -> None:
        """Compare the file of a mailbox with what is there, if it has a quota."""
        mailbox = self._limited(name)
        if mailbox is not None and not self._stopped:
            await self._once(mailbox, self._audit)

    def _path(self, name: str) -> str:
        return f"{self._root}/{mailbox_path(name)}"

    def _limited(self, name: str) -> _Mailbox | None:
        quota = self._settings.directory.quota(name)
        if quota is None:
            return None
        mailbox = self._mailboxes.get(name)
        if mailbox is None:
            mailbox = self._mailboxes[name] = _Mailbox(name, self._path(name), quota)
        elif mailbox.quota is not quota and mailbox.quota != quota:
            mailbox.quota = quota
            mailbox.told, mailbox.correction = None, NOTHING
            mailbox.quota_written_at = float("-inf")
        return mailbox

    async def _once(self, mailbox: _Mailbox, work: Callable[[_Mailbox], Awaitable[None]]) -> None:
        """Do it after what is being done, unless that is the same."""
        while mailbox.looking is not None:
            doing, awaiting = mailbox.looking
            waiting: Deferred[None] = Deferred()
            awaiting.append(waiting)
            await waiting
            if doing == work:
                return
        awaited: list[Deferred[None]] = []
        mailbox.looking = work, awaited
        try:
            await work(mailbox)
            mailbox.trouble = ""
        except OSError as error:
            if str(error) != mailbox.trouble:
                log.warn("How full {path} is cannot be told: {error}", path=mailbox.path, error=error)
                mailbox.trouble = str(error)
        finally:
            mailbox.looking = None
            for waiting in awaited:
                waiting.callback(None)

    async def _read(self, mailbox: _Mailbox) -> None:
        now = self._outside.reactor.seconds()
        told = await self._worker.call(maildirsize.read, self._outside.filesystem, mailbox.path)
        mailbox.read_at = now
        if told is None:
            if now - mailbox.audited_at >= SURE_S:
                await self._audit(mailbox)
            return
        mailbox.told = told.usage
        if told.base != mailbox.base:
            mailbox.base, mailbox.correction = told.base, NOTHING  # who has made it anew has counted
            self._audit_later(mailbox)
        elif told.length > maildirsize.LONGEST:
            self._audit_later(mailbox)
        self._changed(mailbox)

    async def _audit(self, mailbox: _Mailbox) -> None:
        if mailbox.removing and mailbox.told is not None:
            self._audit_later(mailbox)
            return
        begun, removals, quota = self._outside.reactor.seconds(), mailbox.removals, mailbox.quota
        disk = self._outside.filesystem
        found = await self._worker.call(audit.audit, disk, mailbox.path, quota, mailbox.untold)
        mailbox.read_at = begun
        if mailbox.removals != removals or mailbox.removing or not found.steady:
            mailbox.told = found.counted if found.told is None else found.told.usage
            self._audit_later(mailbox)
            return
        mailbox.audited_at = begun
        if found.told is None or self._is_to_be_made_anew(mailbox, found.told, found.counted):
            await self._make_anew(mailbox)
        else:
            mailbox.told, mailbox.base = found.told.usage, found.told.base
            mailbox.correction = found.counted.minus(found.told.usage)
            mailbox.difference = mailbox.correction
            if mailbox.correction == NOTHING:
                mailbox.delay_s = AGAIN_S
            else:
                self._audit_later(mailbox)
        self._changed(mailbox)

    def _is_to_be_made_anew(self, mailbox: _Mailbox, told: Told, counted: Usage) -> bool:
        if told.quota_line() != maildirsize.quota_line(mailbox.quota):
            return self._outside.reactor.seconds() - mailbox.quota_written_at >= QUARREL_S
        difference = counted.minus(told.usage)
        return told.length > maildirsize.LONGEST or (difference != NOTHING and difference == mailbox.difference)

    async def _make_anew(self, mailbox: _Mailbox) -> None:
        mark = self._outside.random(8).hex()
        removals = mailbox.removals
        told = await self._worker.call(
            audit.make_anew, self._outside.filesystem, mailbox.path, mailbox.quota, mailbox.untold, mark
        )
        mailbox.told, mailbox.base = told.usage, told.base
        mailbox.correction, mailbox.difference = NOTHING, None
        mailbox.quota_written_at = self._outside.reactor.seconds()
        if told.length or mailbox.removals != removals:
            self._audit_later(mailbox)

    def _audit_later(self, mailbox: _Mailbox) -> None:
        if mailbox.timer is None and not self._stopped:
            mailbox.timer = self._outside.reactor.callLater(mailbox.delay_s, self._due, mailbox)
            mailbox.delay_s = min(2 * mailbox.delay_s, AUDIT_EVERY_S)

    def _due(self, mailbox: _Mailbox) -> None:
        mailbox.timer = None
        Deferred.fromCoroutine(self._audit_in_time(mailbox)).addErrback(
            lambda failure: log.failure("{path} could not be audited", failure, path=mailbox.path)
        )

    async def _audit_in_time(self, mailbox: _Mailbox) -> None:
        if not self.limited(mailbox.name):
            return  # it had a quota when this was put off
        await self._once(mailbox, self._audit)
        if mailbox.trouble:
            self._audit_later(mailbox)
