"""What all verbs share: which configuration is meant, and how to print data and failures.

Data goes to standard output, failures in one sentence to standard error.  Exit status 0 is done, 1 is "the answer is
no, or something is wrong", 2 is wrong usage (argparse).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from mailsrv.config import DEFAULT_PATH, Config, load


class Failure(Exception):
    """Something is wrong; the message is one sentence for the operator.  ``main`` prints it and exits with 1."""


def add_common(parser: argparse.ArgumentParser, *, json: bool = False) -> None:
    """Give a verb ``--config`` and, when it prints data, ``--json``."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        # A verb within a verb must not forget what was said before it.
        default=argparse.SUPPRESS,
        help=f"the configuration file (default: $MAILSRV_CONFIG, else {DEFAULT_PATH})",
    )
    if json:
        parser.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print JSON, for programs to read"
        )


def config_path(arguments: argparse.Namespace) -> str:
    """The configuration file that is meant: ``--config``, MAILSRV_CONFIG or the default."""
    return getattr(arguments, "config", None) or os.environ.get("MAILSRV_CONFIG") or DEFAULT_PATH


def config_of(arguments: argparse.Namespace) -> Config:
    """Load the configuration that is meant; ConfigError, which ``main`` prints."""
    return load(config_path(arguments))


def wants_json(arguments: argparse.Namespace) -> bool:
    """Whether ``--json`` was given."""
    return bool(getattr(arguments, "json", False))


def fail(message: str) -> int:
    """Print one sentence to standard error; the exit status 1."""
    print(f"mailsrv: {message}", file=sys.stderr)
    return 1


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> str:
    """Columns wide enough for what they hold, two blanks apart; no blanks at line ends."""
    cells = [list(headers), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)
