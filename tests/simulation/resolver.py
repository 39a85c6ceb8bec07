"""The resolver of a simulated world: records, answered late and sometimes not at all."""

from __future__ import annotations

import random

from twisted.internet.defer import Deferred
from zope.interface import implementer

from mailsrv.outside.interfaces import Answer, IResolver, LookupFailed
from tests.simulation.timeline import Life, Timeline
from tests.worlds.resolver import RecordsResolver


class Zone:
    """What the world's DNS says, and how reliably.

    ``failing`` is the share of questions that end in SERVFAIL or a time-out; ``latency_s`` is how long an answer takes.
    """

    def __init__(self, rng: random.Random, records: RecordsResolver) -> None:
        self.rng = rng
        self.records = records
        self.failing = 0.0
        self.latency_s = (0.001, 0.2)


@implementer(IResolver)
class SimulatedResolver:
    def __init__(self, zone: Zone, timeline: Timeline, life: Life) -> None:
        self._zone = zone
        self._timeline = timeline
        self._life = life

    async def query(self, name: str, kind: str) -> Answer:
        zone = self._zone
        fate, delay = zone.rng.random(), zone.rng.uniform(*zone.latency_s)
        if fate < zone.failing / 2:
            delay = 15.0
        waiting: Deferred[None] = Deferred()
        self._timeline.at(self._timeline.now + delay, self._life, waiting.callback, None)
        await waiting
        if fate < zone.failing:
            raise LookupFailed(f"{name} {kind}: {'no answer in time' if delay == 15.0 else 'SERVFAIL'}")
        return await zone.records.query(name, kind)
