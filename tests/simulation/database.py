"""The database of a simulated machine: SQLite itself, on a file in memory, with crashes around each commit.

Nothing of SQLite is imitated: WAL, locks and isolation are its own.  ``crash`` takes the connections of a life away as
a crash of the machine does: what was committed stays, what was not is rolled back.  That a commit lasts is SQLite's
promise as long as ``synchronous`` is FULL; a commit under less is an AssertionError here.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable
from typing import Any

from tests.simulation.timeline import Life

_FULL = 2
_READS = ("SELECT", "PRAGMA", "BEGIN", "ROLLBACK", "SAVEPOINT", "RELEASE", "EXPLAIN", "ANALYZE")
# Memory, where the system offers it as a folder: there a flush costs nothing.
_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class _Connection(sqlite3.Connection):
    """A connection of one life of the program."""

    life: Life
    patience_ms = 0  # what was asked for

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        self.life.check()
        if "busy_timeout" in sql:
            # Nothing waits in real time for what only virtual time brings.
            self.patience_ms = int(sql.rpartition("=")[2])
            sql = "PRAGMA busy_timeout = 0"
        word = sql.lstrip()[:9].upper()
        if not (word.startswith("COMMIT") or (not self.in_transaction and not word.startswith(_READS))):
            return super().execute(sql, parameters)
        if super().execute("PRAGMA synchronous").fetchone()[0] < _FULL:
            raise AssertionError(f"{sql}: commits of this connection do not last, synchronous is not FULL")
        self.life.step("database: commit")
        cursor = super().execute(sql, parameters)
        self.life.step("database: committed")
        return cursor

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        self.life.check()
        assert self.in_transaction, "executemany outside a transaction"
        return super().executemany(sql, parameters)

    def commit(self) -> None:
        self.execute("COMMIT")

    def close(self) -> None:
        self.life.check()
        super().close()


class Databases:
    """The database files of a machine; they outlast the program."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="mailsrv-simulation-", dir=_MEMORY)
        self._files: dict[str, str] = {}
        self._connections: list[_Connection] = []

    def connect(self, path: str, life: Life) -> sqlite3.Connection:
        life.check()
        connection = sqlite3.connect(
            self._file(path), isolation_level=None, check_same_thread=False, timeout=0, factory=_Connection
        )
        connection.life = life
        self._connections.append(connection)
        return connection

    def look(self, path: str) -> sqlite3.Connection:
        """A connection of the judge, whom no crash concerns.  The caller closes it."""
        return sqlite3.connect(self._file(path), isolation_level=None)

    def _file(self, path: str) -> str:
        return self._files.setdefault(path, os.path.join(self._folder, f"{len(self._files)}.db"))

    def crash(self) -> None:
        """The program has died: its transactions are rolled back."""
        for connection in self._connections:
            sqlite3.Connection.close(connection)
        self._connections.clear()

    def remove(self) -> None:
        """The world is over."""
        self.crash()
        shutil.rmtree(self._folder)
