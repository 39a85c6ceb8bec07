"""Passwords: kept as one-way hashes, checked away from the reactor's thread.

A stored password is ``{SCHEME}hash``; ``password_schemes`` says what is known.  New ones are Argon2id (RFC 9106); when
a password was right that is stored in another way, ``on_old_scheme`` is told, for this is the moment to replace it.  A
check takes the same time for an unknown user, a locked account and a wrong password, so the answer tells a stranger
nothing.  No more than a fixed number of checks wait at once: beyond it ``TooBusy``, which a server answers with "try
again later".  A password that was right is remembered for five minutes under a key of this process, so that clients
that log in every minute cost one hash in five; nothing can be read back from what is remembered.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from argon2 import low_level

from mailsrv.outside.interfaces import Outside
from mailsrv.store.password_schemes import CURRENT, UnknownScheme, scheme_of, take_apart

if TYPE_CHECKING:
    from mailsrv.store.accounts import Account

THREADS: Final = 2
WAITING_LIMIT: Final = 100
REMEMBERED_S: Final = 300.0
REMEMBERED_LIMIT: Final = 10_000

# RFC 9106 4 leaves the cost open; this is the smallest set that password guidance accepts, and 19 MiB for each thread.
_TIME_COST = 2
_MEMORY_KIB = 19 * 1024
_LANES = 1
_SALT_OCTETS = 16
_HASH_OCTETS = 32

_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"  # 32, without those that look alike


class TooBusy(Exception):
    """Too many passwords are waiting to be checked."""


# Well formed, of the usual cost, and the hash of nothing that anybody knows.
_DUMMY = (
    f"{{ARGON2ID}}$argon2id$v=19$m={_MEMORY_KIB},t={_TIME_COST},p={_LANES}"
    f"${base64.b64encode(bytes(_SALT_OCTETS)).decode().rstrip('=')}"
    f"${base64.b64encode(bytes(_HASH_OCTETS)).decode().rstrip('=')}"
)


def hash_password(password: str, random: Callable[[int], bytes]) -> str:
    """``{ARGON2ID}$argon2id$...`` for the accounts file.  Takes some 20 ms and 19 MiB."""
    encoded = low_level.hash_secret(
        password.encode(), random(_SALT_OCTETS), _TIME_COST, _MEMORY_KIB, _LANES, _HASH_OCTETS, low_level.Type.ID
    )
    return f"{{ARGON2ID}}{encoded.decode()}"


def generate_password(random: Callable[[int], bytes]) -> str:
    """A password of 100 bits that can be read out and typed: ``"k7mq-..."``, five groups of four letters."""
    letters = "".join(_LETTERS[octet % 32] for octet in random(20))
    return "-".join(letters[start : start + 4] for start in range(0, 20, 4))


def check_stored(stored: str) -> None:
    """Refuse what no login could be compared with (UnknownScheme)."""
    take_apart(stored)


def is_old(stored: str) -> bool:
    """Whether a stored password is of a scheme that is not used for new ones."""
    return scheme_of(stored) != CURRENT


def verify_stored(stored: str, password: str) -> bool:
    """Compare; slow.  False for anything that ``check_stored`` refuses."""
    try:
        scheme, decoded = take_apart(stored)
    except UnknownScheme:
        return False
    return scheme.verify(decoded, password.encode())


def _verify_like_others(stored: str, password: str) -> bool:
    """Compare, and take no less time over a wrong password than for a user who does not exist."""
    right = verify_stored(stored, password)
    if not right and is_old(stored):
        verify_stored(_DUMMY, password)
    return right


class Passwords:
    """Checks passwords in threads of its own.

    ``on_old_scheme`` is called with account and password after a right one that ``is_old``.
    """

    def __init__(self, outside: Outside) -> None:
        self._seconds = outside.reactor.seconds
        self._worker = outside.worker("passwords", THREADS)
        self._key = outside.random(32)
        self._waiting = 0
        self._right: dict[bytes, float] = {}  # what was right, until when; oldest first
        self.on_old_scheme: Callable[[Account, str], None] = lambda account, password: None

    async def verify(self, account: Account | None, password: str) -> bool:
        """Whether this is the password of this account; None is an unknown user (TooBusy)."""
        usable = account is not None and not account.locked
        stored = account.hash if account is not None and usable else _DUMMY
        mark = hmac.digest(self._key, f"{stored}\0{password}".encode("utf-8", "surrogatepass"), "sha256")
        if self._right.get(mark, float("-inf")) > self._seconds():
            return True
        if self._waiting >= WAITING_LIMIT:
            raise TooBusy
        self._waiting += 1
        try:
            right = await self._worker.call(_verify_like_others, stored, password)
        finally:
            self._waiting -= 1
        if account is None or not (right and usable):
            return False
        self._remember(mark)
        if is_old(stored):
            self.on_old_scheme(account, password)
        return True

    def stop(self) -> None:
        """End the threads; call once nothing is waiting any more."""
        self._worker.stop()

    def _remember(self, mark: bytes) -> None:
        self._right.pop(mark, None)
        self._right[mark] = self._seconds() + REMEMBERED_S
        while len(self._right) > REMEMBERED_LIMIT or next(iter(self._right.values())) <= self._seconds():
            del self._right[next(iter(self._right))]
