"""How the database of an older version becomes one of the next: the steps that ``schema.prepare`` takes at a start.

``STEPS[n]`` brings version n - 1 to version n, in one transaction with all others: a crash in between leaves the old
database as it was.  A database that went through the steps has the same tables and indexes as a new one.
"""

from __future__ import annotations

import sqlite3
from typing import Final

STEPS: Final = {
    2: """
ALTER TABLE recipient ADD COLUMN lane TEXT NOT NULL DEFAULT '';
UPDATE recipient SET lane = (
    SELECT CASE WHEN account <> '' THEN account ELSE substr(message.sender, instr(message.sender, '@') + 1) END
    FROM message WHERE message.id = recipient.message) WHERE destination <> '';
DROP INDEX recipient_open;
CREATE INDEX recipient_open ON recipient (state, lane, destination, next_attempt)
    WHERE state = 'queued' OR state = 'held';
CREATE INDEX recipient_due ON recipient (next_attempt, lane, destination) WHERE state = 'queued' AND mailbox = '';
CREATE INDEX message_client ON message (account, client) WHERE account <> '';
CREATE INDEX recipient_elsewhere ON recipient (lower(address)) WHERE mailbox = '';
CREATE TABLE home (
    account     TEXT NOT NULL,
    network     TEXT NOT NULL,
    password    TEXT NOT NULL,
    at          REAL NOT NULL,
    PRIMARY KEY (account, network)
) WITHOUT ROWID;
CREATE TABLE notice (
    cause       TEXT PRIMARY KEY,
    told        REAL NOT NULL,
    seen        REAL NOT NULL,
    times       INTEGER NOT NULL
) WITHOUT ROWID
""",
}


def run(connection: sqlite3.Connection, statements: str) -> None:
    """Execute statements, which end with ``;`` at the end of a line."""
    for statement in statements.split(";\n"):
        if statement.strip():
            connection.execute(statement)
