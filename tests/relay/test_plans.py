"""Plans for a burst: one question for many messages, and nothing older than some seconds."""

from __future__ import annotations

from random import Random
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from mailsrv.config import Config, parse
from mailsrv.mail.outcome import Outcome
from mailsrv.outside.interfaces import Answer, IResolver, LookupFailed
from mailsrv.relay.plans import KEPT_S, Plans
from tests.worlds.resolver import RecordsResolver


def config() -> Config:
    return parse('hostname = "us.example.org"\ndomains = ["example.org"]\n', "/x")


class Outside:
    """A clock, and chance that is always the same."""

    def __init__(self) -> None:
        self.reactor = Clock()
        self.random = Random(1).randbytes


@implementer(IResolver)
class Slow:
    """Answers when the test says so."""

    def __init__(self, resolver: RecordsResolver) -> None:
        self.resolver = resolver
        self.waiting: list[Deferred[None]] = []

    async def query(self, name: str, kind: str) -> Answer:
        wait: Deferred[None] = Deferred()
        self.waiting.append(wait)
        await wait
        return await self.resolver.query(name, kind)

    def answer(self) -> None:
        while self.waiting:
            self.waiting.pop().callback(None)


class World:
    def __init__(self, slow: bool = False) -> None:
        self.outside = cast(Any, Outside())
        self.records = RecordsResolver(
            {
                ("example.net", "MX"): [(10, "a.example.net"), (10, "b.example.net")],
                ("a.example.net", "A"): ["192.0.2.1"],
                ("b.example.net", "A"): ["192.0.2.2"],
            }
        )
        self.slow = Slow(self.records)
        resolver: IResolver = self.slow if slow else self.records
        self.plans = Plans(self.outside, resolver)
        self.config = config()

    def ask(self, domain: str = "example.net") -> list[Any]:
        found: list[Any] = []
        Deferred.fromCoroutine(self.plans.plan(domain, self.config)).addBoth(found.append)
        return found

    def addresses(self) -> list[str]:
        (plan,) = self.ask()
        return [hop.address for hop in plan]


def test_one_question_for_many_messages_shuffled_for_each() -> None:
    world = World()
    orders = {tuple(world.addresses())}
    asked = len(world.records.asked)
    for _ in range(20):
        orders.add(tuple(world.addresses()))
    assert len(world.records.asked) == asked
    assert orders == {("192.0.2.1", "192.0.2.2"), ("192.0.2.2", "192.0.2.1")}


def test_nothing_older_than_some_seconds() -> None:
    world = World()
    world.addresses()
    world.records.records["example.net", "MX"] = [(10, "a.example.net")]
    world.outside.reactor.advance(KEPT_S - 0.1)
    assert len(world.addresses()) == 2
    world.outside.reactor.advance(0.1)
    assert world.addresses() == ["192.0.2.1"]


def test_failures_are_not_kept() -> None:
    world = World()
    world.records.records["example.net", "MX"] = LookupFailed
    assert isinstance(world.ask()[0], Outcome)
    world.records.records["example.net", "MX"] = [(10, "a.example.net")]
    assert world.addresses() == ["192.0.2.1"]


def test_a_new_configuration_asks_anew() -> None:
    world = World()
    world.addresses()
    world.config = config()
    asked = len(world.records.asked)
    world.addresses()
    assert len(world.records.asked) > asked


def test_who_asks_meanwhile_waits_for_the_same_answer() -> None:
    world = World(slow=True)
    found = [world.ask() for _ in range(3)]
    assert len(world.slow.waiting) == 1
    world.slow.answer()
    assert [len(each) for each in found] == [1, 1, 1]
    assert all(len(plan) == 2 for (plan,) in found)


@pytest.mark.parametrize("broken", [RuntimeError, LookupFailed])
def test_who_waits_hears_of_trouble_too(broken: Any) -> None:
    world = World(slow=True)
    found = [world.ask() for _ in range(2)]
    world.slow.waiting.pop().errback(broken())
    assert [len(each) for each in found] == [1, 1]
    assert world.plans._asking == {}


def test_an_answer_for_an_old_configuration_is_not_kept() -> None:
    world = World(slow=True)
    old = world.ask()
    world.config = config()
    new = world.ask()
    world.slow.answer()
    assert (len(old), len(new)) == (1, 1)
    asked = len(world.records.asked)
    assert world.ask()[0] != []
    assert len(world.records.asked) == asked
