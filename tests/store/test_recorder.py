"""Events without a message: written together, bounded, counted, and none forgotten at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs

from mailsrv.store import ledger
from mailsrv.store import recorder as recorder_module
from mailsrv.store.ledger import Event
from mailsrv.store.recorder import BURST, FLUSH_S, KEPT, PER_S, PLACES, SELDOM_S, Recorder
from tests.smtp.world import World
from tests.worlds.store import wait


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.end()


@pytest.fixture
def recorder(world: World) -> Recorder:
    return world.house.recorder


def refusal(reason: object) -> Event:
    return Event(ledger.REFUSED, reason=str(reason))


def reasons(world: World) -> list[str]:
    return world.ask("SELECT reason FROM event ORDER BY id")


def commits(world: World) -> int:
    return world.machine.steps.trace.count("database: committed")


def test_events_are_written_together_and_in_order(world: World, recorder: Recorder) -> None:
    before = commits(world)
    for n in range(100):
        recorder.record(refusal(n))
    assert reasons(world) == []
    world.run(FLUSH_S)
    assert reasons(world) == [str(n) for n in range(100)]
    assert commits(world) == before + 1
    world.run(60)
    assert commits(world) == before + 1


def test_a_second_batch_waits_for_its_time(world: World, recorder: Recorder) -> None:
    recorder.record(refusal("first"))
    world.run(FLUSH_S)
    recorder.record(refusal("second"))
    world.run(FLUSH_S / 2)
    assert reasons(world) == ["first"]
    world.run(FLUSH_S / 2)
    assert reasons(world) == ["first", "second"]


def test_more_than_fits_at_once_is_counted(world: World, recorder: Recorder) -> None:
    for n in range(KEPT + 7):
        recorder.record(refusal(n))
    world.run(FLUSH_S)
    found = reasons(world)
    assert len(found) == KEPT
    assert found[-2:] == [str(KEPT - 2), f"{KEPT - 1} (and 7 more such events, not kept)"]
    recorder.record(refusal("later"))
    world.run(FLUSH_S)
    assert reasons(world)[-1] == "later"


def test_nothing_piles_up_behind_a_slow_disk(world: World, recorder: Recorder) -> None:
    gate = world.gate("database-writer")
    for n in range(20 * KEPT):
        recorder.record(refusal(n))
        if n % KEPT == 0:
            world.run(FLUSH_S)
    assert len(gate) == 1
    gate.release()
    world.run(2 * FLUSH_S)
    found = reasons(world)
    assert len(found) <= 2 * KEPT
    assert found[-1].endswith("more such events, not kept)")


def test_a_flood_that_lasts_does_not_fill_the_disk(world: World, recorder: Recorder) -> None:
    rounds = 2 * BURST // KEPT
    for n in range(rounds):
        for _ in range(KEPT):
            recorder.record(refusal(n))
        world.run(2 * FLUSH_S)
    found = reasons(world)
    assert len(found) <= BURST + PER_S * rounds * 2 * FLUSH_S + 1
    told = [reason for reason in found if "more such events, not kept" in reason]
    assert len(found) + sum(int(reason.split()[2]) for reason in told) == rounds * KEPT
    world.run(3600.0)
    recorder.record(refusal("after an hour"))
    world.run(FLUSH_S)
    assert reasons(world)[-1] == "after an hour"


def test_what_one_client_causes_without_end_is_told_once_a_minute(world: World, recorder: Recorder) -> None:
    for _ in range(BURST + KEPT):
        recorder.record_seldom(refusal("turned away"), "192.0.2.7")
    recorder.record_seldom(refusal("turned away"), "192.0.2.8")
    recorder.record(refusal("another's"))
    world.run(FLUSH_S)
    assert reasons(world) == ["turned away", "turned away", "another's"]
    world.run(SELDOM_S)
    recorder.record_seldom(refusal("turned away"), "192.0.2.7")
    world.run(FLUSH_S)
    assert reasons(world)[3:] == [f"turned away; so were {BURST + KEPT - 1} more since this was last told"]


def test_places_are_forgotten_when_there_are_too_many(world: World, recorder: Recorder) -> None:
    for n in range(PLACES + 1):
        recorder.record_seldom(refusal(n), str(n))
    assert len(recorder._seldom) == PLACES


def test_the_end_writes_what_is_left(world: World, recorder: Recorder) -> None:
    recorder.record(refusal("the last"))
    recorder.close()
    world.run()
    assert reasons(world) == ["the last"]
    recorder.record(refusal("too late"))
    world.run(60)
    assert reasons(world) == ["the last"]


def test_the_end_tells_the_count_of_what_was_left_out(
    world: World, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "BURST", 20)
    for n in range(20):
        recorder.record(refusal(n))
    world.run(FLUSH_S)
    for n in range(20, 25):
        recorder.record(refusal(n))
    recorder.close()
    world.run()
    assert reasons(world)[-2:] == ["19", "24 (and 4 more such events, not kept)"]


def test_the_end_while_something_is_being_written(world: World, recorder: Recorder) -> None:
    gate = world.gate("database-writer")
    recorder.record(refusal("first"))
    world.run(FLUSH_S)
    recorder.record(refusal("second"))
    recorder.close()
    gate.release()
    closed = Deferred.fromCoroutine(world.database.close())
    assert closed.called
    assert reasons(world) == ["first", "second"]


def test_a_database_in_trouble_is_reported_and_used_again(world: World, recorder: Recorder) -> None:
    def fail(step: str) -> None:
        if step == "database: commit":
            raise OSError("the disk is gone")

    world.machine.steps.failures.append(fail)
    recorder.record(refusal("lost"))
    with capturedLogs() as logged:
        world.run(FLUSH_S)
    assert any("could not be written" in str(event["log_format"]) for event in logged)
    world.machine.steps.failures.clear()
    recorder.record(refusal("written"))
    world.run(FLUSH_S)
    assert reasons(world) == ["written"]


def test_events_that_must_be_durable_are_when_it_returns(world: World, recorder: Recorder) -> None:
    wait(world.timeline, recorder.record_all([refusal("one"), refusal("two")]))
    assert reasons(world) == ["one", "two"]
