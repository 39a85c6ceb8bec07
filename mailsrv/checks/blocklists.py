"""DNS blocklists (RFC 5782): is the client on a list that the operator named?

Only an answer from 127.0.0.2 to 127.0.255.255 is a listing.  127.255.255.x means that the list refuses to answer *us*
(too many queries, a public resolver); that, every other code and every failed lookup is an error of the list, is
reported once an hour, and never keeps mail out.

A list shows by its test points that it works (RFC 5782 5): it lists 127.0.0.2 and does not list 127.0.0.1.  One that
lists everybody, or has been given up, fails and is ignored.  The test points are asked along with the first client of
an hour, who does not wait for them; but no listing is believed before the list has passed within the last minute, or
within the last hour if its test points cannot be looked up just now.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.checks.clients import address_of
from mailsrv.checks.interfaces import Facts, ICheck, Opinion, Stage, Verdict, reject
from mailsrv.outside.interfaces import IResolver, LookupFailed, NameNotFound
from mailsrv.store import ledger
from mailsrv.store.ledger import Event

log = Logger()

REPORT_EVERY_S = 3600.0
TEST_EVERY_S = 3600.0
CONFIRMED_S = 60.0  # so long a test counts when a client is listed
_LISTED = ipaddress.ip_network("127.0.0.0/16")
_NEVER = (ipaddress.ip_address("127.0.0.0"), ipaddress.ip_address("127.0.0.1"))
# RFC 5782 5, IPv4 and IPv6 (the same addresses, mapped): the first of each has to be listed, the second must not.
_LISTED_POINTS = ("2.0.0.127", f"2.0.0.0.0.0.f.7.f.f.f.f.{'0.' * 19}0")
_UNLISTED_POINTS = ("1.0.0.127", f"1.0.0.0.0.0.f.7.f.f.f.f.{'0.' * 19}0")
_OURSELVES = (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"))


@dataclass(frozen=True, slots=True)
class Listing:
    """The client is on ``blocklist``, which answered ``code``."""

    blocklist: str
    code: str


@implementer(ICheck)
class Blocklists:
    """Asks the lists that ``names`` gives at the time; ``record`` takes events for the ledger."""

    name = "blocklists"
    stages = frozenset({Stage.CONNECT, Stage.RCPT})
    everybody = False

    def __init__(
        self,
        resolver: IResolver,
        names: Callable[[], Sequence[str]],
        seconds: Callable[[], float],
        record: Callable[[Event], None] = lambda event: None,
    ):
        self._resolver = resolver
        self._names = names
        self._seconds = seconds
        self._record = record
        self._reported: dict[str, float] = {}
        self._tested: dict[str, float] = {}
        self._passed: dict[str, float] = {}  # when last; none of a list that has failed since
        self._testing: dict[str, list[Deferred[None]]] = {}  # who waits for the test under way

    def ask(self, stage: Stage, facts: Facts) -> Opinion:
        if stage is Stage.CONNECT:
            if self._names():
                facts.kept[self.name] = Deferred.fromCoroutine(self.listing(facts.client))
            return None
        found = facts.kept.get(self.name)
        if isinstance(found, Deferred):
            return self._awaited(found, facts)
        return _listed(found) if found is not None else None

    async def _awaited(self, lookup: Deferred[Listing | None], facts: Facts) -> Verdict | None:
        facts.kept[self.name] = None  # should it fail, it has failed in front of somebody
        listing = facts.kept[self.name] = await lookup
        return _listed(listing) if listing is not None else None

    def end(self, facts: Facts) -> None:
        lookup = facts.kept.pop(self.name, None)
        if isinstance(lookup, Deferred):
            lookup.addErrback(self._failed_unheard)

    def _failed_unheard(self, failure: Failure) -> None:
        log.failure("A blocklist lookup failed, and nobody waited for it", failure=failure)

    async def listing(self, client: str) -> Listing | None:
        """The first list, in the operator's order, that lists the client; all are asked at once."""
        names = self._names()
        reverse = _reversed(client)
        if not names or reverse is None:
            return None
        for name in names:
            self._test_when_due(name)
        asked = [Deferred.fromCoroutine(self._ask(name, reverse)) for name in names]
        for found in await gatherResults(asked, consumeErrors=True):
            if found is not None and await self._is_believed(found.blocklist):
                return found
        return None

    async def _is_believed(self, name: str) -> bool:
        if self._ago(self._passed, name) >= CONFIRMED_S and self._ago(self._tested, name) >= CONFIRMED_S:
            self._begin_test(name)
        if name in self._testing:
            tested: Deferred[None] = Deferred()
            self._testing[name].append(tested)
            await tested
        return self._ago(self._passed, name) < TEST_EVERY_S

    def _ago(self, times: dict[str, float], name: str) -> float:
        return self._seconds() - times.get(name, float("-inf"))

    def _test_when_due(self, name: str) -> None:
        if self._ago(self._tested, name) >= TEST_EVERY_S:
            self._begin_test(name)

    def _begin_test(self, name: str) -> None:
        if name in self._testing:
            return
        self._tested[name] = self._seconds()
        self._testing[name] = []
        Deferred.fromCoroutine(self._test(name)).addErrback(
            lambda failure: self._report(name, f"its test points could not be asked: {failure.value}")
        ).addCallback(self._test_done, name)

    def _test_done(self, result: None, name: str) -> None:
        for waiting in self._testing.pop(name):
            waiting.callback(None)

    async def _test(self, name: str) -> None:
        """Whether the list is to be believed; a lookup that fails leaves things as they are."""
        try:
            problem = ""
            for listed, unlisted in zip(_LISTED_POINTS, _UNLISTED_POINTS, strict=True):
                if await self._has(f"{unlisted}.{name}"):
                    problem = "it lists 127.0.0.1, which no list does that works (RFC 5782 5)"
                    break
                if await self._has(f"{listed}.{name}"):
                    problem = ""
                    break
                # A list of IPv6 addresses only has the other pair.
                problem = "it does not list 127.0.0.2, as every list does that works (RFC 5782 5)"
        except LookupFailed as error:
            self._report(name, f"its test point cannot be looked up: {error}")
            return
        if problem:
            self._passed.pop(name, None)
            self._report(name, problem)
        else:
            self._passed[name] = self._seconds()

    async def _has(self, name: str) -> bool:
        try:
            answer = await self._resolver.query(name, "A")
        except NameNotFound:
            return False
        return any(ipaddress.ip_address(record) in _LISTED for record in answer.records)

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
        """To the log and the ledger, once an hour."""
        now = self._seconds()
        if now - self._reported.get(name, now - REPORT_EVERY_S) >= REPORT_EVERY_S:
            self._reported[name] = now
            log.warn("Blocklist {name} is ignored for now: {problem}", name=name, problem=problem)
            self._record(
                Event(
                    ledger.OBSERVED,
                    address=name,
                    reason=f"the blocklist is ignored for now: {problem}",
                    rule="checks.blocklists",
                )
            )


def _listed(listing: Listing) -> Verdict:
    return reject(
        *(554, "5.7.1", "Your address is on a blocklist that we use"),
        reason=f"the client is listed by {listing.blocklist} with code {listing.code}",
        rule=f"checks.blocklists: {listing.blocklist}",
    )


def _reversed(client: str) -> str | None:
    address = address_of(client)
    # RFC 5782 5: a list that lists 127.0.0.1 is broken, so it is never asked about.
    if address is None or address in _OURSELVES or address.is_link_local:
        return None
    return address.reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")
