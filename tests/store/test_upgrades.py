"""Databases of every earlier version come up to date whole, and nothing in them is lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailsrv.store import due, ledger, schema, upgrades

DATA = Path(__file__).parent / "data"
EARLIER = range(1, schema.VERSION)


def of_version(version: int) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript((DATA / f"version-{version}.sql").read_text())
    return connection


@pytest.fixture(params=EARLIER)
def old(request: pytest.FixtureRequest) -> Iterator[sqlite3.Connection]:
    connection = of_version(request.param)
    yield connection
    connection.close()


def shape(connection: sqlite3.Connection) -> dict[str, object]:
    """Tables with their columns, indexes with theirs and with their conditions."""
    found: dict[str, object] = {}
    for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master").fetchall():
        if kind == "table":
            # Of a column: its name, its type, whether it may be NULL, its place in the key.
            columns = connection.execute(f"PRAGMA table_info({name})").fetchall()
            found[name] = {(column[1], column[2], column[3], column[5]) for column in columns}
        else:
            columns = connection.execute(f"PRAGMA index_info({name})").fetchall()
            condition = " ".join((sql or "").split()).partition(" WHERE ")[2]
            found[name] = ([column[2] for column in columns], condition)
    return found


def test_every_earlier_version_has_a_sample_and_a_step() -> None:
    assert set(upgrades.STEPS) == set(range(2, schema.VERSION + 1))
    assert all((DATA / f"version-{version}.sql").exists() for version in EARLIER)


def test_an_upgraded_database_is_like_a_new_one(old: sqlite3.Connection) -> None:
    schema.prepare(old, "/x.db", may_upgrade=lambda: True)
    new = sqlite3.connect(":memory:", isolation_level=None)
    schema.prepare(new, "/x.db")
    assert shape(old) == shape(new)
    assert old.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    new.close()


def test_what_was_queued_still_is(old: sqlite3.Connection) -> None:
    before = old.execute("SELECT message, n, address, state, attempts, next_attempt FROM recipient").fetchall()
    events = old.execute("SELECT count(*) FROM event").fetchone()
    schema.prepare(old, "/x.db", may_upgrade=lambda: True)
    assert old.execute("SELECT message, n, address, state, attempts, next_attempt FROM recipient").fetchall() == before
    assert old.execute("SELECT count(*) FROM event").fetchone() == events
    assert due.next_due(old, 0.0)
    assert not ledger.verify(old, set()).gaps


def test_lanes_are_known_for_what_was_queued_before_there_were_lanes() -> None:
    old = of_version(1)
    schema.prepare(old, "/x.db", may_upgrade=lambda: True)
    lanes = old.execute(
        "SELECT DISTINCT message.account, message.sender, lane FROM recipient JOIN message ON message = id"
    )
    assert set(lanes) == {
        ("alice@example.org", "alice@example.org", "alice@example.org"),
        ("", "bob@example.net", ""),  # to an own mailbox
        ("", "dave@example.com", "example.com"),
        ("", "", ""),
    }
    old.close()


def test_the_tool_leaves_an_older_database_to_the_server(old: sqlite3.Connection) -> None:
    before = list(old.iterdump())
    with pytest.raises(schema.DatabaseError, match=r"^/x\.db: written by an older mailsrv .* restart the server"):
        schema.prepare(old, "/x.db")
    assert list(old.iterdump()) == before


def test_an_upgrade_that_fails_leaves_the_old_database(
    old: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list(old.iterdump())
    monkeypatch.setitem(upgrades.STEPS, schema.VERSION, upgrades.STEPS[schema.VERSION] + ";\nSELECT * FROM nowhere")
    with pytest.raises(schema.DatabaseError, match="nowhere"):
        schema.prepare(old, "/x.db", may_upgrade=lambda: True)
    assert list(old.iterdump()) == before


def test_a_library_that_is_too_old_is_told_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 26, 0))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.26.0")
    connection = sqlite3.connect(":memory:", isolation_level=None)
    with pytest.raises(schema.DatabaseError, match=r"3\.26\.0; mailsrv needs 3\.33\.0 or newer"):
        schema.prepare(connection, "mailsrv.db")
    connection.close()
