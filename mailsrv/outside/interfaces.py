"""What the program may ask of the world: time, network, disk, database files, threads, random bytes, DNS."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IReactorCore,
    IReactorFromThreads,
    IReactorTCP,
    IReactorTime,
    IReactorUDP,
)
from zope.interface import Interface

P = ParamSpec("P")
T = TypeVar("T")


CACHED_LIMIT = 256 * 1024  # octets of the largest file that ``IFilesystem.read_cached`` gives


class IReactor(IReactorCore, IReactorTime, IReactorTCP, IReactorUDP, IReactorFromThreads):
    """What mailsrv asks of a reactor; Twisted's own reactors provide it."""


class Output(Protocol):
    """A new file being written."""

    def write(self, data: bytes) -> None: ...

    def sync(self) -> None:
        """Flush to stable storage.  After an OSError here the file is suspect: write it anew."""

    def close(self) -> None: ...


class Input(Protocol):
    """An open regular file."""

    def read(self, size: int) -> bytes:
        """Up to ``size`` octets; b"" at the end."""

    def seek(self, offset: int) -> int: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class FileStatus:
    """``kind`` is "file", "directory", "link" or "other".

    Seconds since 1970: ``modified`` is when the content last changed, and can be set; ``changed`` when anything did,
    and cannot.
    """

    kind: str
    size: int
    modified: float
    changed: float


class IFilesystem(Interface):
    """The disk, as far as files of mail are concerned; the database opens its own files.

    - ``create`` never follows a symbolic link and never replaces a file (FileExistsError).
    - What was written is durable after ``sync`` of the file *and* ``sync_directory`` of its folder, or after one
      ``sync_all`` of the file system for any number of files, renames and new folders before it.
    - ``rename`` replaces nothing: FileExistsError when the target is there.
    - ``replace`` and ``append`` follow no symbolic link at the last component either; neither is durable by itself.
    - ``open`` opens regular files only and follows no symbolic link at the last component (OSError otherwise).

    Errors are OSError with errno, as from ``os``.  All calls but ``read_cached`` may block: they run in a worker.
    """

    def create(path: str) -> Output:
        """Create a new file, mode 0600, for writing."""

    def open(path: str) -> Input:
        """Open a regular file for reading."""

    def append(path: str, data: bytes) -> None:
        """Add to the end of a regular file that is there, in one write, so that nobody's comes between (OSError)."""

    def read_cached(path: bytes) -> bytes | None:
        """All of a regular file of at most ``CACHED_LIMIT`` octets, when that takes no waiting; None otherwise.

        None says nothing about the file: ``open`` has to be asked.  For the reactor's thread alone, so ``path`` is in
        octets (``os.fsencode``), as the kernel wants it.
        """

    def rename(source: str, target: str) -> None:
        """Move a file or folder within one file system."""

    def replace(source: str, target: str) -> None:
        """Move a file to a name that another file may have, which then has gone."""

    def unlink(path: str) -> None:
        """Remove a file."""

    def list(path: str) -> list[str]:
        """Names in a folder, in no order."""

    def status(path: str) -> FileStatus:
        """What is there, without following a symbolic link; FileNotFoundError when nothing is."""

    def make_directory(path: str) -> None:
        """Create one folder, mode 0700; FileExistsError when something is there."""

    def sync_directory(path: str) -> None:
        """Make the names in a folder durable."""

    def sync_all(folders: Collection[str]) -> None:
        """Make everything durable on the file systems that hold these folders, each of them once."""

    def free(path: str) -> int:
        """Octets that may still be written to the file system that holds ``path``."""


class NameNotFound(Exception):
    """NXDOMAIN: an authoritative "there is no such name".  A permanent fact."""


class LookupFailed(Exception):
    """SERVFAIL, REFUSED, a time-out, no server, a malformed answer: nothing is known.  Try later."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What DNS said; ``records`` is empty when the name exists without that type.

    A, AAAA: the address as text.  MX: ``(preference, host)``.  PTR, CNAME: the host.  TXT: the joined octets as str
    (latin-1).  Hosts are A-labels in lower case without the final dot; the root is "".  ``name`` is the name at the
    end of a chain of CNAMEs.  ``authenticated`` is the AD bit, believed only from a resolver on loopback.
    """

    records: tuple[Any, ...]
    name: str
    authenticated: bool = False


class IResolver(Interface):
    """DNS."""

    async def query(name: str, kind: str) -> Answer:
        """Look up ``kind`` ("A", "AAAA", "MX", "PTR", "TXT") of ``name``; NameNotFound, LookupFailed."""


class Worker(Protocol):
    """Threads for one kind of work that blocks."""

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Run ``function`` outside the reactor's thread.  Calls of a worker with one thread run in order."""
        ...

    def stop(self) -> None:
        """Finish what was begun and end the threads."""


class Outside(Protocol):
    """The one door: everything that the program does not decide itself comes in here.

    ``mailsrv.app.build`` is given one.  The real one is ``mailsrv.outside.real``; a simulation gives another, and the
    same program runs in a world where the clock is virtual, the network cuts and splits and the disk forgets.
    Nothing else in the package imports the global reactor, ``time``, ``random``, ``secrets`` or ``threading``; a test
    checks it.
    """

    reactor: IReactor
    filesystem: IFilesystem

    def wall(self) -> float:
        """Seconds since 1970.  May jump: for names, headers and what is written down, never for waiting."""
        ...

    def random(self, octets: int) -> bytes:
        """Bytes that nobody can foresee."""
        ...

    def worker(self, name: str, threads: int = 1) -> Worker: ...

    def listen(self, description: str, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen at a Twisted server endpoint string; fails with CannotListenError or ValueError."""
        ...

    def connect(self, address: str, port: int, factory: IProtocolFactory, timeout_s: float) -> Deferred[IProtocol]:
        """Connect to ``address``, IPv4 or IPv6 as text, within ``timeout_s`` seconds; cancelling gives it up.

        Fires with the connected protocol; fails with a ConnectError of Twisted's or OSError.
        """
        ...

    def connect_database(self, path: str) -> sqlite3.Connection:
        """An SQLite connection in autocommit mode, to be used from one thread at a time."""
        ...

    def resolver(self, servers: Sequence[str]) -> IResolver:
        """A resolver that asks ``servers`` ("address:port"), or the system's when empty."""
        ...
