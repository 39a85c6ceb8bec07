"""``mailsrv import``: mail of another server into a mailbox of ours.

Works beside a running server and without one.  It may be interrupted, and run again over the same sources as often as
one likes: what was imported is found again, also after it was moved or deleted here.  What cannot be read, and a POP3
unique-id that cannot be kept, is reported, does not stop the rest, and makes the exit status 1.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from dataclasses import dataclass, field

from mailsrv.cli.account import directory_of
from mailsrv.cli.command import Failure, add_common, config_of, print_json, wants_json
from mailsrv.cli.progress import Progress, Stop
from mailsrv.cli.wording import clean, counted
from mailsrv.config import Config
from mailsrv.mail.address import Address, AddressError
from mailsrv.mail.folder_name import directory_of as directory_of_folder
from mailsrv.outside.filesystem import Filesystem
from mailsrv.store.accounts.accounts import Account, mailbox_path
from mailsrv.store.migration.dovecot import DEFAULT_FORMAT, UidlFormat
from mailsrv.store.migration.letter import Letter, Source, Trouble
from mailsrv.store.migration.placing import InUse, Placing
from mailsrv.store.migration.source import NoSource, source_at

_REPORTED = 100  # troubles in words; after that they are counted


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    verb = subparsers.add_parser(
        "import",
        help="bring mail of another server into a mailbox",
        description="Bring mail of another server into the mailbox of ADDRESS.  A SOURCE is an mbox file or a Maildir, "
        "with its folders.  Dates, flags and POP3 unique-ids are kept.  It may be interrupted and run again.",
    )
    add_common(verb, json=True)
    verb.add_argument("address", metavar="ADDRESS")
    verb.add_argument("sources", metavar="SOURCE", nargs="+")
    verb.add_argument("--folder", metavar="NAME", default="INBOX", help="into this folder, such as Archive/2024")
    verb.add_argument("--again", action="store_true", help="also what was imported before and has been deleted since")
    verb.add_argument(
        "--uidl-format",
        metavar="FORMAT",
        default=DEFAULT_FORMAT,
        help="pop3_uidl_format of the Dovecot it comes from (default: %(default)s)",
    )
    verb.set_defaults(run=_run)


@dataclass(slots=True)
class _Report:
    """What has become of everything so far."""

    placed: Counter[str] = field(default_factory=Counter)
    octets: int = 0
    troubles: list[Trouble] = field(default_factory=list)

    def trouble(self, trouble: Trouble, progress: Progress | None = None) -> None:
        self.troubles.append(trouble)
        if len(self.troubles) <= _REPORTED:
            if progress is not None:
                progress.clear()
            print(f"mailsrv: {clean(trouble.origin)} {clean(trouble.reason)}.", file=sys.stderr)
        elif len(self.troubles) == _REPORTED + 1:
            print("mailsrv: there is more of this, which --json tells in full.", file=sys.stderr)


def _run(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    account = account_of(arguments.address, config)
    directory = folder_directory(arguments.folder)
    try:
        form = UidlFormat(arguments.uidl_format)
    except ValueError as error:
        raise Failure(f"{error}.") from None
    filesystem = Filesystem()
    report = _Report()
    sources: list[Source] = []
    path = f"{config.state}/mail/{mailbox_path(account.key)}"
    for source in arguments.sources:
        if os.path.realpath(source) == os.path.realpath(path):
            report.trouble(Trouble(source, "is the mailbox itself"))
            continue
        try:
            sources.append(source_at(filesystem, source, directory, form))
        except NoSource as error:
            report.trouble(Trouble(source, str(error)))
    stop = Stop()
    try:
        with (
            stop,
            Progress(sum(source.octets for source in sources)) as progress,
            Placing(filesystem, path, config.hostname, arguments.again) as placing,
        ):
            for each in sources:
                _take(each, placing, report, progress, stop)
    except InUse:
        raise Failure(f"another import into the mailbox of {account.address.text} is at work.") from None
    except OSError as error:
        print(_summary(report, account), file=sys.stderr)
        raise Failure(f"{error.filename or path}: {error.strerror or error}; run it again to go on.") from None
    if wants_json(arguments):
        _print_json(report, stop.wanted)
    else:
        print(_summary(report, account))
    if stop.wanted:
        raise Failure("interrupted; run it again to go on.")
    return 1 if report.troubles else 0


def _take(source: Source, placing: Placing, report: _Report, progress: Progress, stop: Stop) -> None:
    """All of one source, unless somebody wants to stop (OSError: local trouble)."""
    try:
        keywords = list(source.keywords())
    except OSError as error:
        report.trouble(Trouble(error.filename or "the keywords", f"cannot be read: {error.strerror}"), progress)
        keywords = []
    for directory, names in keywords:
        lost = placing.take_keywords(directory, names)
        if lost:
            where = directory or "INBOX"
            report.trouble(Trouble(f"{where}: the keywords {', '.join(lost)}", "are not kept"), progress)
    for found in source.letters():
        if stop.wanted:
            return
        if isinstance(found, Trouble):
            report.trouble(found, progress)
        else:
            _place(found, placing, report, progress)
        progress.add(found.octets, counted(report.placed["imported"], "message"))


def _place(letter: Letter, placing: Placing, report: _Report, progress: Progress) -> None:
    placed = placing.place(letter)
    report.placed[placed.how] += 1
    if placed.how == "imported":
        report.octets += len(letter.content)
    if placed.problem:
        report.trouble(Trouble(f"{letter.origin}:", placed.problem), progress)


def account_of(text: str, config: Config) -> Account:
    """The account that is meant (Failure)."""
    try:
        address = Address.parse(text)
    except AddressError as error:
        raise Failure(f'"{text}" is not an address: {error}.') from None
    account = directory_of(config).account(address)
    if account is None:
        raise Failure(f"{address.text} is not an account; 'mailsrv account add {address}' makes it one.")
    return account


def folder_directory(name: str) -> str:
    """The Maildir++ directory of the folder that is meant (Failure)."""
    try:
        return directory_of_folder(name)
    except ValueError as error:
        raise Failure(f"--folder: {error}.") from None


def _summary(report: _Report, account: Account) -> str:
    placed = report.placed
    size = f"{report.octets / 1e6:,.1f} MB" if report.octets >= 1e5 else counted(report.octets, "octet")
    parts = [f"Imported {counted(placed['imported'], 'message')} ({size}) for {account.address.text}"]
    if placed["present"]:
        parts.append(f"{placed['present']:,} {'was' if placed['present'] == 1 else 'were'} there already")
    if placed["removed"]:
        parts.append(f"{placed['removed']:,} had been imported before and deleted since (--again brings them back)")
    if report.troubles:
        parts.append(f"{counted(len(report.troubles), 'problem')}, named above")
    return "; ".join(parts) + "."


def _print_json(report: _Report, interrupted: bool) -> None:
    print_json(
        {
            "imported": report.placed["imported"],
            "octets": report.octets,
            "present": report.placed["present"],
            "removed": report.placed["removed"],
            "interrupted": interrupted,
            "problems": [
                {"origin": clean(trouble.origin), "problem": clean(trouble.reason)} for trouble in report.troubles
            ],
        }
    )
