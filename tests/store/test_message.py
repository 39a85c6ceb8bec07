"""The transactions that accept a message and change its recipients."""

from __future__ import annotations

import sqlite3

import pytest

from mailsrv.mail.address import Address
from mailsrv.mail.envelope import Envelope
from mailsrv.store import ledger, message, queue
from mailsrv.store.ledger import Event
from mailsrv.store.message import Acceptance, Arrival, FinalRecipient, Settlement
from tests.worlds.rows import ALICE, BOB, CAROL, START, Rows

NOW = START + 1000
NEVER = (0.0, 0.0)
RETRY = (60.0, 300.0, 900.0)


@pytest.fixture
def rows() -> Rows:
    return Rows()


def recipients(rows: Rows, id: int, columns: str = "state") -> list[tuple[object, ...]]:
    return rows.connection.execute(f"SELECT {columns} FROM recipient WHERE message = ? ORDER BY n", (id,)).fetchall()


def next_attempts(rows: Rows) -> dict[int, float]:
    return dict(rows.connection.execute("SELECT message, next_attempt FROM recipient"))


def balanced(rows: Rows) -> bool:
    balance = ledger.verify(rows.connection, None)
    finals = balance.delivered + balance.queued + balance.held + balance.bounced + balance.dropped + balance.removed
    return balance.gaps == [] and balance.accepted == finals


def deferral(id: int, n: int = 0, at: float = NOW, warned: bool = False) -> Settlement:
    event = Event(ledger.DEFERRED, id, n, BOB, status="4.4.1", reason="no connection", answer="")
    return Settlement(n, "queued", event, 1, at, warned)


def plan(rows: Rows, function: object, *arguments: object) -> list[str]:
    """How SQLite goes about the statements of a function: the lines of its query plans."""
    seen: list[str] = []
    rows.connection.set_trace_callback(seen.append)
    function(rows.connection, *arguments)  # type: ignore[operator]
    rows.connection.set_trace_callback(None)
    return [
        line
        for statement in seen
        if statement.startswith(("SELECT", "UPDATE", "WITH", "DELETE"))
        for *_, line in rows.connection.execute(f"EXPLAIN QUERY PLAN {statement}")
    ]


# -- acceptance


def test_what_is_accepted_comes_back_as_it_was(rows: Rows) -> None:
    sender = Address.parse("grüße@example.com")
    to = (
        FinalRecipient(
            Address.parse("carol@example.net"), Address.parse(ALICE), "", ("DELAY", "FAILURE"), "rfc822;a b"
        ),
        FinalRecipient(Address.parse('"odd one"@example.net'), Address.parse('"odd one"@example.net'), ""),
        FinalRecipient(Address.parse(ALICE), Address.parse(ALICE), ALICE),
    )
    envelope = Envelope(sender, "8BITMIME", True, "HDRS", "envelope 7", 12)
    arrival = Arrival(5, envelope, to, b"Received: x\r\n", "m@example.com", ALICE, "192.0.2.7", "h", "ESMTPSA", 12, 1)
    message.insert(rows.connection, [Acceptance(START, arrival, ("", "", "name"), b"Subject: x\r\n")])
    (remote,) = message.remote_waiting(rows.connection, START, "example.net", 10)
    assert (remote.id, remote.accepted, remote.envelope) == (5, START, envelope)
    assert (remote.message_id, remote.account, remote.client, remote.protocol) == (
        *("m@example.com", ALICE, "192.0.2.7"),
        "ESMTPSA",
    )
    assert (remote.size, remote.lines) == (12, 1)
    carol, odd = remote.recipients
    assert (carol.n, carol.address, carol.original, carol.notify, carol.orcpt) == (
        *(0, to[0].address, to[0].original),
        *(("DELAY", "FAILURE"), "rfc822;a b"),
    )
    assert (odd.n, odd.address, odd.notify, odd.mailbox, odd.name) == (1, to[1].address, (), "", "")
    assert (carol.attempts, carol.since, carol.warned) == (0, START, False)
    (local,) = message.local_waiting(rows.connection, START, 10)
    assert [(r.n, r.mailbox, r.name) for r in local.recipients] == [(2, ALICE, "name")]
    assert message.content(rows.connection, 5) == (b"Received: x\r\n", b"Subject: x\r\n")
    assert balanced(rows)


