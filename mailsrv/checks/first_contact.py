"""A delay for senders whom nobody here knows, and only where another check is in doubt.

This is not greylisting: most strangers are taken at once.  A sender is known when one of our users has written to it,
or when a message from it was accepted before, as far back as the ledger goes.  Who is put off is put off once: after
the time that ``checks.first_contact`` says the message is taken, from wherever it comes, and a restart does not forget.
Reports (the null reverse-path) cannot be known and are never put off.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Callable

from zope.interface import implementer

from mailsrv.checks.interfaces import Facts, ICheck, Opinion, Stage, Verdict, defer
from mailsrv.mail.address import Address
from mailsrv.store.database import Database

REMEMBERED = 10_000  # senders that were put off; the ledger has the others
RULE = "checks.first_contact"

_ACCEPTED = "SELECT 1 FROM message WHERE sender = ? AND account = '' LIMIT 1"
# The conditions repeat those of the partial indexes, or SQLite would not use them.  People write Bob for bob.
_WRITTEN_TO = (
    "SELECT 1 FROM recipient JOIN message ON message.id = recipient.message"
    " WHERE lower(recipient.address) = lower(?) AND recipient.mailbox = '' AND message.account <> '' LIMIT 1",
    "SELECT 1 FROM recipient JOIN message ON message.id = recipient.message"
    " WHERE recipient.original = ? AND recipient.original <> recipient.address AND message.account <> '' LIMIT 1",
)
_PUT_OFF = (
    "SELECT min(at) FROM event WHERE message IS NULL AND sender = ? AND sender <> '' AND kind = 'refused' AND rule = ?"
)


def is_known(connection: sqlite3.Connection, sender: Address) -> bool:
    """Whether a message from ``sender`` was accepted, or one of our users has written to it."""
    for spelling in {str(sender), sender.key}:
        for query in (_ACCEPTED, *_WRITTEN_TO):
            if connection.execute(query, (spelling,)).fetchone() is not None:
                return True
    return False


def put_off_at(connection: sqlite3.Connection, sender: Address) -> float | None:
    """When ``sender`` was first put off, seconds since 1970; None: never."""
    at: float | None = connection.execute(_PUT_OFF, (str(sender), RULE)).fetchone()[0]
    return at


@implementer(ICheck)
class FirstContact:
    """``delay_s`` is asked each time, 0.0 turns it off; ``wall`` gives seconds since 1970."""

    name = "first_contact"
    stages = frozenset({Stage.DATA})
    everybody = False

    def __init__(self, delay_s: Callable[[], float], database: Database, wall: Callable[[], float]) -> None:
        self._delay_s = delay_s
        self._database = database
        self._wall = wall
        self._put_off: OrderedDict[str, float] = OrderedDict()

    def ask(self, stage: Stage, facts: Facts) -> Opinion:
        if not facts.doubts or facts.sender is None or not self._delay_s():
            return None
        return self._look(facts.sender, "; ".join(doubt.reason for doubt in facts.doubts.values()))

    async def _look(self, sender: Address, doubts: str) -> Verdict | None:
        if await self._database.read(is_known, sender):
            return None
        delay_s, now = self._delay_s(), self._wall()
        since = self._put_off.get(str(sender))
        if since is None:
            since = await self._database.read(put_off_at, sender)
        if since is None or since > now:
            since = now  # since the future: the clock was set back, and nobody waits until it has caught up
        self._put_off[str(sender)] = since
        if len(self._put_off) > REMEMBERED:
            self._put_off.popitem(last=False)
        if now >= since + delay_s:
            return None
        minutes = max(1, round((since + delay_s - now) / 60))
        return defer(
            *(451, "4.7.1", f"We do not know this sender yet; try again in {minutes} minute{'s'[: minutes > 1]}"),
            reason=f"nobody here knows the sender, and {doubts}",
            rule=RULE,
        )

    def end(self, facts: Facts) -> None:
        pass
