"""How many connections there may be, in all and from one client."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from mailsrv.checks.admission import EXPLAINED, Admission

CLIENTS = ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "::ffff:192.0.2.1", "local")
HOMES = ("203.0.113.7", "2001:db8:7::/64")


@dataclass
class Limits:
    connections: int = 100
    connections_per_client: int = 2


def admission(limits: Limits) -> Admission:
    return Admission(lambda: limits, lambda network: network in HOMES)


def test_so_many_from_one_address_and_no_more() -> None:
    counter = admission(Limits())
    assert [counter.enter("192.0.2.1") is None for _ in range(4)] == [True, True, False, False]
    assert counter.enter("192.0.2.2") is None
    counter.leave("192.0.2.1")
    assert counter.enter("192.0.2.1") is None
    assert counter.enter("192.0.2.1") == "too many connections from your address"


def test_a_64_is_one_client_and_a_mapped_address_is_ipv4() -> None:
    counter = admission(Limits(connections_per_client=1))
    assert counter.enter("2001:db8::1") is None
    assert counter.enter("2001:db8::ffff:1") is not None
    assert counter.enter("2001:db8:0:1::1") is None
    assert counter.enter("::ffff:192.0.2.1") is None
    assert counter.enter("192.0.2.1") is not None


def test_so_many_in_all() -> None:
    counter = admission(Limits(connections=3))
    assert [counter.enter(f"192.0.2.{n}") is None for n in range(5)] == [True, True, True, False, False]
    assert counter.enter("192.0.2.9") == "too many connections in all"
    counter.leave("192.0.2.0")
    assert counter.enter("192.0.2.9") is None


def test_the_last_tenth_is_for_places_that_are_known() -> None:
    counter = admission(Limits(connections=20))
    assert [counter.enter(f"198.51.100.{n}") is None for n in range(20)] == [True] * 18 + [False] * 2
    assert counter.enter("203.0.113.7") is None
    assert counter.enter("local") is None
    for client in ("2001:db8:7::1", "127.0.0.1", "local"):
        assert counter.enter(client) == "too many connections in all"
    counter.leave("203.0.113.7")
    assert counter.enter("198.51.100.99") == "too many connections in all"
    assert counter.enter("2001:db8:7::1") is None


def test_limits_are_read_each_time() -> None:
    limits = Limits()
    counter = admission(limits)
    counter.enter("192.0.2.1")
    counter.enter("192.0.2.1")
    limits.connections_per_client = 3
    assert counter.enter("192.0.2.1") is None
    limits.connections_per_client = 1
    assert counter.enter("192.0.2.1") is not None


def test_one_of_a_network_is_told_and_not_too_many_in_all() -> None:
    counter = admission(Limits())
    assert counter.explain("2001:db8::1")
    assert not counter.explain("2001:db8::2")
    assert [counter.explain(f"192.0.2.{n}") for n in range(EXPLAINED)] == [True] * (EXPLAINED - 1) + [False]
    counter.explained("2001:db8::1")
    assert counter.explain("192.0.2.99")
    assert not counter.explain("2001:db8::1")
    counter.explained("192.0.2.99")
    assert counter.explain("2001:db8::2")


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(CLIENTS)), max_size=60))
def test_whatever_comes_and_goes_the_counts_are_right(steps: list[tuple[bool, str]]) -> None:
    counter = admission(Limits(connections=5))
    inside: list[str] = []
    for enters, client in steps:
        if enters:
            if counter.enter(client) is None:
                inside.append(client)
        elif client in inside:
            inside.remove(client)
            counter.leave(client)
        assert len(inside) <= 5
    for client in inside:
        counter.leave(client)
    assert counter._of == {}  # nothing is left of them in memory, and as many as ever may come
    assert [counter.enter(client) is None for client in ("192.0.2.1", "192.0.2.1", "2001:db8::9", "local")] == [
        True
    ] * 4
    assert counter.enter("192.0.2.1") == "too many connections from your address"
