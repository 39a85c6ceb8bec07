"""The tables of ``mailsrv.db``: spool, queue and ledger in one database.

Times are seconds since 1970.  Addresses are in their canonical text form (``str(Address)``), "" where there is none.

``message`` says what was accepted and never changes; it stays until the ledger is pruned.  ``content`` is what arrived,
byte for byte with CRLF, and goes when the last recipient is done; ``data`` is NULL when it is in ``spool/<queue id>``.
``recipient`` has one row for each final target: an own mailbox (``mailbox`` is the account's address, ``name`` the file
name in its Maildir, fixed at acceptance) or an address elsewhere (``mailbox`` is "").  ``event`` is the ledger.
``login`` has the last use of each password, ``home`` the networks from which accounts are used, ``secret`` random
octets that are to stay the same, ``notice`` what the postmaster and users were told of, by cause.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from mailsrv.store import upgrades

VERSION = 2
OLDEST_SQLITE = (3, 33, 0)  # the first with UPDATE ... FROM

# The states of a recipient.  The first two are open, the others final; every final one has an event of its kind.
QUEUED = "queued"  # to be delivered when next_attempt has come
HELD = "held"  # waits for the operator
DELIVERED = "delivered"  # in the mailbox, or another server took it
BOUNCED = "bounced"  # could not be delivered, and the sender was told
DROPPED = "dropped"  # could not be delivered, and a named rule forbids telling anybody (a bounce of a bounce)
REMOVED = "removed"  # taken out by the operator
OPEN = (QUEUED, HELD)
FINAL = (DELIVERED, BOUNCED, DROPPED, REMOVED)

TABLES = """
CREATE TABLE message (
    id          INTEGER PRIMARY KEY,            -- the queue id as a number
    accepted    REAL NOT NULL,
    sender      TEXT NOT NULL,                  -- "" is the null reverse-path
    message_id  TEXT NOT NULL,                  -- the header's Message-ID without <>, "" when missing
    size        INTEGER NOT NULL,               -- octets of the content
    lines       INTEGER NOT NULL,               -- line ends in the content
    body        TEXT NOT NULL,                  -- 7BIT or 8BITMIME
    smtputf8    INTEGER NOT NULL,
    ret         TEXT NOT NULL,                  -- DSN: FULL, HDRS or ""
    envid       TEXT NOT NULL,
    account     TEXT NOT NULL,                  -- who had logged in, "" for mail from outside
    client      TEXT NOT NULL,                  -- address of the client, "" for our own reports
    helo        TEXT NOT NULL,
    protocol    TEXT NOT NULL                   -- SMTP, ESMTPSA ... (RFC 3848); "report" and the like for our own
);
CREATE INDEX message_sender ON message (sender);
CREATE INDEX message_message_id ON message (message_id);
CREATE INDEX message_account ON message (account) WHERE account <> '';
-- From where an account sends, since when: answered without a look at the messages.
CREATE INDEX message_client ON message (account, client) WHERE account <> '';

CREATE TABLE content (
    message     INTEGER PRIMARY KEY,
    prefix      BLOB NOT NULL,                  -- trace and verdict headers that go in front
    data        BLOB
);

CREATE TABLE recipient (
    message     INTEGER NOT NULL,
    n           INTEGER NOT NULL,               -- 0, 1, 2 ... within the message
    address     TEXT NOT NULL,                  -- the final target
    original    TEXT NOT NULL,                  -- what the client said in RCPT TO
    sender      TEXT NOT NULL,                  -- forwarded: what the next server is told instead of message.sender
    mailbox     TEXT NOT NULL,
    name        TEXT NOT NULL,
    destination TEXT NOT NULL,                  -- the domain that is looked up or routed, "" for own mailboxes
    notify      TEXT NOT NULL,                  -- DSN: NOTIFY joined by commas, "" when not given
    orcpt       TEXT NOT NULL,                  -- DSN: ORCPT decoded, "type;address" or ""
    state       TEXT NOT NULL,
    attempts    INTEGER NOT NULL,
    since       REAL NOT NULL,                  -- from when expiry and the delay warning count
    next_attempt REAL NOT NULL,
    warned      INTEGER NOT NULL,               -- 1 when the sender was told of the delay
    status      TEXT NOT NULL,                  -- of the last attempt: an enhanced status code, "" before the first
    answer      TEXT NOT NULL,                  -- of the last attempt: what was said
    lane        TEXT NOT NULL,                  -- who takes turns: the account or a stranger's domain; own mailbox: ""
    PRIMARY KEY (message, n)
) WITHOUT ROWID;
CREATE INDEX recipient_address ON recipient (address);
CREATE INDEX recipient_elsewhere ON recipient (lower(address)) WHERE mailbox = '';
CREATE INDEX recipient_original ON recipient (original) WHERE original <> address;
-- The condition is written so that SQLite uses the index for "state = 'queued'" alone; it does not with IN.
CREATE INDEX recipient_open ON recipient (state, lane, destination, next_attempt)
    WHERE state = 'queued' OR state = 'held';
