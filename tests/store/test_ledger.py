"""The ledger: what is written can be counted against the queue, and goes when it is old."""

from __future__ import annotations

import pytest

from mailsrv.store import ledger, queue, queue_id
from mailsrv.store.ledger import Event
from tests.worlds.rows import ALICE, BOB, CAROL, START, Rows


@pytest.fixture
def rows() -> Rows:
    return Rows()


def test_an_event_is_stored_field_by_field(rows: Rows) -> None:
    event = Event("refused", None, None, ALICE, BOB, "192.0.2.1", "5.1.1", "why", "rule", "answer", "remote", "RCPT")
    ledger.write(rows.connection, START, [event, Event("login")])
    found = rows.connection.execute("SELECT * FROM event ORDER BY id").fetchall()
    assert found[0][1:] == (
        *(START, "refused", None, None, ALICE, BOB, "192.0.2.1", "5.1.1", "why", "rule", "answer", "remote", "RCPT"),
    )
    assert found[1][1:] == (START, "login", None, None, "", "", "", "", "", "", "", "", "")


def test_writing_takes_any_iterable_and_none_at_all(rows: Rows) -> None:
    ledger.write(rows.connection, START, (Event("login", address=str(n)) for n in range(3)))
    ledger.write(rows.connection, START, [])
    assert rows.value("SELECT count(*) FROM event") == 3


def a_full_house(rows: Rows) -> dict[str, int]:
    """A message in each state, by state; the queued one has a recipient that is done."""
    ids = {state: rows.accept() for state in ("delivered", "held", "bounced", "dropped", "removed", "report")}
    ids["queued"] = rows.accept([BOB, "carol@example.org"])
    rows.settle(ids["queued"], 0, "deferred", next_attempt=START + 60)
    rows.settle(ids["queued"], 1, "delivered")
    rows.finish(ids["delivered"])
    rows.settle(ids["bounced"], 0, "bounced")
    rows.settle(ids["dropped"], 0, "dropped")
    rows.finish(ids["report"])
    queue.hold(rows.connection, START + 9, ids["held"])
    queue.remove(rows.connection, START + 9, ids["removed"])
    return ids


def test_a_ledger_in_order_balances(rows: Rows) -> None:
    a_full_house(rows)
    assert ledger.verify(rows.connection, set()) == ledger.Balance(
        accepted=8, delivered=3, queued=1, held=1, bounced=1, dropped=1, removed=1, gaps=[]
    )


def test_an_empty_ledger_balances() -> None:
    assert ledger.verify(Rows().connection, None) == ledger.Balance(0, 0, 0, 0, 0, 0, 0, [])


@pytest.mark.parametrize(
    ("damage", "victim", "gap"),
    [
        ("DELETE FROM content WHERE message = ?", "queued", "to bob@example.net: is queued, but the content is gone"),
        ("DELETE FROM content WHERE message = ?", "held", "to bob@example.net: is held, but the content is gone"),
        ("UPDATE content SET data = NULL WHERE message = ?", "queued", "the file spool/{id} with its content is gone"),
        (
            "INSERT INTO content VALUES (?, x'', x'')",
            "delivered",
            "nobody waits for the message, but its content is still there",
        ),
        (
            "DELETE FROM event WHERE kind <> 'accepted' AND message = ?",
            "delivered",
            "to bob@example.net: is delivered, but no event tells of it",
        ),
        (
            "DELETE FROM event WHERE kind <> 'accepted' AND message = ?",
            "removed",
            "to bob@example.net: is removed, but no event tells of it",
        ),
        (
            "UPDATE event SET n = 7 WHERE kind = 'bounced' AND message = ?",
            "bounced",
            "an event says bounced, but there is no recipient with the number 7",
        ),
        (
            "UPDATE event SET n = NULL WHERE kind = 'delivered' AND message = ?",
            "delivered",
            "an event says delivered, but there is no recipient with the number None",
        ),
        ("DELETE FROM event WHERE kind = 'accepted' AND message = ?", "held", "no event tells of its acceptance"),
        ("DELETE FROM recipient WHERE message = ?", "delivered", "the message has no recipients"),
        ("DELETE FROM recipient WHERE n = 0 AND message = ?", "queued", "recipients are missing, 1 of 2 are there"),
        ("DELETE FROM message WHERE id = ?", "queued", "there are recipients but no message"),
        ("DELETE FROM message WHERE id = ?", "queued", "there are events but no message"),
        (
            "UPDATE recipient SET state = 'lost' WHERE message = ?",
            "held",
            "to bob@example.net: is in the state lost, which does not exist",
        ),
        (
            "UPDATE recipient SET state = 'queued' WHERE message = ?",
            "delivered",
            "to bob@example.net: is queued, but an event says delivered",
        ),
        (
            "INSERT INTO event SELECT NULL, at, kind, message, n, '', '', '', '', '', '', '', '', '' FROM event"
            " WHERE kind = 'delivered' AND message = ?",
            "delivered",
            "2 events say delivered of the same",
        ),
        (
            "INSERT INTO event SELECT NULL, at, kind, message, n, '', '', '', '', '', '', '', '', '' FROM event"
            " WHERE kind = 'accepted' AND message = ?",
            "held",
            "2 events say accepted of the same",
        ),
    ],
)
def test_every_gap_is_named(rows: Rows, damage: str, victim: str, gap: str) -> None:
    id = a_full_house(rows)[victim]
    rows.connection.execute(damage, (id,))
    name = queue_id.text(id)
    gaps = ledger.verify(rows.connection, set()).gaps
    assert any(found.startswith(name) and found.endswith(gap.format(id=name)) for found in gaps), gaps


