"""Random octets that have to be the same after every start, in the database."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

_OCTETS = 32


def lasting(connection: sqlite3.Connection, name: str, random: Callable[[int], bytes]) -> bytes:
    """The secret of that name, made when it is first asked for."""
    connection.execute("INSERT OR IGNORE INTO secret (name, octets) VALUES (?, ?)", (name, random(_OCTETS)))
    octets: bytes = connection.execute("SELECT octets FROM secret WHERE name = ?", (name,)).fetchone()[0]
    return octets
