"""How long it takes to open mailboxes of 10,000 and 100,000 messages by POP3, beside Dovecot.

``login`` is from PASS to its answer, ``UIDL`` from PASS until the whole answer to UIDL is there.

first
    nobody has opened the mailbox before, no server has an index of it; the names are in the page cache
cold
    the server has just been started and the page cache dropped (for that it takes root); indexes are on the disk
warm
    the mailbox has been opened just before

The password has been checked before on every server, with an empty mailbox in place, so that hashing does not count.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Any

from bench import report
from bench.mailboxes import Client, Source, available, fill
from bench.peers import MAILSRV

SIZES = (10_000, 100_000)
WAYS = ("first", "cold", "warm")
_SETTLED_S = 3.0  # a folder that has just changed is trusted by nobody


def run(place: Path, rounds: int, only: list[str] | None, quiet: bool) -> dict[str, Any]:
    """Milliseconds by server, size, way and step; prints tables unless ``quiet``."""
    made = {name: make(place, len(SIZES), ()) for name, make in available(only).items()}
    times: dict[str, dict[str, dict[str, list[float]]]] = {
        name: {f"{size} {way}": {"login": [], "UIDL": []} for size in SIZES for way in WAYS} for name in made
    }
    for _ in range(rounds):
        for name, source in made.items():
            for number, size in enumerate(SIZES):
                for way, (login, uidl) in _measure(source, number, size).items():
                    times[name][f"{size} {way}"]["login"].append(login)
                    times[name][f"{size} {way}"]["UIDL"].append(uidl)
    results = {
        name: {case: {step: report.spread(values) for step, values in steps.items()} for case, steps in cases.items()}
        for name, cases in times.items()
    }
    if not quiet:
        _print(results)
    return results


def _print(results: dict[str, dict[str, dict[str, dict[str, float]]]]) -> None:
    for step in ("login", "UIDL"):
        rows = []
        for size in SIZES:
            for way in WAYS:
                case = f"{size} {way}"
                values = [results[name][case][step] for name in results]
                cells = [f"{v['median']:,.1f} ({v['least']:,.1f} to {v['most']:,.1f})" for v in values]
                ratio = f"{values[1]['median'] / values[0]['median']:.1f}" if len(values) == 2 else ""
                rows.append([f"{size:,} messages, {way}", *cells, ratio])
        columns = ["", *results, f"{MAILSRV} is times" if len(results) == 2 else ""]
        print(report.table(f"Opened: {step}, milliseconds", columns, rows))


def _measure(source: Source, number: int, size: int) -> dict[str, tuple[float, float]]:
    """Login and UIDL in milliseconds, by way; leaves the server stopped and the mailbox as it was never opened."""
    maildir = source.maildir(number)
    aside = maildir.with_name(f"{maildir.name}.full")
    shutil.rmtree(maildir, ignore_errors=True)
    fill(source, number, size, linked=True)
    maildir.rename(aside)
    time.sleep(_SETTLED_S)
    taken = {}
    try:
        _start(source, number, aside)
        taken["first"] = _open(source, number)
        source.stop()
        maildir.rename(aside)
        _drop_caches()
        _start(source, number, aside)
        _drop_caches()
        taken["cold"] = _open(source, number)
        taken["warm"] = _open(source, number)
    finally:
        source.stop()
    shutil.rmtree(maildir)
    return taken


def _start(source: Source, number: int, full: Path) -> None:
    """Start the server and have it check the password, then put the full mailbox in its place."""
    source.start()
    fill(source, number, 0)
    _open(source, number)
    maildir = source.maildir(number)
    shutil.rmtree(maildir)
    full.rename(maildir)


def _open(source: Source, number: int) -> tuple[float, float]:
    user, password = source.login(number)
    with Client(source.port) as client:
        client.ask(b"USER %b" % user.encode())
        began = time.monotonic()
        client.ask(b"PASS %b" % password.encode())
        login = time.monotonic()
        client.ask_long(b"UIDL")
        uidl = time.monotonic()
        client.ask(b"QUIT")
    return (login - began) * 1000, (uidl - began) * 1000


def _drop_caches() -> None:
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError as error:
        print(f"the page cache cannot be dropped, cold is warmer than it should be: {error}", file=sys.stderr)
