"""The resolver of a simulated world: records, answered late and sometimes not at all."""

from __future__ import annotations

import random
from collections.abc import Callable

from twisted.internet.defer import Deferred
from zope.interface import implementer

from mailsrv.outside.interfaces import Answer, IResolver, LookupFailed
from tests.simulation.timeline import Life, Timeline
from tests.worlds.resolver import RecordsResolver


class Zone:
    """What the world's DNS says, and how reliably.

    ``failing`` is the share of questions that end in SERVFAIL or a time-out; ``latency_s`` is how long an answer takes.
    ``troubles`` says for a name until when it is answered by which failure; what comes too late, or answers another
    question, is waited for in vain.  ``reachable``: whether there is any way to a server.
    """

    def __init__(self, rng: random.Random, records: RecordsResolver) -> None:
        self.rng = rng
        self.records = records
        self.failing = 0.0
        self.latency_s = (0.001, 0.2)
        self.troubles: dict[str, tuple[float, LookupFailed]] = {}
        self.reachable: Callable[[], bool] = lambda: True


@implementer(IResolver)
class SimulatedResolver:
    def __init__(self, zone: Zone, timeline: Timeline, life: Life) -> None:
        self._zone = zone
        self._timeline = timeline
        self._life = life

    async def query(self, name: str, kind: str) -> Answer:
        zone = self._zone
        fate, delay = zone.rng.random(), zone.rng.uniform(*zone.latency_s)
        until, trouble = zone.troubles.get(name, (0.0, None))
        if self._timeline.now >= until:
            trouble = None
        if fate < zone.failing / 2 or (trouble is not None and "answer" in str(trouble)):
            delay = 15.0
        waiting: Deferred[None] = Deferred()
        self._timeline.at(self._timeline.now + delay, self._life, waiting.callback, None)
        await waiting
        if trouble is not None:
            raise LookupFailed(f"{name} {kind}: {trouble}")
        if not zone.reachable():
            raise LookupFailed(f"{name} {kind}: no way to any server")
        if fate < zone.failing:
            raise LookupFailed(f"{name} {kind}: {'no answer in time' if delay == 15.0 else 'SERVFAIL'}")
        return await zone.records.query(name, kind)
