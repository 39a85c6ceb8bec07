"""The checks: one list, asked in its order at every stage of a connection.

The first that defers or rejects decides, and those behind it are not asked; doubts and header fields are gathered in
``Facts``.  Nothing is awaited as long as no check has to wait, and then the order is still that of the list, so one
message has one verdict whatever the weather.

A check that the operator only observes (``checks.observe``) refuses nothing: what it would have refused is an event of
the ledger, and its doubts count for nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from mailsrv.checks.interfaces import Facts, ICheck, Kind, Stage, Verdict
from mailsrv.store import ledger
from mailsrv.store.ledger import Event

_REFUSALS = (Kind.DEFER, Kind.REJECT)


class Checks:
    """``observed`` gives the names of those that only observe; ``record`` takes events for the ledger."""

    def __init__(
        self, members: Sequence[ICheck], observed: Callable[[], Collection[str]], record: Callable[[Event], None]
    ) -> None:
        self.names = tuple(check.name for check in members)
        self._members = tuple(members)
        self._observed = observed
        self._record = record
        self._of_strangers = {stage: tuple(c for c in members if stage in c.stages) for stage in Stage}
        self._of_everybody = {stage: tuple(c for c in members if stage in c.stages and c.everybody) for stage in Stage}

    def ask(self, stage: Stage, facts: Facts) -> Verdict | Coroutine[Deferred[Any], Any, Verdict | None] | None:
        """The verdict that refuses, None when there is none; a coroutine only where something is awaited."""
        members = (self._of_strangers if facts.stranger else self._of_everybody)[stage]
        for n, check in enumerate(members):
            opinion = check.ask(stage, facts)
            if opinion is None:
                continue
            if not isinstance(opinion, Verdict):
                assert stage is not Stage.CONNECT, f"{check.name} awaits something before the greeting"
                return self._go_on(stage, facts, check, opinion, members[n + 1 :])
            if self._decides(check, opinion, stage, facts):
                return opinion
        return None

    async def _go_on(
        self,
        stage: Stage,
        facts: Facts,
        check: ICheck,
        awaited: Awaitable[Verdict | None],
        others: Sequence[ICheck],
    ) -> Verdict | None:
        verdict = await awaited
        if verdict is not None and self._decides(check, verdict, stage, facts):
            return verdict
        for other in others:
            opinion = other.ask(stage, facts)
            if opinion is not None and not isinstance(opinion, Verdict):
                opinion = await opinion
            if opinion is not None and self._decides(other, opinion, stage, facts):
                return opinion
        return None

    def _decides(self, check: ICheck, verdict: Verdict, stage: Stage, facts: Facts) -> bool:
        """Whether the verdict is the last word; what else it says is noted."""
        observed = check.name in self._observed()
        if verdict.headers:
            facts.fields.append(verdict.headers)
        facts.removed.update(verdict.removed)
        if verdict.kind in _REFUSALS:
            if observed:
                self._tell(check, verdict, stage, facts)
            return not observed
        if verdict.kind is Kind.DOUBT and not observed:
            facts.doubts[check.name] = verdict
        return False

    def _tell(self, check: ICheck, verdict: Verdict, stage: Stage, facts: Facts) -> None:
        whom = facts.recipients if stage is Stage.DATA else [facts.recipient] if stage is Stage.RCPT else []
        for address in whom or [None]:
            self._record(
                Event(
                    ledger.OBSERVED,
                    address=str(address) if address else "",
                    sender=str(facts.sender) if facts.sender else "",
                    client=facts.client,
                    status=verdict.status,
                    reason=verdict.reason,
                    rule=f"{verdict.rule} (checks.observe: {check.name})",
                    detail=stage.value,
                )
            )

    def end(self, facts: Facts) -> None:
        """The connection is over."""
        if facts.kept:
            for check in self._members:
                if check.name in facts.kept:
                    check.end(facts)
