"""When a message arrives: at a next hop, or as a file in a Maildir, by the clock that all processes share.

Each observer is a process of its own, so that it sees what happens while the client does something else; it reports
the system's monotonic time through a pipe.  It does the same work for every server that is compared.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_FORK = multiprocessing.get_context("fork")
_EHLO = b"250-sink.example.com\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
_EHLO_CHUNKING = b"250-sink.example.com\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 8BITMIME\r\n"
_END = b"\r\n.\r\n"
_IN_CREATE, _IN_MOVED_TO = 0x100, 0x80  # linux/inotify.h: linked into the folder, or renamed

Arrival = tuple[float, float]  # whole, and reported as arrived: seconds of time.monotonic()


class _Observer:
    """A process that reports ``Arrival`` after ``Arrival``; ended when the ``with`` block is."""

    def __init__(self, observe: Callable[[Connection], None]) -> None:
        self._arrivals, reports = _FORK.Pipe(duplex=False)
        self._process = _FORK.Process(target=observe, args=(reports,), daemon=True)
        self._process.start()
        reports.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()
        self._arrivals.close()

    def next(self, patience_s: float) -> Arrival:
        """Wait for the next message; SystemExit when none comes or the observer has failed."""
        try:
            if self._arrivals.poll(patience_s):
                arrival: Arrival = self._arrivals.recv()
                return arrival
        except EOFError:
            raise SystemExit("bench: what watches for messages has failed; its reason is above") from None
        raise SystemExit(f"bench: a message that was accepted has not arrived after {patience_s:g} s")


class NextHop(_Observer):
    """A server that throws messages away.  A message is whole when its final dot is read, and reported as arrived when
    the 250 for it is out.

    smtp-sink cannot be asked when.  As it does, this one takes any number of connections in one thread, with PIPELINING
    and without CHUNKING, unless it is to offer ``chunking``.  Unless it ``keeps`` them, a connection is over with the
    message.
    """

    def __init__(self, keeps: bool, chunking: bool = False) -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port: int = listener.getsockname()[1]
        super().__init__(lambda reports: _serve(listener, keeps, chunking, reports))
        listener.close()


class Watch(_Observer):
    """Watches the folder ``new`` of a Maildir, which must be there; a message is whole when its file has appeared."""

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        inotify = libc.inotify_init1(os.O_CLOEXEC)
        if inotify < 0 or libc.inotify_add_watch(inotify, os.fsencode(folder), _IN_CREATE | _IN_MOVED_TO) < 0:
            raise SystemExit(f"bench: {folder} cannot be watched: {os.strerror(ctypes.get_errno())}")
        super().__init__(lambda reports: _watch(inotify, reports))
        os.close(inotify)


def _watch(inotify: int, reports: Connection) -> None:
    while True:
        events = os.read(inotify, 65536)
        now = time.monotonic()
        while events:  # struct inotify_event: three ints and the length of the name, then the name
            reports.send((now, now))
            events = events[16 + int.from_bytes(events[12:16], "little") :]


@dataclass
class _Connection:
    socket: socket.socket
    keeps: bool
    chunking: bool
    read: bytes = b""
    content: bool = False  # between DATA and the final dot
    chunk: int = 0  # octets of the chunk that are still to come
    replies: bytearray = field(default_factory=bytearray)


def _serve(listener: socket.socket, keeps: bool, chunking: bool, reports: Connection) -> None:
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.data is None:
                accepted, _ = listener.accept()
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(accepted, selectors.EVENT_READ, _Connection(accepted, keeps, chunking))
                accepted.sendall(b"220 sink.example.com ESMTP\r\n")
            elif not _converse(key.data, reports):
                selector.unregister(key.data.socket)
                key.data.socket.close()


def _converse(connection: _Connection, reports: Connection) -> bool:
    """Answer what has come; False when the connection is over."""
    try:
        data = connection.socket.recv(65536)
        now = time.monotonic()
        connection.read += data
        goes_on = stays = bool(data)
        while goes_on:
            whole = connection.content
            if connection.chunk:
                if len(connection.read) < connection.chunk:
                    break
                connection.read, connection.chunk, whole = connection.read[connection.chunk :], 0, True
                taken = b""
            else:
                taken, found, rest = connection.read.partition(_END if connection.content else b"\r\n")
                if not found:
                    break
                connection.read = rest
            if whole:
                connection.content = False
                connection.socket.sendall(bytes(connection.replies) + b"250 2.0.0 Thrown away\r\n")
                connection.replies.clear()
                reports.send((now, time.monotonic()))
                stays = connection.keeps
            else:
                goes_on = _command(connection, taken.upper())
        if connection.replies:
            connection.socket.sendall(connection.replies)
            connection.replies.clear()
    except OSError:
        return False
    return stays and goes_on


def _command(connection: _Connection, line: bytes) -> bool:
    """Reply to a command; False after QUIT.  BDAT has the whole message in one chunk, as mailsrv sends a small one."""
    verb = line[:4]
    if verb == b"BDAT":
        connection.chunk = int(line.split()[1])
    elif verb == b"DATA":
        connection.content = True
        connection.replies += b"354 Go on\r\n"
    elif verb == b"EHLO":
        connection.replies += _EHLO_CHUNKING if connection.chunking else _EHLO
    elif verb == b"QUIT":
        connection.replies += b"221 2.0.0 Bye\r\n"
    else:
        connection.replies += b"250 2.0.0 Ok\r\n"
    return verb != b"QUIT"
