"""A message that goes round in circles is stopped (RFC 5321 6.3), whoever brings it."""

from __future__ import annotations

from zope.interface import implementer

from mailsrv.checks.interfaces import Facts, ICheck, Stage, Verdict, reject

HOPS = 50  # more Received fields than any real way has


@implementer(ICheck)
class HopLimit:
    """Counts Received fields."""

    name = "hop_limit"
    stages = frozenset({Stage.DATA})
    everybody = True

    def ask(self, stage: Stage, facts: Facts) -> Verdict | None:
        if facts.scan.received <= HOPS:
            return None
        return reject(
            *(554, "5.4.6", "The message goes round in circles: too many Received fields"),
            reason=f"it has been through {facts.scan.received} servers",
            rule="RFC 5321 6.3",
        )

    def end(self, facts: Facts) -> None:
        pass
