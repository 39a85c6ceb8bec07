"""The client's name in DNS: confirmed, in doubt, or not known."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from zope.interface import implementer

from mailsrv.checks.interfaces import Facts, Kind, Stage
from mailsrv.checks.reverse_name import AT_ONCE, NAMES, ReverseName
from mailsrv.outside.interfaces import Answer, IResolver, LookupFailed, NameNotFound
from tests.worlds.resolver import RecordsResolver

CLIENT = "192.0.2.99"
PTR = ("99.2.0.192.in-addr.arpa", "PTR")
NAME = "mail.example.net"
CONFIRMED: dict[tuple[str, str], Any] = {PTR: [NAME], (NAME, "A"): ["192.0.2.1", CLIENT]}
NO_NAME = "the client's address has no name in DNS"
ELSEWHERE = f"the client's name {NAME} does not lead to its address"


def look(records: dict[tuple[str, str], Any], client: str = CLIENT, enabled: bool = True) -> tuple[str, str]:
    """The name, and why it is in doubt."""
    facts = Facts(client)
    check = ReverseName(RecordsResolver(records), lambda: enabled, lambda: True)
    assert check.ask(Stage.CONNECT, facts) is None
    opinion: Any = check.ask(Stage.RCPT, facts)
    assert opinion is None or opinion.kind is Kind.DOUBT
    return facts.client_name, opinion.reason if opinion is not None else ""


def test_a_confirmed_name() -> None:
    assert look(CONFIRMED) == (NAME, "")


def test_of_several_names_the_first_that_leads_back() -> None:
    assert look({**CONFIRMED, PTR: ["nothing.example.net", "a.example.net", NAME]}) == (NAME, "")


def test_ipv6() -> None:
    pointer = f"9.9.{'0.' * 22}8.b.d.0.1.0.0.2.ip6.arpa"
    records = {(pointer, "PTR"): [NAME], (NAME, "AAAA"): ["2001:db8::99"]}
    assert look(records, "2001:db8::99") == (NAME, "")


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ({PTR: NameNotFound}, NO_NAME),
        ({PTR: []}, NO_NAME),
        ({PTR: [NAME]}, ELSEWHERE),
        ({PTR: [NAME], (NAME, "A"): ["192.0.2.1"]}, ELSEWHERE),
        ({PTR: [*(f"n{n}.example.net" for n in range(NAMES)), NAME], (NAME, "A"): [CLIENT]}, None),
    ],
)
def test_what_is_a_doubt(records: dict[tuple[str, str], Any], reason: str | None) -> None:
    name, problem = look(records)
    assert name == ""
    assert problem == reason or (reason is None and "does not lead" in problem)


@pytest.mark.parametrize("records", [{PTR: LookupFailed}, {PTR: [NAME], (NAME, "A"): LookupFailed}])
def test_a_lookup_that_fails_says_nothing(records: dict[tuple[str, str], Any]) -> None:
    assert look(records) == ("", "")


@pytest.mark.parametrize("client", ["127.0.0.1", "::1", "local", "169.254.1.1", "fe80::1"])
def test_who_is_not_looked_up(client: str) -> None:
    assert look({}, client) == ("", "")


def test_lookups_can_be_turned_off() -> None:
    assert look(CONFIRMED, enabled=False) == ("", "")


@implementer(IResolver)
class Slow:
    """Answers when a test says so."""

    def __init__(self) -> None:
        self.waiting: list[Deferred[Answer]] = []

    async def query(self, name: str, kind: str) -> Answer:
        self.waiting.append(Deferred())
        return await self.waiting[-1]


def test_nobody_waits_for_it_unless_a_doubt_matters() -> None:
    resolver, matters = Slow(), [False]
    check = ReverseName(resolver, lambda: True, lambda: matters[0])
    facts = Facts(CLIENT)
    assert check.ask(Stage.CONNECT, facts) is None
    assert check.ask(Stage.RCPT, facts) is None
    matters[0] = True
    waiting: Any = check.ask(Stage.RCPT, facts)
    verdicts: list[Any] = []
    Deferred.fromCoroutine(waiting).addCallback(verdicts.append)
    assert verdicts == []
    resolver.waiting[0].errback(NameNotFound("99.2.0.192.in-addr.arpa"))
    assert [verdict.reason for verdict in verdicts] == [NO_NAME]
    # From then on it is known, in each transaction.
    known: Any = check.ask(Stage.RCPT, facts)
    assert known == verdicts[0]


def test_a_storm_of_clients_is_not_one_of_lookups() -> None:
    resolver = Slow()
    check = ReverseName(resolver, lambda: True, lambda: True)
    for _ in range(AT_ONCE + 10):
        check.ask(Stage.CONNECT, Facts(CLIENT))
    assert len(resolver.waiting) == AT_ONCE
    resolver.waiting[0].callback(Answer((), ""))
    check.ask(Stage.CONNECT, Facts(CLIENT))
    assert len(resolver.waiting) == AT_ONCE + 1
