"""SCRAM's own keys (RFC 5802) in the accounts file, beside the hash of the same password.

They are the extra field ``scram-sha-256=iterations,salt,stored,server,mark``, which Dovecot passes over.  ``mark`` is a
hash of the hash that they belong to: when another program changes that, the keys of the old password open nothing any
more, and the next login by PLAIN makes new ones.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Final

from mailsrv.sasl import scram
from mailsrv.sasl.scram import StoredKeys

FIELD: Final = "scram-sha-256"

_MARK_OCTETS = 9


def possible(password: str) -> bool:
    """Whether SCRAM can be used with a password: RFC 4013 forbids some characters."""
    try:
        scram.saslprep(password)
    except ValueError:
        return False
    return True


def make(password: str, stored: str, random: Callable[[int], bytes]) -> str | None:
    """The field for a password whose hash is ``stored``; None when it is not ``possible``.  Takes some 20 ms."""
    if not possible(password):
        return None
    keys = scram.derive_keys(password, random(scram.SALT_OCTETS))
    return f"{scram.to_text(keys)},{_mark(stored)}"


def read(field: str, stored: str) -> StoredKeys | None:
    """The keys, None when they belong to another hash than ``stored`` (ValueError when they are not well formed)."""
    text, _, mark = field.rpartition(",")
    keys = scram.from_text(text)
    return keys if mark == _mark(stored) else None


def _mark(stored: str) -> str:
    return base64.b64encode(hashlib.sha256(stored.encode()).digest()[:_MARK_OCTETS]).decode()