def test_acceptance_and_its_event_are_one(rows: Rows) -> None:
    id = rows.accept(about="1J4BS1D7M00")
    event = rows.connection.execute("SELECT kind, message, n, sender, client, detail FROM event").fetchall()
    assert event == [("accepted", id, None, ALICE, "192.0.2.7", "1J4BS1D7M00")]


def test_several_messages_are_accepted_at_once_each_with_its_own_event(rows: Rows) -> None:
    arrivals = [
        Arrival(
            id, Envelope(None), (FinalRecipient(a := Address.parse(BOB), a, ""),), b"", "", "", "", "", "ESMTP", 1, 0
        )
        for id in (1, 2, 3)
    ]
    message.insert(rows.connection, [Acceptance(START, arrival, ("",), b"x") for arrival in arrivals])
    assert rows.value("SELECT group_concat(message) FROM event") == "1,2,3"
    assert balanced(rows)


def test_a_number_is_not_given_twice(rows: Rows) -> None:
    id = rows.accept()
    assert message.last_id(rows.connection) == id
    arrival = Arrival(id, Envelope(None), (), b"", "", "", "", "", "ESMTP", 1, 0)
    with pytest.raises(sqlite3.IntegrityError):
        message.insert(rows.connection, [Acceptance(START, arrival, (), b"x")])


def test_contents_that_are_files_are_known(rows: Rows) -> None:
    rows.accept()
    filed = rows.accept(content=None)
    assert message.filed(rows.connection) == {filed}
    assert message.content(rows.connection, filed) == (b"Received: from client.example.net\r\n", None)
    assert message.content(rows.connection, filed + 1) is None


# -- settling


def test_content_goes_with_the_last_open_recipient(rows: Rows) -> None:
    id = rows.accept([BOB, CAROL])
    delivered = Event(ledger.DELIVERED, id, 0, BOB, status="2.0.0", answer="250 ok")
    assert not message.settle(rows.connection, NOW, id, [Settlement(0, "delivered", delivered, 1), deferral(id, 1)])
    assert recipients(rows, id, "state, attempts, status, answer") == [
        ("delivered", 1, "2.0.0", "250 ok"),
        ("queued", 1, "4.4.1", "no connection"),
    ]
    assert message.content(rows.connection, id) is not None
    assert balanced(rows)
    bounced = Event(ledger.BOUNCED, id, 1, CAROL, status="5.1.1")
    assert message.settle(rows.connection, NOW, id, [Settlement(1, "bounced", bounced, 2)])
    assert message.content(rows.connection, id) is None
    assert balanced(rows)


def test_a_deferral_says_when_the_next_attempt_is_and_whether_the_sender_was_told(rows: Rows) -> None:
    id = rows.accept()
    message.settle(rows.connection, NOW, id, [deferral(id, at=NOW + 60, warned=True)])
    assert recipients(rows, id, "next_attempt, warned") == [(NOW + 60, 1)]
    assert message.remote_waiting(rows.connection, NOW + 59, "example.net", 10) == []
    (waiting,) = message.remote_waiting(rows.connection, NOW + 60, "example.net", 10)
    assert waiting.recipients[0].warned
    assert waiting.recipients[0].attempts == 1


def test_an_attempt_that_fails_leaves_a_hold_in_force(rows: Rows) -> None:
    id = rows.accept()
    queue.hold(rows.connection, NOW, id)
    message.settle(rows.connection, NOW, id, [deferral(id)])
    assert recipients(rows, id) == [("held",)]
    assert balanced(rows)


def test_an_attempt_that_ends_a_held_recipient_is_told_as_it_was(rows: Rows) -> None:
    id = rows.accept()
    queue.hold(rows.connection, NOW, id)
    event = Event(ledger.DELIVERED, id, 0, BOB, status="2.0.0")
    assert message.settle(rows.connection, NOW, id, [Settlement(0, "delivered", event, 1)])
    assert recipients(rows, id) == [("delivered",)]
    assert balanced(rows)


def test_what_was_removed_stays_removed_but_the_attempt_is_told(rows: Rows) -> None:
    id = rows.accept()
    queue.remove(rows.connection, NOW, id)
    event = Event(ledger.DELIVERED, id, 0, BOB, status="2.0.0")
    assert not message.settle(rows.connection, NOW, id, [Settlement(0, "delivered", event, 1)])
    assert recipients(rows, id) == [("removed",)]
    assert rows.value("SELECT count(*) FROM event WHERE kind = 'delivered'") == 1
    assert balanced(rows)


