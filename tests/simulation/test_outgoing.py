"""Mail goes out to a world of many domains, well and sick, whatever befalls the machine meanwhile.

``python -m tests.simulation.sweep`` runs as many more of these worlds as one likes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.logger import LogEvent, globalLogBeginner

from tests.simulation import behaviour, elsewhere, judge, judge_outgoing
from tests.simulation.behaviour import Behaviour
from tests.simulation.scenario import CALM_FAULTS, Faults
from tests.simulation.world import World, faulty, judged

SMALL = 1


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Before logging has begun Twisted writes what is critical to standard error; here the worlds listen to it."""

    def nowhere(event: LogEvent) -> None:
        pass

    globalLogBeginner.beginLoggingTo([nowhere], discardBuffer=True, redirectStandardIO=False)  # type: ignore[list-item]
    yield


def run(seed: int, crashes: tuple[int, ...] = (), faults: Faults = CALM_FAULTS) -> list[str]:
    return judged(seed, crashes, faults, outgoing=True)


@pytest.mark.parametrize("seeds", [(0, 1), (2, 5), (6, 7), (8, 9)])
def test_only_the_others_are_sick(seeds: tuple[int, ...]) -> None:
    """Here speed counts, too: whoever is well does not wait for the sick."""
    assert [text for seed in seeds for text in run(seed)] == []


@pytest.mark.parametrize("first", range(20, 38, 3))
def test_much_happens_at_once(first: int) -> None:
    """Clock jumps, no resolver, no network, wrong routes, a locked database, stops, crashes: as the seed has it."""
    assert [text for seed in range(first, first + 3) for text in run(seed, (), faulty(seed, outgoing=True))] == []


@pytest.mark.parametrize("seed", [71243, 80806], ids=["two jumps while locked", "hung up while content was read"])
def test_what_was_broken_once(seed: int) -> None:
    assert run(seed, (), faulty(seed, outgoing=True)) == []


def test_a_crash_at_any_step() -> None:
    rng = random.Random("crashes")
    broken = []
    for _ in range(6):
        broken += run(SMALL, tuple(sorted(rng.sample(range(100, 2400), 3))))
    assert broken == []


@pytest.mark.parametrize(
    "faults",
    [
        Faults(stops=(20.0, 75.0)),
        Faults(moments=(20.0, 21.0, 75.0)),
        Faults(locked_s=((10.0, 250.0),)),
        Faults(cut_off_s=((10.0, 400.0),)),
        Faults(misrouted_s=((10.0, 400.0),)),
        Faults(resolver=1.0),
        Faults(jumps=((30.0, 1e6), (200.0, -1e6))),
    ],
    ids=["stopped", "crashed", "locked", "cut off", "misrouted", "no resolver", "another time"],
)
def test_one_thing_happens(faults: Faults) -> None:
    assert [text for seed in (41, 44) for text in run(seed, (), faults)] == []


@pytest.mark.parametrize("seeds", [(0, 4), (10, 21), (22, 30), (49, 56)])
def test_the_clock_jumps_again_and_again_while_the_database_takes_little(seeds: tuple[int, ...]) -> None:
    """Nothing is given up for it, whatever had to wait until it was written."""
    broken = []
    for seed in seeds:
        rng = random.Random(f"{seed}: clock")
        jumps = [
            (rng.uniform(0, 600), rng.choice((-3e6, -1e6, -4000.0, -100.0, 100.0, 4000.0, 1e6, 3e6))) for _ in range(4)
        ]
        begins = rng.uniform(0, 300)
        faults = Faults(
            jumps=tuple(jumps),
            locked_s=((begins, begins + rng.uniform(50, 300)),),
            steps={"database: commit": rng.choice((0.0, 0.2, 0.5))},
        )
        broken += run(seed, (), faults)
    assert broken == []


# The draw, and the judge.


