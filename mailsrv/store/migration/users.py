"""Users of another server: their names and what is stored of their passwords.

Where a password does not begin with ``{SCHEME}``, its form says what it is, or else the caller.  Locked is who has no
password there, or one that begins with ``!`` or ``*``, or who may not log in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from mailsrv.store.accounts.password_schemes import SCHEMES, UnknownScheme, take_apart

LOCKED: Final = "!"
_ELSEWHERE: Final = frozenset({"x"})

_BEGINNINGS: Final = (
    ("$argon2id$", "ARGON2ID"),
    ("$argon2i$", "ARGON2I"),
    ("$6$", "SHA512-CRYPT"),
    ("$5$", "SHA256-CRYPT"),
    ("$2", "BLF-CRYPT"),
    ("$1$", "MD5-CRYPT"),
)


@dataclass(frozen=True, slots=True)
class User:
    """``name`` as it stands there, ``stored`` is ``{SCHEME}hash`` or LOCKED, ``where`` the place for people."""

    name: str
    stored: str = field(repr=False)
    where: str


def stored_of(password: str | None, scheme: str = "") -> str:
    """What is to be stored for a password field; ``scheme`` is that of fields that do not name theirs, if it is known.

    LOCKED for a field that is empty, begins with ! or *, or is the x of /etc/passwd.
    """
    if not password or password[0] in "!*" or password in _ELSEWHERE:
        return LOCKED
    if password.startswith("{"):
        return password
    if not scheme:
        scheme = next((name for start, name in _BEGINNINGS if password.startswith(start)), "CRYPT")
    return f"{{{scheme}}}{password}"


def in_clear(stored: str) -> str | None:
    """The password itself, when it is stored in clear; None when it is a hash (UnknownScheme)."""
    scheme, decoded = take_apart(stored)
    if scheme is not SCHEMES["PLAIN"]:
        return None
    try:
        return decoded.decode()
    except UnicodeDecodeError:
        raise UnknownScheme("the password is not UTF-8 text; no client could send it") from None
