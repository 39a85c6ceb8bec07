"""POP3 servers with filled mailboxes, and a client that talks to them: what ``retrieve`` and ``opening`` share.

Files are named as mailsrv names them, with the sizes that both servers believe.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol

from bench.peers import MAILSRV, Bench, MailsrvPeer, unavailable
from tests.peers import dovecot
from tests.peers.dovecot import Dovecot
from tests.peers.server import ALICE, ALICE_PASSWORD

DOVECOT = "Dovecot"
_LINE = b"0123456789abcdef" * 4
_HEAD = b"From: sender@example.net\nTo: box@example.org\nSubject: %d\n\n"
_LINKS = 10_000  # names for one file: ext4 takes 65,000


class Source(Protocol):
    """A POP3 server on ``port``, with mailboxes of these numbers."""

    port: int

    def maildir(self, number: int) -> Path: ...

    def login(self, number: int) -> tuple[str, str]:
        """User and password of the mailbox with this number."""
        ...

    def own(self, maildir: Path) -> None:
        """Give a Maildir to the user that the server runs as."""
        ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


class DovecotSource:
    def __init__(self, place: Path, mailboxes: int, twistd: tuple[str, ...] = ()) -> None:
        folder = place / "dovecot"
        shutil.rmtree(folder, ignore_errors=True)
        self._server = Dovecot(folder)
        self.port = self._server.port

    def maildir(self, number: int) -> Path:
        return self._server.mail / f"box{number}"

    def login(self, number: int) -> tuple[str, str]:
        return f"box{number}", dovecot.PASSWORD

    def own(self, maildir: Path) -> None:
        user = pwd.getpwnam(self._server.user)
        for folder, _, files in os.walk(maildir):
            for path in (folder, *(os.path.join(folder, name) for name in files)):
                os.chown(path, user.pw_uid, user.pw_gid)

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()


class MailsrvSource:
    def __init__(self, place: Path, mailboxes: int, twistd: tuple[str, ...] = ()) -> None:
        peer = Bench(place, mailsrv_settings={"auth.cleartext": "loopback"}, twistd=twistd).make(MAILSRV)
        assert isinstance(peer, MailsrvPeer)
        self._server = peer.server
        self.port = self._server.port["pop3"]
        accounts = self._server.directory / "accounts"
        (alice,) = [line for line in accounts.read_text().splitlines() if line.startswith(ALICE)]
        more = [alice.replace(ALICE, f"box{number}@example.org") for number in range(mailboxes)]
        accounts.write_text("\n".join([alice, *more]) + "\n")

    def maildir(self, number: int) -> Path:
        return self._server.maildir(f"box{number}@example.org")

    def login(self, number: int) -> tuple[str, str]:
        return f"box{number}@example.org", ALICE_PASSWORD

    def own(self, maildir: Path) -> None:
        pass  # it is whoever runs the benchmark

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()


MakeSource = Callable[[Path, int, tuple[str, ...]], Source]


def available(only: list[str] | None) -> dict[str, MakeSource]:
    """The servers that can be measured here, by name; says on standard error which cannot."""
    found: dict[str, MakeSource] = {MAILSRV: MailsrvSource, DOVECOT: DovecotSource}
    for name, why in ((MAILSRV, unavailable(MAILSRV)), (DOVECOT, dovecot.unavailable())):
        if only and name not in only:
            del found[name]
        elif why:
            print(f"left out: {name}: {why}\n", file=sys.stderr)
            del found[name]
    return found


def fill(source: Source, number: int, messages: int, *, lines: int = 62, linked: bool = False) -> None:
    """File messages in a mailbox, of 4 KiB unless ``lines`` of 64 octets says otherwise.

    ``linked``: many names for few files, which is enough to list them.
    """
    maildir = source.maildir(number)
    for folder in ("new", "cur", "tmp"):
        (maildir / folder).mkdir(parents=True, mode=0o700)
    written = maildir
    text = (_LINE + b"\n") * lines
    for n in range(messages):
        body = _HEAD % (n // _LINKS * _LINKS if linked else n) + text
        wire = len(body) + body.count(b"\n")
        path = maildir / "new" / f"{1764000000 + n // 3}.Q1J4BS1D7M00N{n}.mx.example.org,S={len(body)},W={wire}"
        if linked and n % _LINKS:
            os.link(written, path)
        else:
            written = path
            path.write_bytes(body)
    source.own(maildir)


class Client:
    """One connection, in clear text."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answer(b"\r\n")

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def log_in(self, user: str, password: str) -> None:
        self.ask(b"USER %b" % user.encode())
        self.ask(b"PASS %b" % password.encode())

    def ask(self, command: bytes) -> None:
        """A command with an answer of one line."""
        self._socket.sendall(command + b"\r\n")
        self._answer(b"\r\n")

    def ask_long(self, command: bytes) -> None:
        """A command with an answer of many lines."""
        self._socket.sendall(command + b"\r\n")
        self._answer(b"\r\n.\r\n")

    def _answer(self, end: bytes) -> None:
        """Read up to ``end``, or up to a line that says no."""
        begin = end_of_data = b""
        while not end_of_data.endswith(end):
            piece = self._socket.recv(262_144)
            begin = begin or piece[:80]
            end_of_data = (end_of_data + piece)[-8:]
            if not piece or (begin.startswith(b"-ERR") and end_of_data.endswith(b"\r\n")):
                raise SystemExit(f"bench: POP3: {begin!r}")
