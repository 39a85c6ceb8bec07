"""Lets the next keys of a domain sign once the world can see their records, so that nobody has to wait for it.

``look`` asks DNS for them.  They are seen when it has shown every one of them for SEEN_S, with no answer to the
contrary: by then all name servers of the domain have had the time to take them up.  A domain where nothing signs need
not wait.  Where DNS does not answer nothing is known, and nothing changes.  When keys begin to sign the log and the
ledger say so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailsrv.config import Config
from mailsrv.outside.interfaces import IResolver, LookupFailed, NameNotFound, Outside
from mailsrv.store import key_states, ledger
from mailsrv.store.key_states import Keys
from mailsrv.store.keys import KeyFileError, PublicKey, is_same
from mailsrv.store.ledger import Event
from mailsrv.store.recorder import Recorder

SEEN_S = 3600.0

log = Logger()


class Settings(Protocol):
    """Read at each use, never kept."""

    @property
    def config(self) -> Config: ...

    @property
    def keys(self) -> Keys: ...


class Publication:
    """One for the server; ``activate`` lets the next keys of a domain sign, as ``key_states.activate`` does."""

    def __init__(
        self,
        settings: Settings,
        outside: Outside,
        resolver: IResolver,
        recorder: Recorder,
        activate: Callable[[str, str, float], object] = key_states.activate,
    ) -> None:
        self._settings = settings
        self._outside = outside
        self._resolver = resolver
        self._recorder = recorder
        self._activate = activate
        self._worker = outside.worker("keys")
        self._seen: dict[tuple[PublicKey, ...], float] = {}  # since when, by the reactor's clock
        self._looking = False

    def stop(self) -> None:
        """End the thread."""
        self._worker.stop()

    def look(self) -> None:
        """Ask for what waits to be seen; nothing is asked when nothing waits."""
        if self._settings.keys.next and not self._looking:
            self._looking = True
            Deferred.fromCoroutine(self._look()).addErrback(
                lambda failure: log.error("The next keys could not be looked for: {failure}", failure=failure)
            ).addBoth(self._looked)

    def _looked(self, result: object) -> None:
        self._looking = False

    async def _look(self) -> None:
        keys = self._settings.keys
        now = self._outside.reactor.seconds()
        for domain, waiting in keys.next.items():
            visible = await self._are_visible(waiting)
            if visible:
                since = self._seen.setdefault(waiting, now)
                if now - since >= SEEN_S or domain not in keys.signing:
                    await self._begin(domain, waiting)
            elif visible is not None:
                self._seen.pop(waiting, None)

    async def _are_visible(self, waiting: tuple[PublicKey, ...]) -> bool | None:
        """Whether DNS has every record; None when that cannot be said."""
        try:
            for key in waiting:
                answer = await self._resolver.query(key.name, "TXT")
                if not any(is_same(key.record, text) for text in answer.records):
                    return False
        except NameNotFound:
            return False
        except LookupFailed:
            return None
        return True

    async def _begin(self, domain: str, waiting: tuple[PublicKey, ...]) -> None:
        try:
            await self._worker.call(self._activate, self._settings.config.state, domain, self._outside.wall())
        except (OSError, KeyFileError) as error:
            log.error("The next keys of {domain} cannot sign yet: {problem}", domain=domain, problem=str(error))
            return
        self._seen.pop(waiting, None)
        reason = f"{domain} signs with {' and '.join(key.selector for key in waiting)}: DNS shows them"
        log.info("{reason}.", reason=reason)
        self._recorder.record(Event(ledger.CONFIG, reason=reason, rule="DKIM"))
