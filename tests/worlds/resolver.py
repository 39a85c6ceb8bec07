"""DNS made of records: an ``IResolver`` for policy tests and for the simulation.

It passes the same contract tests as the real one (``tests/outside/test_resolver.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zope.interface import implementer

from mailsrv.outside.interfaces import Answer, IResolver, LookupFailed, NameNotFound

Trouble = NameNotFound | LookupFailed | type[NameNotFound] | type[LookupFailed]
Records = Mapping[tuple[str, str], Sequence[Any] | Trouble]

_LONGEST_CHAIN = 8


@implementer(IResolver)
class RecordsResolver:
    """Answers from ``{("example.net", "MX"): [(10, "mx.example.net")], ("down.example", "MX"): LookupFailed}``.

    A value is a list of records in the form of ``Answer.records``, or an exception (class or instance) to raise.  A
    name that has a record of any kind, or one below it, exists, and without the kind asked for answers with no records;
    any other name raises NameNotFound.  ``(name, "CNAME"): ["target"]`` is followed.  ``records`` may be changed
    at any time; ``asked`` lists the questions in order.
    """

    def __init__(self, records: Records | None = None, *, authenticated: bool = False) -> None:
        self.records: dict[tuple[str, str], Sequence[Any] | Trouble] = dict(records or {})
        self.authenticated = authenticated
        self.asked: list[tuple[str, str]] = []

    async def query(self, name: str, kind: str) -> Answer:
        self.asked.append((name, kind))
        name = name.lower().removesuffix(".")
        for _ in range(_LONGEST_CHAIN):
            found = self.records.get((name, kind))
            if found is None and kind != "CNAME":
                alias = self.records.get((name, "CNAME"))
                if isinstance(alias, Sequence) and alias:
                    name = alias[0]
                    continue
                found = alias
            if isinstance(found, Sequence):
                return Answer(tuple(found), name, self.authenticated)
            if isinstance(found, type):
                raise found(f"{name} {kind}")
            if found is not None:
                raise found
            if self._exists(name):
                return Answer((), name, self.authenticated)
            raise NameNotFound(name)
        raise LookupFailed(f"{name}: a loop of CNAME records")

    def _exists(self, name: str) -> bool:
        """RFC 8020: a name exists when it or a name below it has records."""
        return any(
            (known == name or known.endswith("." + name)) and isinstance(value, Sequence)
            for (known, _), value in self.records.items()
        )
