"""One attempt to hand a message to the servers of one destination.

``Relay.deliver`` finds the servers (a route, or the MX plan), visits them in turn until each recipient has a definite
answer, and tells what became of each.  It keeps no mail and no schedule: that is the queue's business.  What it
remembers, in memory only and bounded, is where TLS does not work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from zope.interface import implementer

from mailsrv.config import Config, Route
from mailsrv.mail.outcome import Outcome, Result
from mailsrv.outside.interfaces import IResolver, Outside
from mailsrv.relay import mx
from mailsrv.relay.connection import SmtpClient, Timeouts
from mailsrv.relay.conversation import Conversation, Settled, Trouble
from mailsrv.relay.job import ContentSource, IDeliveryAgent, Job
from mailsrv.relay.mx import Hop, Plan
from mailsrv.relay.route import hops, listening_addresses, route_for
from mailsrv.relay.tls import ClientTls, Demand, TlsPolicy, client_context, tls_policy
from mailsrv.smtp.client import ClientConnection

__all__ = ["ContentSource", "Job", "Relay", "Settings"]

_MOST_VISITS: Final = 12  # servers asked in one attempt
_REMEMBERED_S: Final = 3600.0  # how long a failed handshake keeps us from trying TLS again
_MOST_REMEMBERED: Final = 10_000

log = Logger()


class Settings(Protocol):
    """Where the present configuration is found; it may change between two uses."""

    @property
    def config(self) -> Config: ...


@implementer(IDeliveryAgent)
class Relay:
    """Hands messages to other servers.  Any number of deliveries may be under way at once."""

    def __init__(
        self, settings: Settings, outside: Outside, resolver: IResolver, timeouts: Timeouts | None = None
    ) -> None:
        self._settings = settings
        self._outside = outside
        self._resolver = resolver
        self._timeouts = timeouts or Timeouts()
        self._tls_failed: dict[tuple[str, int], float] = {}
        self._contexts: dict[tuple[str, bool], SSL.Context] = {}
        self._contexts_for: Config | None = None
        self._clients: set[SmtpClient] = set()
        self._dials: set[Deferred[Any]] = set()
        self._running: set[Deferred[None]] = set()
        self._closed = False

    async def deliver(self, job: Job) -> list[Outcome]:
        """One attempt for every recipient of ``job``; one outcome each, in the order of ``job.recipients``.

        Never raises for anything that the network, the DNS or the other server does; what is broken here (the content
        cannot be read, a bug) is DEFERRED with status 4.3.0 and logged.
        """
        running: Deferred[None] = Deferred()
        self._running.add(running)
        settled: Settled = {}
        try:
            rest = await self._deliver(job, self._settings.config, settled)
        except Exception:
            log.failure("Delivery of {queue_id} to {destination}", queue_id=job.queue_id, destination=job.destination)
            rest = Outcome(Result.DEFERRED, "4.3.0", "Local trouble: see the log of the server.", rule="a bug")
        finally:
            self._running.discard(running)
            running.callback(None)
        return [settled.get(n, rest) for n in range(len(job.recipients))]

    async def close(self) -> None:
        """Drop all connections at once; returns when the attempts under way have ended, DEFERRED, and all is closed."""
        self._closed = True
        for dial in list(self._dials):
            dial.cancel()
        for client in list(self._clients):
            client.abort()
        await DeferredList([*self._running, *(client.closed for client in self._clients)])

    async def _deliver(self, job: Job, config: Config, settled: Settled) -> Outcome:
        """Settles whom it can; the outcome for the others."""
        route = route_for(config.outbound.routes, job.destination, config.domains)
        plan = await self._plan(job.destination, route, config)
        if isinstance(plan, Outcome):
            return plan
        troubles: list[Outcome] = []
        for hop in plan[:_MOST_VISITS]:
            trouble = await self._visit(hop, route, config, job, settled)
            if trouble is not None:
                troubles.append(trouble.outcome)
            if trouble is None or trouble.stop or len(settled) == len(job.recipients) or self._closed:
                break
        return _together(troubles)

    async def _plan(self, destination: str, route: Route | None, config: Config) -> Plan | Outcome:
        if route is not None:
            return await hops(self._resolver, route)
        return await mx.plan(
            self._resolver,
            destination,
            hostname=config.hostname,
            own_addresses=listening_addresses(config.listen.smtp),
            random=self._outside.random,
        )

    async def _visit(self, hop: Hop, route: Route | None, config: Config, job: Job, settled: Settled) -> Trouble | None:
        """One server: once, or a second time in clear when TLS failed and is not demanded."""
        policy = tls_policy(hop, route, failed_lately=self._tls_has_failed(hop))
        note = "clear: TLS failed here within the last hour" if policy.demand is Demand.CLEAR else ""
        trouble = await self._talk(hop, route, policy, config, job, settled, note)
        if trouble is None or not trouble.tls or policy.needed or self._closed:
            return trouble
        self._remember_tls_failure(hop)
        log.info("TLS with {hop} failed, going on in clear: {why}", hop=str(hop), why=trouble.tls)
        policy = tls_policy(hop, route, failed_lately=True)
        return await self._talk(hop, route, policy, config, job, settled, f"clear: TLS failed: {trouble.tls}")

    async def _talk(
        self,
        hop: Hop,
        route: Route | None,
        policy: TlsPolicy,
        config: Config,
        job: Job,
        settled: Settled,
        note: str,
    ) -> Trouble | None:
        core = ClientConnection(config.hostname, secure=policy.implicit)
        client = SmtpClient(self._outside.reactor, core)
        trouble = await self._dial(client, hop, config.outbound.connect_timeout)
        if trouble is not None:
            return trouble
        tls = ClientTls(self._context(config, strict=policy.demand is Demand.VERIFIED), policy.name)
        conversation = Conversation(client, hop, route, policy, tls, config.hostname, self._timeouts, note)
        return await conversation.deliver(job, settled)

    async def _dial(self, client: SmtpClient, hop: Hop, timeout_s: float) -> Trouble | None:
        if self._closed:
            return Trouble(Outcome(Result.DEFERRED, "4.3.2", "This server is shutting down."))
        endpoint: Any = TCP6ClientEndpoint if ":" in hop.address else TCP4ClientEndpoint
        factory = Factory.forProtocol(lambda: client)
        factory.noisy = False
        dial = endpoint(self._outside.reactor, hop.address, hop.port, timeout=timeout_s).connect(factory)
        self._dials.add(dial)
        try:
            await dial
        except ConnectTimeout:
            reason = f"{hop} did not answer within {timeout_s:g} seconds."
        except (ConnectError, ConnectingCancelledError, CancelledError, OSError) as error:
            reason = f"No connection with {hop}: {_in_words(error)}."
        else:
            self._clients.add(client)
            client.closed.addCallback(lambda _: self._clients.discard(client))
            return None
        finally:
            self._dials.discard(dial)
        return Trouble(Outcome(Result.DEFERRED, "4.4.1", reason, remote=str(hop)))

    # TLS.

    def _context(self, config: Config, *, strict: bool) -> SSL.Context:
        """Kept as long as the configuration is the same."""
        if self._contexts_for is not config:
            self._contexts_for = config
            self._contexts.clear()
        key = (config.tls.authorities, strict)
        if key not in self._contexts:
            try:
                self._contexts[key] = client_context(config.tls.authorities, strict=strict)
            except OSError as error:
                log.warn("[tls] authorities is not used: {error}", error=str(error))
                self._contexts[key] = client_context("", strict=strict)
        return self._contexts[key]

    def _tls_has_failed(self, hop: Hop) -> bool:
        until = self._tls_failed.get((hop.address, hop.port))
        return until is not None and self._outside.reactor.seconds() < until

    def _remember_tls_failure(self, hop: Hop) -> None:
        now = self._outside.reactor.seconds()
        if len(self._tls_failed) >= _MOST_REMEMBERED:
            self._tls_failed = {host: until for host, until in self._tls_failed.items() if until > now}
        if len(self._tls_failed) < _MOST_REMEMBERED:
            self._tls_failed[hop.address, hop.port] = now + _REMEMBERED_S


def _together(troubles: Sequence[Outcome]) -> Outcome:
    """One outcome for several servers that were of no use: FAILED only if all said so, else the last that spoke."""
    if not troubles:
        return Outcome(Result.DEFERRED, "4.3.0", "Nothing is known about this recipient.", rule="a bug")
    waiting = [outcome for outcome in troubles if outcome.result is Result.DEFERRED]
    spoke = [outcome for outcome in waiting if outcome.answer]
    return (spoke or waiting or list(troubles))[-1]


def _in_words(error: BaseException) -> str:
    text = str(error).split("\n")[0].rstrip(".")
    return text or type(error).__name__
