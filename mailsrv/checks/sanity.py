"""Header sections that programs read differently are refused (RFC 5322 3.6).

One From, and not more than one of the other fields that people and filters go by: with two of them, one reader shows
what another has not looked at.  Every line of the header section is a field or continues one, for the same reason.

Only what is there is judged: of a header section too long for the memory the beginning, and its From may come later.
"""

from __future__ import annotations

import re

from zope.interface import implementer

from mailsrv.checks.interfaces import Facts, ICheck, Stage, Verdict, reject

_SINGLE = ("From", "Date", "Message-ID", "Subject", "To", "Cc", "Reply-To", "Sender")
_FIELD = re.compile("^({})[ \t]*:".format("|".join(_SINGLE)).encode().lower(), re.MULTILINE)
# A line that neither begins with a name (RFC 5322 2.2, 4.5) nor continues a field.
_NO_FIELD = re.compile(rb"^(?![!-9;-~]+[ \t]*:|[ \t\r]|\Z)", re.MULTILINE)


@implementer(ICheck)
class Sanity:
    """Looks at the names of the fields, in one pass."""

    name = "sanity"
    stages = frozenset({Stage.DATA})
    everybody = False

    def ask(self, stage: Stage, facts: Facts) -> Verdict | None:
        names = _FIELD.findall(facts.header.lower())
        if len(set(names)) < len(names):
            field = next(name for name in _SINGLE if names.count(name.lower().encode()) > 1)
            return _refused(f"The message has more than one {field} field")
        if b"from" not in names and facts.whole:
            return _refused("The message has no From field")
        if facts.header.startswith((b" ", b"\t")) or _NO_FIELD.search(facts.header if facts.whole else _lines(facts)):
            return _refused("The header section has a line that is no field")
        return None

    def end(self, facts: Facts) -> None:
        pass


def _lines(facts: Facts) -> bytes:
    """The header section without its last line, which may be cut."""
    return facts.header[: facts.header.rfind(b"\n") + 1]


def _refused(problem: str) -> Verdict:
    return reject(550, "5.6.0", problem, reason=problem[0].lower() + problem[1:], rule="RFC 5322 3.6")
