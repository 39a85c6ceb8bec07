"""One attempt to hand a message to the servers of one destination.

``Relay.deliver`` finds the servers (a route, or the MX plan), visits them in turn until each recipient has a definite
answer, and tells what became of each.  It keeps no mail and no schedule: that is the queue's business.  What it
keeps, in memory only and bounded: connections at rest, plans for seconds, and where what did not work of late.
"""

from __future__ import annotations

from typing import Final, Protocol

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger
from zope.interface import implementer

from mailsrv.config import Config, Route
from mailsrv.mail.outcome import Outcome, Result
from mailsrv.outside.interfaces import IResolver, Outside
from mailsrv.relay.attempt import Attempt, Trouble
from mailsrv.relay.connection import Timeouts
from mailsrv.relay.conversation import Conversation
from mailsrv.relay.conversion import Converter, Signer
from mailsrv.relay.dial import Dialer, is_this_server
from mailsrv.relay.family import family_of
from mailsrv.relay.itinerary import Itinerary
from mailsrv.relay.job import ContentSource, IDeliveryAgent, Job
from mailsrv.relay.memory import Memory
from mailsrv.relay.mx import Hop, Plan
from mailsrv.relay.plans import Plans
from mailsrv.relay.pool import Pool
from mailsrv.relay.route import hops, route_for
from mailsrv.relay.session import Key, Session
from mailsrv.relay.tls import ClientContexts, ClientTls, Demand, TlsPolicy, tls_policy
from mailsrv.smtp.client import ClientConnection

__all__ = ["ContentSource", "Job", "Relay", "Settings"]

_MOST_VISITS: Final = 12  # servers asked in one attempt
_LONGEST_S: Final = 1800.0  # after that no further server is asked in this attempt
_REMEMBERED_S: Final = 3600.0  # that TLS, BDAT or a family of addresses did not work
_DEAD_S: Final = 60.0  # that nobody answered

log = Logger()


class Settings(Protocol):
    """Where the present configuration is found; it may change between two uses."""

    @property
    def config(self) -> Config: ...


