"""The database keeps what was committed, and a crash falls on either side of a commit."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from mailsrv.store import schema
from tests.simulation.database import Databases
from tests.simulation.timeline import Life, SimulatedCrash, Steps

PATH = "/state/mailsrv.db"


@pytest.fixture
def databases() -> Iterator[Databases]:
    databases = Databases()
    yield databases
    databases.remove()


def start(databases: Databases, crashes: list[int]) -> tuple[sqlite3.Connection, Life]:
    life = Life("program", Steps(crashes))
    life.ended.append(databases.crash)
    connection = databases.connect(PATH, life)
    schema.connect(connection)
    return connection, life


def insert(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO thing VALUES (1)")
    connection.execute("COMMIT")


def things(databases: Databases) -> int:
    connection = databases.look(PATH)
    found: int = connection.execute("SELECT count(*) FROM thing").fetchone()[0]
    connection.close()
    return found


def test_a_crash_falls_before_or_after_a_commit(databases: Databases) -> None:
    connection, life = start(databases, [])
    connection.execute("CREATE TABLE thing (n)")
    life.end()
    found = []
    for step in (1, 2, 3):
        connection, life = start(databases, [step])
        if step < 3:
            with pytest.raises(SimulatedCrash):
                insert(connection)
        else:
            insert(connection)
            life.end()
        found.append(things(databases))
    assert found == [0, 1, 2]


def test_what_is_not_committed_is_rolled_back(databases: Databases) -> None:
    connection, life = start(databases, [])
    connection.execute("CREATE TABLE thing (n)")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO thing VALUES (1)")
    life.end()
    assert things(databases) == 0
    with pytest.raises(SimulatedCrash):
        connection.execute("COMMIT")


def test_a_reader_sees_only_what_is_committed(databases: Databases) -> None:
    writer, life = start(databases, [])
    reader = databases.connect(PATH, life)
    writer.execute("CREATE TABLE thing (n)")
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("INSERT INTO thing VALUES (1)")
    assert reader.execute("SELECT count(*) FROM thing").fetchone() == (0,)
    writer.execute("COMMIT")
    assert reader.execute("SELECT count(*) FROM thing").fetchone() == (1,)


def test_a_commit_that_does_not_last_is_an_error(databases: Databases) -> None:
    connection, _ = start(databases, [])
    connection.execute("PRAGMA synchronous = NORMAL")
    with pytest.raises(AssertionError):
        connection.execute("CREATE TABLE thing (n)")


def test_changes_outside_a_transaction_are_commits(databases: Databases) -> None:
    connection, life = start(databases, [3])
    connection.execute("CREATE TABLE thing (n)")
    with pytest.raises(SimulatedCrash):
        connection.execute("INSERT INTO thing VALUES (1)")
    assert not life.alive
    assert things(databases) == 0
