"""Passwords: kept as one-way hashes, checked away from the reactor's thread.

A stored password is ``{SCHEME}hash``; ``SCHEMES`` says what is known.  New ones are Argon2id (RFC 9106).  A check takes
the same time for an unknown user, a locked account and a wrong password, so the answer tells a stranger nothing.  No
more than a fixed number of checks wait at once: beyond it ``TooBusy``, which a server answers with "try again later".
A password that was right is remembered for five minutes under a key of this process, so that clients that log in every
minute cost one hash in five; nothing can be read back from what is remembered.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import argon2
from argon2 import low_level

from mailsrv.outside.interfaces import Outside

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

_STORED = re.compile(r"\{([A-Za-z0-9.-]+)\}(.*)", re.DOTALL)
_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"  # 32, without those that look alike


class TooBusy(Exception):
    """Too many passwords are waiting to be checked."""


class UnknownScheme(ValueError):
    """A stored password cannot be used; the message is a sentence without the hash."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way to store passwords.  ``check`` says whether a hash is well formed, ``verify`` compares (slowly)."""

    check: Callable[[str], bool]
    verify: Callable[[str, str], bool]


def _argon2id_is_well_formed(encoded: str) -> bool:
    try:
        return encoded.startswith("$argon2id$") and argon2.extract_parameters(encoded).type is argon2.Type.ID
    except argon2.exceptions.InvalidHashError:
        return False


def _argon2id_verify(encoded: str, password: str) -> bool:
    try:
        return low_level.verify_secret(encoded.encode(), password.encode(), argon2.Type.ID)
    except argon2.exceptions.VerificationError:
        return False


SCHEMES: Final[Mapping[str, Scheme]] = {"ARGON2ID": Scheme(_argon2id_is_well_formed, _argon2id_verify)}

# Well formed, of the usual cost, and the hash of nothing that anybody knows.
_DUMMY = (
    f"{{ARGON2ID}}$argon2id$v=19$m={_MEMORY_KIB},t={_TIME_COST},p={_LANES}"
    f"${base64.b64encode(bytes(_SALT_OCTETS)).decode().rstrip('=')}"
    f"${base64.b64encode(bytes(_HASH_OCTETS)).decode().rstrip('=')}"
)


def hash_password(password: str, random: Callable[[int], bytes]) -> str:
    """``{ARGON2ID}$argon2id$...`` for the accounts file.  Takes some 20 ms and 19 MiB."""
    encoded = low_level.hash_secret(
        password.encode(), random(_SALT_OCTETS), _TIME_COST, _MEMORY_KIB, _LANES, _HASH_OCTETS, argon2.Type.ID
    )
    return f"{{ARGON2ID}}{encoded.decode()}"


def generate_password(random: Callable[[int], bytes]) -> str:
    """A password of 100 bits that can be read out and typed: ``"k7mq-..."``, five groups of four letters."""
    letters = "".join(_LETTERS[octet % 32] for octet in random(20))
    return "-".join(letters[start : start + 4] for start in range(0, 20, 4))


def check_stored(stored: str) -> None:
    """Refuse what no login could be compared with (UnknownScheme)."""
    found = _STORED.fullmatch(stored)
    known = ", ".join(SCHEMES)
    if found is None:
        raise UnknownScheme(f"the password does not begin with a {{SCHEME}}; known is {known}")
    scheme = SCHEMES.get(found.group(1).upper())
    if scheme is None:
        raise UnknownScheme(f"the password scheme {found.group(1)} is not known; known is {known}")
    if not scheme.check(found.group(2)):
        raise UnknownScheme(f"the hash is not a well-formed {found.group(1).upper()} hash")


def verify_stored(stored: str, password: str) -> bool:
    """Compare; slow.  False for anything that ``check_stored`` refuses."""
    found = _STORED.fullmatch(stored)
    scheme = SCHEMES.get(found.group(1).upper()) if found else None
    return scheme is not None and found is not None and scheme.verify(found.group(2), password)


class Passwords:
    """Checks passwords in threads of its own."""

    def __init__(self, outside: Outside) -> None:
        self._seconds = outside.reactor.seconds
        self._worker = outside.worker("passwords", THREADS)
        self._key = outside.random(32)
        self._waiting = 0
        self._right: dict[bytes, float] = {}  # what was right, until when; oldest first

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
            right = await self._worker.call(verify_stored, stored, password)
        finally:
            self._waiting -= 1
        if not (right and usable):
            return False
        self._remember(mark)
        return True

    def stop(self) -> None:
        """End the threads; call once nothing is waiting any more."""
        self._worker.stop()

    def _remember(self, mark: bytes) -> None:
        self._right.pop(mark, None)
        self._right[mark] = self._seconds() + REMEMBERED_S
        while len(self._right) > REMEMBERED_LIMIT or next(iter(self._right.values())) <= self._seconds():
            del self._right[next(iter(self._right))]
