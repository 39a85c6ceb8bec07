"""A Maildir of another server as a source of mail, with its folders.

Folders are the directories ``.Name`` beside ``cur`` (Maildir++), or plain directories with a Maildir in each (Dovecot's
LAYOUT=fs).  The POP3 unique-ids of the inbox come from ``dovecot-uidlist`` or ``courierpop3dsizelist``, from the one
that was written last when there are both.  The server there may go on working: a message that it moves while we read
is looked for again, one that has gone is no trouble.

Nothing that is a symbolic link is followed below the source itself: whoever owns the Maildir must not be able to let
root read other files for him.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from mailsrv.outside.interfaces import IFilesystem
from mailsrv.store.mailbox import maildir
from mailsrv.store.migration import courier, dovecot
from mailsrv.store.migration.compressed import CannotUndo, undone
from mailsrv.store.migration.files import content_of
from mailsrv.store.migration.letter import Letter, Trouble, why

_FLAGS: Final = frozenset("PRSTDF")
_NUMBERS: Final = re.compile("([0-9]{1,18})")


@dataclass(slots=True)
class _Folder:
    """``path`` is absolute, ``directory`` what it is called here; ``files`` are paths within it and their octets."""

    path: str
    directory: str
    files: list[tuple[str, int]]


def is_maildir(filesystem: IFilesystem, path: str) -> bool:
    """Whether ``path`` is a Maildir, or holds some as folders."""
    return _has(filesystem, path, "cur") or any(True for _ in _below(filesystem, path, "", []))


class MaildirSource:
    """The Maildir at ``path``.  Its inbox becomes the folder in ``directory``, its folders those below that."""

    def __init__(self, filesystem: IFilesystem, path: str, directory: str, form: dovecot.UidlFormat) -> None:
        self._filesystem = filesystem
        self._path = path.rstrip("/") or "/"
        self._form = form
        self._trouble: list[Trouble] = []
        places = [("", self._path)] if _has(filesystem, path, "cur") else []
        links: list[str] = []
        places += _below(filesystem, self._path, "", links)
        self._trouble += [Trouble(link, "is a symbolic link, which is not followed") for link in links]
        self._folders = [self._listed(at, directory + name) for name, at in sorted(places)]
        self.octets = sum(size for folder in self._folders for _, size in folder.files)

    def letters(self) -> Iterator[Letter | Trouble]:
        """Everything in all folders, folder by folder, in the order of delivery."""
        yield from self._trouble
        for folder in self._folders:
            given: Mapping[str, str] = {}
            if folder.path == self._path:
                try:
                    given = self._given()
                except (OSError, ValueError) as error:
                    reason = why(error) if isinstance(error, OSError) else f"cannot be used: {error}"
                    yield Trouble(f"{folder.path}: the list of POP3 unique-ids", reason)
            for at, size in _in_order(folder.files, given):
                found = self._letter(folder, at, size, given)
                if found is not None:
                    yield found

    def keywords(self) -> Iterator[tuple[str, dict[str, str]]]:
        """The keywords of each folder that has some (OSError)."""
        for folder in self._folders:
            text = self._text(f"{folder.path}/{dovecot.KEYWORDS}")
            if text:
                yield folder.directory, dovecot.keywords(text)

    def _listed(self, path: str, directory: str) -> _Folder:
        files: list[tuple[str, int]] = []
        for part in ("new", "cur"):
            try:
                names = self._filesystem.list(f"{path}/{part}")
            except FileNotFoundError:
                continue
            except OSError as error:
                self._trouble.append(Trouble(f"{path}/{part}", why(error)))
                continue
            for name in names:
                if not name.startswith("."):
                    try:
                        files.append((f"{part}/{name}", self._filesystem.status(f"{path}/{part}/{name}").size))
                    except OSError:
                        files.append((f"{part}/{name}", 0))
        return _Folder(path, directory, files)

    def _given(self) -> dict[str, str]:
        """The unique-ids of the inbox by name of file (OSError, ValueError)."""
        newest = ""
        written = float("-inf")
        for name in (dovecot.UIDLIST, courier.SIZELIST):
            try:
                status = self._filesystem.status(f"{self._path}/{name}")
            except FileNotFoundError:
                continue
            if status.modified > written:
                newest, written = name, status.modified
        if not newest:
            return {}
        text = self._text(f"{self._path}/{newest}") or b""
        return dovecot.uidls(text, self._form) if newest == dovecot.UIDLIST else courier.uidls(text)

    def _letter(self, folder: _Folder, at: str, size: int, given: Mapping[str, str]) -> Letter | Trouble | None:
        """One file; None when it has gone."""
        unique = maildir.unique_part(at[4:])
        origin = f"{folder.path}/{at}"
        try:
            try:
                content, modified = self._read(f"{folder.path}/{at}")
            except FileNotFoundError:
                found = maildir.find(self._filesystem, folder.path, unique)
                if found is None:
                    return None
                at = found
                content, modified = self._read(f"{folder.path}/{at}")
            content = undone(content).replace(b"\r\n", b"\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            return Trouble(origin, why(error), size)
        except CannotUndo as error:
            return Trouble(origin, str(error), size)
        if not content:
            return Trouble(origin, "is empty")
        base, _, info = at[4:].partition(":")
        flags = "".join(sorted(set(info[2:].partition(",")[0]))) if info.startswith("2,") else ""
        return Letter(
            directory=folder.directory,
            content=content,
            identity=unique.encode("utf-8", "surrogateescape"),
            seconds=_seconds(base) or int(max(modified, 0)),
            modified=modified,
            flags="".join(flag for flag in flags if flag in _FLAGS or "a" <= flag <= "z"),
            new=at.startswith("new/"),
            uidl=given.get(base, ""),
            unique=unique if maildir.is_own(base) else "",
            origin=origin,
            octets=size,
        )

    def _read(self, path: str) -> tuple[bytes, float]:
        """Content and time of a file (OSError)."""
        return content_of(self._filesystem, path), self._filesystem.status(path).modified

    def _text(self, path: str) -> bytes | None:
        """A small file; None when it is missing (OSError)."""
        try:
            return content_of(self._filesystem, path)
        except FileNotFoundError:
            return None


def _in_order(files: list[tuple[str, int]], given: Mapping[str, str]) -> list[tuple[str, int]]:
    """The files in the order of delivery; of one second, as the list of unique-ids has them, or by their names.

    In those numbers count as numbers, for Dovecot writes microseconds without leading zeros.
    """
    ranks = {name: rank for rank, name in enumerate(given)}

    def key(file: tuple[str, int]) -> tuple[int, int, list[tuple[int, str]]]:
        base = file[0][4:].partition(":")[0]
        parts = [(int(part), "") if part.isdecimal() else (-1, part) for part in _NUMBERS.split(base)]
        return _seconds(base), ranks.get(base, len(ranks)), parts

    return sorted(files, key=key)


def _below(filesystem: IFilesystem, path: str, prefix: str, links: list[str]) -> Iterator[tuple[str, str]]:
    """The directory here, and the path there, of each folder; ``links`` gets what only leads to one."""
    for name in sorted(filesystem.list(path)):
        at = f"{path}/{name}"
        if name in maildir.FOLDERS or not name.strip("."):
            continue
        if _kind(filesystem, at) == "link":
            if _has(filesystem, f"{at}/.", "cur"):
                links.append(at)
        elif name.startswith("."):
            # Maildir++ has its folders side by side; ".x" within a plain folder is something else.
            if not prefix and _has(filesystem, at, "cur"):
                yield name, at
        elif _kind(filesystem, at) == "directory":
            if _has(filesystem, at, "cur"):
                yield f"{prefix}.{name}", at
            try:
                yield from _below(filesystem, at, f"{prefix}.{name}", links)
            except OSError:
                continue


def _has(filesystem: IFilesystem, path: str, name: str) -> bool:
    return _kind(filesystem, f"{path}/{name}") == "directory"


def _kind(filesystem: IFilesystem, path: str) -> str:
    try:
        return filesystem.status(path).kind
    except OSError:
        return ""


def _seconds(name: str) -> int:
    digits = name.partition(".")[0]
    # Twelve digits are the year 30000; what is more is no time.
    return int(digits) if len(digits) <= 12 and digits.isascii() and digits.isdigit() else 0
