"""Changing the accounts and aliases files, as the operator's tool does.

Several programs may do so at once: each reads, changes and writes under a lock on the folder, which ends with the
process that holds it.  A change is in the file whole or not at all (a new file, flushed, takes the place of the old
one), comments and blank lines stay, and nothing is written that the server would then refuse to load.  A file gets the
owner of its folder, so that root may use the tool on a server that runs as another user.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from mailsrv.config import Config
from mailsrv.mail.address import POSTMASTER, Address
from mailsrv.store.accounts.accounts import Directory, alias_key, lines_of, parse_directory, read_text


@dataclass(frozen=True, slots=True)
class Texts:
    """Both files as text; a file that is missing is ""."""

    accounts: str
    aliases: str

    def with_account(self, address: Address, stored: str) -> Texts:
        """The account with this password: a changed line, or a new one at the end."""

        def change(line: str) -> str:
            name, *fields = line.split(":")
            return ":".join([name, stored, *fields[1:]])

        found = _account_line(self.accounts, address)
        line = change(_line(self.accounts, found)) if found else f"{address.key}:{stored}::::::"
        return replace(self, accounts=_with_line(self.accounts, found, line))

    def with_extra(self, address: Address, key: str, value: str | None) -> Texts:
        """The account, which has to be there, with this extra field; None removes it."""
        found = _account_line(self.accounts, address)
        if not found:
            raise ValueError(f"{address} is not an account")
        fields = _line(self.accounts, found).rstrip(" \t\r").split(":", 7)
        fields += [""] * (8 - len(fields))
        words = [word for word in fields[7].split() if word.partition("=")[0] != key]
        if value is not None:
            words.append(f"{key}={value}")
        fields[7] = " ".join(words)
        return replace(self, accounts=_with_line(self.accounts, found, ":".join(fields)))

    def with_new_accounts(self, accounts: Iterable[tuple[Address, str]]) -> Texts:
        """More accounts at the end, with their passwords; that none of them is there yet is the caller's business."""
        end = "" if not self.accounts or self.accounts.endswith("\n") else "\n"
        lines = "".join(f"{address.key}:{stored}::::::\n" for address, stored in accounts)
        return replace(self, accounts=f"{self.accounts}{end}{lines}" if lines else self.accounts)

    def without_account(self, address: Address) -> Texts:
        """Without the line of the account, if there is one."""
        return replace(self, accounts=_with_line(self.accounts, _account_line(self.accounts, address), None))

    def with_alias(self, key: str, targets: Sequence[Address]) -> Texts:
        """The alias with exactly these targets; none of them removes it."""
        name = POSTMASTER.local if key == POSTMASTER.key else key
        line = f"{name}: {', '.join(map(str, targets))}" if targets else None
        return replace(self, aliases=_with_line(self.aliases, _alias_line(self.aliases, key), line))


def edit(config: Config, change: Callable[[Texts, Directory], Texts]) -> Directory:
    """Change both files under the lock; what they say then.

    ``change`` gets what is there and gives what shall be; what it raises goes to the caller and nothing is written.
    AccountsError when the files are wrong, before or after; OSError.
    """
    with contextlib.ExitStack() as locks:
        for folder in sorted({os.path.dirname(config.accounts), os.path.dirname(config.aliases)}):
            locks.enter_context(locked(folder))
        before = Texts(read_text(config.accounts) or "", read_text(config.aliases) or "")
        after = change(before, parse_directory(config, before.accounts, before.aliases))
        directory = parse_directory(config, after.accounts, after.aliases)
        for path, old, new in (
            (config.accounts, before.accounts, after.accounts),
            (config.aliases, before.aliases, after.aliases),
        ):
            if old != new:
                replace_file(path, new.encode())
    return directory


def replace_file(path: str, data: bytes) -> None:
    """Put ``data`` in the place of a file, durably, whole or not at all.

    A new file has mode 0600, an old one keeps its mode; the owner is that of the folder, as far as we may set it.  When
    the path is a symbolic link, the file that it names is replaced.
    """
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(file.fileno(), stat.S_IMODE(os.stat(path).st_mode))
            own_as_folder(file.fileno(), folder)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def own_as_folder(target: str | int, folder: str) -> None:
    """Give a file, by name or descriptor, the owner and group of its folder; without the right to do so, leave it."""
    there = os.stat(folder)
    with contextlib.suppress(PermissionError):
        os.chown(target, there.st_uid, there.st_gid)


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
    """Keep other programs that ask for the same lock from changing files of a folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _account_line(source: str, address: Address) -> int:
    """The number of the line of an account; 0 when there is none."""
    for number, text in lines_of(source):
        if Address.parse(text.split(":", 1)[0]).key == address.key:
            return number
    return 0


def _alias_line(source: str, key: str) -> int:
    for number, text in lines_of(source):
        name = text.split(":", 1)[0].strip()
        if alias_key(name, [Address.parse(name).domain]) == key:
            return number
    return 0


def _line(source: str, number: int) -> str:
    return source.split("\n")[number - 1]


def _with_line(source: str, number: int, line: str | None) -> str:
    """The text with line ``number`` (0: a new one at the end) replaced; None removes it."""
    lines = source.split("\n")
    new = [] if line is None else [line]
    if number:
        lines[number - 1 : number] = new
    elif new:
        end = len(lines) - 1 if not lines[-1] else len(lines)
        lines[end:] = [*new, ""]
    return "\n".join(lines)
