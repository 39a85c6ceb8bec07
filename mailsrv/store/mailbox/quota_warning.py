"""A mail to an account that has nearly used up its quota: once when it is above the level, again after it was below.

What was told is in the database (``notices``), so a restart tells nobody twice.  The mail itself is never refused for
lack of room, since nothing that the server accepts from itself is.
"""

from __future__ import annotations

import math

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailsrv.mail.address import Address
from mailsrv.outside.interfaces import Outside
from mailsrv.store import notices
from mailsrv.store.database import Database
from mailsrv.store.mailbox.quota import Quota, Usage
from mailsrv.store.notices import Notice, Notices
from mailsrv.store.settings import Settings

_CAUSE = "quota "

log = Logger()


class QuotaWarnings:
    """``usage`` hears of each change."""

    def __init__(self, settings: Settings, outside: Outside, database: Database, notices: Notices) -> None:
        self._settings = settings
        self._outside = outside
        self._database = database
        self._notices = notices
        self._warned: set[str] | None = None  # None: what the last run has told is not known yet
        self._crossing: set[str] = set()  # mailboxes that are being seen to
        self._latest: dict[str, tuple[Quota, Usage]] = {}  # of those, when it has changed meanwhile

    def usage(self, mailbox: str, quota: Quota, usage: Usage) -> None:
        """What a mailbox holds now."""
        if mailbox in self._crossing:
            self._latest[mailbox] = quota, usage
        elif self._warned is None or (mailbox in self._warned) != self._is_above(quota, usage):
            self._crossing.add(mailbox)
            Deferred.fromCoroutine(self._cross(mailbox, quota, usage)).addErrback(self._failed, mailbox)

    def _is_above(self, quota: Quota, usage: Usage) -> bool:
        level = self._settings.config.limits.quota_warning
        return level > 0 and quota.share(usage) >= level

    async def _cross(self, mailbox: str, quota: Quota, usage: Usage) -> None:
        if self._warned is None:
            told = await self._database.read(notices.counts)
            self._warned = {each.cause.removeprefix(_CAUSE) for each in told if each.cause.startswith(_CAUSE)}
        if self._is_above(quota, usage) and mailbox not in self._warned:
            await self._tell(mailbox, quota, usage)
            self._warned.add(mailbox)
        elif not self._is_above(quota, usage) and mailbox in self._warned:
            await self._database.write(notices.forget, _CAUSE + mailbox)
            self._warned.discard(mailbox)
        self._crossing.discard(mailbox)
        latest = self._latest.pop(mailbox, None)
        if latest is not None:
            self.usage(mailbox, *latest)

    def _failed(self, failure: object, mailbox: str) -> None:
        self._crossing.discard(mailbox)
        self._latest.pop(mailbox, None)
        log.error("{mailbox} could not be warned of its quota: {failure}", mailbox=mailbox, failure=failure)

    async def _tell(self, mailbox: str, quota: Quota, usage: Usage) -> None:
        now = self._outside.wall()
        subject = f"Your mailbox is {math.floor(100 * quota.share(usage))}% full"
        composed = await self._notices.compose(Address.parse(mailbox), subject, _text(mailbox, quota, usage), now)
        await self._notices.tell(Notice(_CAUSE + mailbox, composed, quiet_s=math.inf))


def _text(mailbox: str, quota: Quota, usage: Usage) -> str:
    lines = [f"The mailbox of {mailbox} is nearly full:", ""]
    if quota.octets:
        lines.append(f"  {in_words(usage.octets)} of {in_words(quota.octets)}")
    if quota.messages:
        lines.append(f"  {usage.messages} of {quota.messages} messages")
    lines += [
        "",
        "When nothing more fits in, new mail is not taken until there is room again: other servers keep it and try "
        "again for some days, then it goes back to its senders.",
        "",
        "Delete what you do not need any more, in all folders, or ask your postmaster for more room.",
    ]
    return "\n".join(lines)


def in_words(octets: int) -> str:
    """``1.5 GiB``."""
    amount, units = float(octets), ["octets", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount /= 1024
        units.pop(0)
    return f"{octets} octets" if units[0] == "octets" else f"{amount:.1f} {units[0]}"
