"""``mailsrv export``: a mailbox of ours as a Maildir or an mbox, for another server or for keeping.

Works beside a running server; nothing in the mailbox is changed.  A Maildir that is there gets what is missing in it,
an mbox file must not exist.  What cannot be read is reported and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from mailsrv.cli.command import Failure, add_common, config_of
from mailsrv.cli.import_mail import account_of, folder_directory
from mailsrv.cli.progress import Progress, Stop
from mailsrv.cli.wording import clean, counted, now
from mailsrv.mail.folder_name import name_of
from mailsrv.outside.filesystem import Filesystem
from mailsrv.store.accounts.accounts import mailbox_path
from mailsrv.store.migration.export import Folder, MaildirExport, MboxExport, folders_of
from mailsrv.store.migration.letter import Trouble


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    verb = subparsers.add_parser(
        "export",
        help="write a mailbox as a Maildir or an mbox",
        description="Write the mailbox of ADDRESS to DESTINATION: a Maildir with all folders, or an mbox file; with "
        "--format mbox and a folder as DESTINATION one mbox file for each folder of the mailbox.",
    )
    add_common(verb)
    verb.add_argument("address", metavar="ADDRESS")
    verb.add_argument("destination", metavar="DESTINATION")
    verb.add_argument("--format", choices=("maildir", "mbox"), default="maildir", help="default: maildir")
    verb.add_argument("--folder", metavar="NAME", help="only this folder, such as INBOX or Archive/2024")
    verb.set_defaults(run=_run)


class _Work:
    """What is written, and what was met on the way."""

    def __init__(self, progress: Progress, stop: Stop) -> None:
        self.written = 0
        self.present = 0
        self.problems = 0
        self._stop = stop
        self._progress = progress

    def trouble(self, text: str) -> None:
        self.problems += 1
        self._progress.clear()
        print(f"mailsrv: {clean(text)}.", file=sys.stderr)

    def _go_on(self) -> None:
        if self._stop.wanted:
            raise Failure("interrupted; run it again to go on.")

    def to_maildir(self, folder: Folder, directory: str, out: MaildirExport) -> None:
        out.folder(directory, folder.keywords())
        for message in folder.messages():
            self._go_on()
            if isinstance(message, Trouble):
                self.trouble(f"{message.origin} {message.reason}")
                continue
            if out.write(directory, message):
                self.written += 1
            else:
                self.present += 1
            self._progress.add(message.entry.size, counted(self.written, "message"))

    def to_mbox(self, folder: Folder, out: MboxExport) -> None:
        for message in folder.messages():
            self._go_on()
            if isinstance(message, Trouble):
                self.trouble(f"{message.origin} {message.reason}")
                continue
            out.write(message)
            self.written += 1
            self._progress.add(message.entry.size, counted(self.written, "message"))


def _run(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    account = account_of(arguments.address, config)
    filesystem = Filesystem()
    path = f"{config.state}/mail/{mailbox_path(account.key)}"
    wanted = folders_of(filesystem, path)
    if not wanted:
        raise Failure(f"{account.address.text} has no mail yet.")
    if arguments.folder is not None:
        only = folder_directory(arguments.folder)
        if only not in wanted:
            raise Failure(f"{account.address.text} has no folder {arguments.folder}.")
        wanted = [only]
    folders = [Folder(filesystem, path, directory) for directory in wanted]
    destination = os.path.abspath(arguments.destination)
    with Stop() as stop, Progress(sum(folder.octets for folder in folders)) as progress:
        work = _Work(progress, stop)
        for folder in folders:
            for problem in folder.problems:
                work.trouble(problem)
        if arguments.format == "maildir":
            with MaildirExport(filesystem, destination, int(now()), os.urandom(16).hex()) as out:
                for folder in folders:
                    work.to_maildir(folder, "" if arguments.folder is not None else folder.directory, out)
        else:
            _to_mbox(work, folders, destination, arguments)
    there = f"; {counted(work.present, 'message')} {'was' if work.present == 1 else 'were'} there already"
    print(f"Exported {counted(work.written, 'message')} of {account.address.text}{there if work.present else ''}.")
    return 1 if work.problems else 0


def _to_mbox(work: _Work, folders: Sequence[Folder], destination: str, arguments: argparse.Namespace) -> None:
    if arguments.folder is None and (os.path.isdir(destination) or arguments.destination.endswith("/")):
        os.makedirs(destination, mode=0o700, exist_ok=True)
        for folder in folders:
            # The name of the directory as it is: what people call the folder need not be the name of a file.
            with MboxExport(f"{destination}/{folder.directory.removeprefix('.') or 'INBOX'}") as out:
                work.to_mbox(folder, out)
        return
    with MboxExport(destination) as out:
        work.to_mbox(folders[0], out)
    left = [name_of(folder.directory) for folder in folders[1:] if folder.entries]
    if left:
        print(
            f"mailsrv: {clean(arguments.destination)} holds the inbox only, and not {clean(', '.join(left))}: name one "
            "with --folder, or as DESTINATION a directory, which gets a file for each.",
            file=sys.stderr,
        )
