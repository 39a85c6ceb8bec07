"""Group commit: many operations, one transaction, and each caller gets what is his."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, DeferredList, fail
from twisted.python.failure import Failure

from mailsrv.store import schema
from mailsrv.store.database import BATCH, LOCKED_MS, LOCKED_TIMES, Database, StorageTrouble
from tests.simulation.timeline import Timeline
from tests.worlds.store import DATABASE, machine, wait


class World:
    def __init__(self) -> None:
        self.timeline = Timeline()
        self.machine = machine(self.timeline)
        self.database = Database(self.machine.boot(), DATABASE)
        self.connection = self.database.open()
        self.connection.execute("CREATE TABLE thing (name TEXT PRIMARY KEY, data BLOB)")
        self.statements: list[str] = []
        self.connection.set_trace_callback(self.statements.append)

    def outcomes(self, works: Sequence[Deferred[Any]]) -> list[Any]:
        """Results and exceptions, in the order of ``works``."""
        found = wait(self.timeline, DeferredList(works, consumeErrors=True))
        return [result.value if isinstance(result, Failure) else result for _, result in found]

    def count(self, statement: str) -> int:
        return sum(seen.startswith(statement) for seen in self.statements)

    def things(self) -> list[str]:
        connection = self.machine.databases.look(DATABASE)
        names = [name for (name,) in connection.execute("SELECT name FROM thing ORDER BY rowid")]
        connection.close()
        return names


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.machine.life.end()
    world.machine.databases.remove()


def insert(connection: sqlite3.Connection, name: str, size: int = 0) -> str:
    connection.execute("INSERT INTO thing VALUES (?, zeroblob(?))", (name, size))
    return f"inserted {name}"


def insert_and_fail(connection: sqlite3.Connection, name: str) -> None:
    insert(connection, name)
    raise ValueError(name)


def insert_all(connection: sqlite3.Connection, names: Sequence[str]) -> None:
    connection.executemany("INSERT INTO thing VALUES (?, NULL)", [(name,) for name in names])


def insert_pair(connection: sqlite3.Connection, name: str) -> str:
    insert_all(connection, [f"{name}1", f"{name}2"])
    return name


def names(connection: sqlite3.Connection) -> list[str]:
    return [name for (name,) in connection.execute("SELECT name FROM thing ORDER BY rowid")]


def test_what_comes_in_one_turn_of_the_reactor_shares_a_transaction(world: World) -> None:
    works = [world.database.write(insert, str(n)) for n in range(100)]
    assert world.outcomes(works) == [f"inserted {n}" for n in range(100)]
    assert world.count("COMMIT") == 1
    assert world.things() == [str(n) for n in range(100)]


def test_what_waits_while_one_transaction_commits_shares_the_next(world: World) -> None:
    works = [world.database.write(insert, "0")]
    world.timeline.run(world.timeline.now)
    works += [world.database.write(insert, str(n)) for n in range(1, 100)]
    assert world.outcomes(works) == [f"inserted {n}" for n in range(100)]
    assert world.count("COMMIT") == 2
    assert world.things() == [str(n) for n in range(100)]


def test_a_batch_has_a_limit(world: World) -> None:
    world.outcomes([world.database.write(insert, str(n)) for n in range(2 * BATCH + 1)])
    assert world.count("COMMIT") == 3


def test_a_result_comes_only_after_its_commit(world: World) -> None:
    seen: list[list[str]] = []
    world.database.write(insert, "first").addCallback(lambda result: seen.append(world.things()))
    world.database.write(insert, "second").addCallback(lambda result: seen.append(world.things()))
    world.timeline.run(60)
    assert "first" in seen[0]
    assert seen[1] == ["first", "second"]


def test_an_operation_that_raises_takes_nobody_elses_changes_with_it(world: World) -> None:
    works: list[Deferred[Any]] = [world.database.write(insert, "before")]
    works += [world.database.write(insert, "a"), world.database.write(insert_and_fail, "b")]
    works += [world.database.write(insert, "c"), world.database.write(insert_and_fail, "d")]
    results = world.outcomes(works)
    assert [str(result) for result in results] == ["inserted before", "inserted a", "b", "inserted c", "d"]
    assert isinstance(results[2], ValueError) and isinstance(results[4], ValueError)
    assert world.things() == ["before", "a", "c"]
    assert not world.connection.in_transaction


def test_an_operation_that_raises_alone_leaves_nothing(world: World) -> None:
    assert isinstance(world.outcomes([world.database.write(insert_and_fail, "a")])[0], ValueError)
    assert world.things() == []
    assert world.count("ROLLBACK") == 1


def test_one_that_breaks_a_constraint_is_the_only_one_to_fail(world: World) -> None:
    works = [world.database.write(insert, name) for name in ("first", "a", "a", "b")]
    results = world.outcomes(works)
    assert isinstance(results[2], StorageTrouble) and not results[2].full
    assert world.things() == ["first", "a", "b"]


def test_gathered_items_go_to_their_operation_in_one_call(world: World) -> None:
    calls: list[int] = []

    def counted(connection: sqlite3.Connection, items: Sequence[str]) -> None:
        calls.append(len(items))
        insert_all(connection, items)

    works = [world.database.gather(counted, str(n)) for n in range(50)]
    assert world.outcomes(works) == [None] * 50
    assert calls == [50]
    assert world.count("COMMIT") == 1


def test_a_gathered_item_that_fails_fails_alone(world: World) -> None:
    results = world.outcomes([world.database.gather(insert_all, name) for name in ("first", "a", "a", "b")])
    assert [type(result) for result in results] == [type(None), type(None), StorageTrouble, type(None)]
    assert world.things() == ["first", "a", "b"]


def test_a_full_disk_is_told_as_such_and_changes_nothing(world: World) -> None:
    pages = world.connection.execute("PRAGMA page_count").fetchone()[0]
    world.connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    works = [world.database.write(insert, name, size) for name, size in (("first", 0), ("large", 900_000), ("b", 0))]
    results = world.outcomes(works)
    assert isinstance(results[1], StorageTrouble) and results[1].full
    # The small one finds room, as the large one was no reason to give up.
    assert results[2] == "inserted b"
    assert world.things() == ["first", "b"]


def test_while_another_program_holds_the_database_the_whole_batch_waits_once(world: World) -> None:
    other = world.machine.databases.look(DATABASE)
    other.execute("BEGIN IMMEDIATE")
    results = world.outcomes([world.database.write(insert, str(n)) for n in range(50)])
    assert all(isinstance(result, StorageTrouble) and not result.full for result in results)
    # So much patience for each operation would stop the server for minutes.
    assert world.count("BEGIN") == LOCKED_TIMES
    other.execute("ROLLBACK")
    other.close()
    assert world.outcomes([world.database.write(insert, "later")]) == ["inserted later"]


def test_the_end_does_not_wait_for_another_program_that_holds_the_database(world: World) -> None:
    other = world.machine.databases.look(DATABASE)
    other.execute("BEGIN IMMEDIATE")
    works = [world.database.write(insert, str(n)) for n in range(50)]
    closed = Deferred.fromCoroutine(world.database.close())
    assert all(isinstance(result, StorageTrouble) for result in world.outcomes(works))
    assert world.count("BEGIN") == 1
    wait(world.timeline, closed)
    other.close()


def test_the_writer_has_patience_with_other_programs_and_flushes_each_commit(world: World) -> None:
    def pragma(name: str) -> Any:
        return world.connection.execute(f"PRAGMA {name}").fetchone()[0]

    assert world.connection.patience_ms == LOCKED_MS  # type: ignore[attr-defined]
    assert LOCKED_MS * LOCKED_TIMES >= 15_000
    assert pragma("synchronous") == 2
    assert pragma("journal_mode") == "wal"


def test_a_commit_that_fails_is_trouble_and_the_next_one_works(world: World) -> None:
    def failure(step: str) -> None:
        if step == "database: commit":
            raise sqlite3.OperationalError("disk I/O error")

    world.machine.steps.failures.append(failure)
    results = world.outcomes([world.database.write(insert, "a")])
    assert isinstance(results[0], StorageTrouble)
    assert "disk I/O error" in str(results[0])
    assert world.things() == []
    world.machine.steps.failures.clear()
    assert world.outcomes([world.database.write(insert, "a")]) == ["inserted a"]


def test_reading_sees_what_is_committed_and_does_not_wait_for_the_writer(world: World) -> None:
    wait(world.timeline, world.database.write(insert, "a"))
    world.connection.execute("BEGIN IMMEDIATE")
    world.connection.execute("INSERT INTO thing VALUES ('uncommitted', NULL)")
    assert wait(world.timeline, world.database.read(names)) == ["a"]
    world.connection.execute("ROLLBACK")


def test_trouble_with_reading_is_storage_trouble(world: World) -> None:
    def wrong(connection: sqlite3.Connection) -> None:
        connection.execute("SELECT * FROM nothing")

    with pytest.raises(StorageTrouble, match="nothing"):
        wait(world.timeline, world.database.read(wrong))


def test_changes_of_other_programs_show_and_own_changes_do_not(world: World) -> None:
    before = wait(world.timeline, world.database.foreign_changes())
    wait(world.timeline, world.database.write(insert, "own"))
    assert wait(world.timeline, world.database.foreign_changes()) == before
    other = world.machine.databases.look(DATABASE)
    other.execute("INSERT INTO thing VALUES ('foreign', NULL)")
    other.close()
    assert wait(world.timeline, world.database.foreign_changes()) != before


def test_closing_waits_for_what_is_being_written_and_for_what_that_leads_to(world: World) -> None:
    done: list[str] = []

    def go_on(result: str) -> None:
        done.append(result)
        if len(done) < 3:
            world.database.write(insert, f"more {len(done)}").addCallback(go_on)

    world.database.write(insert, "a").addCallback(go_on)
    wait(world.timeline, world.database.close())
    assert done == ["inserted a", "inserted more 1", "inserted more 2"]
    assert world.things() == ["a", "more 1", "more 2"]


def test_who_asks_a_closed_database_is_told_so_and_does_not_wait_for_ever(world: World) -> None:
    wait(world.timeline, world.database.close())
    with pytest.raises(StorageTrouble, match="closed"):
        wait(world.timeline, world.database.write(insert, "a"))
    with pytest.raises(StorageTrouble, match="closed"):
        wait(world.timeline, world.database.read(names))


def test_a_crash_at_any_step_leaves_whole_transactions_only() -> None:
    for step in range(1, 40):
        world = World()
        begun = world.machine.steps.number
        world.machine.life.ended[:] = [world.machine.databases.crash]
        world.machine.steps.crashes = {begun + step}
        answered: list[str] = []
        for n in range(4):
            for part in ("x", "y"):
                world.database.write(insert_pair, f"{n}{part}").addCallback(answered.append)
            world.timeline.run(world.timeline.now + 0.1)
        found = set(world.things())
        pairs = {name[:2] for name in found}
        assert found == {f"{pair}{n}" for pair in pairs for n in (1, 2)}
        assert set(answered) <= pairs
        alive = world.machine.life.alive
        world.machine.life.end()
        world.machine.databases.remove()
        if alive:
            assert len(pairs) == 8
            return
    raise AssertionError("there are more steps than this test goes through")


# -- the tables


def test_tables_are_made_whole_or_not_at_all() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)

    class Failing:
        """A disk error in the middle of making the tables."""

        def __getattr__(self, name: str) -> object:
            return getattr(connection, name)

        def execute(self, sql: str) -> sqlite3.Cursor:
            if sql.lstrip().startswith("CREATE TABLE event"):
                raise sqlite3.OperationalError("disk I/O error")
            return connection.execute(sql)

    with pytest.raises(schema.DatabaseError, match=r"^/x\.db: the database cannot be used: disk I/O error\.$"):
        schema.prepare(cast(sqlite3.Connection, Failing()), "/x.db")
    schema.prepare(connection, "/x.db")
    connection.close()


def test_a_damaged_file_is_one_sentence_with_the_remedy(tmp_path: Path) -> None:
    path = f"{tmp_path}/mailsrv.db"
    with open(path, "wb") as file:
        file.write(b"this is no database at all, but long enough to be looked at" * 100)
    connection = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(schema.DatabaseError, match="Move it aside"):
        schema.prepare(connection, path)
    connection.close()


def test_a_newer_database_is_left_alone() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("PRAGMA user_version = 99")
    with pytest.raises(schema.DatabaseError, match="newer"):
        schema.prepare(connection, "/x.db")
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    connection.close()


def test_a_thread_that_cannot_be_started_is_told_to_everybody_and_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(world.database._writer, "call", lambda *arguments: fail(RuntimeError("no more threads")))
        results = world.outcomes([world.database.write(insert, "a"), world.database.write(insert, "b")])
        assert [str(result) for result in results] == ["no more threads"] * 2
    assert world.outcomes([world.database.write(insert, "c")]) == ["inserted c"]
    wait(world.timeline, world.database.close())
