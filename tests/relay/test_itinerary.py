"""In which order servers are asked: pure, as a table of hops."""

from __future__ import annotations

from collections.abc import Iterator

from mailsrv.relay.itinerary import Itinerary
from mailsrv.relay.mx import Hop

A6, A4 = Hop("a", "2001:db8::a", 25, 10), Hop("a", "192.0.2.1", 25, 10)
B6, B4 = Hop("b", "2001:db8::b", 25, 10), Hop("b", "192.0.2.2", 25, 10)
C6, C4 = Hop("c", "2001:db8::c", 25, 20), Hop("c", "192.0.2.3", 25, 20)
PLAN = (A6, A4, B6, B4, C6, C4)


def plan(*, dead: tuple[Hop, ...] = (), welcome: str | None = None, kept: tuple[Hop, ...] = ()) -> Itinerary:
    return Itinerary(PLAN, dead.__contains__, welcome, kept.__contains__)


def rest(itinerary: Itinerary) -> Iterator[Hop]:
    while (hop := itinerary.next_hop()) is not None:
        yield hop


def test_as_planned_when_nothing_is_known() -> None:
    assert tuple(rest(plan())) == PLAN
    assert list(rest(Itinerary((), lambda hop: True, None, lambda hop: True))) == []


def test_open_connections_first_among_equals_only() -> None:
    assert list(rest(plan(kept=(B4, C4)))) == [B4, A6, A4, B6, C4, C6]


def test_the_welcome_family_first_among_equals_before_open_connections() -> None:
    assert list(rest(plan(welcome="IPv4", kept=(A6, B4)))) == [B4, A4, A6, B6, C4, C6]


def test_dead_ones_last_but_asked() -> None:
    assert list(rest(plan(dead=(A6, A4, B4), kept=(A6,)))) == [B6, C6, C4, A6, A4, B4]
    assert list(rest(plan(dead=PLAN))) == list(PLAN)


def test_turning_to_the_other_family() -> None:
    for for_good, expected in ((True, [A4, B4, C4]), (False, [A4, B4, C4, B6, C6])):
        itinerary = plan()
        hop = itinerary.next_hop()
        assert hop is A6 and itinerary.has_other_family(hop)
        itinerary.turn_from(hop, for_good=for_good)
        assert list(rest(itinerary)) == expected


def test_there_may_be_no_other_family() -> None:
    itinerary = Itinerary((A6, B6), lambda hop: False, None, lambda hop: False)
    hop = itinerary.next_hop()
    assert hop is not None and not itinerary.has_other_family(hop)


def test_ourselves_and_all_that_are_no_better_are_dropped() -> None:
    # RFC 5321 5.1.  A better one may stand behind, when nobody answered there a while ago: it is not given up for that.
    itinerary = plan(dead=(A6, B6, B4))
    assert itinerary.next_hop() is A4
    assert itinerary.next_hop() is C6
    itinerary.is_us(C6)
    assert list(rest(itinerary)) == [A6, B6, B4]
    itinerary = plan()
    assert itinerary.next_hop() is A6
    itinerary.is_us(A6)
    assert list(rest(itinerary)) == []