def test_local_copies_are_marked_together_and_their_contents_go(rows: Rows) -> None:
    both, other = rows.accept([ALICE, BOB]), rows.accept(["carl@example.org"])
    items = [(both, 0, ALICE, "first"), (other, 0, "carl@example.org", "second")]
    assert message.delivered(rows.connection, NOW, items) == [other]
    assert recipients(rows, both) == [("delivered",), ("queued",)]
    assert message.content(rows.connection, both) is not None
    assert message.content(rows.connection, other) is None
    assert balanced(rows)


def test_still_queued_are_those_that_nobody_held_or_removed(rows: Rows) -> None:
    id = rows.accept([BOB, CAROL, "dave@example.net"])
    rows.settle(id, 0, "delivered")
    rows.connection.execute("UPDATE recipient SET state = 'held' WHERE n = 1")
    assert message.still_queued(rows.connection, id) == {2: START}


# -- what is due


def test_due_is_what_is_queued_for_the_destination_oldest_first(rows: Rows) -> None:
    late, early = rows.accept(at=START + 10), rows.accept([BOB, ALICE, "d@example.com"], at=START)
    held = rows.accept()
    queue.hold(rows.connection, START, held)
    found = message.remote_waiting(rows.connection, START + 10, "example.net", 10)
    assert [queued.id for queued in found] == [early, late]
    assert [recipient.n for recipient in found[0].recipients] == [0]
    assert [queued.id for queued in message.remote_waiting(rows.connection, START + 9, "example.net", 10)] == [early]
    assert message.remote_waiting(rows.connection, NOW, "example", 10) == []


def test_the_limit_counts_recipients_so_that_a_long_list_is_taken_in_parts(rows: Rows) -> None:
    id = rows.accept([f"user{n}@example.net" for n in range(30)])
    (part,) = message.remote_waiting(rows.connection, NOW, "example.net", 10)
    assert part.id == id
    assert [recipient.n for recipient in part.recipients] == list(range(10))


def test_destinations_are_listed_with_their_earliest_attempt(rows: Rows) -> None:
    assert message.destinations(rows.connection) == []
    rows.accept([BOB], at=START + 5)
    rows.accept([BOB, "d@example.com"], at=START)
    local = rows.accept([ALICE], at=START + 7)
    held = rows.accept(["e@held.example"])
    queue.hold(rows.connection, START, held)
    rows.finish(rows.accept(["f@done.example"]))
    assert message.destinations(rows.connection) == [("", START + 7), ("example.com", START), ("example.net", START)]
    rows.finish(local)
    assert [name for name, _ in message.destinations(rows.connection)] == ["example.com", "example.net"]


def test_looking_for_work_goes_by_the_index_and_reads_no_table_from_end_to_end(rows: Rows) -> None:
    for n in range(20):
        rows.accept([f"user@domain{n}.example", ALICE])
    for lines in (
        plan(rows, message.destinations),
        plan(rows, message.remote_waiting, NOW, "domain7.example", 10),
        plan(rows, message.local_waiting, NOW, 10),
        plan(rows, message.still_queued, 1),
    ):
        touching = [line for line in lines if "recipient" in line or "message" in line or "content" in line]
        assert touching
        assert all(line.startswith("SEARCH") for line in touching), lines
        assert not any("TEMP B-TREE" in line for line in lines), lines


def test_a_million_recipients_of_one_domain_cost_destinations_one_step(rows: Rows) -> None:
    rows.accept(["user@last.example"])
    rows.connection.execute(
        "WITH RECURSIVE many (number) AS (SELECT 10 UNION ALL SELECT number + 1 FROM many WHERE number < 20000)"
        " INSERT INTO recipient SELECT number, n, address, original, sender, mailbox, name, 'many.example', notify,"
        " orcpt, state, attempts, since, next_attempt, warned, status, answer, lane FROM recipient JOIN many"
    )
    steps: list[int] = []

    def step() -> int:
        steps.append(1)
        return 0

    rows.connection.set_progress_handler(step, 100)
    found = message.destinations(rows.connection)
    rows.connection.set_progress_handler(None, 0)
    assert [name for name, _ in found] == ["last.example", "many.example"]
    assert len(steps) < 20


# -- moving in time


