"""Writes ``docs/operator/refusals.rst`` from the tables of the code: ``python -m tools.write_refusals``."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from mailsrv.relay.remedies import blocklists, generic, google, microsoft, providers
from mailsrv.relay.remedies.remedy import Action, Remedy, Row

PAGE = Path(__file__).parent.parent / "docs" / "operator" / "refusals.rst"
WIDTH = 120

_INTRODUCTION = """\
Refusals of other servers
=========================

What large providers, block lists and filters say to servers that they do not know or do not trust, under the key that
the ledger has: ``mailsrv why google-no-ptr`` says how often it was met here, ``mailsrv check`` lists those of the last
week. The sender's report has the meaning and the remedy; the postmaster is told once for each, and again when it comes
back after 30 days without. What passes by itself, or is about one mailbox or one message, is told to senders only.

This page is written by ``python -m tools.write_refusals`` from the tables that the server uses."""
_ACTS = {
    Action.NOTHING: "",
    Action.WAIT: "The server tries again an hour later at the earliest.",
    Action.SLOW_DOWN: "The server makes fewer connections there.",
    Action.OTHER_FAMILY: "The server tries the other IP family where both sides have both.",
}
_TABLES: tuple[tuple[str, tuple[Row, ...]], ...] = (
    ("Google", google.ROWS),
    ("Microsoft", microsoft.ROWS),
    ("Yahoo, Apple, GMX, T-Online, filters", providers.ROWS),
    ("Block lists", blocklists.ROWS),
    ("Servers of any make", generic.ROWS),
)


def page() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _INTRODUCTION
    for title, rows in _TABLES:
        yield from ("", title, "-" * len(title), "")
        for remedy in dict.fromkeys(row.remedy for row in rows):
            yield f"``{remedy.cause}``"
            yield from textwrap.wrap(
                _text(remedy), WIDTH - 4, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False
            )


def _text(remedy: Remedy) -> str:
    told = "" if remedy.tell else "The postmaster is not told."
    text = " ".join(filter(None, (remedy.meaning, "*What to do:*", remedy.remedy, _ACTS[remedy.action], told)))
    return re.sub(r"`([^`]+)`", r"``\1``", text)


def main() -> int:
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