@implementer(IDeliveryAgent)
class Relay:
    """Hands messages to other servers.  Any number of deliveries may be under way at once.

    ``signer`` makes our signatures anew where what leaves is not what was signed (``mailsrv/relay/conversion.py``).
    """

    def __init__(
        self,
        settings: Settings,
        outside: Outside,
        resolver: IResolver,
        timeouts: Timeouts | None = None,
        signer: Signer | None = None,
    ) -> None:
        reactor = outside.reactor
        self._settings = settings
        self._reactor = reactor
        self._resolver = resolver
        self._timeouts = timeouts or Timeouts()
        self._converter = Converter(outside, signer)
        self._plans = Plans(outside, resolver)
        self._pool = Pool(reactor)
        self._dialer = Dialer(outside)
        self._contexts = ClientContexts()
        self._tls_failed: Memory[tuple[str, int], None] = Memory(reactor.seconds, _REMEMBERED_S)
        self._unchunked: Memory[tuple[str, int], None] = Memory(reactor.seconds, _REMEMBERED_S)
        self._welcome: Memory[str, str] = Memory(reactor.seconds, _REMEMBERED_S)  # family by destination
        self._dead: Memory[tuple[str, int], None] = Memory(reactor.seconds, _DEAD_S)
        self._config: Config | None = None
        self._running: set[Deferred[None]] = set()

    async def deliver(self, job: Job) -> list[Outcome]:
        """One attempt for every recipient of ``job``; one outcome each, in the order of ``job.recipients``.

        Never raises for anything that the network, the DNS or the other server does; what is broken here (the content
        cannot be read, a bug) is DEFERRED with status 4.3.0 and logged.
        """
        running: Deferred[None] = Deferred()
        self._running.add(running)
        attempt = Attempt(job)
        try:
            await self._deliver(attempt, self._present_config())
        except Exception:
            log.failure("Delivery of {queue_id} to {destination}", queue_id=job.queue_id, destination=job.destination)
            rest = Outcome(Result.DEFERRED, "4.3.0", "Local trouble: see the log of the server.", rule="a bug")
            return [attempt.settled.get(n, rest) for n in range(len(job.recipients))]
        finally:
            self._running.discard(running)
            running.callback(None)
        return attempt.outcomes()

    async def close(self) -> None:
        """Drop what is under way; returns when those attempts have ended, DEFERRED, and every connection is closed."""
        self._pool.clear()
        self._converter.close()
        closed = self._dialer.close()
        await DeferredList([Deferred.fromCoroutine(closed), *self._running])
        self._converter.stop()

    def _present_config(self) -> Config:
        """No connection outlives the configuration by which it was opened."""
        config = self._settings.config
        if self._config is not config:
            self._config = config
            self._pool.clear()
        return config

    async def _deliver(self, attempt: Attempt, config: Config) -> None:
        """Settles whom it can."""
        destination = attempt.job.destination
        route = route_for(config.outbound.routes, destination, config.domains)
        plan = await self._plan(destination, route, config)
        if isinstance(plan, Outcome):
            attempt.troubles.append(Trouble(plan))
            return
        itinerary = self._itinerary(plan, attempt)
        turned_from = ""
        end = self._reactor.seconds() + _LONGEST_S
        for _ in range(_MOST_VISITS):
            hop = itinerary.next_hop()
            if hop is None or self._reactor.seconds() > end:
                return
            other_family = itinerary.has_other_family(hop) and not turned_from
            attempt.other_family = other_family
            trouble = await self._visit(hop, route, config, attempt)
            if trouble is not None:
                attempt.troubles.append(trouble)
            family = family_of(hop.address)
            if turned_from not in ("", family) and any(map(_is_delivered, attempt.settled.values())):
                self._welcome.remember(destination, family)
            if self._dialer.closed or len(attempt.settled) == len(attempt.job.recipients):
                return
            about_us = next(iter(attempt.refused.values()), trouble.outcome if trouble and trouble.about_us else None)
            if other_family and about_us is not None:
                # At once: what is wrong with one address of ours need not be wrong with the other.
                attempt.turn(about_us)
                turned_from = family
                itinerary.turn_from(hop, for_good=bool(attempt.refused))
            elif trouble is not None and trouble.ourselves:
                itinerary.is_us(hop)
            elif trouble is None or trouble.stop:
                return

    async def _plan(self, destination: str, route: Route | None, config: Config) -> Plan | Outcome:
        if route is not None:
            return await hops(self._resolver, route)
        return await self._plans.plan(destination, config)

    def _itinerary(self, plan: Plan, attempt: Attempt) -> Itinerary:
        welcome = self._welcome.get(attempt.job.destination)
        if welcome is not None and any(family_of(hop.address) != welcome for hop in plan):
            attempt.note = f"{welcome} was tried first: the other family was refused here within the last hour."
        return Itinerary(plan, lambda hop: (hop.address, hop.port) in self._dead, welcome, self._pool.has)

    async def _visit(self, hop: Hop, route: Route | None, config: Config, attempt: Attempt) -> Trouble | None:
        """One server, as often as the reason why it did not work is one that can be avoided at once."""
        place = (hop.address, hop.port)
        note = ""
        unchunked = False
        while True:
            waiting = len(attempt.waiting())
            policy = self._policy(hop, route, config, attempt)
            if policy.demand is Demand.CLEAR and not note:
                note = "clear: TLS failed here within the last hour"
            trouble = await self._talk(Key(hop, route, policy), config, attempt, note)
            if trouble is None or self._dialer.closed:
                return trouble
            if trouble.unchunked and not unchunked:
                unchunked = True
                self._unchunked.remember(place, None)
            elif trouble.tls and not policy.needed and policy.demand is not Demand.CLEAR:
                self._tls_failed.remember(place, None)
                note = f"clear: TLS failed: {trouble.tls}"
                log.info("TLS with {hop} failed, going on in clear: {why}", hop=str(hop), why=trouble.tls)
            elif not (trouble.stale and len(attempt.waiting()) < waiting):
                return trouble
            if not attempt.waiting():
                return trouble

    def _policy(self, hop: Hop, route: Route | None, config: Config, attempt: Attempt) -> TlsPolicy:
        failed = (hop.address, hop.port) in self._tls_failed
        return tls_policy(hop, route, attempt.job.destination, config.outbound.tls, failed_lately=failed)

    async def _talk(self, key: Key, config: Config, attempt: Attempt, note: str) -> Trouble | None:
        """Over a kept connection if there is one, and otherwise or when it turns out dead over a new one."""
        session = self._pool.take(key, attempt.job.destination)
        if session is not None:
            trouble = await self._converse(session, config, attempt)
            if trouble is None or not trouble.stale:
                return trouble
            self._pool.drop(key)
        opened = await self._open(key, config, note)
        if isinstance(opened, Trouble):
            return opened
        return await self._converse(opened, config, attempt)

    async def _converse(self, session: Session, config: Config, attempt: Attempt) -> Trouble | None:
        session.chunking = (session.hop.address, session.hop.port) not in self._unchunked
        trouble: Trouble | None = None
        orderly = False
        try:
            trouble = await Conversation(session, attempt, self._converter).deliver()
            orderly = trouble is None
        finally:
            if orderly and config is self._config and not self._dialer.closed:
                self._pool.keep(session)
            else:
                session.client.close()
        return trouble

    async def _open(self, key: Key, config: Config, note: str) -> Session | Trouble:
        hop, place = key.hop, (key.hop.address, key.hop.port)
        core = ClientConnection(config.hostname, secure=key.policy.implicit)
        client = await self._dialer.dial(hop, config.outbound.connect_timeout, core)
        if isinstance(client, Trouble):
            self._dead.remember(place, None)
            return client
        if key.route is None and is_this_server(client, hop, config.listen.smtp):
            client.abort()
            reason = f"Mail would come back to this server: {hop} is one of its own addresses."
            return Trouble(
                Outcome(Result.FAILED, "5.4.6", reason, remote=str(hop), rule="RFC 5321 5.1"), ourselves=True
            )
        tls = ClientTls(self._contexts.get(config, strict=key.policy.demand is Demand.VERIFIED), key.policy.name)
        session = Session(client, key, tls, config.hostname, self._timeouts, note, now=self._reactor.seconds())
        trouble: Trouble | None = None
        opened = False
        try:
            trouble = await session.open()
            opened = trouble is None
        finally:
            if not opened:
                client.close()
        if trouble is None:
            self._dead.forget(place)
            return session
        if not session.greeted:
            self._dead.remember(place, None)
        return trouble


def _is_delivered(outcome: Outcome) -> bool:
    return outcome.result is Result.DELIVERED
