"""What is due, for whom and for where, and that finding it costs no more than what is found."""

from __future__ import annotations

import pytest

from mailsrv.mail.address import Address
from mailsrv.mail.envelope import Envelope
from mailsrv.store import due, message, queue
from mailsrv.store.due import Pair
from mailsrv.store.message import Acceptance, Arrival, FinalRecipient, QueuedMessage
from tests.worlds.rows import ALICE, BOB, CAROL, START, Rows, plan

NOW = START + 1000
LANE = "example.org"
PAIR = Pair(LANE, "example.net")


@pytest.fixture
def rows() -> Rows:
    return Rows()


def waiting(rows: Rows, pair: Pair = PAIR, now: float = NOW, messages: int = 10) -> list[QueuedMessage]:
    return due.waiting(rows.connection, now, pair, messages, frozenset())[0]


def multiply(rows: Rows, count: int, **columns: str) -> None:
    """So many more recipients like those that are there, with other values in some columns (SQL with ``number``)."""
    names = [name for _, name, *_ in rows.connection.execute("PRAGMA table_info(recipient)") if name != "message"]
    values = ", ".join(columns.get(name, name) for name in names)
    rows.connection.execute(
        "WITH RECURSIVE many (number) AS (SELECT 10 UNION ALL SELECT number + 1 FROM many WHERE number < ?)"
        f" INSERT INTO recipient (message, {', '.join(names)}) SELECT number, {values} FROM recipient JOIN many",
        (count + 9,),
    )


def steps(rows: Rows, function: object, *arguments: object) -> int:
    """How much work SQLite has with it, in hundreds of its instructions."""
    counted: list[int] = []
    rows.connection.set_progress_handler(lambda: counted.append(1), 100)
    function(rows.connection, *arguments)  # type: ignore[operator]
    rows.connection.set_progress_handler(None, 0)
    return len(counted)


# -- one pair


def test_due_is_what_is_queued_for_the_destination_oldest_first(rows: Rows) -> None:
    late, early = rows.accept(at=START + 10), rows.accept([BOB, ALICE, "d@example.com"], at=START)
    held = rows.accept()
    queue.hold(rows.connection, START, held)
    found = waiting(rows, now=START + 10)
    assert [queued.id for queued in found] == [early, late]
    assert [recipient.n for recipient in found[0].recipients] == [0]
    assert [recipient.due for queued in found for recipient in queued.recipients] == [START, START + 10]
    assert [queued.id for queued in waiting(rows, now=START + 9)] == [early]
    assert waiting(rows, Pair(LANE, "example")) == []
    assert waiting(rows, Pair("elsewhere.example", "example.net")) == []


def test_what_is_known_is_left_out_and_the_rest_is_told_of(rows: Rows) -> None:
    ids = [rows.accept([BOB, CAROL], at=START + n) for n in range(4)]
    known = frozenset({(ids[0], 0), (ids[0], 1), (ids[1], 0)})
    found, more = due.waiting(rows.connection, NOW, PAIR, 2, known)
    assert [(queued.id, [r.n for r in queued.recipients]) for queued in found] == [(ids[1], [1]), (ids[2], [0, 1])]
    assert more
    found, more = due.waiting(rows.connection, NOW, PAIR, 3, known)
    assert [queued.id for queued in found] == ids[1:]
    assert not more


def test_a_long_list_is_taken_in_parts(rows: Rows) -> None:
    id = rows.accept([f"user{n}@example.net" for n in range(250)])
    found, more = due.waiting(rows.connection, NOW, PAIR, 2, frozenset())
    assert [(queued.id, len(queued.recipients)) for queued in found] == [(id, 100), (id, 100)]
    assert more
    assert [len(queued.recipients) for queued in waiting(rows)] == [100, 100, 50]


def test_recipients_that_are_not_due_are_not_taken_along(rows: Rows) -> None:
    id = rows.accept([BOB, CAROL])
    rows.connection.execute("UPDATE recipient SET next_attempt = ? WHERE n = 1", (NOW + 1,))
    assert [[r.n for r in queued.recipients] for queued in waiting(rows)] == [[0]]
    assert [(queued.id, [r.n for r in queued.recipients]) for queued in waiting(rows, now=NOW + 1)] == [(id, [0, 1])]


