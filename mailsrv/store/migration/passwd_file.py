"""Users in lines ``name:password:...``: Dovecot's passwd-file and ``/etc/shadow``.

Of Dovecot's extra fields ``nologin`` locks the account; a field that limits who may log in, or from where, cannot be
kept, so that its line is not taken.  Neither is one of shadow that has a date of expiry.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mailsrv.store.migration.letter import Trouble
from mailsrv.store.migration.users import LOCKED, User, stored_of

_LIMITS: Final = frozenset({"allow_nets", "allow_real_nets", "fail", "k5principals", "noauthenticate", "proxy", "host"})
_SHADOW_FIELDS: Final = 9
_SHADOW_EXPIRY: Final = 7


def users(text: str, path: str, scheme: str = "") -> Iterator[User | Trouble]:
    """The users of each line; ``scheme`` is that of passwords that do not name theirs."""
    for number, line in enumerate(text.split("\n"), 1):
        line = line.rstrip("\r")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"{path}:{number}:"
        fields = line.split(":")
        if len(fields) < 2:
            yield Trouble(where, "is not of the form name:password")
            continue
        name = fields[0].strip()
        limit, locked = _limits(line, fields)
        if limit:
            yield Trouble(where, f"{name} is not taken: {limit}")
        else:
            yield User(name, LOCKED if locked else stored_of(fields[1], scheme), where)


def _limits(line: str, fields: list[str]) -> tuple[str, bool]:
    """Why the line cannot be taken, or ""; and whether the account is locked beside its password."""
    if len(fields) == _SHADOW_FIELDS and all(not field or field.isdigit() for field in fields[2:]):
        expires = fields[_SHADOW_EXPIRY]
        return ("it expires at a date, which mailsrv does not know" if expires else ""), False
    words = line.split(":", 7)[7].split() if len(fields) > 7 else []
    keys = {word.partition("=")[0] for word in words}
    limits = sorted(keys & _LIMITS)
    return (f"mailsrv does not know {limits[0]}" if limits else ""), "nologin" in keys