def test_content_in_a_file_is_looked_for_among_the_files(rows: Rows) -> None:
    name = queue_id.text(rows.accept(content=None))
    assert ledger.verify(rows.connection, {name}).gaps == []
    assert ledger.verify(rows.connection, None).gaps == []
    assert ledger.verify(rows.connection, set()).gaps == [f"{name}: the file spool/{name} with its content is gone"]


def test_an_attempt_that_ended_after_the_removal_is_no_gap(rows: Rows) -> None:
    id = rows.accept()
    queue.remove(rows.connection, START, id)
    rows.settle(id, 0, "delivered")
    balance = ledger.verify(rows.connection, set())
    assert (balance.removed, balance.delivered, balance.gaps) == (1, 0, [])


def test_gaps_without_end_are_named_up_to_a_bound(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "GAPS", 3)
    for _ in range(5):
        rows.accept()
    rows.connection.execute("DELETE FROM content")
    gaps = ledger.verify(rows.connection, None).gaps
    assert len(gaps) == 4
    assert gaps[3].startswith("there are more of this kind")


def test_verifying_tells_how_far_it_is(rows: Rows) -> None:
    steps: list[tuple[int, int]] = []
    ledger.verify(rows.connection, None, lambda done, of: steps.append((done, of)))
    assert [done for done, _ in steps] == list(range(steps[0][1]))


def test_what_is_done_and_old_is_pruned_whole(rows: Rows) -> None:
    old, new = rows.accept([BOB, CAROL]), rows.accept(at=START + 100)
    rows.finish(old)
    rows.finish(new, at=START + 105)
    rows.write(START, Event("refused", address=BOB))
    rows.write(START + 100, Event("refused", address=CAROL))
    assert ledger.prune(rows.connection, START + 50) == 1 + 2 + 3 + 1
    for table, column in (("message", "id"), ("recipient", "message"), ("event", "message")):
        assert rows.value(f"SELECT count(*) FROM {table} WHERE {column} = ?", old) == 0
        assert rows.value(f"SELECT count(*) FROM {table} WHERE {column} = ?", new) > 0  # type: ignore[operator]
    assert rows.connection.execute("SELECT address FROM event WHERE message IS NULL").fetchall() == [(CAROL,)]
    assert ledger.prune(rows.connection, START + 50) == 0
    assert ledger.verify(rows.connection, set()).gaps == []


def test_what_comes_from_the_future_keeps_nothing_else_from_being_pruned(rows: Rows) -> None:
    """The clock was ahead and was set back: queue ids go on from there, times do not."""
    future, old = rows.accept(at=START + 1e6), rows.accept(at=START)
    for id in (future, old):
        rows.finish(id)
    assert ledger.prune(rows.connection, START + 50, now=START + 100) > 0
    assert rows.connection.execute("SELECT id FROM message").fetchall() == [(future,)]


def test_what_is_open_is_never_pruned(rows: Rows) -> None:
    queued, held = rows.accept([BOB, CAROL]), rows.accept()
    rows.settle(queued, 0, "delivered")
    queue.hold(rows.connection, START, held)
    assert ledger.prune(rows.connection, START + 1e9) == 0


def test_what_ended_lately_stays_however_old_its_beginning(rows: Rows) -> None:
    id = rows.accept()
    rows.finish(id, at=START + 1000)
    assert ledger.prune(rows.connection, START + 999) == 0
    assert ledger.prune(rows.connection, START + 1001) > 0


def test_pruning_is_bounded_and_comes_to_an_end(rows: Rows) -> None:
    for _ in range(10):
        rows.finish(rows.accept())
    rows.write(START, *(Event("login") for _ in range(10)))
    calls = []
    while gone := ledger.prune(rows.connection, START + 50, at_once=8):
        calls.append(gone)
    assert sum(calls) == 10 * 4 + 10
    assert max(calls) < 8 + 4
    assert rows.value("SELECT count(*) FROM event") == 0


def test_counts_are_of_the_time_asked_for(rows: Rows) -> None:
    rows.write(START, Event("login"), Event("refused"))
    rows.write(START + 10, Event("refused"), Event("refused"))
    assert ledger.counts(rows.connection, START + 5) == {"refused": 2}
    assert ledger.counts(rows.connection, START) == {"refused": 3, "login": 1}
