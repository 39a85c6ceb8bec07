"""How many attempts one destination gets at a time, by what the attempts before have told of it.  Pure.

A destination begins with one attempt.  The first sign of life, a recipient that a server takes, allows a second, and
from there on each attempt that goes well one more (slow start), until a brake: the server says 421 or asks for less in
known words (``remedies``), or connections fail beside others that work.  A brake halves, once for all attempts that
were under way together; then the limit grows by one in the time in which all of its attempts go well once.  It is
never less than one.

A destination none of whose servers answers is down, and so is one that has sent us away REFUSALS times in a row, one
attempt at a time: one attempt then finds out whether it still is, for all that was due when it began (``Failure``);
what becomes due later gets an attempt of its own.  So nobody waits for a time-out that another has just waited for, and
nobody's attempt is later than the schedule says by more than one.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mailsrv.mail.outcome import Outcome, Result
from mailsrv.relay.remedies import Action, remedy_for

MOST: Final = 20  # attempts at one destination at a time
STALLED_S: Final = 30.0  # an attempt that shows no life for so long is no reason to keep others waiting
SHARED_S: Final = 60.0  # how long an attempt that nobody answered stands for others
REFUSALS: Final = 3  # after so many requests for less than one attempt at a time, one stands for all
_BUSY: Final = frozenset({"4.3.2", "4.4.5", "4.7.28"})  # RFC 3463; 4.7.28 is the registry's "mail flood detected"
_FLEETING: Final = ("4.4.1", "4.4.3")  # no answer, no DNS


class Said(enum.Enum):
    """What an attempt has told of the destination."""

    WELL = "it took mail"
    ANSWERED = "it answered, and that says nothing of how much it can take"
    SLOW_DOWN = "it asked for less, or it lost a connection"
    UNREACHABLE = "nobody answered"
    NOTHING = "there is nothing to learn from it"


def said(outcomes: Sequence[Outcome], alive: bool, seconds: float) -> Said:
    """``alive``: a server took a recipient; ``seconds``: how long the attempt took."""
    if any(outcome.result is Result.DELIVERED for outcome in outcomes):
        return Said.WELL
    if any(_asks_for_less(outcome) for outcome in outcomes):
        return Said.SLOW_DOWN
    if any(outcome.answer for outcome in outcomes):
        return Said.ANSWERED
    if not outcomes or not all(_network(outcome) for outcome in outcomes):
        return Said.NOTHING
    if alive:
        return Said.SLOW_DOWN
    # A connection that is lost at once may be about this mail; a server that lets everybody wait is as good as none.
    lost = seconds >= STALLED_S or all(outcome.status in _FLEETING for outcome in outcomes)
    return Said.UNREACHABLE if lost else Said.SLOW_DOWN


def _asks_for_less(outcome: Outcome) -> bool:
    if not outcome.answer:
        return False
    if outcome.result is Result.DEFERRED and (outcome.answer.startswith("421") or outcome.status in _BUSY):
        return True
    remedy = remedy_for(outcome.answer)
    return remedy is not None and remedy.action is Action.SLOW_DOWN


def _network(outcome: Outcome) -> bool:
    return outcome.result is Result.DEFERRED and outcome.status.startswith("4.4.")


class Standing(enum.Enum):
    """What is known of a destination.  The order is that in which places are given."""

    PROVEN = 0  # it has answered
    UNPROVEN = 1  # nothing is known
    DOWN = 2  # nobody answered the last time, or only to send us away

    __hash__ = object.__hash__  # an Enum's own is a function in Python, and each attempt asks for it ten times


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that led to nothing: when it began (seconds since 1970), when it ended (monotonic), its outcome."""

    begun: float
    ended: float
    queue_id: str
    outcome: Outcome

    def stands_for(self, due: float, now: float) -> bool:
        """Whether mail that was due at ``due`` (seconds since 1970) needs no attempt of its own."""
        return due <= self.begun and now - self.ended <= SHARED_S

    def shared(self) -> Outcome:
        """The outcome for mail that was due when it began."""
        reason = f"Not tried by itself, as an attempt with {self.queue_id} has just failed: {self.outcome.reason}"
        return Outcome(Result.DEFERRED, self.outcome.status, reason, "", self.outcome.remote, self.outcome.rule)


class Limit:
    """Of one destination.  Times are monotonic seconds."""

    __slots__ = ("_alive_at", "_braked_at", "_places", "_refusals", "_slow_start_until", "failure", "used_at")

    def __init__(self) -> None:
        self.failure: Failure | None = None
        self.used_at = 0.0
        self._places = 1.0
        self._slow_start_until = float(MOST)
        self._alive_at: float | None = None
        self._braked_at = float("-inf")
        self._refusals = 0  # with one place, one after the other

    @property
    def places(self) -> int:
        return int(self._places)

    @property
    def standing(self) -> Standing:
        if self.failure is not None:
            return Standing.DOWN
        return Standing.UNPROVEN if self._alive_at is None else Standing.PROVEN

    def alive(self, now: float) -> None:
        """A server of the destination speaks with us."""
        if self.standing is not Standing.PROVEN:
            self.failure = None
            self._places = 2.0
        self._alive_at = now

    def ended(self, what: Said, begun: float, now: float, failure: Failure | None = None) -> None:
        """An attempt that began at ``begun`` is over; ``failure`` when no server wanted the mail, to be shared."""
        self.used_at = now
        if what is Said.UNREACHABLE:
            if self._alive_at is not None and self._alive_at >= begun:
                self._brake(begun, now)
            else:
                self.failure = failure
                self._places, self._slow_start_until = 1.0, float(MOST)
        elif what is Said.SLOW_DOWN:
            alone = self.places == 1
            self.alive(now)
            self._brake(begun, now)
            self._refusals = self._refusals + 1 if alone and failure is not None else 0
            if self._refusals >= REFUSALS:
                self.failure = failure
        elif what is not Said.NOTHING:
            self.alive(now)
            self._refusals = 0
            if what is Said.WELL:
                more = 1.0 if self._places < self._slow_start_until else 1.0 / self._places
                self._places = min(self._places + more, float(MOST))

    def _brake(self, begun: float, now: float) -> None:
        if begun > self._braked_at:
            self._places = max(self._places / 2, 1.0)
            self._slow_start_until = self._places
            self._braked_at = now
