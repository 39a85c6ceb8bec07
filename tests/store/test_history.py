"""What the ledger answers to a message or an address."""

from __future__ import annotations

import pytest

from mailsrv.store import queue_id
from mailsrv.store.history import History, history, message
from mailsrv.store.ledger import Event
from tests.worlds.rows import ALICE, BOB, CAROL, START, Rows

CARL = "carl@example.org"


@pytest.fixture
def rows() -> Rows:
    return Rows()


def ids(found: History) -> list[int]:
    return [each.id for each in found.messages]


def kinds(found: History, message: int = 0) -> list[str]:
    return [record.event.kind for record in found.messages[message].events]


def test_a_message_is_found_by_each_of_its_names(rows: Rows) -> None:
    id = rows.accept(message_id="a.1@mail.example.org")
    rows.accept([CAROL], sender=CAROL)
    name = queue_id.text(id)
    for key in ("a.1@mail.example.org", "<a.1@mail.example.org>", " <a.1@mail.example.org> ", name, name.lower()):
        assert ids(history(rows.connection, key)) == [id], key


@pytest.mark.parametrize("key", [ALICE, "Alice@Example.ORG", "<alice@example.org>"])
def test_a_message_is_found_by_its_sender(rows: Rows, key: str) -> None:
    id = rows.accept()
    assert ids(history(rows.connection, key)) == [id]


@pytest.mark.parametrize("key", [CARL, "CARL@EXAMPLE.ORG", "sales@example.org"])
def test_a_message_is_found_by_its_recipient_and_what_that_was_called(rows: Rows, key: str) -> None:
    id = rows.accept([CARL], original="sales@example.org")
    assert ids(history(rows.connection, key)) == [id]


def test_a_domain_is_one_in_both_its_forms(rows: Rows) -> None:
    id = rows.accept(["bob@bücher.example"])
    assert ids(history(rows.connection, "bob@BÜCHER.example")) == [id]
    assert ids(history(rows.connection, "bob@xn--bcher-kva.example")) == [id]


def test_a_message_is_found_by_the_account_that_sent_it(rows: Rows) -> None:
    id = rows.accept(sender="sales@example.org", account=ALICE)
    assert ids(history(rows.connection, ALICE)) == [id]


def test_a_message_is_found_by_its_client(rows: Rows) -> None:
    id = rows.accept(client="2001:db8::7")
    rows.accept()
    rows.write(START, Event("connection", client="2001:db8::7"))
    found = history(rows.connection, "2001:DB8:0::7")
    assert ids(found) == [id]
    assert [record.event.kind for record in found.loose] == ["connection"]


def test_newest_first_and_no_more_than_asked_for(rows: Rows) -> None:
    accepted = [rows.accept(at=START + n) for n in range(5)]
    found = history(rows.connection, BOB, 3)
    assert ids(found) == accepted[:1:-1]
    assert found.more
    assert not history(rows.connection, BOB, 5).more


def test_a_recipient_hears_only_of_itself_and_the_sender_of_all(rows: Rows) -> None:
    id = rows.accept([BOB, CAROL])
    rows.settle(id, 0, "bounced")
    rows.settle(id, 1, "delivered")
    assert kinds(history(rows.connection, CAROL)) == ["accepted", "delivered"]
    assert [each.address for each in history(rows.connection, CAROL).messages[0].recipients] == [CAROL]
    assert kinds(history(rows.connection, ALICE)) == ["accepted", "bounced", "delivered"]


def test_a_deletion_through_pop3_is_part_of_the_message(rows: Rows) -> None:
    id = rows.accept([CARL, "dora@example.org"])
    rows.finish(id)
    name = str(rows.value("SELECT name FROM recipient WHERE n = 0")).partition(",")[0]
    rows.write(
        START + 9,
        Event("deleted", address=CARL, client="192.0.2.7", detail=name),
        Event("deleted", address="dora@example.org", detail=name),  # another one's copy has another name
    )
    found = history(rows.connection, queue_id.text(id))
    assert kinds(found)[-1] == "deleted"
    assert kinds(found).count("deleted") == 1
    assert found.messages[0].events[-1].event.n == 0
    by_address = history(rows.connection, CARL)
    assert kinds(by_address)[-1] == "deleted"
    assert by_address.loose == ()


def test_the_name_of_a_deleted_file_counts_up_to_its_first_comma(rows: Rows) -> None:
    rows.finish(rows.accept([CARL]))
    name = str(rows.value("SELECT name FROM recipient"))
    rows.write(START + 9, Event("deleted", address=CARL, detail=name + ":2,S"))
    assert kinds(history(rows.connection, CARL))[-1] == "deleted"


def test_what_never_became_a_message_is_told_newest_first(rows: Rows) -> None:
    rows.write(START, Event("refused", address=BOB, sender=CAROL, detail="RCPT"))
    rows.write(START + 1, Event("login", address=BOB))
    rows.write(START + 2, Event("deleted", address=BOB, detail="elsewhere"), Event("refused", address=CARL))
    found = history(rows.connection, BOB)
    assert [record.event.kind for record in found.loose] == ["deleted", "login", "refused"]
    assert [record.event.kind for record in history(rows.connection, CAROL).loose] == ["refused"]
    assert [record.event.kind for record in history(rows.connection, BOB, 1).loose] == ["deleted"]
    assert history(rows.connection, BOB, 1).more


def test_deletions_do_not_crowd_out_refusals(rows: Rows) -> None:
    rows.write(START, Event("refused", address=CARL))
    for n in range(5):
        rows.finish(rows.accept([CARL]))
        name = str(rows.value("SELECT name FROM recipient ORDER BY message DESC LIMIT 1"))
        rows.write(START + n, Event("deleted", address=CARL, detail=name))
    assert "refused" in [record.event.kind for record in history(rows.connection, CARL, 5).loose]


def test_a_login_name_need_not_be_an_address(rows: Rows) -> None:
    rows.write(START, Event("login", address="root"))
    assert len(history(rows.connection, "root").loose) == 1


@pytest.mark.parametrize("key", ["", " ", "<>", "nobody@example.org", "00000000000", "x" * 1000])
def test_nothing_known(rows: Rows, key: str) -> None:
    rows.accept([BOB], sender="")
    found = history(rows.connection, key)
    assert (found.messages, found.loose, found.more, found.since) == ((), (), False, START)


def test_an_empty_ledger_begins_nowhere() -> None:
    assert history(Rows().connection, BOB) == History((), (), False, None)


def test_an_unknown_message_is_none(rows: Rows) -> None:
    assert message(rows.connection, 7) is None


def test_queries_for_messages_use_indexes(rows: Rows) -> None:
    seen: list[str] = []
    rows.connection.set_trace_callback(seen.append)
    history(rows.connection, BOB)
    rows.connection.set_trace_callback(None)
    plans = {query: rows.connection.execute(f"EXPLAIN QUERY PLAN {query}").fetchall() for query in seen}
    scans = [query for query, plan in plans.items() if any(row[3].startswith("SCAN") for row in plan)]
    # What is left walks in the order of an index, from the newest on, and stops at the limit.
    assert all("LIMIT" in query for query in scans)
    assert not [query for query in scans if "recipient" in query or "message_id" in query]
