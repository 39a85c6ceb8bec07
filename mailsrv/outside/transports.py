"""TCP transports that send, connect and close at once, and send at once under TLS too.

Twisted puts each write off to the next turn of the reactor.  That costs a server of short answers a third of its speed,
and a client for each of its flights two changes of what the kernel watches and a pass through the reactor.  It is the
same with the beginning and the end of a connection.  Under TLS a write waits twice: small ones are gathered for a turn
before they are encrypted.  Here replies are gathered by those who make them, and nothing waits.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.tcp import Client, Connection, Server
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure

_NOT_NOW = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR, errno.ENOBUFS)


class Prompt(Connection):
    """A TCP connection that sends at once what it can when nothing waits before it."""

    protocol: Any

    def write(self, data: bytes) -> None:
        if not self.TLS:
            self.send(data)
        elif self.connected:
            # What comes here once TLS is on is clear text; by the protocol's own ``write`` it would be gathered first.
            TLSMemoryBIOProtocol.write(self.protocol, data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        self.write(b"".join(iovec))

    def startTLS(self, ctx: Any, normal: bool = True) -> None:
        super().startTLS(ctx, normal)  # type: ignore[no-untyped-call]
        self.protocol.transport = _Below(self.protocol.transport, self.send)

    def send(self, data: bytes) -> None:
        """Send ``data`` as it is."""
        if self._has_more() or not self.connected or self.disconnecting:
            FileDescriptor.write(self, data)
            return
        try:
            sent = self.socket.send(data)
        except OSError as error:
            if error.errno not in _NOT_NOW:
                # The reactor finds the same when it writes, and closes the connection in its own turn.
                FileDescriptor.write(self, data)
                return
            sent = 0
        if sent < len(data):
            FileDescriptor.write(self, data[sent:])

    def loseConnection(self, *args: Any) -> None:
        # Twisted would have the kernel say that it can be written to, although nothing is to be written.
        if (
            self.TLS
            or self._has_more()
            or self.producer is not None
            or not self.connected
            or self.disconnecting
            or self._writeDisconnected
            or self._writeDisconnecting
        ):
            super().loseConnection(*args)  # type: ignore[no-untyped-call]
            return
        self.stopReading()  # type: ignore[no-untyped-call]
        self.disconnecting = True
        reactor: Any = self.reactor
        reactor.callLater(0, self._end)

    def _end(self) -> None:
        # Else it has been cut, or is cut when all is written.
        if not self._has_more() and not self._aborting and hasattr(self, "socket"):
            self.connectionLost(Failure(CONNECTION_DONE))

    def _has_more(self) -> bool:
        return bool(self.dataBuffer or self._tempDataBuffer)


class _Below:
    """What the TLS layer of a connection has for a transport, with another way of writing."""

    __slots__ = ("_transport", "write")

    def __init__(self, transport: Any, write: Callable[[bytes], None]) -> None:
        self._transport = transport
        self.write = write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class PromptServer(Prompt, Server):
    """A server's side of a connection."""


class PromptClient(Prompt, Client):
    """A client's side of a connection.

    It is opened by ``begin`` and not in the next turn of the reactor; a server that answers within the call, one on the
    same machine, is connected when ``begin`` returns.
    """

    def _finishInit(self, whenDone: Any, skt: Any, error: Any, reactor: Any) -> None:
        self._begins = whenDone is not None
        if self._begins:
            protocol: Any = None  # is made when there is a connection
            Connection.__init__(self, skt, protocol, reactor)
        else:
            super()._finishInit(whenDone, skt, error, reactor)  # type: ignore[no-untyped-call]

    def begin(self) -> None:
        """Connect; failures are told to the connector in the usual way."""
        if self._begins:
            try:
                # On its way now.  Twisted asks again, and for an answer that is there it need not ask the reactor.
                self.socket.connect_ex(self.addr)
                self._setRealAddress(self.addr)  # type: ignore[no-untyped-call]
            except Exception as error:
                if not self.connected:
                    self.failIfNotConnected(error)  # type: ignore[no-untyped-call]
                    return
                # By the protocol: it loses the connection, as it does when the reactor has called it.
                self.connectionLost(Failure())  # type: ignore[no-untyped-call]
                raise


class PromptTlsFactory(TLSMemoryBIOFactory):
    """TLS from the first octet on, for the connections of a listener."""

    protocol = TLSMemoryBIOProtocol
