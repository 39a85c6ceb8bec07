"""Connections that are kept for the next message: few, for seconds, and only for what they were opened for.

A connection is kept under its ``Key``: the server's name and address, the route, and what was demanded of TLS.  So
nothing demanded of one destination is weakened by what another one was content with.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mailsrv.relay.mx import Hop
from mailsrv.relay.session import Key, Session

IDLE_S: Final = 3.0
MOST: Final = 100
MOST_ALIKE: Final = 20


class Pool:
    """Sessions at rest."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._kept: dict[Key, list[Session]] = {}
        self._hops: Counter[Hop] = Counter()
        self._ends: dict[Session, float] = {}  # when each has rested long enough, in this order
        self._timer: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._ends)

    def take(self, key: Key, domain: str) -> Session | None:
        """A session for mail to ``domain``, the one that rested least; None when there is none."""
        for session in reversed(self._kept.get(key, [])):
            if session.takes(domain):
                self._remove(session)
                if session.client.resume():
                    return session
                session.client.close()
                return self.take(key, domain)
        return None

    def has(self, hop: Hop) -> bool:
        """Whether there is one to this server, for whatever purpose."""
        return hop in self._hops

    def keep(self, session: Session) -> None:
        """Keep it for a while, or close it when that makes no sense."""
        now = self._reactor.seconds()
        alike = self._kept.get(session.key, [])
        if not session.core.at_rest or session.exhausted or session.is_old(now) or len(alike) >= MOST_ALIKE:
            session.client.close()
            return
        if len(self._ends) >= MOST:
            self._close(next(iter(self._ends)))
        self._kept.setdefault(session.key, []).append(session)
        self._hops[session.hop] += 1
        self._ends[session] = now + IDLE_S
        session.client.rest(lambda: self._remove(session))
        if self._timer is None:
            self._timer = self._reactor.callLater(IDLE_S, self._tidy)

    def drop(self, key: Key) -> None:
        """Close all of one kind: one of them was found dead."""
        for session in list(self._kept.get(key, [])):
            self._close(session)

    def clear(self) -> None:
        """Close all."""
        for session in list(self._ends):
            self._close(session)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tidy(self) -> None:
        self._timer = None
        now = self._reactor.seconds()
        for session, end in list(self._ends.items()):
            if end > now:
                self._timer = self._reactor.callLater(end - now, self._tidy)
                return
            self._close(session)

    def _close(self, session: Session) -> None:
        self._remove(session)
        session.client.close()

    def _remove(self, session: Session) -> None:
        if self._ends.pop(session, None) is None:
            return
        self._hops[session.hop] -= 1
        if not self._hops[session.hop]:
            del self._hops[session.hop]
        alike = self._kept[session.key]
        alike.remove(session)
        if not alike:
            del self._kept[session.key]
