"""``mailsrv ledger``: whether all that was accepted is accounted for, and what happened in the last day."""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
from dataclasses import asdict, replace
from typing import Any

from mailsrv.cli.command import add_common, config_of, wants_json
from mailsrv.cli.wording import as_json, clean, counted, now
from mailsrv.store import ledger
from mailsrv.store.connection import opened, snapshot
from mailsrv.store.ledger import Balance

DAY_S = 86400.0


def register(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "ledger",
        help="verify that nothing was lost",
        description="Count what happened in the last 24 hours or, with --verify, what became of all mail.",
    )
    add_common(parser, json=True)
    parser.add_argument(
        "--verify",
        action="store_true",
        help="check that accepted = delivered + queued + held + bounced + dropped + removed, and name every gap",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit status 1 when there are gaps."""
    state = config_of(arguments).state
    with opened(os.path.join(state, "mailsrv.db")) as connection:
        if not arguments.verify:
            with snapshot(connection):
                counts = ledger.counts(connection, now() - DAY_S)
            print(as_json(counts) if wants_json(arguments) else _day(counts))
            return 0
        balance = verified(connection, os.path.join(state, "spool"))
    print(as_json(asdict(balance)) if wants_json(arguments) else _sheet(balance))
    return 1 if balance.gaps else 0


def verified(connection: sqlite3.Connection, spool: str) -> Balance:
    """The balance, with the gaps that are still there at a second look.

    Beside a running server the list of files and the state of the database are never of the very same moment.
    """
    first = _verify(connection, spool)
    if not first.gaps:
        return first
    second = _verify(connection, spool)
    seen = set(first.gaps)
    return replace(second, gaps=[gap for gap in second.gaps if gap in seen])


def _verify(connection: sqlite3.Connection, spool: str) -> Balance:
    with snapshot(connection):
        try:
            files = set(os.listdir(spool))
        except FileNotFoundError:
            files = set()
        try:
            return ledger.verify(connection, files, _progress)
        finally:
            if sys.stderr.isatty():
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _progress(done: int, steps: int) -> None:
    if sys.stderr.isatty():
        print(f"\rverifying, check {done + 1} of {steps} ", end="", file=sys.stderr, flush=True)


def _sheet(balance: Balance) -> str:
    rows = [(name, value) for name, value in asdict(balance).items() if name != "gaps"]
    lines = ["Recipients of messages in the ledger:"]
    lines += [f"  {name:<10}{value:>12,}" for name, value in rows]
    if balance.gaps:
        lines.append(f"{counted(len(balance.gaps), 'gap')}:")
        lines += [f"  {clean(gap)}" for gap in balance.gaps]
        lines.append("`mailsrv why ID` tells what is known of a message.")
    else:
        lines.append("The ledger balances: accepted = delivered + queued + held + bounced + dropped + removed.")
    return "\n".join(lines)


def _day(counts: dict[str, int]) -> str:
    if not counts:
        return "Nothing happened in the last 24 hours."
    known = [kind for kind in ledger.KINDS if kind in counts]
    # Only logins that failed are events.
    names = {kind: "login failed" if kind == ledger.LOGIN else kind for kind in known}
    lines = [f"  {names[kind]:<12}{counts[kind]:>12,}" for kind in known]
    return "\n".join(["In the last 24 hours:", *lines])
