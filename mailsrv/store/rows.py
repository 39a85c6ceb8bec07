"""Many rows in one statement.

Python's sqlite3 lets go of the interpreter at every step of a statement, and has to win it back from a busy reactor.
With a step for each row a commit under load waits longer for that than for the disk.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

AT_ONCE: Final = 16  # rows of one statement: each number of rows up to it is a statement that SQLite has to keep


def execute(connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Run ``statement`` with ``rows``, which all have the same columns, where it says ``VALUES {rows}``; what it finds.

    In runs of AT_ONCE rows: a statement must not need to see all of them.
    """
    found: list[tuple[Any, ...]] = []
    for start in range(0, len(rows), AT_ONCE):
        run = rows[start : start + AT_ONCE]
        written = _written(statement, len(run[0]), len(run))
        found += connection.execute(written, [value for row in run for value in row])
    return found


@lru_cache(maxsize=256)
def _written(statement: str, columns: int, rows: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return statement.replace("{rows}", ", ".join([row] * rows))
