"""TCP transports that send at once, under TLS too.

Twisted puts each write off to the next turn of the reactor.  That costs a server of short answers a third of its speed,
and a client for each of its flights two changes of what the kernel watches and a pass through the reactor.  Under TLS
it waits twice: small writes are gathered for a turn before they are encrypted.  Here replies are gathered by those who
make them, and nothing waits.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.tcp import Client, Connection, Server
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol

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
        if self.dataBuffer or self._tempDataBuffer or not self.connected or self.disconnecting:
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
    """A client's side of a connection."""


class PromptTlsFactory(TLSMemoryBIOFactory):
    """TLS from the first octet on, for the connections of a listener."""

    protocol = TLSMemoryBIOProtocol
