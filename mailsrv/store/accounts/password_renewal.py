"""Passwords stored in old ways or without SCRAM keys, stored anew when their owners have just shown them.

``take`` is given an account and its right password; a worker hashes it anew, derives the keys and writes the accounts
file.  Those that come while the file is being written go together into the next writing, so that many logins after a
move do not mean as many new files.  A password that has been changed meanwhile is left alone.

What fails (the server may not write the file) is logged once and changes nothing: the old hash stays good, and the next
login tries again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailsrv.config import Config
from mailsrv.outside.interfaces import Outside
from mailsrv.store.accounts import scram_keys
from mailsrv.store.accounts.account_files import Texts, edit
from mailsrv.store.accounts.accounts import Account, AccountsError, Directory
from mailsrv.store.accounts.passwords import hash_password, is_old

WAITING_LIMIT: Final = 200  # passwords in memory; who comes when there are more is asked at the next login

log = Logger()


class PasswordRenewal:
    """Renews passwords in a thread of its own.  ``config`` gives the configuration in force.

    ``on_renewed`` is called with the old hash and the new one before the file says so.
    """

    def __init__(self, outside: Outside, config: Callable[[], Config]) -> None:
        self._worker = outside.worker("password-renewal")
        self._random = outside.random
        self._config = config
        self._waiting: dict[str, tuple[Account, str]] = {}
        self._running = False
        self._stopped = False
        self._complained = ""
        self.on_renewed: Callable[[str, str], None] = lambda old, new: None

    def take(self, account: Account, password: str) -> None:
        """Replace what is stored for ``account`` by a new hash of ``password``, soon."""
        if len(self._waiting) < WAITING_LIMIT:
            self._waiting[account.key] = account, password
        if not self._running:
            self._running = True
            Deferred.fromCoroutine(self._run()).addErrback(self._stumbled)

    def stop(self) -> None:
        """End the thread; what is not in the file by then comes with the next login."""
        self._stopped = True
        self._waiting.clear()
        self._worker.stop()

    async def _run(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting, {}
            try:
                anew = await self._worker.call(_store_anew, taken, self._random)
                if self._stopped:
                    return
                for key, (account, _) in taken.items():
                    self.on_renewed(account.hash, anew[key].hash)
                await self._worker.call(_write, self._config(), taken, anew)
            except (OSError, AccountsError) as error:
                self._complain(str(error))
        self._running = False

    def _complain(self, problem: str) -> None:
        if problem != self._complained:
            self._complained = problem
            log.warn("A password could not be stored anew and stays as it is: {problem}", problem=problem)

    def _stumbled(self, failure: object) -> None:
        self._running = False
        log.error("Passwords could not be stored anew: {failure}", failure=failure)


@dataclass(frozen=True, slots=True)
class _Stored:
    """``keys`` is the field of ``mailsrv.store.accounts.scram_keys``, None when there can be none."""

    hash: str
    keys: str | None


_Right = Mapping[str, tuple[Account, str]]


def _store_anew(right: _Right, random: Callable[[int], bytes]) -> dict[str, _Stored]:
    """What is to be stored for accounts whose password is known to be ``right``.  Takes long."""
    anew = {}
    for key, (account, password) in right.items():
        apps = [app.hash for app in account.apps]
        stored = hash_password(password, random, apps) if is_old(account.hash) else account.hash
        anew[key] = _Stored(stored, scram_keys.make(password, stored, random))
    return anew


def _write(config: Config, right: _Right, anew: Mapping[str, _Stored]) -> None:
    """OSError, AccountsError."""

    def change(texts: Texts, directory: Directory) -> Texts:
        for key, (account, _) in right.items():
            now = directory.account(account.address)
            if now is not None and now.hash == account.hash:
                texts = texts.with_account(account.address, anew[key].hash)
                texts = texts.with_extra(account.address, scram_keys.FIELD, anew[key].keys)
        return texts

    edit(config, change)
