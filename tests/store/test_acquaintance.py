"""Whom an account has written to, and from where: from the accepted messages, without reading all of them."""

from __future__ import annotations

import pytest

from mailsrv.store import queue
from mailsrv.store.accounts import acquaintance
from mailsrv.store.message import Hold
from tests.worlds.rows import ALICE, BOB, CAROL, START, Rows

DAY_S = 86400.0
HOME, HOTEL = "192.0.2.7", "203.0.113.9"
HOLD = Hold("unusual", "limits")


@pytest.fixture
def rows() -> Rows:
    return Rows()


def clients(rows: Rows, now: float = START) -> dict[str, float]:
    return acquaintance.clients(rows.connection, ALICE, now - DAY_S)


def test_each_client_with_its_first_message(rows: Rows) -> None:
    for at, client in ((0.0, HOME), (10.0, HOTEL), (20.0, HOME), (30.0, "2001:db8::7")):
        rows.accept(account=ALICE, at=START + at, client=client)
    rows.accept(account=BOB, client="192.0.2.99")
    rows.accept(account="", client="192.0.2.98")
    assert clients(rows) == {HOME: START, HOTEL: START + 10, "2001:db8::7": START + 30}
    assert acquaintance.clients(rows.connection, "nobody@example.org", 0.0) == {}


def test_what_is_held_or_removed_is_no_acquaintance(rows: Rows) -> None:
    held = rows.accept([BOB], account=ALICE, client=HOTEL, hold=HOLD)
    assert clients(rows) == {}
    assert acquaintance.strangers(rows.connection, ALICE, [BOB]) == [BOB]
    queue.remove(rows.connection, START, held)
    assert clients(rows) == {}
    assert acquaintance.strangers(rows.connection, ALICE, [BOB]) == [BOB]


def test_what_the_operator_has_released_is_known_at_once(rows: Rows) -> None:
    held = rows.accept([BOB], account=ALICE, client=HOTEL, hold=HOLD)
    queue.release(rows.connection, START + 5, held)
    assert clients(rows) == {HOTEL: 0.0}
    assert clients(rows, START + 2 * DAY_S) == {HOTEL: START}
    assert acquaintance.strangers(rows.connection, ALICE, [BOB]) == []


def test_strangers_are_those_never_written_to_nor_heard_from(rows: Rows) -> None:
    rows.accept([BOB], account=ALICE)
    rows.accept([ALICE], sender=CAROL)
    rows.accept(["dave@example.net"], account="eve@example.org")
    asked = [BOB, CAROL, "dave@example.net", "frank@example.net"]
    assert acquaintance.strangers(rows.connection, ALICE, asked) == ["dave@example.net", "frank@example.net"]


def test_no_question_reads_all_that_an_account_has_sent(rows: Rows) -> None:
    for number in range(2000):
        rows.accept([BOB], account=ALICE, at=START + number, client=HOME)
    steps = [0]

    def count() -> int:
        steps[0] += 1
        return 0

    rows.connection.set_progress_handler(count, 100)
    assert clients(rows, START + 2 * DAY_S) == {HOME: START}
    assert acquaintance.strangers(rows.connection, ALICE, [BOB, CAROL]) == [CAROL]
    rows.connection.set_progress_handler(None, 0)
    assert steps[0] < 20, "counted in hundreds of steps of SQLite's machine"
