"""``mailsrv check``: the mailboxes on the disk, which other programs write to as well.

Looks at the folders of each account's mailbox and at the names in them, and opens nothing: what is missing, what is a
link (which the server does not follow), what is no message, what the server's user cannot read, sizes in names that are
not those of the files, what is left in ``tmp``, a ``maildirsize`` that is not what is there.  It changes nothing.  Of
very many files only the first are looked at, and it says so.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from mailsrv.cli.finding import Finding, ok, warning, wrong
from mailsrv.cli.progress import Progress
from mailsrv.cli.wording import clean
from mailsrv.config import Config
from mailsrv.outside.filesystem import Filesystem
from mailsrv.store.accounts.accounts import Account, mailbox_path
from mailsrv.store.mailbox import maildir, maildirsize
from mailsrv.store.mailbox.housekeeping import OLD_S

FILES = 200_000  # looked at in one mailbox

_SUBJECT = "mailbox"
_REMEDIES = {
    "is no folder": "move it away; the server makes a folder with the next message",
    "is missing": "nothing; it is made with the next message, or by the program that uses this folder",
    "is a link, which is not followed": "replace it by what it leads to; only the mailbox itself may be a link",
    "cannot be read by the server": "chown it to the server's user",
    "is no file": "move it away; it is passed over",
    "tells a wrong size": "rename it with the right S=, or without any; Dovecot and quotas believe it",
    "is left from a delivery": "nothing; the server sweeps tmp daily, 36 hours after the last change",
    "cannot be listed": "chown it to the server's user",
}
_WRONG = frozenset({"is no folder", "cannot be listed"})


@dataclass(slots=True)
class _Found:
    """What is the matter with one mailbox: paths by problem, and how many files were seen."""

    files: int = 0
    more: bool = False
    problems: dict[str, list[str]] = field(default_factory=dict)

    def note(self, problem: str, path: str) -> None:
        self.problems.setdefault(problem, []).append(path)


def mailboxes(config: Config, accounts: Iterable[Account], now: float) -> Iterator[Finding]:
    """Those of the accounts; ``now`` is seconds since 1970."""
    every = list(accounts)
    state = config.state
    owner = os.stat(state).st_uid if os.path.isdir(state) else 0
    messages = whole = 0
    findings: list[Finding] = []
    with Progress(len(every)) as progress:
        for account in every:
            path = os.path.join(state, "mail", mailbox_path(account.key))
            found = _look(path, owner, now)
            messages += found.files
            told = [*_told(path, found), *_usage(account, path, found)]
            whole += not told
            findings += told
            progress.add(1, f"mailbox of {clean(account.key)}")
    yield from findings
    if whole:
        yield ok("mailboxes", f"{whole} of {len(every)} in order; {messages} messages in all")


def _told(path: str, found: _Found) -> Iterator[Finding]:
    for problem, paths in found.problems.items():
        more = f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""
        text = f"{clean(paths[0])} {problem}{more}"
        if problem in _WRONG:
            yield wrong(_SUBJECT, text, _REMEDIES[problem])
        else:
            yield warning(_SUBJECT, text, _REMEDIES[problem])
    if found.more:
        yield warning(_SUBJECT, f"{path} has more than {FILES} messages; the others were not looked at", "nothing")


def _look(path: str, owner: int, now: float) -> _Found:
    found = _Found()
    if not os.path.lexists(path):
        return found  # no mail has come yet
    if not os.path.isdir(path):
        found.note("is no folder", path)
        return found
    try:
        folders = [entry for entry in os.scandir(path) if entry.name.startswith(".")]
    except OSError:
        found.note("cannot be listed", path)
        return found
    _look_at_folder(path, found, owner, now)
    for entry in sorted(folders, key=lambda entry: entry.name):
        if entry.is_symlink():
            found.note("is a link, which is not followed", entry.path)
        elif entry.is_dir() and any(os.path.lexists(os.path.join(entry.path, part)) for part in maildir.FOLDERS):
            _look_at_folder(entry.path, found, owner, now)
    return found


def _look_at_folder(path: str, found: _Found, owner: int, now: float) -> None:
    for part in maildir.FOLDERS:
        place = os.path.join(path, part)
        if os.path.islink(place):
            found.note("is a link, which is not followed", place)
        elif not os.path.lexists(place):
            found.note("is missing", place)
        elif not os.path.isdir(place):
            found.note("is no folder", place)
        else:
            try:
                with os.scandir(place) as entries:
                    _look_at_files(part, entries, found, owner, now)
            except OSError:
                found.note("cannot be listed", place)


def _look_at_files(part: str, entries: Iterator[os.DirEntry[str]], found: _Found, owner: int, now: float) -> None:
    for entry in entries:
        if found.files >= FILES:
            found.more = True
            return
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue  # another program has moved it
        if part == "tmp":
            if stat.S_ISREG(status.st_mode) and now - status.st_mtime > OLD_S:
                found.note("is left from a delivery", entry.path)
        elif stat.S_ISLNK(status.st_mode):
            found.note("is a link, which is not followed", entry.path)
        elif not stat.S_ISREG(status.st_mode):
            found.note("is no file", entry.path)
        elif not entry.name.startswith("."):
            found.files += 1
            if not _readable(status, owner):
                found.note("cannot be read by the server", entry.path)
            if maildirsize.size_told(entry.name) not in (None, status.st_size):
                found.note("tells a wrong size", entry.path)


def _readable(status: os.stat_result, owner: int) -> bool:
    """For the user whose the state folder is; what groups may do is not looked at."""
    if owner == 0:
        return True
    return bool(status.st_mode & (stat.S_IRUSR if status.st_uid == owner else stat.S_IRGRP | stat.S_IROTH))


def _usage(account: Account, path: str, found: _Found) -> Iterator[Finding]:
    if account.quota is None or found.more:
        return
    disk = Filesystem()
    try:
        told = maildirsize.read(disk, path)
        counted = maildirsize.count(disk, path, account.quota.ignored)
    except OSError as error:
        file = os.path.join(path, maildirsize.FILE)
        yield warning(_SUBJECT, f"{file}: {error.strerror}", "remove it; the server makes it anew")
        return
    if account.quota.full(counted):
        text = f"{account.key} is full, and new mail is put off"
        yield warning(_SUBJECT, text, f"'mailsrv account quota {account.key}' shows how full, and gives more")
    if told is None:
        return  # nothing, or what the server makes anew at its next look
    if told.usage != counted:
        difference = told.usage.minus(counted)
        yield warning(
            _SUBJECT,
            f"{account.key}: maildirsize tells of {difference.octets} octets and {difference.messages} messages more"
            " than there are",
            "nothing; the server counts daily, and before it refuses mail",
        )
    if told.quota_line() != maildirsize.quota_line(account.quota):
        yield warning(
            _SUBJECT,
            f'{account.key}: maildirsize is for the quota "{clean(told.quota_line().decode(errors="replace"))}"',
            "give the other programs that share the mailbox the same quota, or the same accounts file",
        )
