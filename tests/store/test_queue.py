"""The operator's view of the queue and what may be done to it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from mailsrv.store import ledger, queue, queue_id, schema
from mailsrv.store.connection import opened, snapshot, transaction
from tests.worlds.rows import BOB, CAROL, START, Rows

NOW = START + 1000


@pytest.fixture
def rows() -> Rows:
    return Rows()


def states(rows: Rows, id: int) -> list[str]:
    found = rows.connection.execute("SELECT state FROM recipient WHERE message = ? ORDER BY n", (id,))
    return [state for (state,) in found]


def last_events(rows: Rows, id: int) -> list[tuple[str, int | None, float]]:
    return rows.connection.execute(
        "SELECT kind, n, at FROM event WHERE message = ? AND kind <> 'accepted' ORDER BY id", (id,)
    ).fetchall()


def test_listed_are_messages_with_open_recipients_oldest_first(rows: Rows) -> None:
    rows.finish(rows.accept())
    first, local = rows.accept([BOB, CAROL]), rows.accept(["carl@example.org"])
    rows.settle(first, 0, "delivered")
    rows.settle(first, 1, "deferred", next_attempt=NOW, status="4.4.1", answer="450 busy")
    found = list(queue.entries(rows.connection))
    assert [entry.id for entry in found] == [first, local]
    assert [(each.address, each.state) for each in found[0].recipients] == [(BOB, "delivered"), (CAROL, "queued")]
    carol = found[0].recipients[1]
    assert (carol.attempts, carol.next_attempt, carol.status, carol.answer) == (1, NOW, "4.4.1", "450 busy")


def test_held_messages_are_listed_alone(rows: Rows) -> None:
    rows.accept()
    held = rows.accept()
    queue.hold(rows.connection, NOW, held)
    assert [entry.id for entry in queue.entries(rows.connection, held=True)] == [held]
    assert len(list(queue.entries(rows.connection))) == 2


def test_listing_uses_the_index_of_open_recipients(rows: Rows) -> None:
    for held in (False, True):
        seen: list[str] = []
        rows.connection.set_trace_callback(seen.append)
        list(queue.entries(rows.connection, held))
        queue.retry_all(rows.connection, NOW)
        rows.connection.set_trace_callback(None)
        for query in (text for text in seen if "recipient" in text):
            steps = [row[3] for row in rows.connection.execute(f"EXPLAIN QUERY PLAN {query}")]
            assert any("recipient_open" in step for step in steps), (query, steps)
            assert not any(step.startswith("SCAN") for step in steps), (query, steps)


def test_retry_makes_due_what_waits(rows: Rows) -> None:
    id, other = rows.accept([BOB, CAROL]), rows.accept()
    for message in (id, other):
        rows.settle(message, 0, "deferred", next_attempt=NOW + 500)
    rows.settle(id, 1, "deferred", next_attempt=NOW - 500)
    assert queue.retry(rows.connection, NOW, id) == 2
    due = rows.connection.execute("SELECT next_attempt FROM recipient ORDER BY message, n").fetchall()
    assert due == [(NOW,), (NOW - 500,), (NOW + 500,)]
    assert last_events(rows, id)[-1] == ("retried", None, NOW)


def test_retry_leaves_alone_what_is_held_or_done(rows: Rows) -> None:
    held, done = rows.accept(), rows.accept()
    queue.hold(rows.connection, NOW, held)
    rows.finish(done)
    assert queue.retry(rows.connection, NOW, held) == 0
    assert queue.retry(rows.connection, NOW, done) == 0
    assert queue.retry_all(rows.connection, NOW) == 0
    assert rows.value("SELECT count(*) FROM event WHERE kind = 'retried'") == 0


def test_retry_of_all(rows: Rows) -> None:
    for _ in range(3):
        rows.settle(rows.accept([BOB, CAROL]), 0, "deferred", next_attempt=NOW + 500)
    assert queue.retry_all(rows.connection, NOW) == 3
    assert rows.value("SELECT max(next_attempt) FROM recipient") == NOW
    assert rows.value("SELECT count(*) FROM event WHERE kind = 'retried'") == 3


def test_hold_and_release(rows: Rows) -> None:
    id = rows.accept([BOB, CAROL])
    rows.settle(id, 0, "delivered")
    assert queue.hold(rows.connection, NOW, id) == 1
    assert states(rows, id) == ["delivered", "held"]
    assert queue.hold(rows.connection, NOW, id) == 0
    assert queue.release(rows.connection, NOW + 9, id) == 1
    assert states(rows, id) == ["delivered", "queued"]
    assert queue.release(rows.connection, NOW + 9, id) == 0
    assert [kind for kind, _, _ in last_events(rows, id)] == ["delivered", "held", "released"]


def test_the_time_in_which_it_was_held_does_not_expire_it(rows: Rows) -> None:
    id = rows.accept()
    queue.hold(rows.connection, START, id)
    queue.release(rows.connection, NOW, id)
    assert rows.connection.execute("SELECT since, next_attempt FROM recipient").fetchall() == [(NOW, NOW)]


def test_removing_ends_what_is_open_and_drops_the_content(rows: Rows) -> None:
    id = rows.accept([BOB, CAROL, "dora@example.net"])
    rows.settle(id, 0, "delivered")
    assert queue.remove(rows.connection, NOW, id) == queue.Removal(2, "")
    assert states(rows, id) == ["delivered", "removed", "removed"]
    assert last_events(rows, id)[1:] == [("removed", 1, NOW), ("removed", 2, NOW)]
    assert rows.value("SELECT count(*) FROM content") == 0
    assert queue.remove(rows.connection, NOW, id) == queue.Removal(0, "")
    assert ledger.verify(rows.connection, set()).gaps == []


def test_removing_names_the_file_to_unlink(rows: Rows) -> None:
    id = rows.accept(content=None)
    assert queue.remove(rows.connection, NOW, id) == queue.Removal(1, queue_id.text(id))


def test_what_is_open(rows: Rows) -> None:
    id = rows.accept([BOB, CAROL])
    assert queue.open_recipients(rows.connection, id) == {"queued": 2, "held": 0}
    rows.finish(id)
    assert queue.open_recipients(rows.connection, id) == {"queued": 0, "held": 0}
    assert queue.open_recipients(rows.connection, 7) is None


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"A: 1\r\nB: 2\r\n\r\nbody\r\n\r\nmore\r\n", b"A: 1\r\nB: 2\r\n"),
        (b"A: 1\r\n", b"A: 1\r\n"),
        (b"\r\nbody\r\n\r\n", b""),
        (b"", b""),
        (b"A: " + b"x" * 200_000, b"A: " + b"x" * (queue.HEADER - 3)),
    ],
)
def test_the_header_block_ends_at_the_first_empty_line_and_is_bounded(rows: Rows, content: bytes, shown: bytes) -> None:
    id = rows.accept(content=content)
    assert queue.header(rows.connection, id) == (b"Received: from client.example.net\r\n" + shown, "")


def test_the_header_of_a_file_and_of_nothing(rows: Rows) -> None:
    filed, done = rows.accept(content=None), rows.accept()
    rows.finish(done)
    assert queue.header(rows.connection, filed) == (b"Received: from client.example.net\r\n", queue_id.text(filed))
    assert queue.header(rows.connection, done) == (b"", "")


# -- the database as the tool opens it


def test_before_the_first_start_all_is_empty_and_nothing_is_created(tmp_path: Path) -> None:
    with opened(str(tmp_path / "state" / "mailsrv.db")) as connection, snapshot(connection):
        assert list(queue.entries(connection)) == []
    assert list(tmp_path.iterdir()) == []


def test_beside_a_server_that_writes(tmp_path: Path) -> None:
    rows = Rows(str(tmp_path / "with space?#.db"))
    rows.accept()
    with opened(rows.path) as connection:
        with transaction(connection):
            queue.retry_all(connection, NOW)
        rows.accept()
        with snapshot(connection):
            assert len(list(queue.entries(connection))) == 2
    assert rows.value("SELECT count(*) FROM event WHERE kind = 'retried'") == 1
    rows.connection.close()


def test_a_transaction_that_fails_changes_nothing(tmp_path: Path) -> None:
    rows = Rows(str(tmp_path / "mailsrv.db"))
    id = rows.accept()
    with pytest.raises(KeyError), opened(rows.path) as connection, transaction(connection):
        queue.remove(connection, NOW, id)
        raise KeyError
    assert states(rows, id) == ["queued"]
    rows.connection.close()


def test_a_database_that_is_none_is_said_to_be_so(tmp_path: Path) -> None:
    path = tmp_path / "mailsrv.db"
    path.write_bytes(b"this is no database, whatever its name may say" * 100)
    with pytest.raises(schema.DatabaseError, match=str(path)), opened(str(path)):
        pass


def test_trouble_in_the_middle_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "mailsrv.db"
    Rows(str(path)).connection.close()
    with pytest.raises(schema.DatabaseError, match=f"{path}: database is locked"), opened(str(path)):
        raise sqlite3.OperationalError("database is locked")
