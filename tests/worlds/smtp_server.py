"""An SMTP server that behaves as its script says: well, badly, or not at all.  For real sockets on loopback."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IListeningPort, ITCPTransport, ITLSTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure


@dataclass(frozen=True)
class Drop:
    """Say ``last`` and close."""

    last: bytes = b""


SILENT = b""
Say = bytes | Drop
PIPELINING = b"250-mx.example.net\r\n250 PIPELINING\r\n"


@dataclass
class Script:
    """What the server says to each command; ``mail`` and ``rcpt`` may depend on the command line.

    BDAT is answered with ``dot`` at the end, and with ``chunk`` before, or always with ``bdat``.
    """

    greeting: Say = b"220 mx.example.net ESMTP\r\n"
    ehlo: Say = PIPELINING
    ehlo_secure: Say = PIPELINING  # under TLS
    helo: Say = b"250 mx.example.net\r\n"
    mail: Say | Callable[[bytes], Say] = b"250 2.1.0 ok\r\n"
    rcpt: Say | Callable[[bytes], Say] = b"250 2.1.5 ok\r\n"
    data: Say = b"354 go\r\n"
    dot: Say = b"250 2.0.0 taken\r\n"
    chunk: Say = b"250 2.0.0 go on\r\n"
    bdat: Say | None = None
    rset: Say = b"250 2.0.0 reset\r\n"
    starttls: Say = b"220 go\r\n"
    auth: Say = b"235 2.7.0 welcome\r\n"
    quit: Say = Drop(b"221 bye\r\n")
    tls: Any = None  # CertificateOptions
    implicit: bool = False
    at_content: Say | None = None  # said when the first octets of content come


@dataclass
class Message:
    """``content`` with its dots stuffed, or as it is when it came in ``chunks``."""

    commands: list[bytes]
    content: bytes
    secure: bool
    chunks: tuple[int, ...] = ()


@dataclass
class Server:
    """What happened: ``lines`` are all commands of all connections, ``messages`` what was accepted or not."""

    script: Script
    port: int = 0
    connections: int = 0
    lines: list[bytes] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    listening: list[IListeningPort] = field(default_factory=list)
    open: set[_Session] = field(default_factory=set)

    def listen(self, reactor: Any, address: str = "127.0.0.1") -> Server:
        factory = Factory.forProtocol(lambda: _Session(self))
        factory.noisy = False
        port = reactor.listenTCP(self.port, factory, interface=address)
        self.port = port.getHost().port
        self.listening.append(port)
        return self

    async def close(self) -> None:
        for port in self.listening:
            stopped = port.stopListening()
            if stopped is not None:
                await stopped
        gone = [session.gone for session in self.open]
        for session in list(self.open):
            cast(ITCPTransport, session.transport).abortConnection()
        await DeferredList(gone)


class _Session(Protocol):
    def __init__(self, server: Server) -> None:
        self.gone: Deferred[None] = Deferred()
        self._server = server
        self._script = server.script
        self._buffer = b""
        self._content: bytes | None = None
        self._chunk: tuple[int, bool] | None = None  # octets that are to come, and whether they are the last
        self._chunks: list[bytes] = []
        self._accepted = False
        self._commands: list[bytes] = []
        self._secure = False
        self._over = False

    def connectionMade(self) -> None:
        self._server.connections += 1
        self._server.open.add(self)
        cast(ITCPTransport, self.transport).setTcpNoDelay(True)
        if self._script.implicit:
            self._start_tls()
        self._say(self._script.greeting)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._server.open.discard(self)
        self.gone.callback(None)

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        while (self._buffer or self._chunk == (0, True)) and not self._over:
            if self._chunk is not None:
                if not self._take_chunk(*self._chunk):
                    return
                continue
            if self._content is not None:
                if not self._take_content():
                    return
                continue
            line, end, rest = self._buffer.partition(b"\r\n")
            if not end:
                return
            self._buffer = rest
            self._command(line)

    def _take_content(self) -> bool:
        assert self._content is not None
        self._content += self._buffer
        self._buffer = b""
        if self._script.at_content is not None:
            self._say(self._script.at_content)
            self._script.at_content = None
            return False
        content, end, rest = (b"\r\n" + self._content).partition(b"\r\n.\r\n")
        if not end:
            return False
        self._server.messages.append(
            Message(self._commands, (content + b"\r\n")[2:].replace(b"\r\n.", b"\r\n."), self._secure)
        )
        self._content, self._buffer, self._commands = None, rest, []
        self._say(self._script.dot)
        return True

    def _take_chunk(self, size: int, last: bool) -> bool:
        if len(self._buffer) < size:
            return False
        self._chunks.append(self._buffer[:size])
        self._buffer, self._chunk = self._buffer[size:], None
        if self._script.bdat is not None:
            self._say(self._script.bdat)
        elif not self._accepted:
            self._say(b"503 5.5.1 nobody is there\r\n")
        elif not last:
            self._say(self._script.chunk)
        else:
            content, sizes = b"".join(self._chunks), tuple(map(len, self._chunks))
            self._server.messages.append(Message(self._commands, content, self._secure, sizes))
            self._say(self._script.dot)
        return True

    def _command(self, line: bytes) -> None:
        self._server.lines.append(line)
        verb = line.split(b" ")[0].upper()
        script = self._script
        match verb:
            case b"EHLO":
                self._say(script.ehlo_secure if self._secure else script.ehlo)
            case b"STARTTLS":
                self._say(script.starttls)
                if script.starttls[:3] == b"220" if isinstance(script.starttls, bytes) else False:
                    self._start_tls()
            case b"MAIL":
                self._commands, self._chunks, self._accepted = [line], [], False
                self._say(script.mail(line) if callable(script.mail) else script.mail)
            case b"RCPT":
                self._commands.append(line)
                answer = script.rcpt(line) if callable(script.rcpt) else script.rcpt
                self._accepted = self._accepted or (isinstance(answer, bytes) and answer.startswith(b"2"))
                self._say(answer)
            case b"BDAT":
                size, _, last = line[5:].partition(b" ")
                self._chunk = (int(size), last == b"LAST")
            case b"DATA":
                self._say(script.data)
                if isinstance(script.data, bytes) and script.data.startswith(b"354"):
                    self._content = b""
            case _:
                known = {b"HELO": script.helo, b"AUTH": script.auth, b"RSET": script.rset, b"QUIT": script.quit}
                self._say(known.get(verb, b"500 5.5.1 what?\r\n"))

    def _start_tls(self) -> None:
        if self._script.tls is None:  # begins TLS in words only
            cast(ITCPTransport, self.transport).loseConnection()
            return
        self._buffer = b""
        self._secure = True
        cast(ITLSTransport, self.transport).startTLS(self._script.tls)

    def _say(self, what: Say) -> None:
        transport = cast(ITCPTransport, self.transport)
        if isinstance(what, Drop):
            transport.write(what.last)
            transport.loseConnection()
            self._over = True
        elif what:
            transport.write(what)
