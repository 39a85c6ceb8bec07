"""The queue runner on a virtual clock: schedule, fairness, the operator's hand, trouble with the database, the end."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from mailsrv.mail.envelope import Envelope
from mailsrv.relay import content, lookout
from mailsrv.relay.job import IDeliveryAgent, Job
from mailsrv.relay.limit import MOST
from mailsrv.relay.queue import SETTLING
from mailsrv.store import queue, queue_id
from mailsrv.store.database import StorageTrouble
from mailsrv.store.message import Acceptance, QueuedMessage
from mailsrv.store.spool import KEPT
from tests.worlds.queue import DEFERRED, FAILED, QueueWorld, ScriptedAgent
from tests.worlds.store import LETTER, PREFIX, SPOOL

BOB = "bob@example.net"
CAROL = "carol@example.net"
DAVE = "dave@example.com"
LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcdef\r\n" * 30_000


@pytest.fixture
def world() -> Iterator[QueueWorld]:
    world = QueueWorld().boot()
    world.advance(1)
    yield world
    world.close()


def attempts(world: QueueWorld, address: str = BOB) -> int:
    return world.agent.recipients().count(address)


# -- the usual way


def test_the_script_is_a_delivery_agent() -> None:
    assert verifyObject(IDeliveryAgent, ScriptedAgent(Clock()))


def test_a_message_is_handed_to_the_agent_at_once_and_settled(world: QueueWorld) -> None:
    id = world.submit(BOB)
    world.advance(1)
    (job,) = world.agent.jobs
    assert (job.queue_id, job.destination) == (queue_id.text(id), "example.net")
    assert [str(recipient.address) for recipient in job.recipients] == [BOB]
    assert str(job.envelope.sender) == "alice@example.org"
    assert world.agent.contents == {queue_id.text(id): PREFIX + LETTER}
    assert job.size == len(PREFIX + LETTER)
    assert world.row(id)["state"] == "delivered"
    assert world.row(id)["answer"] == "250 ok"
    assert world.kinds() == ["accepted", "delivered"]
    assert world.rows("SELECT * FROM content") == []
    assert world.gaps() == []


def test_recipients_of_one_destination_go_together_and_of_two_apart(world: QueueWorld) -> None:
    world.submit(BOB, DAVE, CAROL, "alice@example.org")
    world.advance(1)
    assert sorted(len(job.recipients) for job in world.agent.jobs) == [1, 2]
    assert world.states() == ["delivered"] * 4


def test_a_large_message_is_read_from_its_file_which_goes_in_the_end(world: QueueWorld) -> None:
    world.agent.answers[BOB] = DEFERRED
    id = world.submit(BOB, content=LARGE)
    world.advance(1)
    assert world.agent.contents[queue_id.text(id)] == PREFIX + LARGE
    assert list(world.disk.files(SPOOL)) == [queue_id.text(id)]
    del world.agent.answers[BOB]
    world.advance(100)
    assert world.row(id)["state"] == "delivered"
    assert world.disk.files(SPOOL) == {}


def test_a_damaged_file_is_not_sent_as_if_it_were_the_message(world: QueueWorld) -> None:
    world.agent.answers[BOB] = DEFERRED
    id = world.submit(BOB, content=LARGE)
    world.advance(1)
    del world.agent.answers[BOB]
    del world.disk.node(f"{SPOOL}/{queue_id.text(id)}").octets[KEPT:]  # type: ignore[union-attr]
    world.advance(3600)
    assert world.row(id)["state"] == "queued"
    assert "octets instead of" in world.row(id)["answer"]


# -- the schedule


def test_attempts_follow_the_schedule_and_its_last_time_repeats(world: QueueWorld) -> None:
    world.agent.answers[BOB] = DEFERRED
    times: list[float] = []
    begun = world.timeline.now
    deliver = world.agent.deliver

    async def timed(job: Job) -> object:
        times.append(world.timeline.now - begun)
        return await deliver(job)

    world.agent.deliver = timed  # type: ignore[assignment, method-assign]
    world.submit(BOB)
    world.advance(3 * 3600)
    waits = [later - earlier for earlier, later in pairwise(times)]
    for wait, told in zip(waits, [60, 300, 900, 900, 900], strict=False):
        assert 0.9 * told - 2 <= wait <= told + 2
    assert len(waits) >= 10


def test_each_deferral_is_told_with_the_time_of_the_next_attempt(world: QueueWorld) -> None:
    world.agent.answers[BOB] = DEFERRED
    id = world.submit(BOB)
    world.advance(90)
    row = world.row(id)
    assert (row["state"], row["attempts"], row["status"]) == ("queued", 2, "4.4.1")
    assert world.kinds() == ["accepted", "deferred", "deferred"]
    (detail,) = world.rows("SELECT detail FROM event WHERE kind = 'deferred' ORDER BY id DESC LIMIT 1")[0]
    assert float(detail) == row["next_attempt"]


def test_recipients_with_different_fates_go_on_apart(world: QueueWorld) -> None:
    world.agent.answers[CAROL] = DEFERRED
    id = world.submit(BOB, CAROL)
    world.advance(70)
    assert world.row(id, 0)["state"] == "delivered"
    assert (world.row(id, 1)["state"], world.row(id, 1)["attempts"]) == ("queued", 2)
    assert attempts(world) == 1


def test_what_waits_is_found_after_a_restart(world: QueueWorld) -> None:
    world.agent.answers[BOB] = DEFERRED
    id = world.submit(BOB)
    world.advance(1)
    world.crash(power=1)
    world.boot()
    world.advance(30)
    assert world.agent.jobs == []
    world.advance(35)
    assert world.row(id)["state"] == "delivered"


def test_after_a_crash_between_the_answer_and_the_commit_it_is_sent_again(world: QueueWorld) -> None:
    """The one case of a duplicate."""
    world.agent.slow.add("example.net")
    id = world.submit(BOB)
    world.advance(1)
    world.steps.crashes = {world.steps.number + 1}
    world.agent.finish()
    world.advance(1)
    assert not world.machine.life.alive
    world.crash()
    world.steps.crashes = ()
    assert world.row(id)["state"] == "queued"
    world.boot()
    world.advance(1)
    assert attempts(world) == 1
    assert world.row(id)["state"] == "delivered"
    assert world.gaps() == []


# -- many at once


def test_a_list_of_a_thousand_recipients_is_taken_in_parts(world: QueueWorld) -> None:
    world.submit(*(f"user{n}@example.net" for n in range(1000)))
    world.advance(60)
    assert sorted(world.agent.recipients()) == sorted(f"user{n}@example.net" for n in range(1000))
    assert [len(job.recipients) for job in world.agent.jobs] == [100] * 10
    assert set(world.states()) == {"delivered"}
    assert world.gaps() == []


def test_thousands_of_local_messages_are_recovered_without_long_pauses(world: QueueWorld) -> None:
    world.crash()
    world.boot(recover=False)
    world.spool.on_accepted = lambda acceptance: None
    for n in range(1500):
        draft = world.spool.draft()
        draft.append(LETTER)
        world.wait(world.spool.accept(draft, world.arrival(draft.id, to=(f"user{n % 50}@example.org",))))
    world.crash()
    world.boot()
    world.advance(50)  # less than between two looks when nothing is known to be due
    assert set(world.states()) == {"delivered"}


# -- the operator's hand


def test_a_held_message_is_not_tried_and_a_released_one_is_at_once(world: QueueWorld) -> None:
    world.agent.answers[BOB] = DEFERRED
    id = world.submit(BOB)
    world.advance(1)
    world.operator(queue.hold, id)
    world.advance(7200)
    assert attempts(world) == 1
    del world.agent.answers[BOB]
    world.operator(queue.release, id)
    world.advance(1)
    assert world.row(id)["state"] == "delivered"


def test_what_was_held_while_it_waited_for_its_turn_is_not_tried(world: QueueWorld) -> None:
    world.agent.slow.add("example.net")
    ids = [world.submit(BOB) for _ in range(4)]
    world.advance(1)
    assert len(world.agent.running) == 2
    world.operator(queue.hold, ids[-1])
    world.operator(queue.remove, ids[-2])
    world.agent.slow.clear()
    world.agent.finish()
    world.advance(10)
    assert world.row(ids[-1])["state"] == "held"
    assert world.row(ids[-2])["state"] == "removed"
    assert len(world.agent.jobs) == 2
    assert world.gaps() == []


def test_of_a_message_that_waits_for_its_turn_some_recipients_may_be_done(world: QueueWorld) -> None:
    """As when the operator holds and releases: what was read before is asked for again."""
    world.agent.slow.add("example.net")
    ids = [world.submit(BOB, CAROL) for _ in range(3)]
    world.advance(1)

    def hold_one(connection: sqlite3.Connection, at: float) -> None:
        connection.execute("UPDATE recipient SET state = 'held' WHERE message = ? AND n = 0", (ids[-1],))

    world.operator(hold_one)
    world.agent.slow.clear()
    world.agent.finish()
    world.advance(1)
    assert world.agent.recipients() == [BOB, CAROL, BOB, CAROL, CAROL]
    world.operator(queue.release, ids[-1])
    world.advance(1)
    assert world.states() == ["delivered"] * 6
    assert len(world.agent.jobs) == 4


def test_what_is_in_memory_goes_out_without_a_look_at_the_database(world: QueueWorld) -> None:
    reads: list[object] = []
    read = world.database.read

    async def counting(operation: object, *arguments: object) -> object:
        reads.append(operation)
        return await read(operation, *arguments)  # type: ignore[arg-type]

    world.database.read = counting  # type: ignore[assignment, method-assign]
    ids = [world.submit(BOB, DAVE) for _ in range(10)]
    world.advance(0.1)
    assert [world.row(id)["state"] for id in ids] == ["delivered"] * 10
    assert reads == []


def test_an_attempt_begins_in_the_moment_of_acceptance(world: QueueWorld) -> None:
    begun: list[object] = []
    deliver = world.agent.deliver

    async def noted(job: Job) -> object:
        begun.append(job)
        return await deliver(job)

    world.agent.deliver = noted  # type: ignore[assignment, method-assign]
    accepted, world.spool.on_accepted = world.spool.on_accepted, lambda acceptance: None

    def at_once(acceptance: Acceptance) -> None:
        accepted(acceptance)
        assert len(begun) == 1

    world.spool.on_accepted = at_once
    world.submit(BOB)
    assert len(begun) == 1


def test_what_was_found_and_accepted_at_the_same_time_is_sent_once(world: QueueWorld) -> None:
    """A look at the database may see a message before its acceptance is told."""
    late: list[Acceptance] = []
    accepted, world.spool.on_accepted = world.spool.on_accepted, late.append
    world.agent.slow.add("example.net")
    world.submit(BOB)
    world.queue.wake()
    world.advance(1)
    accepted(late[0])
    world.agent.finish()
    world.advance(100)
    assert attempts(world) == 1
    assert world.states() == ["delivered"]


def test_contents_beyond_what_memory_is_for_are_read_when_they_are_wanted(
    world: QueueWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "KEPT", 100)
    monkeypatch.setattr(content, "SMALL_BLOCK", 1000)
    world.agent.slow.add("example.net")
    letters = [b"Subject: %d\r\n\r\n" % n + b"line\r\n" * 500 for n in range(4)]
    ids = [world.submit(BOB, content=letter) for letter in letters]
    world.advance(1)
    world.agent.slow.clear()
    world.agent.finish()
    world.advance(1)
    assert [world.agent.contents[queue_id.text(id)] for id in ids] == [PREFIX + letter for letter in letters]
    assert world.queue._memory.used == 0


@pytest.mark.parametrize("size", [content.EARLY, content.EARLY + 1, 3 * KEPT])
def test_the_beginning_of_what_is_large_takes_no_memory_for_the_rest(world: QueueWorld, size: int) -> None:
    letter = LETTER + b"x" * (size - len(LETTER) - 2) + b"\r\n"
    world.agent.slow.add("example.net")
    id = world.submit(BOB, content=letter)
    memory = content.Memory()
    queued = QueuedMessage(id, 0.0, Envelope(None), "", "", "", "", size, letter.count(b"\n"), (), len(PREFIX))
    source = content.QueuedContent(world.spool, memory, queued)

    async def read(chunks: AsyncIterator[bytes]) -> bytes:
        return b"".join([chunk async for chunk in chunks])

    assert world.wait(read(source.beginning())) == PREFIX + letter
    assert memory.used == (size if size <= content.EARLY else 0)
    assert world.wait(read(source.chunks())) == PREFIX + letter
    source.forget()
    assert memory.used == 0


def test_content_is_let_go_with_its_message(world: QueueWorld) -> None:
    world.agent.slow.add("example.net")
    world.agent.answers[BOB] = DEFERRED
    for _ in range(10):
        world.submit(BOB)
    assert world.queue._memory.used == 10 * len(LETTER)
    while world.agent.running:
        world.agent.finish()
        world.advance(1)
    assert world.queue._memory.used == 0


def test_time_on_hold_does_not_count_for_expiry(world: QueueWorld) -> None:
    world.agent.answers[BOB] = DEFERRED
    id = world.submit(BOB)
    world.advance(1)
    world.operator(queue.hold, id)
    world.advance(6 * 86400)
    world.operator(queue.release, id)
    world.advance(1)
    assert (world.row(id)["state"], world.row(id)["attempts"]) == ("queued", 2)


def test_a_removed_message_is_not_tried_again(world: QueueWorld) -> None:
    world.agent.answers[BOB] = DEFERRED
    id = world.submit(BOB)
    world.advance(1)
    world.operator(queue.remove, id)
    world.advance(7200)
    assert attempts(world) == 1
    assert world.row(id)["state"] == "removed"


def test_an_attempt_under_way_when_its_message_is_removed_is_told_as_it_was(world: QueueWorld) -> None:
    world.agent.slow.add("example.net")
    id = world.submit(BOB)
    world.advance(1)
    world.operator(queue.remove, id)
    world.agent.finish()
    world.advance(1)
    assert world.row(id)["state"] == "removed"
    assert world.kinds() == ["accepted", "removed", "delivered"]
    assert world.gaps() == []


def test_a_retry_that_the_operator_asks_for_is_made_now(world: QueueWorld) -> None:
    world.agent.answers[BOB] = DEFERRED
    id = world.submit(BOB)
    world.advance(1)
    world.operator(queue.retry, id)
    world.advance(1)
    assert attempts(world) == 2
    world.operator(queue.retry_all)
    world.advance(1)
    assert attempts(world) == 3


# -- trouble with the database


def fail_commits(world: QueueWorld) -> None:
    world.fail("database: commit", times=10_000, error=lambda: sqlite3.OperationalError("disk I/O error"))


def test_a_settlement_that_cannot_be_recorded_is_kept_and_nothing_is_sent_twice(world: QueueWorld) -> None:
    world.agent.slow.add("example.net")
    id = world.submit(BOB)
    world.advance(1)
    fail_commits(world)
    world.agent.finish()
    world.advance(600)
    world.queue.wake()
    world.advance(600)
    assert attempts(world) == 1
    assert world.row(id)["state"] == "queued"
    world.healthy()
    world.advance(10)
    assert attempts(world) == 1
    assert world.row(id)["state"] == "delivered"
    assert world.gaps() == []


def test_a_bounce_that_cannot_be_recorded_is_sent_once(world: QueueWorld) -> None:
    world.agent.slow.add("example.net")
    world.agent.answers[BOB] = FAILED
    world.submit(BOB)
    world.advance(1)
    fail_commits(world)
    world.agent.finish()
    world.advance(60)
    assert world.reports_in() == []
    world.healthy()
    world.advance(20)
    assert len(world.reports_in()) == 1
    assert world.gaps() == []


def test_what_nobody_foresaw_when_settling_does_not_send_again(world: QueueWorld) -> None:
    """Sent is sent: better one message that waits for a restart than one that arrives every second."""

    async def broken(*arguments: object) -> object:
        raise RuntimeError("nobody foresaw this")

    world.reports.judge = broken  # type: ignore[assignment, method-assign]
    id = world.submit(BOB)
    world.advance(7200)
    assert attempts(world) == 1
    assert world.row(id)["state"] == "queued"
    other = world.submit(DAVE)
    world.crash()
    world.boot()
    world.advance(70)
    assert attempts(world) == 1
    assert world.row(id)["state"] == world.row(other)["state"] == "delivered"


def test_a_database_that_cannot_be_read_is_asked_again(world: QueueWorld) -> None:
    world.agent.answers[BOB] = DEFERRED
    id = world.submit(BOB)
    world.advance(1)
    del world.agent.answers[BOB]
    read = world.database.read

    async def failing(*arguments: object) -> object:
        raise StorageTrouble("disk I/O error")

    world.database.read = failing  # type: ignore[assignment, method-assign]
    world.advance(300)
    assert attempts(world) == 1
    world.database.read = read  # type: ignore[method-assign]
    world.advance(10)
    assert world.row(id)["state"] == "delivered"


def test_trouble_with_the_content_is_no_attempt_and_no_reason_to_ask_every_moment(
    world: QueueWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "CONTENTS", 0)
    world.agent.answers[BOB] = DEFERRED
    id = world.submit(BOB)
    world.advance(1)
    del world.agent.answers[BOB]
    loads: list[int] = []

    async def failing(number: int) -> object:
        loads.append(number)
        raise StorageTrouble("disk I/O error")

    load, world.spool.load = world.spool.load, failing  # type: ignore[assignment, method-assign]
    world.advance(119)
    assert 1 < len(loads) < 20
    assert world.row(id)["attempts"] == 1
    world.spool.load = load  # type: ignore[method-assign]
    world.advance(10)
    assert world.row(id)["state"] == "delivered"


def test_while_nothing_can_be_recorded_little_more_is_sent(world: QueueWorld) -> None:
    """What a crash would send again is bounded."""
    world.agent.slow.add("example.net")
    world.fill(1000)
    world.advance(1)
    fail_commits(world)
    world.agent.slow.clear()
    world.agent.finish()
    world.advance(60)
    assert len(world.agent.jobs) <= SETTLING + MOST
    world.healthy()
    world.advance(60)
    assert world.rows("SELECT DISTINCT state FROM recipient") == [("delivered",)]
    assert len(world.agent.jobs) == 1000


# -- the end


def test_stopping_lets_attempts_end_and_begins_none(world: QueueWorld) -> None:
    world.agent.slow.add("example.net")
    ids = [world.submit(BOB) for _ in range(5)]
    world.advance(1)
    done: list[object] = []
    stopping = Deferred.fromCoroutine(world.queue.stop())
    stopping.addCallback(done.append)
    world.advance(1)
    assert not done
    for _, answered in list(world.agent.running):
        answered.callback(None)
    world.wait(stopping)
    assert [world.row(id)["state"] for id in ids].count("delivered") == 2
    world.submit(BOB)
    world.queue.wake()
    world.advance(600)
    assert len(world.agent.jobs) == 2


def test_stopping_cuts_what_takes_too_long_and_it_is_deferred(world: QueueWorld) -> None:
    world.agent.slow.add("example.net")
    id = world.submit(BOB)
    world.advance(1)
    begun = world.timeline.now
    world.wait(world.queue.stop())
    assert world.timeline.now - begun < 6
    assert world.agent.closed
    assert (world.row(id)["state"], world.row(id)["attempts"]) == ("queued", 1)


def test_stopping_does_not_wait_for_a_database_that_fails(world: QueueWorld) -> None:
    world.agent.slow.add("example.net")
    world.submit(BOB)
    world.advance(1)
    fail_commits(world)
    world.agent.finish()
    world.advance(1)
    begun = world.timeline.now
    world.wait(world.queue.stop())
    assert world.timeline.now - begun < 1


def test_stopping_with_nothing_to_do_takes_no_time(world: QueueWorld) -> None:
    begun = world.timeline.now
    world.wait(world.queue.stop())
    assert world.timeline.now - begun < 0.1
    assert world.agent.closed
