"""The MX plan as a table: records in, hops or an outcome out."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from mailsrv.mail.address import Address
from mailsrv.mail.outcome import Outcome, Result
from mailsrv.outside.interfaces import LookupFailed, NameNotFound
from mailsrv.relay.mx import Hop, is_public, plan, shuffled
from tests.worlds.resolver import Records, RecordsResolver

US = {("us.example.org", "A"): ["198.51.100.1"], ("us.example.org", "AAAA"): ["2001:db8::1"]}


def run(records: Records, domain: str = "example.net", order: bytes = b"") -> tuple[Hop, ...] | Outcome:
    """``order``: what the random octets are, one for each MX in turn."""
    numbers = iter(order)
    coroutine = plan(
        RecordsResolver({**US, **records}),
        domain,
        hostname="us.example.org",
        own_addresses=frozenset({"198.51.100.7"}),
        random=lambda octets: bytes([next(numbers, 0)]) * octets,
    )
    results: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(results.append)
    assert len(results) == 1
    result: tuple[Hop, ...] | Outcome = results[0]
    return result


def addresses(result: tuple[Hop, ...] | Outcome) -> list[str]:
    assert not isinstance(result, Outcome), result
    return [hop.address for hop in result]


def test_by_preference_families_in_turn() -> None:
    found = run(
        {
            ("example.net", "MX"): [(20, "b.example.net"), (10, "a.example.net")],
            ("a.example.net", "A"): ["192.0.2.1", "192.0.2.2", "192.0.2.3"],
            ("a.example.net", "AAAA"): ["2001:db8::a", "2001:DB8:0::b"],
            ("b.example.net", "A"): ["192.0.2.9"],
        }
    )
    assert addresses(found) == ["2001:db8::a", "192.0.2.1", "2001:db8::b", "192.0.2.2", "192.0.2.3", "192.0.2.9"]
    assert not isinstance(found, Outcome)
    assert str(found[0]) == "a.example.net [2001:db8::a]:25"


def test_equal_preferences_are_shuffled() -> None:
    records: Records = {
        ("example.net", "MX"): [(10, "a.example.net"), (10, "b.example.net"), (5, "c.example.net")],
        ("a.example.net", "A"): ["192.0.2.1"],
        ("b.example.net", "A"): ["192.0.2.2"],
        ("c.example.net", "A"): ["192.0.2.3"],
    }
    assert addresses(run(records, order=b"\x01\x02\x09")) == ["192.0.2.3", "192.0.2.1", "192.0.2.2"]
    assert addresses(run(records, order=b"\x02\x01\x09")) == ["192.0.2.3", "192.0.2.2", "192.0.2.1"]


def test_implicit_mx_through_a_cname() -> None:
    records: Records = {
        ("example.net", "CNAME"): ["www.example.com"],
        ("www.example.com", "A"): ["192.0.2.5"],
    }
    assert run(records) == (Hop("example.net", "192.0.2.5"),)


def test_a_host_that_cannot_be_looked_up_is_passed_over() -> None:
    records: Records = {
        ("example.net", "MX"): [(10, "gone.example.net"), (20, "down.example.net"), (30, "c.example.net")],
        ("gone.example.net", "A"): NameNotFound,
        ("down.example.net", "A"): LookupFailed,
        ("c.example.net", "A"): ["192.0.2.3"],
    }
    assert addresses(run(records)) == ["192.0.2.3"]


def test_one_family_failing_does_not_hide_the_other() -> None:
    records: Records = {("example.net", "A"): ["192.0.2.3"], ("example.net", "AAAA"): LookupFailed}
    assert addresses(run(records)) == ["192.0.2.3"]


FAILED: list[tuple[str, Records, Result, str]] = [
    ("no such domain", {}, Result.FAILED, "5.1.2"),
    ("null MX", {("example.net", "MX"): [(0, "")], ("example.net", "A"): ["192.0.2.1"]}, Result.FAILED, "5.1.10"),
    ("no MX, no address", {("example.net", "TXT"): ["x"]}, Result.FAILED, "5.4.4"),
    ("the domain's MX fails", {("example.net", "MX"): LookupFailed("servfail")}, Result.DEFERRED, "4.4.3"),
    (
        "the domain's MX fails, with an address: never taken for an implicit MX",
        {("example.net", "MX"): LookupFailed, ("example.net", "A"): ["192.0.2.1"]},
        Result.DEFERRED,
        "4.4.3",
    ),
    (
        "the implicit MX fails",
        {("example.net", "TXT"): [""], ("example.net", "A"): LookupFailed},
        Result.DEFERRED,
        "4.4.3",
    ),
    ("the only host does not exist", {("example.net", "MX"): [(1, "gone.example.net")]}, Result.FAILED, "5.4.4"),
    (
        "the only host fails",
        {("example.net", "MX"): [(1, "h.example.net")], ("h.example.net", "A"): LookupFailed},
        Result.DEFERRED,
        "4.4.3",
    ),
    (
        "one host does not exist, the other fails",
        {("example.net", "MX"): [(1, "h.example.net"), (2, "gone.example.net")], ("h.example.net", "A"): LookupFailed},
        Result.DEFERRED,
        "4.4.3",
    ),
    ("an MX of an address", {("example.net", "MX"): [(1, "192.0.2.1")]}, Result.FAILED, "5.4.4"),
    ("an MX of localhost", {("example.net", "MX"): [(1, "localhost")]}, Result.FAILED, "5.4.4"),
    (
        "a host on loopback",
        {("example.net", "MX"): [(1, "h.example.net")], ("h.example.net", "A"): ["127.0.0.1", "0.0.0.0"]},
        Result.FAILED,
        "5.4.4",
    ),
    (
        "a host on loopback in disguise",
        {("example.net", "MX"): [(1, "h.example.net")], ("h.example.net", "AAAA"): ["::1", "::ffff:127.0.0.1", "::"]},
        Result.FAILED,
        "5.4.4",
    ),
    ("our name", {("example.net", "MX"): [(1, "us.example.org")]}, Result.FAILED, "5.4.6"),
    (
        "our listening address",
        {("example.net", "MX"): [(1, "h.example.net")], ("h.example.net", "A"): ["198.51.100.7"]},
        Result.FAILED,
        "5.4.6",
    ),
    ("the address of our name", {("example.net", "AAAA"): ["2001:db8:0:0::1"]}, Result.FAILED, "5.4.6"),
    (
        "we among equals",
        {
            ("example.net", "MX"): [(5, "us.example.org"), (5, "h.example.net"), (9, "h.example.net")],
            ("h.example.net", "A"): ["192.0.2.1"],
        },
        Result.FAILED,
        "5.4.6",
    ),
    (
        "a better one that cannot be looked up just now",
        {("example.net", "MX"): [(5, "h.example.net"), (9, "us.example.org")], ("h.example.net", "A"): LookupFailed},
        Result.DEFERRED,
        "4.4.3",
    ),
]


@pytest.mark.parametrize(("records", "result", "status"), [row[1:] for row in FAILED], ids=[row[0] for row in FAILED])
@pytest.mark.parametrize("order", [b"\x01\x02\x03", b"\x03\x02\x01"])
def test_no_plan(records: Records, result: Result, status: str, order: bytes) -> None:
    outcome = run(records, order=order)
    assert isinstance(outcome, Outcome)
    assert (outcome.result, outcome.status) == (result, status)
    assert outcome.reason.endswith(".") and outcome.rule


def test_we_and_all_of_lower_preference_are_dropped() -> None:
    records: Records = {
        ("example.net", "MX"): [
            (5, "a.example.net"),
            (10, "us.example.org"),
            (10, "b.example.net"),
            (20, "c.example.net"),
        ],
        ("a.example.net", "A"): ["192.0.2.1"],
        ("b.example.net", "A"): ["192.0.2.2"],
        ("c.example.net", "A"): ["192.0.2.3"],
    }
    for order in (b"\x01\x02\x03\x04", b"\x01\x03\x02\x04"):
        assert addresses(run(records, order=order)) == ["192.0.2.1"]


def test_a_null_mx_beside_others_is_no_host() -> None:
    records: Records = {("example.net", "MX"): [(0, ""), (5, "a.example.net")], ("a.example.net", "A"): ["192.0.2.1"]}
    assert addresses(run(records)) == ["192.0.2.1"]


def test_private_addresses_are_fine() -> None:
    assert addresses(run({("example.net", "A"): ["10.0.0.1", "192.168.1.1"]})) == ["10.0.0.1", "192.168.1.1"]


@pytest.mark.parametrize(
    ("literal", "hop"),
    [
        ("[192.0.2.1]", Hop("[192.0.2.1]", "192.0.2.1")),
        ("[IPv6:2001:db8::1]", Hop("[IPv6:2001:db8::1]", "2001:db8::1")),
    ],
)
def test_literals(literal: str, hop: Hop) -> None:
    assert run({}, literal) == (hop,)


@pytest.mark.parametrize("literal", ["[127.0.0.1]", "[IPv6:::1]", "[0.0.0.0]", "[x25:nonsense]"])
def test_literals_that_lead_nowhere(literal: str) -> None:
    outcome = run({}, literal)
    assert isinstance(outcome, Outcome) and outcome.result is Result.FAILED


@pytest.mark.parametrize(
    ("address", "public"),
    [
        *((address, True) for address in ("192.0.2.1", "10.0.0.1", "fd00::1", "::ffff:192.0.2.1")),
        *((address, False) for address in ("127.9.9.9", "0.1.2.3", "224.0.0.1", "255.255.255.255", "::1", "::")),
        *((address, False) for address in ("::ffff:0.0.0.0", "::ffff:127.0.0.1", "ff02::1")),
    ],
)
def test_is_public(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_a_long_list_is_cut() -> None:
    records: dict[tuple[str, str], Any] = {("example.net", "MX"): [(n, f"h{n}.example.net") for n in range(500)]}
    for n in range(500):
        records[f"h{n}.example.net", "A"] = [f"192.0.2.{m}" for m in range(50)]
    assert len(addresses(run(records))) <= 200


def test_equal_ones_are_shuffled_anew_for_each_message() -> None:
    hops = (
        Hop("c.example.net", "192.0.2.3", preference=5),
        Hop("a.example.net", "2001:db8::1", preference=10),
        Hop("a.example.net", "192.0.2.1", preference=10),
        Hop("b.example.net", "192.0.2.2", preference=10),
    )
    for order, expected in ((b"\x09\x01\x02", [0, 1, 2, 3]), (b"\x09\x02\x01", [0, 3, 1, 2])):
        numbers = iter(order)
        found = shuffled(hops, lambda octets: bytes([next(numbers)]) * octets)  # noqa: B023
        assert found == tuple(hops[n] for n in expected)


def test_hops_tell_their_preference() -> None:
    records: Records = {
        ("example.net", "MX"): [(20, "b.example.net"), (10, "a.example.net")],
        ("a.example.net", "A"): ["192.0.2.1"],
        ("b.example.net", "A"): ["192.0.2.2"],
    }
    found = run(records)
    assert not isinstance(found, Outcome)
    assert [hop.preference for hop in found] == [10, 20]


def test_an_mx_that_is_a_cname() -> None:
    # RFC 5321 5.1 forbids it, and the world has it: the name in the MX is the server's name all the same.
    records: Records = {
        ("example.net", "MX"): [(10, "mx.example.net")],
        ("mx.example.net", "CNAME"): ["host.example.com"],
        ("host.example.com", "A"): ["192.0.2.7"],
    }
    assert run(records) == (Hop("mx.example.net", "192.0.2.7"),)


def test_an_alias_of_ours_is_ours() -> None:
    records: Records = {
        ("example.net", "MX"): [(10, "alias.example.net")],
        ("alias.example.net", "CNAME"): ["us.example.org"],
    }
    outcome = run(records)
    assert isinstance(outcome, Outcome) and outcome.status == "5.4.6"


def test_a_domain_that_is_an_alias_has_the_mx_of_what_it_stands_for() -> None:
    records: Records = {
        ("example.net", "CNAME"): ["one.example.com"],
        ("one.example.com", "CNAME"): ["two.example.com"],
        ("two.example.com", "MX"): [(10, "mx.example.com")],
        ("mx.example.com", "AAAA"): ["2001:db8::7"],
    }
    assert run(records) == (Hop("mx.example.com", "2001:db8::7"),)


def test_a_loop_of_aliases_is_waited_for() -> None:
    outcome = run({("example.net", "CNAME"): ["www.example.net"], ("www.example.net", "CNAME"): ["example.net"]})
    assert isinstance(outcome, Outcome) and outcome.result is Result.DEFERRED


def test_an_international_domain_is_looked_up_by_its_a_label() -> None:
    destination = Address.parse("jürgen@grün.example").domain
    records: Records = {
        ("xn--grn-ioa.example", "MX"): [(1, "mx.xn--grn-ioa.example")],
        ("mx.xn--grn-ioa.example", "A"): ["192.0.2.8"],
    }
    assert run(records, destination) == (Hop("mx.xn--grn-ioa.example", "192.0.2.8"),)