def test_everything_is_drawn_some_time() -> None:
    worlds = [elsewhere.draw(random.Random(f"{seed}: elsewhere")) for seed in range(400)]
    servers = [server for world in worlds for server in world.servers]
    behaviours = [behaviour for server in servers for _, behaviour in server.phases]
    assert {fault for drawn in behaviours for fault in drawn.faults} == set(behaviour.ALL)
    assert {drawn.octet_s for drawn in behaviours} == {0.0, 0.2, 3.0, 20.0}
    assert {str(trouble) for world in worlds for _, trouble in world.troubles.values()} == {
        *("SERVFAIL", "REFUSED", "no answer in time", "an answer to another question")
    }
    names = {domain.name.removesuffix(".example").rstrip("0123456789") for world in worlds for domain in world.domains}
    assert names == {"well", "ill", "half", "down", "denied", "unknown", "secret"}
    incidents = [faulty(seed, outgoing=True) for seed in range(400)]
    for name in ("jumps", "locked_s", "cut_off_s", "misrouted_s", "stops", "moments", "resolver"):
        assert any(getattr(faults, name) for faults in incidents), name


@pytest.fixture
def world() -> Iterator[World]:
    world = World(SMALL, outgoing=True)
    world.run()
    yield world
    world.close()


def _lose_the_well(world: World) -> None:
    for sink in world.sinks.values():
        sink.messages[:] = [kept for kept in sink.messages if "well" not in kept.recipients[0]]


def _deliver_late(world: World) -> None:
    for sink in world.sinks.values():
        sink.messages[:] = [replace(received, at=received.at + 1000) for received in sink.messages]


def _reach_the_unreachable(world: World) -> None:
    message = next(message for message in world.sent if any("nobody@" in to for to in message.recipients))
    refused = tuple(to for to in message.recipients if to.startswith("nobody@"))
    sink = next(sink for sink in world.sinks.values() if sink.messages)
    sink.messages.append(replace(sink.messages[0], recipients=refused, content=message.content))


def _in_clear(world: World) -> None:
    secret = next(domain for domain in world.elsewhere.domains if domain.name.startswith("ill"))
    domains = tuple(replace(domain, secret=domain is secret) for domain in world.elsewhere.domains)
    world.elsewhere = replace(world.elsewhere, domains=domains)
    for sink in world.sinks.values():
        sink.messages[:] = [replace(received, tls=False) for received in sink.messages]


def _double(world: World) -> None:
    for sink in world.sinks.values():
        sink.messages *= 2


def _many_connections(world: World) -> None:
    world.most_open = judge_outgoing.MOST_OPEN + 1


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (_lose_the_well, "did not arrive"),
        (_deliver_late, "SLOW"),
        (_reach_the_unreachable, "who cannot be reached"),
        (_in_clear, "in clear"),
        (_double, "DOUBLED"),
        (_many_connections, "connections at once"),
    ],
)
def test_the_judge_sees(world: World, damage: Callable[[World], None], complaint: str) -> None:
    assert not any(complaint in text for text in judge.at_the_end(world))
    damage(world)
    assert any(complaint in text for text in judge.at_the_end(world))


def test_the_judge_sees_a_connection_that_stays_open() -> None:
    world = World(SMALL, outgoing=True)
    try:
        world.start()
        world.advance(2.0)
        sink = next(iter(world.sinks.values()))
        sink.behaviour = Behaviour({"greeting silence": 1.0})
        address = sink.reactor.addresses[0]

        class Waiting(ClientFactory[Protocol]):
            protocol = Protocol

        world.reactor("elsewhere", ("198.51.100.7",)).connectTCP(address, 25, Waiting())
        world.advance(10.0)
        assert any("still open" in text for text in judge_outgoing.at_the_end(world))
    finally:
        world.close()


def test_an_answer_that_nobody_heard_excuses_a_second_copy(world: World) -> None:
    for sink in world.sinks.values():
        sink.messages += [replace(received, answered=False) for received in sink.messages]
    assert not any("DOUBLED" in text for text in judge.at_the_end(world))
