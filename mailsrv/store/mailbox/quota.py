"""What an account may keep: octets and messages, as the accounts file says.

The extra fields are Dovecot's own, so that both programs read the same line: ``userdb_quota_rule``, and
``userdb_quota_rule2`` and so on for more than one.  A rule is ``*:storage=1G:messages=10000`` for the whole mailbox
(``storage`` in KiB unless ``B``, ``k``, ``M``, ``G`` or ``T`` follows, ``bytes`` the same in octets; 0 is no limit), or
``Trash:ignore`` for a folder that does not count.  Anything else that Dovecot may understand is refused here: two
programs that count differently would never agree about ``maildirsize``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

FIELD: Final = "userdb_quota_rule"

_FIELD = re.compile(r"userdb_quota_rule([2-9]|[1-9][0-9])?")
_AMOUNT = re.compile(r"([0-9]{1,15})([BbKkMmGgTt]?)")
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class Usage(NamedTuple):
    """What a mailbox holds, or by how much that changes: octets of the files (``S=``), and messages."""

    octets: int
    messages: int

    def plus(self, other: Usage) -> Usage:
        return Usage(self.octets + other.octets, self.messages + other.messages)

    def minus(self, other: Usage) -> Usage:
        return Usage(self.octets - other.octets, self.messages - other.messages)


NOTHING: Final = Usage(0, 0)


@dataclass(frozen=True, slots=True)
class Quota:
    """0 is no limit.  ``ignored`` are names of folders on the disk, such as ``.Trash``, that do not count."""

    octets: int = 0
    messages: int = 0
    ignored: frozenset[str] = frozenset()

    def holds(self, usage: Usage) -> bool:
        """Whether so much may be in the mailbox."""
        return (not self.octets or usage.octets <= self.octets) and (
            not self.messages or usage.messages <= self.messages
        )

    def full(self, usage: Usage) -> bool:
        """Whether not even the smallest message fits in any more."""
        return not self.holds(usage.plus(Usage(1, 1)))

    def share(self, usage: Usage) -> float:
        """How much of it is used, of what is used most: 1.0 is all."""
        return max(
            usage.octets / self.octets if self.octets else 0.0,
            usage.messages / self.messages if self.messages else 0.0,
        )


def read(extra: Mapping[str, str]) -> Quota | None:
    """The quota in the extra fields of an account; None when there is none (ValueError)."""
    octets = messages = 0
    ignored = set()
    for key, value in extra.items():
        if not _FIELD.fullmatch(key):
            continue
        folder, *words = value.split(":")
        if words == ["ignore"] and _FOLDER.fullmatch(folder):
            ignored.add(f".{folder}")
            continue
        if folder != "*" or not words:
            raise ValueError(
                f'{key}: "{value}" is not understood; a rule is "*:storage=1G:messages=10000" or "Trash:ignore"'
            )
        for word in words:
            name, _, amount = word.partition("=")
            if name in ("storage", "bytes"):
                octets = _octets(key, amount, "k" if name == "storage" else "b")
            elif name == "messages" and re.fullmatch("[0-9]{1,15}", amount):
                messages = int(amount)
            else:
                raise ValueError(f'{key}: "{word}" is not understood; there are storage=, bytes= and messages=')
    return Quota(octets, messages, frozenset(ignored)) if octets or messages else None


def _octets(key: str, text: str, unit: str) -> int:
    found = _AMOUNT.fullmatch(text)
    if found is None:
        raise ValueError(f'{key}: "{text}" is no amount such as "500M" or "1G"')
    return int(found[1]) * _UNITS[(found[2] or unit).lower()]


def rule(octets: int, messages: int) -> str:
    """The value of ``FIELD`` that says so.

    >>> rule(1 << 30, 10000)
    '*:storage=1G:messages=10000'
    """
    words = ["*"]
    if octets:
        unit = next(letter for letter in "TGMkB" if not octets % _UNITS[letter.lower()])
        words.append(f"storage={octets // _UNITS[unit.lower()]}{unit}")
    if messages:
        words.append(f"messages={messages}")
    return ":".join(words)
