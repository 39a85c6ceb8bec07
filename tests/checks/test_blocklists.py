"""DNS blocklists: what is a listing, what is not, and what is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from zope.interface import implementer

from mailsrv.checks.blocklists import CONFIRMED_S, REPORT_EVERY_S, TEST_EVERY_S, Blocklists, Listing
from mailsrv.outside.interfaces import Answer, IResolver, LookupFailed, NameNotFound
from mailsrv.store import ledger
from mailsrv.store.ledger import Event
from tests.worlds.resolver import RecordsResolver

CLIENT = "192.0.2.99"
NAME = "99.2.0.192.bl.example.com"
# RFC 5782 5
POINTS = {(f"2.0.0.127.{letter}.example.com", "A"): ["127.0.0.2"] for letter in ("bl", "a", "b", "c")}
Reports = Callable[[], list[str]]


@pytest.fixture
def reports() -> Iterator[Reports]:
    """What the log was told so far."""
    with capturedLogs() as logged:
        yield lambda: [f"{event['name']}: {event['problem']}" for event in logged if "problem" in event]


def ask(lists: Blocklists, client: str = CLIENT) -> Listing | None:
    results: list[Listing | None] = []
    Deferred.fromCoroutine(lists.listing(client)).addCallback(results.append)
    (result,) = results
    return result


def blocklists(records: dict[tuple[str, str], Any], *names: str, clock: Clock | None = None) -> Blocklists:
    return Blocklists(
        RecordsResolver({**POINTS, **records}), lambda: names or ("bl.example.com",), (clock or Clock()).seconds
    )


@pytest.mark.parametrize("code", ["127.0.0.2", "127.0.0.4", "127.0.0.255", "127.0.1.1", "127.0.255.255"])
def test_a_listing(code: str, reports: Reports) -> None:
    assert ask(blocklists({(NAME, "A"): [code]})) == Listing("bl.example.com", code)
    assert reports() == []


@pytest.mark.parametrize(
    "answer",
    [
        ["127.255.255.252"],  # a mistyped name of the list
        ["127.255.255.254"],  # we ask through a public resolver
        ["127.255.255.255"],  # we ask too much
        ["127.0.0.0"],
        ["127.0.0.1"],  # RFC 5782 5: never a listing
        ["127.1.0.2"],
        ["192.0.2.1"],  # a domain that has been sold: everything is "listed"
        ["0.0.0.0"],
        LookupFailed,
        LookupFailed("SERVFAIL"),
    ],
)
def test_errors_of_a_list_are_no_listing_and_are_reported(answer: Any, reports: Reports) -> None:
    assert ask(blocklists({(NAME, "A"): answer})) is None
    assert len(reports()) == 1
    assert reports()[0].startswith("bl.example.com: ")


@pytest.mark.parametrize("answer", [NameNotFound, []])
def test_who_is_not_listed(answer: Any, reports: Reports) -> None:
    assert ask(blocklists({(NAME, "A"): answer})) is None
    assert reports() == []


def test_a_listing_among_other_codes() -> None:
    records = {(NAME, "A"): ["127.255.255.254", "127.0.0.10", "127.0.0.2"]}
    assert ask(blocklists(records)) == Listing("bl.example.com", "127.0.0.10")


def test_a_problem_is_reported_once_an_hour_for_each_list(reports: Reports) -> None:
    clock = Clock()
    records: dict[tuple[str, str], Any] = {(NAME, "A"): LookupFailed, ("99.2.0.192.b.example.com", "A"): LookupFailed}
    lists = blocklists(records, "bl.example.com", "b.example.com", clock=clock)
    for _ in range(99):
        ask(lists)
        clock.advance(REPORT_EVERY_S / 100)
        assert len(reports()) == 2
    clock.advance(REPORT_EVERY_S / 50)
    ask(lists)
    assert len(reports()) == 4


def test_the_first_list_in_the_order_of_the_operator_is_named() -> None:
    records = {(f"99.2.0.192.{name}", "A"): ["127.0.0.2"] for name in ("b.example.com", "c.example.com")}
    assert ask(blocklists(records, "a.example.com", "c.example.com", "b.example.com")) == Listing(
        "c.example.com", "127.0.0.2"
    )


@pytest.mark.parametrize(
    ("client", "asked"),
    [
        ("192.0.2.99", NAME),
        ("::ffff:192.0.2.99", NAME),
        ("2001:db8::12", f"2.1.{'0.' * 22}8.b.d.0.1.0.0.2.bl.example.com"),
        ("127.0.0.2", "2.0.0.127.bl.example.com"),  # RFC 5782 5: the test point, which every list has
        ("127.0.0.1", None),
        ("::1", None),
        ("fe80::1%eth0", None),
        ("169.254.1.2", None),
        ("local", None),
    ],
)
def test_what_is_asked(client: str, asked: str | None) -> None:
    resolver = RecordsResolver(POINTS)
    lists = Blocklists(resolver, lambda: ["bl.example.com"], Clock().seconds)
    ask(lists, "192.0.2.1")
    resolver.asked.clear()  # the test points too
    assert (ask(lists, client) is None) == (client != "127.0.0.2")
    assert resolver.asked == ([] if asked is None else [(asked, "A")])


def test_the_lists_are_those_of_the_moment() -> None:
    names: list[str] = []
    lists = Blocklists(RecordsResolver({**POINTS, (NAME, "A"): ["127.0.0.2"]}), lambda: names, Clock().seconds)
    assert ask(lists) is None
    names.append("bl.example.com")
    assert ask(lists) is not None


@implementer(IResolver)
class Slow:
    """Answers when a test says so."""

    def __init__(self) -> None:
        self.waiting: dict[str, Deferred[Answer]] = {}

    async def query(self, name: str, kind: str) -> Answer:
        self.waiting[name] = Deferred()
        return await self.waiting[name]


def test_all_lists_are_asked_at_once() -> None:
    resolver = Slow()
    names = [f"{letter}.example.com" for letter in "abc"]
    results: list[Listing | None] = []
    lists = Blocklists(resolver, lambda: names, Clock().seconds)
    Deferred.fromCoroutine(lists.listing(CLIENT)).addCallback(results.append)
    assert [name for name in resolver.waiting if name.startswith("99.")] == [f"99.2.0.192.{name}" for name in names]
    for name in reversed(names):
        resolver.waiting[f"99.2.0.192.{name}"].callback(Answer(("127.0.0.2",), name))
    assert results == []
    resolver.waiting["1.0.0.127.a.example.com"].callback(Answer((), ""))
    resolver.waiting["2.0.0.127.a.example.com"].callback(Answer(("127.0.0.2",), ""))
    assert results == [Listing("a.example.com", "127.0.0.2")]


# Test points.


def answers(lists: Blocklists) -> bool:
    """Whether the lists are believed when they list the client."""
    return ask(lists) is not None


@pytest.mark.parametrize(
    ("points", "problem"),
    [
        ({("1.0.0.127.bl.example.com", "A"): ["127.0.0.2"]}, "it lists 127.0.0.1"),
        ({("2.0.0.127.bl.example.com", "A"): NameNotFound}, "it does not list 127.0.0.2"),
        ({("2.0.0.127.bl.example.com", "A"): []}, "it does not list 127.0.0.2"),
        ({("2.0.0.127.bl.example.com", "A"): ["127.255.255.254"]}, "it does not list 127.0.0.2"),
    ],
)
def test_a_list_that_fails_its_test_points_is_ignored_and_reported(
    points: dict[tuple[str, str], Any], problem: str, reports: Reports
) -> None:
    events: list[Event] = []
    records = {**POINTS, (NAME, "A"): ["127.0.0.2"], **points}
    lists = Blocklists(RecordsResolver(records), lambda: ["bl.example.com"], Clock().seconds, events.append)
    assert not answers(lists)
    assert not answers(lists)
    (told,) = reports()
    assert problem in told
    (event,) = events
    assert (event.kind, event.address, event.rule) == (ledger.OBSERVED, "bl.example.com", "checks.blocklists")
    assert problem in event.reason


def test_a_list_of_ipv6_addresses_has_other_test_points() -> None:
    tail = f"f.7.f.f.f.f.{'0.' * 20}bl.example.com"
    works = {("2.0.0.127.bl.example.com", "A"): NameNotFound, (f"2.0.0.0.0.0.{tail}", "A"): ["127.0.0.2"]}
    client = {(NAME, "A"): ["127.0.0.2"]}
    assert answers(blocklists({**client, **works}))
    assert not answers(blocklists({**client, **works, (f"1.0.0.0.0.0.{tail}", "A"): ["127.0.0.2"]}))


@pytest.mark.parametrize("point", ["1.0.0.127", "2.0.0.127"])
def test_a_test_point_that_cannot_be_looked_up_leaves_things_as_they_are_for_an_hour(
    point: str, reports: Reports
) -> None:
    clock = Clock()
    resolver = RecordsResolver({**POINTS, (NAME, "A"): ["127.0.0.2"]})
    name = f"{point}.bl.example.com", "A"
    as_it_is = resolver.records.pop(name, None)
    resolver.records[name] = LookupFailed
    lists = Blocklists(resolver, lambda: ["bl.example.com"], clock.seconds)
    assert not answers(lists)  # it never passed
    clock.advance(CONFIRMED_S)
    resolver.records[name] = as_it_is or NameNotFound
    assert answers(lists)
    resolver.records[name] = LookupFailed
    clock.advance(TEST_EVERY_S - 1)
    assert answers(lists)
    clock.advance(1)
    assert not answers(lists)
    assert len(reports()) == 2


def test_lists_are_looked_at_once_an_hour_and_believed_again() -> None:
    clock = Clock()
    records: dict[tuple[str, str], Any] = {(NAME, "A"): ["127.0.0.2"]}
    resolver = RecordsResolver(records)
    lists = Blocklists(resolver, lambda: ["bl.example.com"], clock.seconds)
    assert not answers(lists)
    resolver.records.update(POINTS)
    clock.advance(CONFIRMED_S - 1)
    assert not answers(lists)
    assert times_tested(resolver) == 1
    clock.advance(1)
    assert answers(lists)
    assert answers(lists)
    assert times_tested(resolver) == 2
    # Without a listing, once an hour: for the report.
    resolver.records[NAME, "A"] = NameNotFound
    clock.advance(TEST_EVERY_S - 1)
    assert not answers(lists)
    assert times_tested(resolver) == 2
    clock.advance(1)
    assert not answers(lists)
    assert times_tested(resolver) == 3


def times_tested(resolver: RecordsResolver) -> int:
    """How often the list was tested."""
    return len([name for name, _ in resolver.asked if name.startswith("1.0.0.127")])


def test_a_list_that_begins_to_list_everybody_refuses_nobody() -> None:
    """Given up and its domain sold, minutes after it has passed its test."""
    clock = Clock()
    resolver = RecordsResolver(dict(POINTS))
    lists = Blocklists(resolver, lambda: ["bl.example.com"], clock.seconds)
    assert not answers(lists)
    clock.advance(CONFIRMED_S)
    for name in (NAME, "1.0.0.127.bl.example.com"):
        resolver.records[name, "A"] = ["127.0.0.2"]
    assert not answers(lists)


def test_only_who_is_listed_waits_for_a_test_point() -> None:
    resolver = Slow()
    results: list[Listing | None] = []
    lists = Blocklists(resolver, lambda: ["bl.example.com"], Clock().seconds)
    for _ in range(3):
        Deferred.fromCoroutine(lists.listing(CLIENT)).addCallback(results.append)
        resolver.waiting[NAME].callback(Answer((), NAME))
    assert results == [None] * 3
    for _ in range(3):
        Deferred.fromCoroutine(lists.listing(CLIENT)).addCallback(results.append)
        resolver.waiting[NAME].callback(Answer(("127.0.0.2",), NAME))
    assert len(results) == 3
    resolver.waiting.pop("1.0.0.127.bl.example.com").callback(Answer((), NAME))
    resolver.waiting.pop("2.0.0.127.bl.example.com").callback(Answer(("127.0.0.2",), NAME))
    assert results[3:] == [Listing("bl.example.com", "127.0.0.2")] * 3
    assert "1.0.0.127.bl.example.com" not in resolver.waiting
