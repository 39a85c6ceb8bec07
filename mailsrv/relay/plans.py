"""MX plans for a burst: looked up once, kept for seconds, and shuffled anew for each message.

The resolver below keeps answers as long as their TTL allows; here is spared the work of a dozen questions for each
message, and of asking the same thing ten times at once.  A plan is at most ``KEPT_S`` older than the DNS's own word.
Failures are not kept: the next attempt asks again.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mailsrv.config import Config
from mailsrv.mail.outcome import Outcome
from mailsrv.outside.interfaces import IResolver, Outside
from mailsrv.relay import mx
from mailsrv.relay.memory import Memory
from mailsrv.relay.mx import Plan
from mailsrv.relay.route import listening_addresses

KEPT_S: Final = 5.0
_MOST: Final = 1000


class Plans:
    """``plan`` for a domain, by the configuration of the moment."""

    def __init__(self, outside: Outside, resolver: IResolver) -> None:
        self._outside = outside
        self._resolver = resolver
        self._config: Config | None = None
        self._kept: Memory[str, Plan] = Memory(outside.reactor.seconds, KEPT_S, _MOST)
        self._asking: dict[str, list[Deferred[Plan | Outcome]]] = {}

    async def plan(self, domain: str, config: Config) -> Plan | Outcome:
        if self._config is not config:
            self._config = config
            self._kept.clear()
            self._asking = {}  # what is under way was asked for another configuration
        kept = self._kept.get(domain)
        found = kept if kept is not None else await self._looked_up(domain, config)
        return found if isinstance(found, Outcome) else mx.shuffled(found, self._outside.random)

    async def _looked_up(self, domain: str, config: Config) -> Plan | Outcome:
        waiting = self._asking.get(domain)
        if waiting is not None:
            answer: Deferred[Plan | Outcome] = Deferred()
            waiting.append(answer)
            return await answer
        asking = self._asking
        asking[domain] = waiting = []
        found: Any
        try:
            found = await mx.plan(
                self._resolver,
                domain,
                hostname=config.hostname,
                own_addresses=listening_addresses(config.listen.smtp),
                random=self._outside.random,
            )
            if not isinstance(found, Outcome) and asking is self._asking:
                self._kept.remember(domain, found)
        except BaseException:
            found = Failure()
            raise
        finally:
            del asking[domain]
            for answer in waiting:
                answer.callback(found)
        return found  # type: ignore[no-any-return]
