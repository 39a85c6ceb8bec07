"""The list of checks: who is asked, who decides, what is awaited, what is only observed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailsrv.checks import interfaces
from mailsrv.checks.interfaces import Facts, ICheck, Kind, Opinion, Stage, Verdict
from mailsrv.checks.ordered import Checks
from mailsrv.config_values import CHECKS
from mailsrv.mail.address import Address
from mailsrv.store import ledger
from mailsrv.store.ledger import Event
from tests.smtp.world import World

REJECT = interfaces.reject(550, "5.7.1", "No", reason="it is bad", rule="a rule")
DEFER = interfaces.defer(451, "4.7.1", "Later", reason="it may be bad", rule="a rule")
DOUBT = interfaces.doubt(reason="it looks bad", rule="a rule")
FIELDS = interfaces.headers(b"X-One: 1\r\n")


@implementer(ICheck)
class Fixed:
    """Answers the same each time, at once or when a test fires ``waiting``."""

    def __init__(
        self,
        name: str,
        verdict: Verdict | None,
        *,
        waits: bool = False,
        everybody: bool = False,
        stage: Stage = Stage.MAIL,
    ) -> None:
        self.name = name
        self.stages = frozenset({stage})
        self.everybody = everybody
        self.verdict = verdict
        self.waiting: Deferred[Verdict | None] | None = Deferred() if waits else None
        self.asked = 0
        self.ended: list[Facts] = []

    def ask(self, stage: Stage, facts: Facts) -> Opinion:
        self.asked += 1
        return self.verdict if self.waiting is None else self.waiting

    def end(self, facts: Facts) -> None:
        self.ended.append(facts)


def ignore(event: Event) -> None:
    """Where a test is about something else."""


def facts(**known: Any) -> Facts:
    return Facts("192.0.2.99", sender=Address("dave", "example.net"), **known)


def ask(members: Sequence[Fixed], about: Facts, observed: Sequence[str] = (), stage: Stage = Stage.MAIL) -> Any:
    """The verdict, all that is waited for coming in the reverse order; and the events."""
    events: list[Event] = []
    verdict = Checks(members, lambda: observed, events.append).ask(stage, about)
    if isinstance(verdict, Coroutine):
        results: list[Verdict | None] = []
        Deferred.fromCoroutine(verdict).addCallback(results.append)
        for check in reversed(members):
            if check.waiting is not None:
                check.waiting.callback(check.verdict)
        (verdict,) = results
    return verdict, events


def test_nobody_objects() -> None:
    assert ask([], facts()) == (None, [])
    assert ask([Fixed("a", None), Fixed("b", DOUBT)], facts()) == (None, [])


def test_the_first_in_the_list_decides() -> None:
    first, second = Fixed("a", DEFER), Fixed("b", REJECT)
    assert ask([first, second], facts())[0] is DEFER
    assert second.asked == 0
    assert ask([second, first], facts())[0] is REJECT


@pytest.mark.parametrize("where", ["account", "trusted"])
def test_users_and_trusted_networks_are_asked_about_by_some_only(where: str) -> None:
    known = facts(account="alice@example.org") if where == "account" else facts(trusted=True)
    assert ask([Fixed("a", REJECT)], known)[0] is None
    assert ask([Fixed("a", REJECT, everybody=True)], known)[0] is REJECT


def test_each_is_asked_at_its_stages_only() -> None:
    check = Fixed("a", REJECT, stage=Stage.RCPT)
    assert ask([check], facts())[0] is None
    assert check.asked == 0


def test_doubts_and_fields_are_gathered_and_a_new_transaction_has_none() -> None:
    about = facts()
    both = interfaces.doubt(reason="hm", rule="r", headers=b"X-Two: 2\r\n")
    assert ask([Fixed("a", FIELDS), Fixed("b", both), Fixed("c", DOUBT)], about)[0] is None
    assert about.doubts == {"b": both, "c": DOUBT}
    assert about.fields == [b"X-One: 1\r\n", b"X-Two: 2\r\n"]
    about.begin(None)
    assert (about.doubts, about.fields, about.sender) == ({}, [], None)


def test_who_only_observes_refuses_nothing_and_is_recorded() -> None:
    about = facts(recipient=Address("alice", "example.org"), recipients=[Address("bob", "example.org")])
    members = [Fixed("a", REJECT, stage=Stage.RCPT), Fixed("b", DOUBT, stage=Stage.RCPT)]
    verdict, events = ask(members, about, ["a", "b"], Stage.RCPT)
    assert verdict is None
    assert about.doubts == {}
    (event,) = events
    assert event == Event(
        ledger.OBSERVED,
        address="alice@example.org",
        sender="dave@example.net",
        client="192.0.2.99",
        status="5.7.1",
        reason="it is bad",
        rule="a rule (checks.observe: a)",
        detail="RCPT",
    )


def test_what_is_observed_of_a_content_is_recorded_for_each_recipient() -> None:
    about = facts(recipients=[Address("alice", "example.org"), Address("bob", "example.org")])
    _, events = ask([Fixed("a", REJECT, stage=Stage.DATA)], about, ["a"], Stage.DATA)
    assert [event.address for event in events] == ["alice@example.org", "bob@example.org"]


def test_behind_who_observes_the_next_one_decides() -> None:
    assert ask([Fixed("a", REJECT), Fixed("b", DEFER)], facts(), ["a"])[0] is DEFER


def test_nothing_is_awaited_where_nobody_waits() -> None:
    assert not isinstance(
        Checks([Fixed("a", DOUBT), Fixed("b", REJECT)], tuple, ignore).ask(Stage.MAIL, facts()), Coroutine
    )


def test_nobody_waits_before_the_greeting() -> None:
    checks = Checks([Fixed("a", None, waits=True, stage=Stage.CONNECT)], tuple, ignore)
    with pytest.raises(AssertionError, match="before the greeting"):
        checks.ask(Stage.CONNECT, facts())


VERDICTS = st.sampled_from([None, REJECT, DEFER, DOUBT, FIELDS])


@settings(max_examples=200)
@given(st.lists(st.tuples(VERDICTS, st.booleans(), st.booleans()), max_size=6))
def test_the_verdict_is_that_of_the_order_whoever_has_to_wait(given: list[tuple[Verdict | None, bool, bool]]) -> None:
    observed = [f"c{n}" for n, (_, _, observes) in enumerate(given) if observes]
    about, at_once = facts(), facts()
    waited = ask([Fixed(f"c{n}", v, waits=waits) for n, (v, waits, _) in enumerate(given)], about, observed)
    plain = ask([Fixed(f"c{n}", v) for n, (v, _, _) in enumerate(given)], at_once, observed)
    assert waited == plain
    assert (about.doubts, about.fields) == (at_once.doubts, at_once.fields)
    refusals = [v for v, _, observes in given if v and v.kind in (Kind.REJECT, Kind.DEFER) and not observes]
    assert waited[0] == (refusals[0] if refusals else None)


def test_the_end_is_told_to_those_who_have_kept_something() -> None:
    members = [Fixed("a", None), Fixed("b", None)]
    about = facts()
    checks = Checks(members, tuple, ignore)
    checks.end(about)
    about.kept["b"] = 1
    checks.end(about)
    assert [check.ended for check in members] == [[], [about]]


def test_content_can_be_read_more_than_once() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    async def read() -> list[bytes]:
        return [piece for _ in range(2) async for piece in about.content()]

    about = facts(read=pieces)
    results: list[list[bytes]] = []
    Deferred.fromCoroutine(read()).addCallback(results.append)
    assert results == [[b"a", b"b", b"a", b"b"]]
    about.over()
    with pytest.raises(AssertionError, match="no content yet"):
        about.content()


def test_the_members_keep_to_the_interface_and_have_the_names_of_the_configuration() -> None:
    world = World()
    assert world.house.checks.names == CHECKS
    for check in world.house.checks._members:
        assert verifyObject(ICheck, check)
    world.end()
