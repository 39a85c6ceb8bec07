"""In which order the servers of one attempt are asked, and what that becomes on the way.  Pure.

By preference as in the plan (RFC 5321 5.1); among equals first the family of addresses that is known to be welcome,
then servers to which a connection is open, then as the plan shuffled them.  Addresses where nobody answered a short
while ago come last of all, but they are asked: one failure never keeps mail from a server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mailsrv.relay.family import family_of
from mailsrv.relay.mx import Hop


class Itinerary:
    """``dead`` and ``kept`` tell of a hop that nobody answered there, and that a connection is open.

    ``welcome`` is the family to begin with, None when it does not matter.
    """

    def __init__(
        self, plan: Iterable[Hop], dead: Callable[[Hop], bool], welcome: str | None, kept: Callable[[Hop], bool]
    ) -> None:
        def rank(hop: Hop) -> tuple[bool, int, bool, bool]:
            unwelcome = welcome is not None and family_of(hop.address) != welcome
            return dead(hop), hop.preference, unwelcome, not kept(hop)

        hops = list(plan)
        self._left = sorted(hops, key=rank) if len(hops) > 1 else hops

    def next_hop(self) -> Hop | None:
        """The server to be asked now; None when there is no further one."""
        return self._left.pop(0) if self._left else None

    def has_other_family(self, hop: Hop) -> bool:
        """Whether a server is left that is reached by the other family than ``hop``."""
        return any(family_of(other.address) != family_of(hop.address) for other in self._left)

    def turn_from(self, hop: Hop, *, for_good: bool) -> None:
        """The family of ``hop`` comes last from now on, or not at all (``for_good``)."""
        family = family_of(hop.address)
        others = [other for other in self._left if family_of(other.address) != family]
        same = [other for other in self._left if family_of(other.address) == family]
        self._left = others if for_good else others + same

    def is_us(self, hop: Hop) -> None:
        """RFC 5321 5.1: ``hop`` is this server, and so only better ones than that may be asked, wherever they stood."""
        self._left = [other for other in self._left if other.preference < hop.preference]
