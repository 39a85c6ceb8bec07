"""Many rows in one statement."""

from __future__ import annotations

import sqlite3

import pytest

from mailsrv.store import rows
from mailsrv.store.rows import AT_ONCE


@pytest.fixture
def connection() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE pair (a INTEGER PRIMARY KEY, b TEXT NOT NULL)")
    return connection


@pytest.mark.parametrize("number", [0, 1, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE + 5])
def test_every_row_is_written_and_found_in_order(connection: sqlite3.Connection, number: int) -> None:
    given = [(n, f"text {n}") for n in range(number)]
    assert rows.execute(connection, "INSERT INTO pair VALUES {rows}", given) == []
    assert connection.execute("SELECT * FROM pair ORDER BY a").fetchall() == given
    wanted = [(n,) for n in range(number)]
    found = rows.execute(connection, "SELECT a, b FROM pair WHERE a IN (VALUES {rows}) ORDER BY a", wanted)
    assert found == given


def test_a_statement_takes_many_rows(connection: sqlite3.Connection) -> None:
    said: list[str] = []
    connection.set_trace_callback(said.append)
    rows.execute(connection, "INSERT INTO pair VALUES {rows}", [(n, "") for n in range(2 * AT_ONCE)])
    assert len(said) == 2


def test_what_a_row_violates_is_raised(connection: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        rows.execute(connection, "INSERT INTO pair VALUES {rows}", [(1, "a"), (1, "b")])
