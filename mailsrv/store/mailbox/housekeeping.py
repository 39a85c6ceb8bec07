"""What own mailboxes need once a day: ``tmp`` swept, and their use compared with the quota.

A file in ``tmp`` that nobody has written to for 36 hours belongs to a delivery that has ended (maildir(5)); it is
removed, in all folders of the mailboxes of accounts.  Links and what is no file are left where they are: ``mailsrv
check`` names them.  Mailboxes without an account are not touched.  What was removed is in the log.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from mailsrv.outside.interfaces import IFilesystem, Outside
from mailsrv.store.accounts.accounts import mailbox_path
from mailsrv.store.mailbox import maildir, maildirsize
from mailsrv.store.mailbox.usage import MailboxUsage
from mailsrv.store.settings import Settings

OLD_S = 36 * 3600.0
FIRST_S = 10.0  # after the start, when clients are served
EVERY_S = 86400.0

log = Logger()


@dataclass(frozen=True, slots=True)
class Swept:
    """Names of files that are gone from ``tmp``, relative to the mailbox, and sentences about those that are not."""

    gone: tuple[str, ...]
    problems: tuple[str, ...]


def sweep(disk: IFilesystem, path: str, now: float) -> Swept:
    """Remove old files from the ``tmp`` of each folder of the mailbox ``path``; ``now`` is seconds since 1970."""
    gone: list[str] = []
    problems: list[str] = []
    for file in _old(disk, path, now, problems):
        try:
            disk.unlink(f"{path}/{file}")
            gone.append(file)
        except FileNotFoundError:
            pass
        except OSError as error:
            problems.append(f"{path}/{ascii(file)[1:-1]} cannot be removed: {error.strerror or error}")
    return Swept(tuple(gone), tuple(problems))


def _old(disk: IFilesystem, path: str, now: float, problems: list[str]) -> Iterable[str]:
    try:
        folders = list(maildirsize.folders(disk, path))
    except OSError as error:
        problems.append(f"{path} cannot be listed: {error.strerror or error}")
        return
    for folder in folders:
        place = "/".join(filter(None, (folder, maildir.FOLDERS[0])))
        try:
            if disk.status(f"{path}/{place}").kind != "directory":
                continue
            names = disk.list(f"{path}/{place}")
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(f"{path}/{place} cannot be listed: {error.strerror or error}")
            continue
        for name in names:
            try:
                found = disk.status(f"{path}/{place}/{name}")
            except OSError:
                continue  # its delivery has just ended
            if found.kind == "file" and now - found.modified > OLD_S:
                yield f"{place}/{name}"


class Housekeeping:
    """For the mailboxes below ``root`` (absolute)."""

    def __init__(self, outside: Outside, root: str, settings: Settings, usage: MailboxUsage) -> None:
        self._outside = outside
        self._root = root
        self._settings = settings
        self._usage = usage
        self._worker = outside.worker("housekeeping")
        self._timer: IDelayedCall | None = None
        self._stopped = False

    def start(self) -> None:
        """Soon, and then daily."""
        self._timer = self._outside.reactor.callLater(FIRST_S, self._begin)

    def stop(self) -> None:
        """End the thread after what it is about."""
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._worker.stop()

    def _begin(self) -> None:
        self._timer = self._outside.reactor.callLater(EVERY_S, self._begin)
        Deferred.fromCoroutine(self.run()).addErrback(
            lambda failure: log.failure("The mailboxes could not be looked after", failure)
        )

    async def run(self) -> None:
        """All accounts, one after the other."""
        for account in self._settings.directory.accounts:
            if self._stopped:
                return
            path = f"{self._root}/{mailbox_path(account.key)}"
            swept = await self._worker.call(sweep, self._outside.filesystem, path, self._outside.wall())
            if swept.gone:
                log.info("{n} old files are gone from tmp in {path}", n=len(swept.gone), path=path, files=swept.gone)
            for problem in swept.problems:
                log.warn("{problem}", problem=problem)
            if not self._stopped:
                await self._usage.audit(account.key)
