"""The transactions that accept a message and change its recipients."""

from __future__ import annotations

import sqlite3

import pytest

from mailsrv.mail.address import Address
from mailsrv.mail.envelope import Envelope
from mailsrv.store import due, ledger, message, queue
from mailsrv.store.due import Pair
from mailsrv.store.ledger import Event
from mailsrv.store.message import Acceptance, Arrival, FinalRecipient, Settled, Settlement
from tests.worlds.rows import ALICE, BOB, CAROL, START, Rows

NOW = START + 1000


@pytest.fixture
def rows() -> Rows:
    return Rows()


def recipients(rows: Rows, id: int, columns: str = "state") -> list[tuple[object, ...]]:
    return rows.connection.execute(f"SELECT {columns} FROM recipient WHERE message = ? ORDER BY n", (id,)).fetchall()


def balanced(rows: Rows) -> bool:
    balance = ledger.verify(rows.connection, None)
    finals = balance.delivered + balance.queued + balance.held + balance.bounced + balance.dropped + balance.removed
    return balance.gaps == [] and balance.accepted == finals


def deferral(id: int, n: int = 0, at: float = NOW, warned: bool = False) -> Settlement:
    event = Event(ledger.DEFERRED, id, n, BOB, status="4.4.1", reason="no connection", answer="")
    return Settlement(n, "queued", event, 1, at, warned)


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
    ((remote,), more) = due.waiting(rows.connection, START, Pair(ALICE, "example.net"), 10, frozenset())
    assert not more
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
    (local,) = due.local_waiting(rows.connection, START, 10)
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
    pair = Pair("example.org", "example.net")
    assert due.waiting(rows.connection, NOW + 59, pair, 10, frozenset()) == ([], False)
    ((waiting,), _) = due.waiting(rows.connection, NOW + 60, pair, 10, frozenset())
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


# -- many at once


def test_many_messages_are_accepted_and_settled_at_once(rows: Rows) -> None:
    count = 100
    bob = Address.parse(BOB)
    acceptances = [
        Acceptance(
            START, Arrival(id, Envelope(None), (FinalRecipient(bob, bob, ""),), b"", *("",) * 5, 1, 0), ("",), b"x"
        )
        for id in range(1, count + 1)
    ]
    message.insert(rows.connection, acceptances)
    assert rows.value("SELECT count(*) FROM recipient WHERE state = 'queued' AND lane = ''") == count
    attempts = [
        Settled(NOW, id, [Settlement(0, "delivered", Event(ledger.DELIVERED, id, 0, BOB, answer=f"250 {id}"), 1)])
        for id in range(1, count + 1)
    ]
    message.settle_all(rows.connection, attempts)
    found = rows.connection.execute(
        "SELECT message, state, attempts, answer FROM recipient ORDER BY message"
    ).fetchall()
    assert found == [(id, "delivered", 1, f"250 {id}") for id in range(1, count + 1)]
    assert rows.value("SELECT count(*) FROM content") == 0
    assert balanced(rows)


def test_a_hold_in_a_batch_stays_in_force_and_a_removal_too(rows: Rows) -> None:
    ids = held, removed, _ = [rows.accept() for _ in range(3)]
    queue.hold(rows.connection, NOW, held)
    queue.remove(rows.connection, NOW, removed)
    message.settle_all(rows.connection, [Settled(NOW, id, [deferral(id)]) for id in ids])
    assert [recipients(rows, id) for id in ids] == [[("held",)], [("removed",)], [("queued",)]]
    assert message.prefix(rows.connection, held)[0] is not None
    assert message.prefix(rows.connection, removed) == (None, False)
    assert balanced(rows)


def test_a_content_is_read_in_blocks(rows: Rows) -> None:
    id, filed = rows.accept(content=b"0123456789"), rows.accept(content=None)
    assert [message.content_block(rows.connection, id, offset, 4) for offset in (0, 4, 8, 12)] == [
        *(b"0123", b"4567", b"89"),
        b"",
    ]
    assert message.content_block(rows.connection, id + 100, 0, 4) == b""
    assert message.prefix(rows.connection, id) == (b"Received: from client.example.net\r\n", False)
    assert message.prefix(rows.connection, filed) == (b"Received: from client.example.net\r\n", True)
