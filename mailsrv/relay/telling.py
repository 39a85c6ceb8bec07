"""What the postmaster is told of, beside what senders are told: refusals with a remedy, and lost reports.

Known refusals (``remedies``) are counted for every attempt, and told once for each cause, with what helps; the
notice is accepted in the transaction that settles the attempt.  A report of ours that nobody took is a double bounce:
neither the message nor the report has reached anybody, so the postmaster gets it.  Spam with forged senders that is
forwarded and refused makes such reports in any number, so they have a pace; what is beyond it is dropped under a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mailsrv.mail.address import POSTMASTER
from mailsrv.mail.outcome import Outcome, Result
from mailsrv.relay.remedies import Remedy, remedy_for
from mailsrv.store import queue_id
from mailsrv.store.message import QueuedMessage, QueuedRecipient
from mailsrv.store.notices import QUIET_S, Notice, Notices

DOUBLES = 20  # double bounces at once
DOUBLE_EVERY_S = 180.0  # and then one in this time


@dataclass(frozen=True, slots=True)
class _Seen:
    """A cause in one attempt: how many recipients, and the first of them."""

    remedy: Remedy
    recipient: QueuedRecipient
    outcome: Outcome
    times: int


class Postmaster:
    """``hostname`` gives the name of this server."""

    def __init__(self, written: Notices, hostname: Callable[[], str]) -> None:
        self._notices = written
        self._hostname = hostname

    async def refusals(
        self, queued: QueuedMessage, outcomes: Sequence[tuple[QueuedRecipient, Outcome]], now: float
    ) -> tuple[Notice, ...]:
        """The causes of an attempt's refusals, counted; each with a notice where one may be due."""
        told = []
        for seen in _causes(outcomes).values():
            notice = Notice(seen.remedy.cause, times=seen.times)
            if seen.remedy.tell:
                subject, text = self._text(queued, seen)
                notice = await self._notices.wanted(notice, POSTMASTER, subject, text, now, queue_id.text(queued.id))
            told.append(notice)
        return tuple(told)

    def _text(self, queued: QueuedMessage, seen: _Seen) -> tuple[str, str]:
        remedy, outcome = seen.remedy, seen.outcome
        verdict = "refuses" if outcome.result is Result.FAILED else "does not take"
        sender = str(queued.envelope.sender or "<>")
        number = queue_id.text(queued.id)
        days = f"{QUIET_S / 86400:g}"
        return (
            f"Mail is refused elsewhere: {remedy.cause}",
            f"Another server {verdict} mail from {self._hostname()}, for a reason that you can do something about.\n\n"
            f"What it means: {remedy.meaning}\n\n"
            f"What to do: {remedy.remedy}\n\n"
            f"What this server does by itself: {remedy.action.value}.\n\n"
            "The first time:\n\n"
            f"  message {number} from {sender} to {seen.recipient.address}\n"
            f"  {outcome.remote or 'the other server'} said:\n"
            f"    {outcome.answer}\n\n"
            f"You are told of this cause once, and again only when it comes back after {days} days without. "
            f"`mailsrv why {remedy.cause}` says how often it was seen, `mailsrv why {number}` tells the story of that "
            "message.\n",
        )


def _causes(outcomes: Sequence[tuple[QueuedRecipient, Outcome]]) -> dict[str, _Seen]:
    found: dict[str, _Seen] = {}
    for recipient, outcome in outcomes:
        remedy = None if outcome.result is Result.DELIVERED else remedy_for(outcome.answer)
        if remedy is not None:
            first = found.get(remedy.cause)
            found[remedy.cause] = _Seen(
                remedy,
                first.recipient if first else recipient,
                first.outcome if first else outcome,
                first.times + 1 if first else 1,
            )
    return found


class Pace:
    """So many at once, and then one in so many seconds; ``seconds`` gives the monotonic time."""

    def __init__(self, seconds: Callable[[], float], most: int, every_s: float) -> None:
        self._seconds = seconds
        self._most = most
        self._every_s = every_s
        self._left = float(most)
        self._at = seconds()

    def allows(self) -> bool:
        """Whether one more may go now; it is counted."""
        now = self._seconds()
        self._left = min(self._left + (now - self._at) / self._every_s, float(self._most))
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def give_back(self) -> None:
        """The last one allowed did not go."""
        self._left = min(self._left + 1.0, float(self._most))
