"""Known refusals of other servers: what they mean, what this server does about them, what its operator is to do.

``remedy_for`` reads what a server said and looks it up: the large providers first, then blocklists, then what servers
of any make say.  A code such as ``[TSS04]`` counts where its owner puts it, not wherever it occurs; addresses, which
strangers choose and servers repeat, are taken out before.  What no row knows has no remedy, and the schedule holds.

Pure, and linear in the length of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from mailsrv.relay.remedies import blocklists, generic, google, microsoft, providers
from mailsrv.relay.remedies.remedy import Action, Remedy, Row

__all__ = ["Action", "Remedy", "remedies", "remedy_for", "remedy_of"]

_ROWS: Final[tuple[Row, ...]] = (
    *google.ROWS,
    *microsoft.ROWS,
    *providers.ROWS,
    *blocklists.ROWS,
    *generic.ROWS,
)
_BY_CAUSE: Final = {row.remedy.cause: row.remedy for row in _ROWS}

_LONGEST = 2000  # characters that are looked at
_HEAD = re.compile(r"([45][0-9]{2})[ ;:#-]*(?:([245]\.[0-9]{1,3}\.[0-9]{1,3})(?=[ :;]|$))?[ ;:]*(.*)", re.DOTALL)
# Whatever stands in angle brackets, and whatever is or looks like an address.
_ECHOED = re.compile(r"<[^<>]*>|\"[^\"]*\"@[^\s,;]*|(?<![^\s<>(),;:\"])[^\s<>(),;:\"@]*@[^\s<>(),;]*")


@lru_cache(maxsize=256)  # an answer is asked about several times, and of many messages
def remedy_for(answer: str) -> Remedy | None:
    """What helps against ``answer``, an :attr:`mailsrv.mail.outcome.Outcome.answer`; None when it is not known."""
    found = _HEAD.match(answer[:_LONGEST])
    if found is None:
        return None
    code, status, text = found[1], found[2] or "", found[3]
    text = _ECHOED.sub(" ", text)
    if status:  # each line of a reply has it, in the middle of sentences
        text = re.sub(rf"(?<!\S){re.escape(status)}(?!\S)", " ", text)
    text = " ".join(text.split())
    head = f"{code} {status}"
    for row in _ROWS:
        if row.head.fullmatch(head) and row.words.search(text):
            return row.remedy
    return None


def remedy_of(cause: str) -> Remedy | None:
    """The remedy that has the key ``cause``."""
    return _BY_CAUSE.get(cause)


def remedies() -> Iterator[Remedy]:
    """All of them, each once."""
    return iter(_BY_CAUSE.values())
