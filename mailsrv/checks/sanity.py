"""Header sections that programs read differently are refused (RFC 5322 3.6).

Not more than one of each field that people and filters go by: with two of them, one reader shows what another has not
looked at.  No From at all, or a line that is no field, is only a doubt: scripts and small devices send such mail.

Only what is there is judged: of a header section too long for the memory the beginning, and its From may come later.
"""

from __future__ import annotations

import re

from zope.interface import implementer

from mailsrv.checks.interfaces import Facts, ICheck, Stage, Verdict, doubt, reject

_SINGLE = ("From", "Date", "Message-ID", "Subject", "To", "Cc", "Reply-To", "Sender")
_BY_KEY = {name.lower().encode(): name for name in _SINGLE}
_RULE = "RFC 5322 3.6"
_NAME = re.compile(rb"\n([!-9;-~]+)[ \t]*:")  # RFC 5322 2.2, 4.5


@implementer(ICheck)
class Sanity:
    """Looks at the names of the fields, in one pass."""

    name = "sanity"
    stages = frozenset({Stage.DATA})
    everybody = False

    def ask(self, stage: Stage, facts: Facts) -> Verdict | None:
        section = b"\n" + _fields(facts).lower()
        names = _NAME.findall(section)
        single = [name for name in names if name in _BY_KEY]
        if len(set(single)) < len(single):
            twice = next(name for name in _BY_KEY if single.count(name) > 1)
            return _refused(f"The message has more than one {_BY_KEY[twice]} field")
        if b"from" not in single and facts.whole:
            return doubt(reason="the message has no From field", rule=_RULE)
        continued = section.count(b"\n ") + section.count(b"\n\t")
        if section.count(b"\n") != len(names) + continued or section.startswith((b"\n ", b"\n\t")):
            return doubt(reason="the header section has a line that is no field", rule=_RULE)
        return None

    def end(self, facts: Facts) -> None:
        pass


def _fields(facts: Facts) -> bytes:
    """The lines of fields, without the last line end: it is followed by nothing, or by a line that may be cut."""
    header = facts.header
    if not facts.whole:
        return header[: max(header.rfind(b"\r\n"), 0)]
    return header.removesuffix(b"\r\n").removesuffix(b"\r\n")


def _refused(problem: str) -> Verdict:
    return reject(550, "5.6.0", problem, reason=problem[0].lower() + problem[1:], rule=_RULE)
