"""Whose turn it is, on a virtual clock: many messages, many destinations, and servers that never answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mailsrv.relay import lookout, window
from mailsrv.relay.limit import MOST, REFUSALS
from mailsrv.relay.lookout import BECAME_DUE
from mailsrv.relay.window import IN_ALL, LANE
from mailsrv.store import queue
from tests.worlds.queue import DEFERRED, QueueWorld

BOB = "bob@example.net"
CAROL = "carol@example.com"
BULK = "news@bulk.example"


@pytest.fixture
def world() -> Iterator[QueueWorld]:
    world = QueueWorld().boot()
    world.advance(1)
    yield world
    world.close()


def all_delivered(world: QueueWorld) -> bool:
    return world.rows("SELECT DISTINCT state FROM recipient") == [("delivered",)]


# -- one destination


def test_a_destination_gets_more_attempts_as_they_go_well_up_to_a_limit(world: QueueWorld) -> None:
    world.agent.slow.add("example.net")
    world.fill(500)
    world.advance(1)
    running = [len(world.agent.running)]
    for _ in range(60):
        world.agent.running[0][1].callback(None)
        world.advance(0.2)
        running.append(len(world.agent.running))
    assert running[:4] == [2, 3, 4, 5]
    assert running[-1] == world.agent.most_of_one == MOST
    world.agent.slow.clear()
    world.agent.finish()
    world.advance(60)
    assert all_delivered(world)
    assert len(world.agent.jobs) == 500


def test_the_window_is_bounded_with_ten_thousand_queued_and_all_arrive_once(world: QueueWorld) -> None:
    world.agent.slow.add("example.net")
    world.fill(10_000)
    world.advance(5)
    assert world.queue.window.known < 10
    world.agent.slow.clear()
    world.agent.finish()
    most = 0
    while not all_delivered(world):
        world.advance(0.5)
        most = max(most, world.queue.window.known)
    assert most <= 2 * MOST
    assert len(world.agent.jobs) == 10_000
    assert len({job.queue_id for job in world.agent.jobs}) == 10_000


def test_an_accounts_hundred_thousand_messages_do_not_delay_anothers_first(world: QueueWorld) -> None:
    """All places of the destination are taken, and more wait in memory and in the database."""
    world.fill(100)
    world.advance(10)
    assert all_delivered(world)
    world.agent.slow.add("example.net")
    world.fill(20_000, lane="'bulk.example'")
    for _ in range(50):
        world.submit(BOB, sender=BULK)
    world.advance(5)
    assert len(world.agent.running) >= MOST
    begun = len(world.agent.jobs)
    for n in range(MOST // 2 - 1):
        world.submit(f"user{n}@example.net", sender=f"carol@other{n}.example")
        assert world.agent.recipients()[begun:] == [f"user{m}@example.net" for m in range(n + 1)]
    world.submit(BOB, sender=BULK)
    assert len(world.agent.jobs) == begun + MOST // 2 - 1
    world.agent.slow.clear()
    world.agent.finish()


def test_lanes_of_a_destination_take_turns_in_what_waited_before_the_start(world: QueueWorld) -> None:
    world.agent.slow.add("example.net")
    world.fill(3000, lane="'bulk'")
    world.fill(20, lane="'small' || more % 4", address="'s' || more || '@example.net'")
    world.crash()
    world.boot()
    world.advance(5)
    world.agent.slow.clear()
    world.agent.finish()
    world.advance(1.0)
    served = world.agent.recipients()
    last = max(n for n, address in enumerate(served) if address.startswith("s"))
    assert last < 200
    world.advance(60)
    assert all_delivered(world)


def test_recipients_deferred_together_stay_together(world: QueueWorld) -> None:
    world.agent.answers = {f"user{n}@example.net": DEFERRED for n in range(30)}
    world.submit(*(f"user{n}@example.net" for n in range(40)))
    world.advance(1)
    world.agent.answers.clear()
    world.advance(100)
    assert [len(job.recipients) for job in world.agent.jobs] == [40, 30]
    assert all_delivered(world)


# -- many destinations


def test_attempts_in_all_are_limited_and_some_are_kept_for_those_who_answer(world: QueueWorld) -> None:
    world.submit("user@known.example")
    world.agent.black_holes = {f"domain{n}.example": 3600.0 for n in range(1, IN_ALL + 100)}
    world.fill(IN_ALL + 100, destination="'domain' || more || '.example'", lane="'lane' || more % 20")
    world.advance(20)
    unproven = IN_ALL * 3 // 4
    assert len(world.agent.jobs) - 2 == unproven
    unknown, known = world.submit(BOB.replace("net", "org.example")), world.submit("user@known.example")
    world.advance(1)
    assert world.row(unknown)["state"] == "queued"
    assert world.row(known)["state"] == "delivered"
    world.agent.slow.add("known.example")
    for _ in range(100):
        world.submit("user@known.example")
    world.advance(5)
    assert len(world.agent.running) <= MOST


def test_a_hundred_thousand_destinations_fit_a_small_window_and_are_all_served(world: QueueWorld) -> None:
    """Not quite so many here."""
    world.fill(5000, destination="'domain' || more || '.example'", lane="'bulk'")
    most = pairs = 0
    for _ in range(600):
        world.advance(0.1)
        most, pairs = max(most, world.queue.window.known), max(pairs, len(world.queue.window.pairs))
        if all_delivered(world):
            break
    assert all_delivered(world)
    assert len(world.agent.jobs) == 5000
    assert most <= LANE
    world.advance(1)
    assert world.queue.window.pairs == {}
    assert world.queue.window._destinations == {}


def test_one_senders_mail_to_ten_thousand_domains_does_not_delay_anothers(world: QueueWorld) -> None:
    domains = [f"domain{n}.example" for n in range(3000)]
    world.agent.slow.update(domains)
    for part in range(0, 3000, 100):
        world.submit(*(f"user@{domain}" for domain in domains[part : part + 100]), sender=BULK)
    world.advance(1)
    assert len(world.agent.running) <= IN_ALL
    id = world.submit(BOB, sender="carol@other.example")
    while world.row(id)["state"] != "delivered":
        world.agent.running[0][1].callback(None)
        world.advance(0.1)
        assert len(world.agent.jobs) < IN_ALL + 20
    world.agent.slow.clear()
    world.agent.finish()
    world.advance(120)
    assert all_delivered(world)


# -- servers that never answer


def test_a_thousand_black_holes_do_not_delay_mail_that_can_be_delivered(world: QueueWorld) -> None:
    """Neither to a destination that is known to work nor to one of which nothing is known."""
    world.agent.black_holes = {f"hole{n}.example": 30.0 for n in range(1000)}
    world.submit("user@known.example")
    world.fill(10_000, destination="'hole' || (more % 1000) || '.example'", lane="'example.org'", state="'queued'")
    world.advance(3)
    assert len({job.destination for job in world.agent.jobs}) > 900
    for moment in range(40):
        known = world.submit("user@known.example")
        unknown = world.submit(f"user@unknown{moment}.example")
        world.advance(1)
        assert world.row(known)["state"] == world.row(unknown)["state"] == "delivered"
        world.advance(5)
    holes = [job for job in world.agent.jobs if job.destination.startswith("hole")]
    assert len(holes) < 20_000


def test_of_a_black_hole_one_attempt_stands_for_all_that_was_due_when_it_began(world: QueueWorld) -> None:
    world.agent.black_holes = {"example.net": 30.0}
    ids = [world.submit(BOB) for _ in range(10)]
    world.advance(31)
    assert len(world.agent.jobs) == 1 + 1  # those that came after it began are tried by the next, one for all
    world.advance(20)
    later = world.submit(BOB)
    world.advance(20)
    rows = [world.row(id) for id in ids]
    assert [row["attempts"] for row in rows] == [1] * 10
    assert all(row["next_attempt"] > world.machine.wall() - 40 for row in rows)
    assert rows[5]["answer"].startswith("Not tried by itself, as an attempt with ")
    assert DEFERRED.reason in rows[5]["answer"]
    assert world.row(later)["attempts"] == 0  # its attempt has begun when the one before it was over
    assert len(world.agent.running) == 0
    assert world.agent.jobs[-1].queue_id is not None
    assert world.gaps() == []


def test_one_that_says_it_is_busy_is_not_asked_for_each_message(world: QueueWorld) -> None:
    world.agent.busy.add("example.net")
    world.fill(500)
    world.advance(20)
    assert len(world.agent.jobs) <= 2 * REFUSALS
    assert world.rows("SELECT DISTINCT state, attempts FROM recipient") == [("queued", 1)]
    assert (
        world.rows("SELECT count(*) FROM event WHERE reason LIKE 'Not tried by itself, %does not want to talk%'")[0][0]
        > 490
    )
    world.agent.busy.clear()
    world.advance(60)
    assert all_delivered(world)


def test_a_destination_that_is_back_is_found_by_the_next_that_is_due(world: QueueWorld) -> None:
    world.agent.black_holes = {"example.net": 30.0}
    for _ in range(10):
        world.submit(BOB)
    world.advance(70)
    world.agent.black_holes.clear()
    world.advance(100)
    assert all_delivered(world)


def test_the_operators_retry_is_a_real_attempt(world: QueueWorld) -> None:
    world.agent.black_holes = {"example.net": 30.0}
    ids = [world.submit(BOB) for _ in range(3)]
    world.advance(65)
    made = len(world.agent.jobs)
    world.agent.black_holes.clear()
    world.operator(queue.retry, ids[1])
    world.advance(0.5)
    assert len(world.agent.jobs) == made + 1
    assert world.row(ids[1])["state"] == "delivered"


def test_an_attempt_that_hangs_keeps_no_other_from_being_made(world: QueueWorld) -> None:
    world.agent.black_holes = {"example.net": 600.0}
    world.submit(BOB)
    world.submit(CAROL.replace("example.com", "example.net"))
    world.advance(1)
    assert len(world.agent.jobs) == 1
    world.agent.black_holes.clear()
    world.advance(60)  # the schedule's first waiting time
    assert len(world.agent.jobs) == 2
    assert world.states() == ["queued", "delivered"]


def test_content_that_was_sent_proves_nothing(world: QueueWorld) -> None:
    """It goes in one flight with MAIL, which a tarpit does not answer."""
    world.agent.tarpits = {f"domain{n}.example": 3600.0 for n in range(1, IN_ALL + 100)}
    world.fill(IN_ALL + 100, destination="'domain' || more || '.example'", lane="'lane' || more % 20")
    world.advance(20)
    assert len(world.agent.jobs) - 1 == IN_ALL * 3 // 4


def test_an_attempt_that_hangs_with_the_content_sent_keeps_no_other_from_being_made(world: QueueWorld) -> None:
    world.agent.tarpits = {"example.net": 600.0}
    for _ in range(3):
        world.submit(BOB)
    world.advance(1)
    assert len(world.agent.jobs) == 1
    world.advance(60)
    assert len(world.agent.jobs) == 2
    world.agent.tarpits.clear()
    world.advance(60)
    assert len(world.agent.jobs) == 3
    assert world.states() == ["queued", "queued", "delivered"]


# -- time


def test_what_becomes_due_is_found_by_its_time(world: QueueWorld) -> None:
    now = world.machine.wall()
    world.fill(
        3 * BECAME_DUE, destination="'d' || (more % 50) || '.example'", next_attempt=f"{now} + 100 + more / 1000.0"
    )
    world.advance(90)
    assert len(world.agent.jobs) == 1
    world.advance(11)
    assert 500 < len(world.agent.jobs) < 1200
    world.advance(20)
    assert all_delivered(world)
    assert len(world.agent.jobs) == 3 * BECAME_DUE


@pytest.mark.parametrize(("name", "value"), [("PAIRS", 30), ("KNOWN", 20), ("LANE", 10), ("IN_ALL", 12)])
def test_however_small_the_window_is_everything_is_found_again(
    world: QueueWorld, monkeypatch: pytest.MonkeyPatch, name: str, value: int
) -> None:
    monkeypatch.setattr(window, "SPARE", 5)
    monkeypatch.setattr(window, name, value)
    if name == "LANE":
        monkeypatch.setattr(lookout, name, value)
    world.agent.slow.update(f"domain{n}.example" for n in range(60))
    world.fill(600, destination="'domain' || (more % 90) || '.example'", lane="'lane' || more % 7")
    for n in range(100):
        world.submit(f"user@domain{n}.example", sender=f"sender@lane{n % 11}.example")
    world.advance(3)
    while world.agent.slow:
        world.agent.slow.pop()
        world.agent.finish()
        world.advance(0.5)
    world.advance(25)  # before a look would find it anyway
    assert all_delivered(world)
    assert len(world.agent.jobs) == 700
    assert not (world.queue.window.pairs or world.queue.window.lanes)
