"""Letters of other servers, put into a mailbox of ours: durable, in batches, and each of them once.

The name of a file holds a mark made from the folder, what the source calls the letter, and its content; so whoever
imports the same source again finds it.  ``mailsrv-imported`` in the mailbox keeps the marks, for a letter that its
owner has deleted or moved since is not to come back.  What a mailsrv has named already, as in an export of ours, keeps
its name.

The way of a batch is that of a delivery (``mailsrv.store.delivery``): files in ``tmp``, their unique-ids
(``mailsrv.store.mailbox.uidls``), one sync for both, and then the names in ``new`` or ``cur``.  The marks of a batch
are written after the sync of the next one, when its names are durable.  An end at any moment leaves whole letters only,
and files in ``tmp`` that the next attempt or the sweep of old files removes.

Works beside a running server, which sees letters that are delivered.  Files and folders get the owner of the folder
that they are in.  One import at a time works on a mailbox (InUse).  All calls block; OSError is local trouble, and ends
the import.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

from mailsrv.outside.interfaces import IFilesystem
from mailsrv.store.accounts.account_files import own_as_folder, replace_file
from mailsrv.store.mailbox import maildir, uidls
from mailsrv.store.mailbox.reading import virtual_size
from mailsrv.store.migration import dovecot
from mailsrv.store.migration.files import content_of
from mailsrv.store.migration.letter import Letter

MARKS: Final = "mailsrv-imported"
BATCH: Final = 256  # letters that share a sync
BATCH_OCTETS: Final = 64 * 1024 * 1024

_LETTERS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_MARK_LENGTH: Final = 20  # a hundred bits: nothing that happens by chance
_MARK = re.compile(r"[0-9]{1,18}\.[0-9]{6}I([0-9A-HJKMNP-TV-Z]{20})\.")


class InUse(Exception):
    """Another import is at work on the mailbox."""


@dataclass(frozen=True, slots=True)
class Placed:
    """What became of a letter: ``how`` is "imported", "present" or "removed" (imported once, and gone since).

    ``problem`` is the end of a sentence about a unique-id that could not be kept, or "".
    """

    how: str
    problem: str = ""


@dataclass(slots=True)
class _File:
    folder: str  # absolute
    staged: str  # its path in tmp
    target: str  # its path in new or cur
    mark: str
    counted: int  # octets for the quota of the mailbox


@dataclass(slots=True)
class _Batch:
    files: list[_File] = field(default_factory=list)
    uidls: dict[str, str] = field(default_factory=dict)
    octets: int = 0


class Placing:
    """Puts letters into the mailbox ``path`` (absolute), for use in a ``with`` statement.

    Leaving it in order makes everything durable.  ``again``: what was removed since comes back.
    """

    def __init__(self, filesystem: IFilesystem, path: str, hostname: str, again: bool = False) -> None:
        self._filesystem = filesystem
        self._path = path
        self._hostname = hostname
        self._again = again
        self._lock = -1
        self._marks: set[str] = set()  # all that were ever imported
        self._there: set[str] = set()  # those that are there
        self._names: dict[str, set[str]] = {}  # the unique parts in each folder that was looked into
        self._given: dict[str, str] = {}
        self._taken: set[str] = set()  # unique-ids
        self._batch = _Batch()
        self._shown: list[_File] = []  # their names are not known to be durable yet
        self._ordinals: dict[int, int] = {}
        self._keywords: dict[str, dict[str, str]] = {}

    def __enter__(self) -> Placing:
        """InUse, OSError."""
        self._make(self._path)
        self._lock = os.open(
            f"{self._path}/{MARKS}", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InUse(self._path) from None
            own_as_folder(self._lock, self._path)
            self._folder("")
            marks = content_of(self._filesystem, f"{self._path}/{MARKS}")
            self._marks = set(marks.decode("ascii", "replace").split("\n"))
            self._given = uidls.read(self._filesystem, self._path)
            names = maildir.locate(self._filesystem, self._path)
            self._taken = {self._given.get(part) or maildir.uidl(part) for part in names}
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
                self._flush()
        finally:
            for file in self._batch.files:
                with contextlib.suppress(OSError):
                    self._filesystem.unlink(file.staged)
            os.close(self._lock)

    def take_keywords(self, directory: str, names: Mapping[str, str]) -> list[str]:
        """Say what the keywords (small letters among the flags) of the following letters for a folder mean.

        Returns those that cannot be kept: a list of keywords that Dovecot has here already is not touched.  OSError.
        """
        path = f"{self._folder(directory)}/{dovecot.KEYWORDS}"
        try:
            ours = dovecot.keywords(content_of(self._filesystem, path))
        except FileNotFoundError:
            replace_file(path, dovecot.keywords_file(names))
            ours = dict(names)
        letters = {name: letter for letter, name in ours.items()}
        self._keywords[directory] = {theirs: letters[name] for theirs, name in names.items() if name in letters}
        return sorted(set(names.values()) - set(letters))

    def place(self, letter: Letter) -> Placed:
        """Put a letter where it belongs; it is seen after one of the next calls (OSError)."""
        folder = self._folder(letter.directory)
        # Counted for those that are there as well, so that what comes with a later run keeps its place among them.
        ordinal = self._ordinals.get(letter.seconds, 0)
        self._ordinals[letter.seconds] = (ordinal + 1) % 1_000_000
        found = _MARK.match(letter.unique)
        mark = found[1] if found else mark_of(letter)
        if mark in self._there or letter.unique in self._names[letter.directory]:
            return Placed("present")
        if mark in self._marks and not self._again:
            return Placed("removed")
        unique = letter.unique or maildir.imported(mark, ordinal, letter.seconds, self._hostname)
        problem = self._give(unique, letter)
        name = maildir.file_name(unique, len(letter.content), virtual_size(letter.content))
        translated = self._keywords.get(letter.directory, {})
        flags = "".join(sorted({translated.get(flag, "") if flag.islower() else flag for flag in letter.flags}))
        target = f"{folder}/new/{name}" if letter.new and not flags else f"{folder}/cur/{name}:2,{flags}"
        counted = 0 if "T" in flags or letter.directory == ".Trash" else len(letter.content)
        file = _File(folder, f"{folder}/{maildir.FOLDERS[0]}/{name}", target, mark, counted)
        self._batch.files.append(file)
        self._write(file, letter)
        self._there.add(mark)
        self._batch.octets += len(letter.content)
        if len(self._batch.files) >= BATCH or self._batch.octets >= BATCH_OCTETS:
            self._flush()
        return Placed("imported", problem)

    def _give(self, unique: str, letter: Letter) -> str:
        """Keep the unique-id of a letter for the inbox, the only folder that POP3 shows; why not, else ""."""
        if letter.uidl in ("", maildir.uidl(unique)) or letter.directory:
            self._taken.add(maildir.uidl(unique))
            return ""
        # RFC 1939 7: unique within the maildrop, at most 70 printable octets.
        if not uidls.UIDL.fullmatch(letter.uidl):
            problem = f"its POP3 unique-id is not kept: {letter.uidl!a} is not 1 to 70 printable characters"
        elif letter.uidl in self._taken:
            problem = f"its POP3 unique-id is not kept: {letter.uidl} is that of another message"
        else:
            self._batch.uidls[unique] = letter.uidl
            self._taken.add(letter.uidl)
            return ""
        self._taken.add(maildir.uidl(unique))
        return problem

    def _write(self, to: _File, letter: Letter) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(to.staged, flags, 0o600)
        except FileExistsError:
            os.unlink(to.staged)  # left by an import that was cut off
            descriptor = os.open(to.staged, flags, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            own_as_folder(descriptor, to.folder)
            file.write(letter.content)
            file.flush()
            os.utime(descriptor, (letter.modified, letter.modified))

    def _flush(self) -> None:
        """Make the batch durable and show it; the one before is durable then, and is noted (OSError)."""
        batch = self._batch
        folders = {file.folder for file in (*batch.files, *self._shown)}
        if not folders:
            return
        if batch.uidls:
            uidls.add(self._path, batch.uidls)
        self._filesystem.sync_all({self._path, *folders})
        uidls.append(f"{self._path}/{MARKS}", "".join(f"{file.mark}\n" for file in self._shown).encode("ascii"))
        self._shown = []
        self._batch = _Batch()
        for at, file in enumerate(batch.files):
            try:
                self._filesystem.rename(file.staged, file.target)
            except BaseException:
                self._batch.files = batch.files[at:]
                raise
            self._shown.append(file)
        self._count(batch)

    def _count(self, batch: _Batch) -> None:
        """Tell Maildir++'s quota what came, where it is kept in the file ``maildirsize``."""
        counted = [file.counted for file in batch.files if file.counted]
        if counted:
            with contextlib.suppress(FileNotFoundError):
                descriptor = os.open(
                    f"{self._path}/maildirsize", os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
                )
                try:
                    os.write(descriptor, b"%d %d\n" % (sum(counted), len(counted)))
                finally:
                    os.close(descriptor)

    def _folder(self, directory: str) -> str:
        """The path of a folder, made if it is missing (OSError)."""
        folder = f"{self._path}/{directory}" if directory else self._path
        if directory in self._names:
            return folder
        self._make(folder)
        for part in maildir.FOLDERS:
            self._make(f"{folder}/{part}")
        if directory:
            with contextlib.suppress(FileExistsError):
                # Courier's and Dovecot's sign that this is a folder of a mailbox.
                self._filesystem.create(f"{folder}/maildirfolder").close()
                own_as_folder(f"{folder}/maildirfolder", folder)
        self._names[directory] = set(maildir.locate(self._filesystem, folder))
        self._there.update(found[1] for found in map(_MARK.match, self._names[directory]) if found)
        return folder

    def _make(self, path: str) -> None:
        """A folder and those above it, each with the owner of the one that it is in (OSError)."""
        try:
            self._filesystem.make_directory(path)
        except FileExistsError:
            # The mailbox itself may be a symbolic link, nothing inside is followed.
            if path != self._path and self._filesystem.status(path).kind != "directory":
                raise NotADirectoryError(20, "Not a directory", path) from None
            return
        except FileNotFoundError:
            self._make(os.path.dirname(path))
            self._filesystem.make_directory(path)
        own_as_folder(path, os.path.dirname(path))


def mark_of(letter: Letter) -> str:
    """What says that a letter is this one: 20 letters and digits, made from folder, identity and content."""
    made = hashlib.sha256()
    for part in (letter.directory.encode("utf-8", "surrogateescape"), letter.identity, letter.content):
        made.update(b"%d:" % len(part))
        made.update(part)
    number = int.from_bytes(made.digest()[:16], "big")
    return "".join(_LETTERS[number >> 5 * at & 31] for at in range(_MARK_LENGTH))
