"""The client's name in DNS, believed when it leads back to the client (forward-confirmed; RFC 1912 2.1, RFC 8601 3).

It is information for the Received field, and nobody waits for it: a name that is not there at the end of the content is
left out.  No name, or one that leads elsewhere, is a doubt and never a refusal; only where doubts have consequences
does the first recipient wait for it.  A lookup that fails says nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from zope.interface import implementer

from mailsrv.checks.clients import Address, address_of
from mailsrv.checks.interfaces import Facts, ICheck, Opinion, Stage, Verdict, doubt
from mailsrv.outside.interfaces import IResolver, LookupFailed, NameNotFound

NAMES = 5  # of one address that are tried
AT_ONCE = 200  # lookups; a storm of clients gets no names rather than thousands of sockets


@dataclass(frozen=True, slots=True)
class _Found:
    """What the lookup came to: at most one of the two is not ""."""

    name: str = ""
    problem: str = ""


@implementer(ICheck)
class ReverseName:
    """``enabled``: lookups are allowed.  ``matters``: somebody acts on doubts.  Both are asked each time."""

    name = "reverse_name"
    stages = frozenset({Stage.CONNECT, Stage.RCPT})
    everybody = False

    def __init__(self, resolver: IResolver, enabled: Callable[[], bool], matters: Callable[[], bool]) -> None:
        self._resolver = resolver
        self._enabled = enabled
        self._matters = matters
        self._under_way = 0

    def ask(self, stage: Stage, facts: Facts) -> Opinion:
        if stage is Stage.CONNECT:
            self._begin(facts)
            return None
        found = facts.kept.get(self.name)
        if isinstance(found, Deferred):
            return self._awaited(found) if self._matters() else None
        return _verdict(found) if found is not None else None

    def _begin(self, facts: Facts) -> None:
        address = address_of(facts.client)
        if address is None or address.is_loopback or address.is_link_local or not self._enabled():
            return
        if self._under_way >= AT_ONCE:
            return
        self._under_way += 1
        lookup = Deferred.fromCoroutine(self._look_up(address))
        facts.kept[self.name] = lookup
        lookup.addBoth(self._done, facts)

    def _done(self, found: _Found, facts: Facts) -> _Found:
        self._under_way -= 1
        if isinstance(found, _Found):
            facts.kept[self.name] = found
            facts.client_name = found.name
        else:
            facts.kept.pop(self.name, None)
        return found

    async def _awaited(self, lookup: Deferred[_Found]) -> Verdict | None:
        return _verdict(await lookup)

    async def _look_up(self, address: Address) -> _Found:
        try:
            names = (await self._resolver.query(address.reverse_pointer, "PTR")).records
        except NameNotFound:
            names = ()
        except LookupFailed:
            return _Found()
        if not names:
            return _Found(problem="the client's address has no name in DNS")
        failed = False
        for name in names[:NAMES]:
            try:
                answer = await self._resolver.query(name, "AAAA" if address.version == 6 else "A")
            except NameNotFound:
                continue
            except LookupFailed:
                failed = True
                continue
            if str(address) in answer.records:
                return _Found(name=name)
        return _Found() if failed else _Found(problem=f"the client's name {names[0]} does not lead to its address")

    def end(self, facts: Facts) -> None:
        pass


def _verdict(found: _Found) -> Verdict | None:
    return doubt(reason=found.problem, rule="RFC 1912 2.1") if found.problem else None
