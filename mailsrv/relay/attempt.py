"""What one attempt has come to so far: who is settled, and why the servers asked were of no use to the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mailsrv.mail.outcome import Outcome, Result
from mailsrv.relay.job import Job

Settled = dict[int, Outcome]  # by position in ``job.recipients``


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a server was of no use.

    ``stop``: the next one is not to be asked.  ``tls``: why the handshake failed.  ``stale``: the connection is at its
    end, which is no fact about this message: another one to the same server may do.  ``unchunked``: the server does not
    get along with content by BDAT.  ``about_us``: it refused our address, and not the mail.  ``unreachable``: this
    machine has no way to addresses of that family.  ``ourselves``: it is this server.
    """

    outcome: Outcome
    stop: bool = False
    tls: str = ""
    stale: bool = False
    unchunked: bool = False
    about_us: bool = False
    unreachable: bool = False
    ourselves: bool = False


@dataclass(slots=True)
class Attempt:
    """``job`` on its way.

    ``settled`` is definite: nothing that goes wrong later can undo it.  ``refused`` are recipients whom a server
    refused because of *our* address while there is one left to ask that is reached by the other family of addresses
    (``other_family``).  From ``turn`` on that family is asked.
    """

    job: Job
    settled: Settled = field(default_factory=dict)
    refused: Settled = field(default_factory=dict)
    troubles: list[Trouble] = field(default_factory=list)
    other_family: bool = False
    note: str = ""  # for the reasons of what is settled: why the families are asked in this order
    _turned: bool = False
    _turned_from: Outcome | None = None
    _before: int = 0  # troubles of the first family

    @property
    def turned(self) -> bool:
        return self._turned

    def waiting(self) -> list[int]:
        """Positions of the recipients that the present server has not answered for good."""
        aside: Settled = {} if self._turned else self.refused
        return [n for n in range(len(self.job.recipients)) if n not in self.settled and n not in aside]

    def turn(self, refusal: Outcome) -> None:
        """The first family of addresses was refused with ``refusal``; the other is asked, about all who are left."""
        self._turned = True
        self._turned_from = refusal
        self._before = len(self.troubles)

    def outcomes(self) -> list[Outcome]:
        """One outcome for each recipient, in their order."""
        return [self._outcome(n) for n in range(len(self.job.recipients))]

    def _outcome(self, n: int) -> Outcome:
        settled, refused = self.settled.get(n), self.refused.get(n)
        if settled is not None:
            before = refused or self._turned_from
            notes = [settled.reason]
            if before is not None:
                notes.append(f"Before that {before.remote} had refused the address of this server: {before.answer}")
            elif self.note:
                notes.append(self.note)
            return settled if len(notes) == 1 else replace(settled, reason=" ".join(notes))
        if refused is None:
            return together([trouble.outcome for trouble in self.troubles])
        later = self.troubles[self._before :]
        if not later or all(trouble.unreachable for trouble in later):
            return refused
        # The other family may take it once its servers can be reached: not for good, then.
        rest = together([trouble.outcome for trouble in later])
        return replace(
            refused,
            result=Result.DEFERRED,
            status="4" + refused.status[1:],
            reason=f"{refused.reason} The other family of addresses was of no use just now: {rest.reason}",
        )


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """One outcome for several servers that were of no use: FAILED only if all said so, else the last that spoke."""
    if not outcomes:
        return Outcome(Result.DEFERRED, "4.3.0", "Nothing is known about this recipient.", rule="a bug")
    waiting = [outcome for outcome in outcomes if outcome.result is Result.DEFERRED]
    spoke = [outcome for outcome in waiting if outcome.answer]
    return (spoke or waiting or list(outcomes))[-1]
