"""The machine that the program runs on, as an ``Outside``."""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IProtocol, IProtocolFactory

from mailsrv.outside.connecting import connect
from mailsrv.outside.filesystem import Filesystem
from mailsrv.outside.interfaces import IFilesystem, IReactor, IResolver, Worker
from mailsrv.outside.listening import listen
from mailsrv.outside.resolver import DnsResolver
from mailsrv.outside.threads import ThreadWorker

SWITCH_S = 0.0001


class RealOutside:
    """The machine that the program runs on."""

    def __init__(self, reactor: Any) -> None:
        self.reactor: IReactor = reactor
        # A worker that comes back from the disk waits this long for the interpreter while the reactor is busy; with
        # Python's 5 ms a commit takes twice as long, and every client waits for it.
        sys.setswitchinterval(SWITCH_S)
        self.filesystem: IFilesystem = Filesystem()

    def wall(self) -> float:
        return time.time()

    def random(self, octets: int) -> bytes:
        return os.urandom(octets)

    def worker(self, name: str, threads: int = 1) -> Worker:
        return ThreadWorker(self.reactor, name, threads)

    def listen(self, description: str, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        return listen(self.reactor, description, factory)

    def connect(self, address: str, port: int, factory: IProtocolFactory, timeout_s: float) -> Deferred[IProtocol]:
        return connect(self.reactor, address, port, factory, timeout_s)

    def connect_database(self, path: str) -> sqlite3.Connection:
        return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30, cached_statements=512)

    def resolver(self, servers: Sequence[str]) -> IResolver:
        return DnsResolver(self.reactor, servers)
