"""Messages per second by POP3 from Maildirs of 2,000 messages of 4 KiB, beside Dovecot.

One session: login, STAT, UIDL, RETR of every message in turn, QUIT, without TLS.  By one client, and by twenty at a
time on mailboxes of their own.  Every mailbox has been opened before, so indexes and password caches are warm.
"""

from __future__ import annotations

import multiprocessing
import os
import pwd
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import Any, Protocol

from bench import report
from bench.peers import MAILSRV, Bench, MailsrvPeer, unavailable
from tests.peers import dovecot
from tests.peers.dovecot import Dovecot
from tests.peers.server import ALICE, ALICE_PASSWORD

DOVECOT = "Dovecot"
MESSAGES = 2000
CLIENTS = 20
_LINE = b"0123456789abcdef" * 4
_BODY = b"From: sender@example.net\nTo: box@example.org\nSubject: %d\n\n" + (_LINE + b"\n") * 62


class Source(Protocol):
    """A POP3 server on ``port`` with filled mailboxes."""

    port: int

    def login(self, number: int) -> tuple[str, str]:
        """User and password of the mailbox with this number."""
        ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


class _DovecotSource:
    def __init__(self, place: Path) -> None:
        folder = place / "dovecot"
        shutil.rmtree(folder, ignore_errors=True)
        self._server = Dovecot(folder)
        self.port = self._server.port
        user = pwd.getpwnam(self._server.user)
        for number in range(CLIENTS):
            _fill(self._server.mail / f"box{number}", (user.pw_uid, user.pw_gid))

    def login(self, number: int) -> tuple[str, str]:
        return f"box{number}", dovecot.PASSWORD

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()


class _MailsrvSource:
    def __init__(self, place: Path) -> None:
        peer = Bench(place, mailsrv_settings={"auth.cleartext": "loopback"}).make(MAILSRV)
        assert isinstance(peer, MailsrvPeer)
        self._server = peer.server
        self.port = self._server.port["pop3"]
        accounts = self._server.directory / "accounts"
        (alice,) = [line for line in accounts.read_text().splitlines() if line.startswith(ALICE)]
        more = [alice.replace(ALICE, f"box{number}@example.org") for number in range(CLIENTS)]
        accounts.write_text("\n".join([alice, *more]) + "\n")
        for number in range(CLIENTS):
            _fill(self._server.maildir(f"box{number}@example.org"), None)

    def login(self, number: int) -> tuple[str, str]:
        return f"box{number}@example.org", ALICE_PASSWORD

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()


def run(place: Path, rounds: int, only: list[str] | None, quiet: bool) -> dict[str, Any]:
    """Figures by server; prints a table unless ``quiet``."""
    sources: dict[str, type[_MailsrvSource] | type[_DovecotSource]] = {MAILSRV: _MailsrvSource, DOVECOT: _DovecotSource}
    for name, why in ((MAILSRV, unavailable(MAILSRV)), (DOVECOT, dovecot.unavailable())):
        if only and name not in only:
            del sources[name]
        elif why:
            print(f"left out: {name}: {why}\n", file=sys.stderr)
            del sources[name]
    speeds: dict[str, dict[int, list[float]]] = {name: {1: [], CLIENTS: []} for name in sources}
    made = {name: source(place) for name, source in sources.items()}
    for _ in range(rounds):
        for name, source in made.items():
            try:
                source.start()
                _speed(source, CLIENTS)
                for clients in (1, CLIENTS):
                    speeds[name][clients].append(_speed(source, clients))
            finally:
                source.stop()
    results = {
        name: {f"{clients} clients": report.spread(values) for clients, values in by_clients.items()}
        for name, by_clients in speeds.items()
    }
    if not quiet:
        rows = [
            [
                name,
                *(
                    f"{speed['median']:,.0f} ({speed['least']:,.0f} to {speed['most']:,.0f})"
                    for speed in result.values()
                ),
            ]
            for name, result in results.items()
        ]
        print(report.table("Retrieved, messages/s", ["server", "one client", f"{CLIENTS} clients"], rows))
    return results


def _fill(maildir: Path, owner: tuple[int, int] | None) -> None:
    for name in ("new", "cur", "tmp"):
        (maildir / name).mkdir(parents=True, mode=0o700)
    for number in range(MESSAGES):
        body = _BODY % number
        wire = len(body) + body.count(b"\n")
        (maildir / "new" / f"1764000000.M{number:06}P1.bench,S={len(body)},W={wire}").write_bytes(body)
    if owner is not None:
        for folder, _, files in os.walk(maildir):
            for path in (folder, *(os.path.join(folder, name) for name in files)):
                os.chown(path, *owner)


def _speed(source: Source, clients: int) -> float:
    """Messages per second of this many clients together, each in a process of its own."""
    processes = multiprocessing.get_context("fork")
    barrier = processes.Barrier(clients + 1)
    workers = [
        processes.Process(target=_client, args=(barrier, source.port, *source.login(number)))
        for number in range(clients)
    ]
    for worker in workers:
        worker.start()
    barrier.wait()
    began = time.monotonic()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit("bench: a POP3 client failed; its reason is above")
    return clients * MESSAGES / (time.monotonic() - began)


def _client(barrier: Any, port: int, user: str, password: str) -> None:
    barrier.wait()
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _answer(connection, b"\r\n")
        for command in (f"USER {user}", f"PASS {password}", "STAT"):
            connection.sendall(command.encode() + b"\r\n")
            _answer(connection, b"\r\n")
        connection.sendall(b"UIDL\r\n")
        _answer(connection, b"\r\n.\r\n")
        for number in range(1, MESSAGES + 1):
            connection.sendall(b"RETR %d\r\n" % number)
            _answer(connection, b"\r\n.\r\n")
        connection.sendall(b"QUIT\r\n")
        _answer(connection, b"\r\n")


def _answer(connection: socket.socket, end: bytes) -> None:
    """Read up to ``end``, or up to a line that says no."""
    data = b""
    while not data.endswith(end):
        piece = connection.recv(262_144)
        data += piece
        if not piece or (data.startswith(b"-ERR") and data.endswith(b"\r\n")):
            raise SystemExit(f"bench: POP3: {data[-200:]!r}")
