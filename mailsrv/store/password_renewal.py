"""Passwords of old schemes, replaced by Argon2id when their owners have just shown them.

``take`` is given an account and its right password; a worker hashes it anew and writes the accounts file.  Those that
come while the file is being written go together into the next writing, so that many logins after a move do not mean
as many new files.  A password that has been changed meanwhile is left alone.

What fails (the server may not write the file) is logged once and changes nothing: the old hash stays good, and the next
login tries again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from mailsrv.config import Config
from mailsrv.outside.interfaces import Outside
from mailsrv.store.account_files import Texts, edit
from mailsrv.store.accounts import Account, AccountsError, Directory
from mailsrv.store.passwords import hash_password

WAITING_LIMIT: Final = 200  # passwords in memory; who comes when there are more is asked at the next login

log = Logger()


class PasswordRenewal:
    """Renews passwords in a thread of its own.  ``config`` gives the configuration in force."""

    def __init__(self, outside: Outside, config: Callable[[], Config]) -> None:
        self._worker = outside.worker("password-renewal")
        self._random = outside.random
        self._config = config
        self._waiting: dict[str, tuple[Account, str]] = {}
        self._running = False
        self._complained = ""

    def take(self, account: Account, password: str) -> None:
        """Replace what is stored for ``account`` by a new hash of ``password``, soon."""
        if len(self._waiting) < WAITING_LIMIT:
            self._waiting[account.key] = account, password
        if not self._running:
            self._running = True
            Deferred.fromCoroutine(self._run()).addErrback(self._stumbled)

    def stop(self) -> None:
        """Finish what was begun and end the thread."""
        self._waiting.clear()
        self._worker.stop()

    async def _run(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting, {}
            try:
                await self._worker.call(renew, self._config(), taken, self._random)
            except (OSError, AccountsError) as error:
                self._complain(str(error))
        self._running = False

    def _complain(self, problem: str) -> None:
        if problem != self._complained:
            self._complained = problem
            log.warn("An old password hash could not be replaced and stays as it is: {problem}", problem=problem)

    def _stumbled(self, failure: object) -> None:
        self._running = False
        log.error("Old password hashes could not be replaced: {failure}", failure=failure)


def renew(config: Config, right: Mapping[str, tuple[Account, str]], random: Callable[[int], bytes]) -> None:
    """Write new hashes for accounts whose password is known to be ``right`` (OSError, AccountsError).  Takes long."""
    new = {key: hash_password(password, random) for key, (_, password) in right.items()}

    def change(texts: Texts, directory: Directory) -> Texts:
        for key, (account, _) in right.items():
            now = directory.account(account.address)
            if now is not None and now.hash == account.hash:
                texts = texts.with_account(account.address, new[key])
        return texts

    edit(config, change)
