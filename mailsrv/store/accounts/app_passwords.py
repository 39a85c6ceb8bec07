"""App passwords: further passwords of an account, one for each program or device, each with a name of its own.

They are extra fields of the accounts file, ``app-NAME={SCHEME}hash`` or, for one that is good for some services only,
``app-NAME=SERVICE,SERVICE:{SCHEME}hash``.  Dovecot passes over them; but it refuses a login with more than 16 KiB of
extra fields, therefore the limit.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

SERVICES: Final = ("smtp", "pop3")
LIMIT: Final = 20  # for one account

_PREFIX = "app-"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,30}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class AppPassword:
    """``hash`` is ``{SCHEME}hash``; ``services`` are those that it is good for, none of them stands for all."""

    name: str
    hash: str = field(repr=False)
    services: tuple[str, ...] = ()

    def good_for(self, service: str) -> bool:
        return not self.services or service in self.services


def check_name(name: str) -> None:
    """ValueError unless ``name`` may be that of an app password."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f'"{name}" cannot name an app password: names have up to 32 of a-z, 0-9, "-", "." and "_", and begin and '
            "end with a letter or a digit"
        )


def services(text: str) -> tuple[str, ...]:
    """``pop3,smtp`` as a tuple in the order of ``SERVICES``, "" as an empty one (ValueError)."""
    named = set(filter(None, (word.strip() for word in text.split(","))))
    for word in sorted(named - set(SERVICES)):
        raise ValueError(f'"{word}" is not a service; there are {" and ".join(SERVICES)}')
    return tuple(service for service in SERVICES if service in named)


def field_name(name: str) -> str:
    """The extra field of the app password of that name."""
    return _PREFIX + name


def field_value(stored: str, good_for: Collection[str]) -> str:
    """What that field says."""
    return f"{','.join(good_for)}:{stored}" if good_for else stored


def read(key: str, value: str) -> AppPassword | None:
    """The app password that an extra field is, None for other fields (ValueError).  The hash is not looked at."""
    if not key.startswith(_PREFIX):
        return None
    name = key.removeprefix(_PREFIX)
    check_name(name)
    if value.startswith("{") or ":" not in value:
        return AppPassword(name, value)
    good_for, _, stored = value.partition(":")
    return AppPassword(name, stored, services(good_for))
