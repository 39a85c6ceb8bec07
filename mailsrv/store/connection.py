"""The database as the operator's tool opens it: beside a running server or without one.

Nothing is created: before the server's first start there is no file, and ``opened`` gives an empty database in memory,
in which nothing is found and nothing is queued.  Files that SQLite itself adds while the tool runs (``-wal``, ``-shm``)
get the owner of the database file, and go when the last program closes it.  A database of an older version is brought
up to date by the same steps as at a start of the server, but only where no server is at work, which may be an old one.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from mailsrv.store import schema, state_lock


@contextmanager
def opened(path: str, *, upgrade: bool = True) -> Iterator[sqlite3.Connection]:
    """The database ``path`` in autocommit mode, its tables checked, closed at the end.

    With ``upgrade`` an older version is brought up to date if no server is at work; else it is ``schema.Outdated``.
    Raises ``schema.DatabaseError``, also for what goes wrong in the body: locked for too long, not permitted, damaged.
    """
    # mode=rw: should the file vanish in between, it is an error and no new database.
    name, uri = (f"file:{quote(path)}?mode=rw", True) if os.path.lexists(path) else (":memory:", False)
    try:
        connection = sqlite3.connect(name, uri=uri, isolation_level=None)
    except sqlite3.Error as error:
        raise schema.DatabaseError(f"{path}: cannot be opened: {error}.") from error
    try:
        schema.prepare(connection, path, may_upgrade=lambda: upgrade and not state_lock.is_taken(os.path.dirname(path)))
        yield connection
    except sqlite3.Error as error:
        raise schema.DatabaseError(f"{path}: {error}.") from error
    finally:
        connection.close()


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """A transaction that may change things: all changes are durable afterwards or, after an exception, none is made."""
    connection.execute("BEGIN IMMEDIATE")
    yield from _until_done(connection)


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """A transaction that only reads: every query sees the same state, and nobody has to wait for it."""
    connection.execute("BEGIN")
    yield from _until_done(connection)


def _until_done(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some errors, a full disk among them, have ended the transaction already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