def test_a_message_just_accepted_is_what_the_database_has() -> None:
    rows = Rows()
    bob, carol, dave = Address.parse(BOB), Address.parse("carol@example.com"), Address.parse("dave@example.net")
    finals = (
        FinalRecipient(bob, Address.parse("team@example.org"), "", ("FAILURE",), "rfc822;team@example.org"),
        FinalRecipient(Address.parse(ALICE), Address.parse(ALICE), ALICE),
        FinalRecipient(carol, carol, ""),
        FinalRecipient(dave, dave, "", sender=Address.parse("srs@example.org")),
        FinalRecipient(Address.parse("erin@example.net"), Address.parse("erin@example.net"), ""),
    )
    envelope = Envelope(Address.parse("mallory@example.com"), "8BITMIME", True, "HDRS", "envelope 7", 17)
    facts = ("m@example.com", "", "192.0.2.7", "h", "ESMTPS", 12, 1)
    arrival = Arrival(7, envelope, finals, b"Received: x\r\n", *facts, release_at=START + 5)
    acceptance = Acceptance(START, arrival, ("", "name", "", "", ""), b"Subject: x\r\n")
    message.insert(rows.connection, [acceptance])
    told = due.elsewhere(acceptance)
    assert [(pair, [r.n for r in queued.recipients]) for pair, queued in told] == [
        (Pair("example.com", "example.net"), [0, 4]),
        (Pair("example.com", "example.com"), [2]),
        (Pair("example.com", "example.net"), [3]),
    ]
    by_number = {r.n: (queued, r) for pair, queued in told for r in queued.recipients}
    for destination in ("example.net", "example.com"):
        assert waiting(rows, Pair("example.com", destination), START + 4.9) == []
        for stored in waiting(rows, Pair("example.com", destination), START + 5):
            for recipient in stored.recipients:
                queued, same = by_number.pop(recipient.n)
                assert same == recipient
                for name in QueuedMessage.__slots__:
                    assert name == "recipients" or getattr(queued, name) == getattr(stored, name)
    assert by_number == {}


# -- all of them


def test_lanes_are_those_with_something_in_the_queue(rows: Rows) -> None:
    assert due.lanes(rows.connection, "", 10) == []
    for account in ("bob", "alice", "carol"):
        rows.accept(account=account)
    rows.accept(sender="")
    rows.accept([ALICE], account="dave")
    rows.finish(rows.accept(account="erin"))
    assert due.lanes(rows.connection, "", 10) == ["alice", "bob", "carol"]
    assert due.lanes(rows.connection, "", 2) == ["alice", "bob"]
    assert due.lanes(rows.connection, "bob", 2) == ["carol"]


def test_destinations_of_a_lane_are_those_with_something_due(rows: Rows) -> None:
    rows.accept([BOB, "d@example.com", ALICE], at=START)
    rows.accept(["e@later.example"], at=NOW + 1)
    rows.accept(["f@other.example"], account="bob")
    held = rows.accept(["g@held.example"])
    queue.hold(rows.connection, START, held)
    expected = [Pair(LANE, "example.com"), Pair(LANE, "example.net")]
    assert due.of_lane(rows.connection, NOW, LANE, "", 10) == (expected, None)
    assert due.of_lane(rows.connection, NOW, LANE, "", 1) == (expected[:1], "example.com")
    assert due.of_lane(rows.connection, NOW, LANE, "example.com", 10) == (expected[1:], None)
    assert due.of_lane(rows.connection, NOW, LANE, "zzz", 10) == ([], None)


def test_own_mailboxes_are_no_destination_of_a_lane(rows: Rows) -> None:
    rows.accept([ALICE], sender="")
    assert due.of_lane(rows.connection, NOW, "", "", 10) == ([], None)
    assert [queued.id for queued in due.local_waiting(rows.connection, NOW, 10)]


