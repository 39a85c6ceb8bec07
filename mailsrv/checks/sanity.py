"""Header sections that programs read differently are refused (RFC 5322 3.6).

Not more than one of each field that people and filters go by: with two of them, one reader shows what another has not
looked at.  No From at all, or a line that is no field, is only a doubt: scripts and small devices send such mail.

Only what is there is judged: of a header section too long for the memory the beginning, and its From may come later.
"""

from __future__ import annotations

import re
from itertools import islice

from zope.interface import implementer

from mailsrv.checks.interfaces import Facts, ICheck, Stage, Verdict, doubt, reject

_SINGLE = ("From", "Date", "Message-ID", "Subject", "To", "Cc", "Reply-To", "Sender")
_RULE = "RFC 5322 3.6"
# How each of them begins, in lower case, and what has to follow (RFC 5322 2.2, 4.5).
_BEGINNINGS = {name: b"\n" + name.lower().encode() for name in _SINGLE}
_FIELDS = {name: re.compile(beginning + rb"[ \t]*:") for name, beginning in _BEGINNINGS.items()}
_NO_FIELD = re.compile(rb"\n(?![ \t]|[!-9;-~]+[ \t]*:)")


@implementer(ICheck)
class Sanity:
    """Looks at the names of the fields, without making anything of each: there may be a quarter of a million."""

    name = "sanity"
    stages = frozenset({Stage.DATA})
    everybody = False

    def ask(self, stage: Stage, facts: Facts) -> Verdict | None:
        section = b"\n" + _fields(facts).lower()
        for name, beginning in _BEGINNINGS.items():
            if section.count(beginning) > 1 and len(list(islice(_FIELDS[name].finditer(section), 2))) > 1:
                return _refused(f"The message has more than one {name} field")
        if facts.whole and not _FIELDS["From"].search(section):
            return doubt(reason="the message has no From field", rule=_RULE)
        if section.startswith((b"\n ", b"\n\t")) or _NO_FIELD.search(section):
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
