"""``mailsrv.db`` behind a group commit: one writer, one flush for whatever is waiting.

``write`` takes an operation, a plain function of an ``sqlite3.Connection``, and answers when the transaction that holds
its changes is durable.  Operations of one turn of the reactor share a transaction, and so do those that gather while
one commits.  So the price of durability is one flush per batch, and batches grow by themselves when the load does.

An operation that raises takes nobody else's changes with it: the shared transaction is rolled back and each operation
of the batch is run again in a transaction of its own.  Operations must therefore change nothing but the database.
Trouble of the database itself (disk full, I/O error, locked for too long, closed) reaches the callers as
``StorageTrouble``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mailsrv.outside.interfaces import Outside
from mailsrv.store import schema

P = ParamSpec("P")
T = TypeVar("T")

BATCH = 256  # operations that share one transaction
LOCKED_MS = 500  # how long SQLite waits at a time for another program that holds the database
LOCKED_TIMES = 30  # how often it does so before the operations fail; once when the server is about to end


class StorageTrouble(Exception):
    """The database could not do it now; nothing was changed.  ``full``: because there is no room."""

    def __init__(self, message: str, full: bool = False) -> None:
        super().__init__(message)
        self.full = full


class _Work:
    """An operation that waits for its transaction."""

    __slots__ = ("arguments", "done", "gathered", "operation")

    def __init__(self, operation: Callable[..., Any], arguments: tuple[Any, ...], gathered: bool = False) -> None:
        self.operation = operation
        self.arguments = arguments
        self.gathered = gathered
        self.done: Deferred[Any] = Deferred()


class Database:
    """The server's access to its database; the operator's tool opens its own connection."""

    def __init__(self, outside: Outside, path: str) -> None:
        self._outside = outside
        self._path = path
        self._writer = outside.worker("database-writer")
        self._reader = outside.worker("database-reader")
        self._write_connection: sqlite3.Connection | None = None
        self._read_connection: sqlite3.Connection | None = None
        self._waiting: list[_Work] = []
        self._committing = False
        self._closed = False
        self._ending = False  # read by the writer's thread, too
        self._idle: list[Deferred[None]] = []

    def open(self) -> sqlite3.Connection:
        """Make, upgrade or check the tables, before anything else runs; the connection, for now.  DatabaseError."""
        try:
            self._write_connection = self._outside.connect_database(self._path)
            schema.prepare(self._write_connection, self._path, may_upgrade=lambda: True)
            self._write_connection.execute(f"PRAGMA busy_timeout = {LOCKED_MS}")
            self._read_connection = self._outside.connect_database(self._path)
            schema.connect(self._read_connection)
        except sqlite3.Error as error:
            raise schema.DatabaseError(f"{self._path}: cannot be opened: {error}.") from error
        return self._write_connection

    def write(
        self, operation: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """Run ``operation`` in the next transaction; fires with its result once that is durable."""
        assert not kwargs, "operations take positional arguments"
        return self._add(_Work(operation, args))

    def gather(self, operation: Callable[[sqlite3.Connection, Sequence[T]], None], item: T) -> Deferred[None]:
        """Like ``write`` for an operation that takes many items at once: what waits goes to it in one call."""
        return self._add(_Work(operation, (item,), gathered=True))

    def _add(self, work: _Work) -> Deferred[Any]:
        if self._closed:
            work.done.errback(StorageTrouble("the database is closed"))
            return work.done
        self._waiting.append(work)
        if not self._committing:
            # At the end of this turn: what else the reactor has at hand goes with it.
            self._committing = True
            self._outside.reactor.callLater(0, self._commit_waiting)
        return work.done

    def _commit_waiting(self) -> None:
        batch = self._waiting[:BATCH]
        del self._waiting[:BATCH]
        self._committing = True
        done = self._writer.call(self._run, batch)
        done.addCallbacks(lambda results: self._committed(batch, results), lambda failure: self._broken(batch, failure))

    def _committed(self, batch: list[_Work], results: list[tuple[bool, Any]]) -> None:
        self._next()
        for work, (succeeded, result) in zip(batch, results, strict=True):
            if succeeded:
                work.done.callback(result)
            else:
                work.done.errback(result)
        self._rest()

    def _broken(self, batch: list[_Work], failure: Failure) -> None:
        self._next()
        for work in batch:
            work.done.errback(failure)
        self._rest()

    def _next(self) -> None:
        # The next batch is begun before the answers of this one are given: the writer never waits for the reactor.
        self._committing = False
        if self._waiting:
            self._commit_waiting()

    def _rest(self) -> None:
        # After the answers, because whoever gets one may have more to write.
        if not self._committing:
            idle, self._idle = self._idle, []
            for waiting in idle:
                waiting.callback(None)

    def _run(self, batch: list[_Work]) -> list[tuple[bool, Any]]:
        """In the writer's thread."""
        connection = self._write_connection
        assert connection is not None
        try:
            return [(True, result) for result in self._transaction(connection, batch)]
        except Exception as error:
            if len(batch) == 1 or _is_locked(error):
                return [(False, error)] * len(batch)
        alone: list[tuple[bool, Any]] = []
        for work in batch:
            if alone and _is_locked(alone[-1][1]):
                # Each would wait for as long as the first did.
                alone.append(alone[-1])
                continue
            try:
                alone.append((True, self._transaction(connection, [work])[0]))
            except Exception as error:
                alone.append((False, error))
        return alone

    def _transaction(self, connection: sqlite3.Connection, batch: list[_Work]) -> list[Any]:
        try:
            self._begin(connection)
            results = _run_each(connection, batch)
            connection.execute("COMMIT")
        except Exception as error:
            # Some errors, a full disk among them, have ended the transaction already.
            if connection.in_transaction:
                try:
                    connection.execute("ROLLBACK")
                except sqlite3.Error as second:
                    # The next BEGIN fails and tries again to roll back.
                    raise _trouble(second) from error
            if isinstance(error, sqlite3.Error):
                raise _trouble(error) from error
            raise
        return results

    def _begin(self, connection: sqlite3.Connection) -> None:
        for _ in range(LOCKED_TIMES - 1):
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if self._ending or not _is_busy(error):
                    raise
        connection.execute("BEGIN IMMEDIATE")

    async def read(
        self, operation: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a query beside the writer; it sees what is committed (StorageTrouble)."""
        if self._closed:
            raise StorageTrouble("the database is closed")

        def run() -> T:
            assert self._read_connection is not None
            try:
                return operation(self._read_connection, *args, **kwargs)
            except sqlite3.Error as error:
                raise _trouble(error) from error

        return await self._reader.call(run)

    async def foreign_changes(self) -> int:
        """A number that changes when another program has changed the database."""

        def version() -> int:
            assert self._write_connection is not None
            found: int = self._write_connection.execute("PRAGMA data_version").fetchone()[0]
            return found

        return await self._writer.call(version)

    async def close(self) -> None:
        """Wait for what is being written, then close; what is asked for afterwards ends in StorageTrouble.

        Another program that holds the database is not waited for any longer.
        """
        self._ending = True
        while self._committing:
            idle: Deferred[None] = Deferred()
            self._idle.append(idle)
            await idle
        self._closed = True
        for worker, connection in ((self._reader, self._read_connection), (self._writer, self._write_connection)):
            if connection is not None:
                await worker.call(connection.close)
            worker.stop()


def _run_each(connection: sqlite3.Connection, batch: list[_Work]) -> list[Any]:
    gathered: dict[Callable[..., Any], list[Any]] = {}
    for work in batch:
        if work.gathered:
            gathered.setdefault(work.operation, []).append(work.arguments[0])
    for operation, items in gathered.items():
        operation(connection, items)
    return [None if work.gathered else work.operation(connection, *work.arguments) for work in batch]


def _trouble(error: sqlite3.Error) -> StorageTrouble:
    return StorageTrouble(str(error), getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL)


def _is_locked(error: object) -> bool:
    """Another program has held the database for longer than one waits: no operation is at fault."""
    return isinstance(error, StorageTrouble) and _is_busy(error.__cause__)


def _is_busy(error: object) -> bool:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