def test_when_the_clock_jumps_everything_that_waits_moves_along(rows: Rows) -> None:
    queued, held, done = rows.accept(), rows.accept(), rows.accept()
    queue.hold(rows.connection, START, held)
    rows.finish(done)
    message.postpone(rows.connection, 3600.0, NEVER, START + 1e6)
    for id in (queued, held):
        assert recipients(rows, id, "next_attempt, since") == [(START + 3600, START + 3600)]
    assert recipients(rows, done, "since") == [(START,)]
    message.postpone(rows.connection, -3600.0, NEVER, START + 1e6)
    assert recipients(rows, queued, "next_attempt, since") == [(START, START)]


def test_what_came_after_the_jump_stays_and_nothing_is_moved_out_of_reach(rows: Rows) -> None:
    old, new = rows.accept(at=START), rows.accept(at=START + 4000)
    tried = waiting_after(rows, 1, START + 50)
    message.postpone(rows.connection, 4000.0, (START + 3990, START + 4010), START + 4030)
    assert next_attempts(rows) == {old: START + 4000, new: START + 4000, tried: START + 4030}


def waiting_after(rows: Rows, attempts: int, next_attempt: float) -> int:
    id = rows.accept()
    rows.connection.execute(
        "UPDATE recipient SET attempts = ?, next_attempt = ? WHERE message = ?", (attempts, next_attempt, id)
    )
    return id


def test_a_new_schedule_moves_what_waits_by_the_difference(rows: Rows) -> None:
    fresh = waiting_after(rows, 0, START)
    once, twice, often = (waiting_after(rows, attempts, NOW) for attempts in (1, 2, 9))
    held = waiting_after(rows, 1, NOW)
    queue.hold(rows.connection, START, held)
    message.reschedule(rows.connection, [(1, -50.0), (2, 100.0)], 5 * 86400.0, 2)
    assert next_attempts(rows) == {fresh: START, once: NOW - 50, twice: NOW + 100, often: NOW + 100, held: NOW}


def test_no_attempt_is_later_than_the_expiry(rows: Rows) -> None:
    soon, late = waiting_after(rows, 1, START + 10), waiting_after(rows, 1, START + 86400)
    message.reschedule(rows.connection, [], 3600.0, 1)
    assert next_attempts(rows) == {soon: START + 10, late: START + 3600}


def test_at_the_start_nothing_is_further_away_than_the_schedule_has_it(rows: Rows) -> None:
    ids = [waiting_after(rows, attempts, NOW + 80_000) for attempts in (1, 2, 3, 7)]
    near = waiting_after(rows, 3, NOW + 5)
    message.resume(rows.connection, NOW, 30.0, RETRY, 5 * 86400.0)
    assert next_attempts(rows) == {
        **dict(zip(ids, (NOW + 60, NOW + 300, NOW + 900, NOW + 900), strict=True)),
        near: NOW + 5,
    }


def test_at_the_start_nothing_is_later_than_its_expiry(rows: Rows) -> None:
    id = waiting_after(rows, 3, NOW + 800)
    message.resume(rows.connection, NOW, 30.0, RETRY, NOW - START + 100)
    assert next_attempts(rows) == {id: NOW + 100}


def test_when_the_clock_went_back_between_two_runs_nothing_waits_for_it_to_catch_up(rows: Rows) -> None:
    """A machine without a clock of its own starts in the past."""
    local, remote = rows.accept([ALICE], at=START), waiting_after(rows, 1, START + 40)
    before = START - 86400
    message.resume(rows.connection, before, 30.0, RETRY, 5 * 86400.0)
    assert next_attempts(rows) == {local: before, remote: before + 60}
    assert recipients(rows, local, "since") == [(before,)]


def test_a_second_start_in_the_past_takes_nothing_from_the_time_that_mail_may_wait(rows: Rows) -> None:
    """It has begun to wait at the first start, however often the machine crashes before an attempt is over."""
    local = rows.accept([ALICE], at=START)
    before = START - 86400
    for start in range(3):
        message.resume(rows.connection, before + start, 30.0, RETRY, 5 * 86400.0)
    assert next_attempts(rows) == {local: before}
    assert recipients(rows, local, "since") == [(before,)]


def test_a_clock_that_is_a_little_behind_moves_nothing(rows: Rows) -> None:
    local = rows.accept([ALICE], at=START)
    message.resume(rows.connection, START - 20, 30.0, RETRY, 5 * 86400.0)
    assert next_attempts(rows) == {local: START}


def test_an_empty_database_resumes_nothing(rows: Rows) -> None:
    message.resume(rows.connection, NOW, 30.0, RETRY, 5 * 86400.0)
