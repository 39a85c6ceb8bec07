"""A next hop on loopback that keeps all mail it is given and passes nothing on: the world outside, for a demonstration.

Speaks as much SMTP (RFC 5321, with PIPELINING, 8BITMIME and SMTPUTF8) as a relay needs to hear.  It answers 250 after
``keep`` has returned; when ``keep`` raises OSError, 451.  For people who try things and for tests, not for the open
network: it waits for slow clients and limits nothing but the length of a line.
"""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable
from dataclasses import dataclass

_LINE_LIMIT = 1_000_000


@dataclass(frozen=True)
class Caught:
    """One message: the addresses of its envelope, and its content with CRLF line ends and without dot-stuffing."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes


class Catcher:
    """Listens on 127.0.0.1 from ``start`` to ``stop``; ``keep`` is called in the thread of a connection."""

    def __init__(self, keep: Callable[[Caught], None], port: int = 0) -> None:
        self._server = _Server(("127.0.0.1", port), keep)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)

    @property
    def port(self) -> int:
        port: int = self._server.server_address[1]
        return port

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Take no more connections; those that are open end with the process or when their client goes."""
        self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], keep: Callable[[Caught], None]) -> None:
        self.keep = keep
        super().__init__(address, _Connection)


class _Connection(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True
    server: _Server

    def handle(self) -> None:
        try:
            self._converse()
        except ConnectionError:
            pass  # the client went away: it keeps what it was not told we have

    def _say(self, line: str) -> None:
        self.wfile.write(line.encode("ascii") + b"\r\n")

    def _converse(self) -> None:
        sender: str | None = None
        recipients: list[str] = []
        self._say("220 catcher.invalid ESMTP keeps everything")
        while line := self.rfile.readline(_LINE_LIMIT):
            verb, _, argument = line.decode("utf-8", "replace").strip().partition(" ")
            match verb.upper():
                case "EHLO":
                    for offer in ("250-catcher.invalid", "250-PIPELINING", "250-8BITMIME", "250 SMTPUTF8"):
                        self._say(offer)
                case "HELO" | "NOOP":
                    self._say("250 OK")
                case "RSET":
                    sender, recipients = None, []
                    self._say("250 OK")
                case "MAIL":
                    sender, recipients = _path(argument), []
                    self._say("250 OK")
                case "RCPT" if sender is not None:
                    recipients.append(_path(argument))
                    self._say("250 OK")
                case "DATA" if sender is not None and recipients:
                    self._say("354 go on")
                    content = self._content()
                    if content is None:
                        return
                    self._keep(Caught(sender, tuple(recipients), content))
                    sender, recipients = None, []
                case "QUIT":
                    self._say("221 bye")
                    return
                case "RCPT" | "DATA":
                    self._say("503 not now")
                case _:
                    self._say("502 unknown")

    def _keep(self, caught: Caught) -> None:
        try:
            self.server.keep(caught)
        except OSError as error:
            self._say(f"451 could not be kept: {error.strerror}")
        else:
            self._say("250 kept")

    def _content(self) -> bytes | None:
        """Up to the final dot; None when the connection ended before."""
        lines: list[bytes] = []
        while line := self.rfile.readline(_LINE_LIMIT):
            if line == b".\r\n":
                return b"".join(lines)
            lines.append(line[1:] if line.startswith(b".") else line)
        return None


def _path(argument: str) -> str:
    """The address in ``FROM:<address> PARAMETERS`` or ``TO:<address>``."""
    return argument.partition("<")[2].rpartition(">")[0]
