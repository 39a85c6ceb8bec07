"""Routes: which one applies, and where it leads."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from mailsrv.config import Route
from mailsrv.mail.outcome import Outcome, Result
from mailsrv.outside.interfaces import LookupFailed
from mailsrv.relay.mx import Hop
from mailsrv.relay.route import hops, is_loopback, listening_addresses, listens_at, route_for
from tests.worlds.resolver import RecordsResolver

EXACT = Route("smtp", "192.0.2.1", 2525)
STAR = Route("smtps", "smart.example", 465)
ROUTES = {"example.net": EXACT, "*": STAR, "example.org": EXACT}
OWN = ("example.org", "example.com")


@pytest.mark.parametrize(
    ("domain", "route"),
    [
        ("example.net", EXACT),
        ("example.edu", STAR),
        ("sub.example.net", STAR),
        ("[192.0.2.9]", STAR),
        ("example.org", EXACT),
        ("example.com", None),
    ],
)
def test_exact_first_then_star_but_not_for_own_domains(domain: str, route: Route | None) -> None:
    assert route_for(ROUTES, domain, OWN) == route


def test_no_routes() -> None:
    assert route_for({}, "example.net", OWN) is None


def lead(route: Route, records: Any = None) -> Any:
    results: list[Any] = []
    Deferred.fromCoroutine(hops(RecordsResolver(records), route)).addBoth(results.append)
    return results[0]


def test_addresses_and_names() -> None:
    assert lead(EXACT) == (Hop("192.0.2.1", "192.0.2.1", 2525),)
    assert lead(Route("smtp", "2001:DB8::1", 25)) == (Hop("2001:DB8::1", "2001:db8::1", 25),)
    records = {("smart.example", "A"): ["127.0.0.1", "192.0.2.3"], ("smart.example", "AAAA"): ["2001:db8::3"]}
    assert [hop.address for hop in lead(STAR, records)] == ["2001:db8::3", "127.0.0.1", "192.0.2.3"]
    assert [hop.address for hop in lead(Route("smtp", "localhost", 2525))] == ["127.0.0.1", "::1"]


@pytest.mark.parametrize("records", [{}, {("smart.example", "A"): LookupFailed}])
def test_a_route_that_leads_nowhere_is_local_trouble(records: Any) -> None:
    outcome = lead(STAR, records)
    assert isinstance(outcome, Outcome)
    assert (outcome.result, outcome.status, outcome.rule) == (Result.DEFERRED, "4.4.3", "outbound.routes")


@pytest.mark.parametrize(
    ("host", "loopback"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("192.0.2.1", False), ("x", False)]
)
def test_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(Route("smtp", host, 25)) is loopback


def test_listening_addresses() -> None:
    endpoints = (
        "tcp:25",
        "tcp:25:interface=192.0.2.1",
        r"tcp6:25:interface=2001\:DB8\:\:1",
        "tcp:25:interface=127.0.0.1",
    )
    assert listening_addresses(endpoints) == {"192.0.2.1", "2001:db8::1"}
    assert listening_addresses(("tcp:port=25:interface=eth0", "unix:/run/smtp", "tcp:25:interface=0.0.0.0")) == set()


@pytest.mark.parametrize(
    ("endpoint", "address", "listens"),
    [
        ("tcp:25", "192.0.2.1", True),
        ("tcp:25:interface=0.0.0.0", "192.0.2.1", True),
        ("tcp:port=25:interface=192.0.2.1", "192.0.2.1", True),
        ("tcp:25:interface=192.0.2.2", "192.0.2.1", False),
        ("tcp:2525", "192.0.2.1", False),
        ("tcp:25", "2001:db8::1", False),
        ("tcp6:25", "2001:db8::1", True),
        (r"tcp6:25:interface=\:\:", "2001:db8::1", True),
        (r"tcp6:25:interface=2001\:db8\:\:1", "2001:db8::1", True),
        ("tcp:25:interface=eth0", "192.0.2.1", False),
        ("unix:/run/25", "192.0.2.1", False),
    ],
)
def test_listens_at(endpoint: str, address: str, listens: bool) -> None:
    assert listens_at((endpoint,), address, 25) is listens
