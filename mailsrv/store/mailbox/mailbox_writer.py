"""Writing copies of messages into Maildirs: what local delivery does in its worker's thread.

A batch is written to ``tmp``, made durable, and renamed to ``new``; why that is the order, and when a copy counts as
delivered, stands in ``mailsrv.store.delivery``.  What goes wrong with a copy is noted in it and holds no other up; a
sync that fails is raised, and then nothing of the batch is to be trusted.  Nothing inside a mailbox that is a link is
followed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mailsrv.outside.interfaces import IFilesystem
from mailsrv.store.accounts import accounts
from mailsrv.store.mailbox import maildir
from mailsrv.store.spool import BLOCK

FEW = 4  # copies, with those of the batch before, that are synced one by one
# What keeps a folder from being opened: trouble of that mailbox, and not of the disk.
_OF_THE_FOLDER = frozenset({errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


@dataclass(slots=True)
class Copy:
    """One message for one mailbox."""

    message: int
    n: int
    mailbox: str
    name: str
    head: bytes
    content: bytes | None  # None: it is in the database or in a file
    size: int
    attempts: int = 0
    recovered: bool = False  # it may be in the mailbox already
    shown: bool = False  # we have put it there ourselves, only the mark is missing
    filed: bool = False
    placed: bool = False  # by us, in this life
    octets: int = 0  # of the file, once it is written
    error: Exception | None = None
    tell_sender: bool = False  # RFC 3461: NOTIFY=SUCCESS

    @property
    def key(self) -> tuple[int, int]:
        return self.message, self.n


class MailboxWriter:
    """Writes into the mailboxes below ``mail`` (absolute); ``spool_path`` tells where a content is a file.  Blocks."""

    def __init__(self, filesystem: IFilesystem, mail: str, spool_path: Callable[[int], str]) -> None:
        self._filesystem = filesystem
        self._mail = mail
        self._spool_path = spool_path
        self._lasting: set[str] = set()  # mailbox folders that a sync of everything has made durable, in this life

    def write_and_show(self, copies: list[Copy], shown: list[Copy]) -> None:
        """``shown`` are the copies of the batch before, whose renames the sync makes durable."""
        written = []
        # A mailbox folder may be a link to another file system, so each folder says what is to be synced.
        folders = {self._folder(copy) for copy in shown}
        named = set(folders)  # folders in which names must become durable
        few = len(copies) + len(shown) <= FEW
        checked: set[str] = set()
        names: dict[str, set[str]] = {}
        body: bytes = b""
        body_of = -1
        for copy in copies:
            folder = self._folder(copy)
            try:
                if folder not in checked:
                    if self._check(folder) or folder not in self._lasting:
                        few = False  # new folders, or made before a crash: their own names are to be synced too
                    checked.add(folder)
                if copy.shown or (copy.recovered and self._is_there(folder, copy.name, names)):
                    folders.add(folder)
                    named.add(folder)
                    continue
                if copy.content is not None and body_of != copy.message:
                    body = copy.content.replace(b"\r\n", b"\n")
                    body_of = copy.message
                self._write(folder, copy, body, sync=few)
            except Exception as error:  # whatever it is, it is no reason to hold the other copies up
                copy.error = error
            else:
                written.append((folder, copy))
                folders.add(folder)
        if few:
            self._sync_names(named, (*copies, *shown))
        else:
            self._sync(folders, (*copies, *shown))
        for folder, copy in written:
            if copy.error is None:
                try:
                    self._filesystem.rename(
                        os.path.join(folder, "tmp", copy.name), os.path.join(folder, "new", copy.name)
                    )
                    copy.placed = True
                except OSError as error:
                    copy.error = error

    def _sync_names(self, folders: set[str], copies: Sequence[Copy]) -> None:
        """What few copies need, whose content is synced one by one: the rest of the disk may have much to write."""
        for folder in folders:
            try:
                for part in ("new", "cur"):
                    self._filesystem.sync_directory(f"{folder}/{part}")
            except OSError as error:
                for copy in copies:
                    if self._folder(copy) == folder:
                        copy.error = copy.error or error

    def _sync(self, folders: set[str], copies: Sequence[Copy]) -> None:
        """One sync for all; a folder that cannot even be opened is trouble of its own copies only."""
        while True:
            try:
                self._filesystem.sync_all(folders)
                self._lasting |= folders
                return
            except OSError as error:
                if error.errno not in _OF_THE_FOLDER or error.filename not in folders:
                    raise
                folders.discard(error.filename)
                for copy in copies:
                    if self._folder(copy) == error.filename:
                        copy.error = copy.error or error

    def _check(self, folder: str) -> bool:
        """Make what is missing of the mailbox; nothing inside it that is a link is followed (NotADirectoryError).

        True when something had to be made.
        """
        disk = self._filesystem
        try:
            whole = all(disk.status(f"{folder}/{part}").kind == "directory" for part in maildir.FOLDERS)
        except FileNotFoundError:
            whole = False
        if not whole:
            maildir.ensure(disk, folder)
        return not whole

    def _folder(self, copy: Copy) -> str:
        return os.path.join(self._mail, accounts.mailbox_path(copy.mailbox))

    def _is_there(self, folder: str, name: str, names: dict[str, set[str]]) -> bool:
        if folder not in names:
            disk = self._filesystem
            found = disk.list(f"{folder}/new") + disk.list(f"{folder}/cur")
            names[folder] = {maildir.parse(name).unique for name in found}
        return maildir.parse(name).unique in names[folder]

    def _write(self, folder: str, copy: Copy, body: bytes, sync: bool) -> None:
        disk = self._filesystem
        path = os.path.join(folder, "tmp", copy.name)
        try:
            output = disk.create(path)
        except FileExistsError:
            disk.unlink(path)  # left by a crash
            output = disk.create(path)
        try:
            head = copy.head.replace(b"\r\n", b"\n")
            if copy.content is not None:
                output.write(head + body)
                copy.octets = len(head) + len(body)
            else:
                output.write(head)
                copy.octets = len(head) + self._copy_file(copy, output.write)
            if sync:
                output.sync()
        except BaseException:
            output.close()
            disk.unlink(path)
            raise
        output.close()

    def _copy_file(self, copy: Copy, write: Callable[[bytes], None]) -> int:
        """Write the content; its octets with the line ends of a file."""
        path = self._spool_path(copy.message)
        source = self._filesystem.open(path)
        try:
            left = copy.size
            written = 0
            held = b""  # a CR at the end of a block belongs to the LF at the start of the next
            while block := source.read(BLOCK):
                left -= len(block)
                block = held + block
                held = b"\r" if block.endswith(b"\r") else b""
                block = (block[:-1] if held else block).replace(b"\r\n", b"\n")
                write(block)
                written += len(block)
            write(held)
        finally:
            source.close()
        if left:
            raise OSError(errno.EIO, f"{copy.size - left} octets instead of {copy.size}", path)
        return written + len(held)
