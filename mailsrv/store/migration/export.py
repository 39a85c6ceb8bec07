"""A mailbox of ours, written as a Maildir or an mbox for others.

The mailbox is only read, while the server and other programs may change it: a message that moves is looked for again.
Every message is a file of its own with LF line ends, and keeps name, flags and time; the POP3 unique-ids go along in a
``dovecot-uidlist``, from which Dovecot, and ``mailsrv import``, take them.  A Maildir that is there already gets what
it does not have yet, so an export that was cut off can be run again.

All calls block.  OSError names the file; Trouble is about one message and ends nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

from mailsrv.mail import mbox
from mailsrv.outside.interfaces import IFilesystem
from mailsrv.store.accounts.account_files import replace_file
from mailsrv.store.mailbox import listing, maildir
from mailsrv.store.mailbox.reading import virtual_size
from mailsrv.store.mailbox.snapshot import Entry
from mailsrv.store.migration import dovecot
from mailsrv.store.migration.files import content_of
from mailsrv.store.migration.letter import Trouble, why


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it is now: ``content`` with LF line ends, ``modified`` its time."""

    entry: Entry
    content: bytes
    modified: float
    flags: str
    new: bool


class Folder:
    """One folder of a mailbox: ``path`` is absolute, ``directory`` its Maildir++ name ("" the inbox).  OSError."""

    def __init__(self, filesystem: IFilesystem, path: str, directory: str) -> None:
        self.directory = directory
        self._filesystem = filesystem
        self._path = f"{path}/{directory}" if directory else path
        snapshot = listing.scan(filesystem, self._path)
        self.entries = snapshot.messages
        self.octets = snapshot.octets
        self.problems = snapshot.problems

    def messages(self) -> Iterator[Message | Trouble]:
        """What is in it, in the order of delivery.  A message that has gone meanwhile is passed over."""
        moved: dict[str, str] = {}
        for entry in self.entries:
            try:
                try:
                    yield self._message(entry, moved.get(entry.name, entry.path))
                except FileNotFoundError:
                    moved = maildir.locate(self._filesystem, self._path)
                    if entry.name in moved:
                        yield self._message(entry, moved[entry.name])
            except FileNotFoundError:
                continue
            except OSError as error:
                yield Trouble(f"{self._path}/{entry.path}", why(error), entry.size)

    def keywords(self) -> bytes:
        """The list of keywords that Dovecot keeps for the folder, b"" when there is none (OSError)."""
        try:
            return content_of(self._filesystem, f"{self._path}/{dovecot.KEYWORDS}")
        except FileNotFoundError:
            return b""

    def _message(self, entry: Entry, at: str) -> Message:
        content = content_of(self._filesystem, f"{self._path}/{at}").replace(b"\r\n", b"\n")
        modified = self._filesystem.status(f"{self._path}/{at}").modified
        return Message(entry, content, modified, maildir.parse(at[4:]).flags, at.startswith("new/"))


def folders_of(filesystem: IFilesystem, path: str) -> list[str]:
    """The Maildir++ directories of the mailbox ``path``, the inbox first; none when there is no mailbox (OSError)."""
    try:
        names = filesystem.list(path)
    except FileNotFoundError:
        return []
    found = [""]
    for name in sorted(names):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if name.startswith(".") and filesystem.status(f"{path}/{name}/cur").kind == "directory":
                found.append(name)
    return found


class MaildirExport:
    """The Maildir at ``path``, for use in a ``with`` statement; ``uidvalidity`` and ``guid`` are for a new uidlist.

    Leaving it in order makes everything durable (OSError).
    """

    def __init__(self, filesystem: IFilesystem, path: str, uidvalidity: int, guid: str) -> None:
        self._filesystem = filesystem
        self._path = path
        self._uidvalidity = uidvalidity
        self._guid = guid
        self._there: dict[str, dict[str, str]] = {}
        self._uidls: list[tuple[str, str]] = []

    def __enter__(self) -> MaildirExport:
        return self

    def folder(self, directory: str, keywords: bytes) -> None:
        """Begin with a folder, in this Maildir++ directory (OSError)."""
        path = f"{self._path}/{directory}" if directory else self._path
        maildir.ensure(self._filesystem, path)
        if directory:
            self._add(f"{path}/maildirfolder", b"")
        if keywords:
            self._add(f"{path}/{dovecot.KEYWORDS}", keywords)
        self._there[directory] = maildir.locate(self._filesystem, path)

    def write(self, directory: str, message: Message) -> bool:
        """Add a message to a folder; False when it is there already (OSError)."""
        path = f"{self._path}/{directory}" if directory else self._path
        content = message.content
        name = maildir.file_name(message.entry.name, len(content), virtual_size(content))
        if not directory:
            self._uidls.append((name, message.entry.uidl))
        if message.entry.name in self._there[directory]:
            return False
        staged = f"{path}/{maildir.FOLDERS[0]}/{name}"
        with contextlib.suppress(FileNotFoundError):
            self._filesystem.unlink(staged)  # left by an export that was cut off
        self._add(staged, content)
        os.utime(staged, (message.modified, message.modified))
        target = f"new/{name}" if message.new else f"cur/{name}:2,{message.flags}"
        self._filesystem.rename(staged, f"{path}/{target}")
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._there:
            # Where a Dovecot is at work already it knows better.
            if self._uidls and not os.path.lexists(f"{self._path}/{dovecot.INDEX}"):
                uidlist = dovecot.uidlist(self._uidvalidity, self._guid, self._uidls)
                replace_file(f"{self._path}/{dovecot.UIDLIST}", uidlist)
            self._filesystem.sync_all({self._path})

    def _add(self, path: str, data: bytes) -> None:
        """Write a file, unless there is one (OSError)."""
        with contextlib.suppress(FileExistsError):
            file = self._filesystem.create(path)
            try:
                file.write(data)
            finally:
                file.close()


class MboxExport:
    """A new mbox file at ``path``, for use in a ``with`` statement: whole and durable in the end, or not there.

    FileExistsError when something is there already; OSError.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._part = f"{path}.part"
        if os.path.lexists(path):
            raise FileExistsError(17, "there is such a file already", path)
        self._file = open(self._part, "wb", opener=_private)  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> MboxExport:
        return self

    def write(self, message: Message) -> None:
        """Add a message (OSError)."""
        self._file.write(mbox.entry(message.content, message.modified, message.flags, message.new))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._file:
                if kind is None:
                    self._file.flush()
                    os.fsync(self._file.fileno())
            if kind is None:
                os.rename(self._part, self._path)
        except BaseException:
            os.unlink(self._part)
            raise
        if kind is not None:
            os.unlink(self._part)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