-- Without own mailboxes: what is for them has one lane, and most of it waits for no time at all.
CREATE INDEX recipient_due ON recipient (next_attempt, lane, destination) WHERE state = 'queued' AND mailbox = '';

CREATE TABLE event (
    id          INTEGER PRIMARY KEY,
    at          REAL NOT NULL,
    kind        TEXT NOT NULL,                  -- see mailsrv.store.ledger
    message     INTEGER,                        -- NULL when there is no message (yet)
    n           INTEGER,                        -- the recipient, NULL when it concerns the whole message
    address     TEXT NOT NULL,                  -- whom it concerns: recipient, account or ""
    sender      TEXT NOT NULL,
    client      TEXT NOT NULL,
    status      TEXT NOT NULL,                  -- enhanced status code or ""
    reason      TEXT NOT NULL,                  -- in plain words
    rule        TEXT NOT NULL,                  -- setting, record or RFC that decided
    answer      TEXT NOT NULL,                  -- what the other side said
    remote      TEXT NOT NULL,                  -- which other side: name [address]:port, and how it was encrypted
    detail      TEXT NOT NULL                   -- a file name, a command, an identifier: what a kind says it holds
);
CREATE INDEX event_message ON event (message) WHERE message IS NOT NULL;
CREATE INDEX event_address ON event (address) WHERE message IS NULL;
CREATE INDEX event_sender ON event (sender) WHERE message IS NULL AND sender <> '';
CREATE INDEX event_at ON event (at) WHERE message IS NULL;

CREATE TABLE login (
    account     TEXT NOT NULL,                  -- its key
    password    TEXT NOT NULL,                  -- name of an app password, "" for the main one
    at          REAL NOT NULL,
    client      TEXT NOT NULL,
    service     TEXT NOT NULL,                  -- smtp or pop3
    PRIMARY KEY (account, password)
) WITHOUT ROWID;

CREATE TABLE home (
    account     TEXT NOT NULL,                  -- its key
    network     TEXT NOT NULL,                  -- an IPv4 address or an IPv6 /64 that it was logged in to from
    password    TEXT NOT NULL,                  -- name of the app password that did it last, "" for the main one
    at          REAL NOT NULL,                  -- about when; not every login is written
    PRIMARY KEY (account, network)
) WITHOUT ROWID;

CREATE TABLE notice (
    cause       TEXT PRIMARY KEY,               -- see mailsrv.store.notices
    told        REAL NOT NULL,                  -- when somebody was last told of it, 0 for never
    seen        REAL NOT NULL,                  -- when it last happened
    times       INTEGER NOT NULL                -- how often it has happened
) WITHOUT ROWID;

CREATE TABLE secret (
    name        TEXT PRIMARY KEY,
    octets      BLOB NOT NULL
) WITHOUT ROWID;
"""


class DatabaseError(Exception):
    """The database cannot be used; the message is one sentence for the operator."""


class Outdated(DatabaseError):
    """It is of an older version, and a server may be at work on it, whose next start brings it up to date."""


def connect(connection: sqlite3.Connection) -> None:
    """Set a new connection up for use: WAL, a flush at every commit, patience with other programs."""
    connection.execute("PRAGMA busy_timeout = 15000")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


def _never() -> bool:
    return False


def _check_library() -> None:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        needed = ".".join(map(str, OLDEST_SQLITE))
        raise DatabaseError(f"Python's SQLite is {sqlite3.sqlite_version}; mailsrv needs {needed} or newer.")


def prepare(connection: sqlite3.Connection, path: str, *, may_upgrade: Callable[[], bool] = _never) -> None:
    """Create the tables, or check that they are of the version that this program knows (DatabaseError).

    ``may_upgrade`` is asked, with the write lock held, whether an older version is to be brought up to this one.
    Beside a server that still runs the old program that would take the tables away from it.
    """
    _check_library()
    try:
        connect(connection)
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                upgrades.run(connection, TABLES)
                version = VERSION
            elif version < VERSION and may_upgrade():
                for step in range(version + 1, VERSION + 1):
                    upgrades.run(connection, upgrades.STEPS[step])
                version = VERSION
            connection.execute(f"PRAGMA user_version = {version}")
            connection.execute("COMMIT")
        except Exception:
            # Half of the tables would be worse than none.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    except sqlite3.DatabaseError as error:
        raise unusable(path, error) from error
    if version > VERSION:
        raise DatabaseError(f"{path}: written by a newer mailsrv (version {version}, this one knows {VERSION}).")
    if version < VERSION:
        raise Outdated(
            f"{path}: written by an older mailsrv (version {version}, this one knows {VERSION});"
            " restart the server, which brings it up to date."
        )


def unusable(path: str, error: sqlite3.Error) -> DatabaseError:
    """The error in a sentence, with the remedy when the file itself is what is wrong."""
    damaged = getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    remedy = " Move it aside with its -wal file and restore a backup." if damaged else ""
    return DatabaseError(f"{path}: the database cannot be used: {error}.{remedy}")
