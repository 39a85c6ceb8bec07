"""Many rows in few statements.

Python's sqlite3 gives the interpreter's lock away around each step of a statement, and gets it back only when the
reactor lets go of it; so the writer pays for statements and not for rows.  Rows go in powers of two, that few texts are
prepared, and stay prepared.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final, TypeVar

T = TypeVar("T")

MOST: Final = 32  # rows of one statement


def insert(connection: sqlite3.Connection, into: str, rows: Sequence[Sequence[Any]]) -> None:
    """Insert ``rows``, of equal length; ``into`` is ``table`` or ``table (columns)``."""
    for part in parts(rows):
        connection.execute(_inserting(into, len(part), len(part[0])), [value for row in part for value in row])


def parts(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """``rows`` in pieces, the length of each a power of two and at most MOST."""
    start = 0
    while start < len(rows):
        length = MOST
        while length > len(rows) - start:
            length //= 2
        yield rows[start : start + length]
        start += length


@cache
def values(rows: int, columns: int) -> str:
    """``(?, ?), (?, ?)`` for two rows of two columns."""
    return ", ".join([f"({', '.join('?' * columns)})"] * rows)


@cache
def _inserting(into: str, rows: int, columns: int) -> str:
    return f"INSERT INTO {into} VALUES {values(rows, columns)}"  # noqa: S608
