"""Whom an account has written to and from where, as the accepted messages tell it; as far back as the ledger goes.

What is held or was taken out by the operator does not count: whoever sent it may not be the owner of the account.
Plain functions on a connection.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

# Steps through the index from one client to the next: an account has few, whatever it has sent.
_CLIENTS = (
    "WITH RECURSIVE step (client) AS ("
    " SELECT min(client) FROM message WHERE account = ?1 AND account <> ''"
    " UNION ALL"
    " SELECT (SELECT min(client) FROM message WHERE account = ?1 AND account <> '' AND client > step.client)"
    " FROM step WHERE client IS NOT NULL)"
    " SELECT client FROM step WHERE client IS NOT NULL"
)
_FIRST_SENT = (
    "SELECT accepted FROM message WHERE account = ? AND account <> '' AND client = ? AND NOT EXISTS"
    " (SELECT 1 FROM recipient WHERE message = message.id AND state IN ('held', 'removed')) ORDER BY id LIMIT 1"
)
_RELEASED = (
    "SELECT 1 FROM message JOIN event ON event.message = message.id"
    " WHERE account = ? AND account <> '' AND message.client = ? AND kind = 'released' LIMIT 1"
)
_WRITTEN_TO = (
    "SELECT 1 FROM recipient JOIN message ON message.id = recipient.message"
    " WHERE recipient.address = ? AND account = ? AND state NOT IN ('held', 'removed') LIMIT 1"
)
_HEARD_FROM = (
    "SELECT 1 FROM message JOIN recipient ON recipient.message = message.id"
    " WHERE message.sender = ? AND recipient.mailbox = ? LIMIT 1"
)


def clients(connection: sqlite3.Connection, account: str, trusted_before: float) -> dict[str, float]:
    """The addresses that the account has sent from, each with the time of its first message (seconds since 1970).

    One that was first used after ``trusted_before``, but from which the operator has let mail go on, has the time 0.0.
    """
    found: dict[str, float] = {}
    for (client,) in connection.execute(_CLIENTS, (account,)).fetchall():
        row = connection.execute(_FIRST_SENT, (account, client)).fetchone()
        if row is None:
            continue
        found[client] = row[0]
        if row[0] > trusted_before and connection.execute(_RELEASED, (account, client)).fetchone():
            found[client] = 0.0
    return found


def strangers(connection: sqlite3.Connection, account: str, addresses: Iterable[str]) -> list[str]:
    """Those of ``addresses`` that the account has never written to nor heard from."""
    return [
        address
        for address in addresses
        if connection.execute(_WRITTEN_TO, (address, account)).fetchone() is None
        and connection.execute(_HEARD_FROM, (address, account)).fetchone() is None
    ]