def test_passing_by_what_is_not_due_ends_after_a_while(rows: Rows) -> None:
    rows.accept(["a@a.example"])
    multiply(rows, 3 * due.STEPS, destination="'d' || (10000 + number)", next_attempt=str(NOW + 9))
    found, cursor = due.of_lane(rows.connection, NOW, LANE, "", 10)
    assert found == [Pair(LANE, "a.example")]
    assert cursor == f"d{10000 + 10 + due.STEPS - 2}"
    assert due.of_lane(rows.connection, NOW, LANE, cursor, 10) == ([], f"d{10000 + 10 + 2 * due.STEPS - 2}")


# -- by time


def test_what_became_due_since_is_told_by_pairs(rows: Rows) -> None:
    for at in (START, START + 1, START + 2, START + 3):
        rows.accept(at=at)
    rows.accept([ALICE], at=START + 2)
    rows.accept(["x@example.com"], at=START + 4)
    assert due.became_due(rows.connection, START, START + 3, 10) == [PAIR, Pair("", "")]
    assert due.became_due(rows.connection, START + 3, START + 4, 10) == [Pair(LANE, "example.com")]
    assert due.became_due(rows.connection, START, START + 3, 3) == [PAIR, Pair("", "")]
    assert due.became_due(rows.connection, START, START + 3, 2) is None


def test_the_next_attempt_is_the_first_that_is_not_due(rows: Rows) -> None:
    assert due.next_due(rows.connection, NOW) is None
    for at in (START, NOW + 7, NOW + 5):
        rows.accept(at=at)
    held = rows.accept(at=NOW + 1)
    queue.hold(rows.connection, NOW, held)
    assert due.next_due(rows.connection, NOW) == NOW + 5


def test_still_queued_are_those_that_nobody_held_or_removed(rows: Rows) -> None:
    id = rows.accept([BOB, CAROL, "dave@example.net"])
    rows.settle(id, 0, "delivered")
    rows.connection.execute("UPDATE recipient SET state = 'held' WHERE n = 1")
    assert due.still_queued(rows.connection, id) == {2}


# -- what it costs


def test_looking_for_work_goes_by_the_index_and_reads_no_table_from_end_to_end(rows: Rows) -> None:
    for n in range(20):
        rows.accept([f"user@domain{n}.example", ALICE])
    for lines in (
        plan(rows, due.waiting, NOW, Pair(LANE, "domain7.example"), 10, frozenset()),
        plan(rows, due.lanes, "", 10),
        plan(rows, due.of_lane, NOW, LANE, "", 10),
        plan(rows, due.became_due, START, NOW, 10),
        plan(rows, due.next_due, START),
        plan(rows, due.local_waiting, NOW, 10),
        plan(rows, due.still_queued, 1),
    ):
        touching = [line for line in lines if "recipient" in line or "message" in line or "content" in line]
        assert touching
        assert all(line.startswith("SEARCH") for line in touching), lines
        assert not any("TEMP B-TREE" in line for line in lines), lines


def test_a_great_many_recipients_cost_no_more_than_what_is_asked_for(rows: Rows) -> None:
    rows.accept(["user@last.example"])
    multiply(rows, 20_000, destination="'many.example'")
    assert due.lanes(rows.connection, "", 10) == [LANE]
    assert [pair.destination for pair in due.of_lane(rows.connection, NOW, LANE, "", 10)[0]] == [
        "last.example",
        "many.example",
    ]
    assert steps(rows, due.lanes, "", 10) < 20
    assert steps(rows, due.of_lane, NOW, LANE, "", 10) < 20
    assert steps(rows, due.waiting, NOW, Pair(LANE, "many.example"), 10, frozenset()) < 20
    assert steps(rows, due.became_due, START - 1, NOW, 10) < 20
    assert steps(rows, due.became_due, NOW, NOW + 1, 10) < 20
    assert steps(rows, due.next_due, START - 1) < 20
    assert steps(rows, due.next_due, NOW) < 20
