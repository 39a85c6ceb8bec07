"""DNS blocklists (RFC 5782): is the client on a list that the operator named?

Only an answer from 127.0.0.2 to 127.0.255.255 is a listing.  127.255.255.x means that the list refuses to answer *us*
(too many queries, a public resolver); that, every other code and every failed lookup is an error of the list, is
reported once an hour, and never keeps mail out.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from mailsrv.checks.clients import address_of
from mailsrv.outside.interfaces import IResolver, LookupFailed, NameNotFound

log = Logger()

REPORT_EVERY_S = 3600.0
_LISTED = ipaddress.ip_network("127.0.0.0/16")
_NEVER = (ipaddress.ip_address("127.0.0.0"), ipaddress.ip_address("127.0.0.1"))
_OURSELVES = (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"))


@dataclass(frozen=True, slots=True)
class Listing:
    """The client is on ``blocklist``, which answered ``code``."""

    blocklist: str
    code: str


class Blocklists:
    """Asks the lists that ``names`` gives at the time."""

    def __init__(self, resolver: IResolver, names: Callable[[], Sequence[str]], seconds: Callable[[], float]):
        self._resolver = resolver
        self._names = names
        self._seconds = seconds
        self._reported: dict[str, float] = {}

    async def listing(self, client: str) -> Listing | None:
        """The first list, in the operator's order, that lists the client; all are asked at once."""
        names = self._names()
        reverse = _reversed(client)
        if not names or reverse is None:
            return None
        asked = [Deferred.fromCoroutine(self._ask(name, reverse)) for name in names]
        for found in await gatherResults(asked):
            if found is not None:
                return found
        return None

    async def _ask(self, name: str, reverse: str) -> Listing | None:
        try:
            answer = await self._resolver.query(f"{reverse}.{name}", "A")
        except NameNotFound:
            return None
        except LookupFailed as error:
            self._report(name, str(error) or "the lookup failed")
            return None
        for record in answer.records:
            code = ipaddress.ip_address(record)
            if code in _LISTED and code not in _NEVER:
                return Listing(name, record)
            self._report(name, f"it answered {record}, which is no listing")
        return None

    def _report(self, name: str, problem: str) -> None:
        now = self._seconds()
        if now - self._reported.get(name, now - REPORT_EVERY_S) >= REPORT_EVERY_S:
            self._reported[name] = now
            log.warn("Blocklist {name} is ignored for now: {problem}", name=name, problem=problem)


def _reversed(client: str) -> str | None:
    address = address_of(client)
    # RFC 5782 5: a list that lists 127.0.0.1 is broken, so it is never asked about.
    if address is None or address in _OURSELVES or address.is_link_local:
        return None
    return address.reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")
