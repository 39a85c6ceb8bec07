"""Listening sockets and the transports behind them, as a mail server wants them.

- ``tcp6:`` sockets take IPv6 alone, so that ``tcp:25`` and ``tcp6:25`` stand side by side;
- the queue of connections that wait to be accepted is long enough for a storm;
- a local socket that a killed server left behind does not keep the next one from starting, and no lock file is needed;
- a write goes to the socket at once when nothing waits before it (``prompt_writes``).
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.tcp import Port, Server
from twisted.internet.unix import Port as UnixPort
from twisted.internet.unix import Server as UnixServer
from twisted.python.failure import Failure

from mailsrv.outside.prompt_writes import PromptWrites

BACKLOG = 4096  # the kernel's own limit, net.core.somaxconn, is that by default


class PromptTransport(PromptWrites, Server):
    """A server's side of a TCP connection."""


class MailPort(Port):
    """A listening socket."""

    transport = PromptTransport

    def createInternetSocket(self) -> socket.socket:
        created: socket.socket = super().createInternetSocket()  # type: ignore[no-untyped-call]
        if created.family == socket.AF_INET6:
            created.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        return created


class LocalPort(UnixPort):
    """A listening socket in the file system, for clients on this machine.

    Who may connect is decided by the mode of the socket and the permissions of its folder.
    """

    transport = UnixServer

    def startListening(self) -> None:
        self._remove_remains()
        try:
            super().startListening()  # type: ignore[no-untyped-call]
        except CannotListenError:
            self._created.close()  # Twisted would leave that to the garbage collector
            raise

    def createInternetSocket(self) -> socket.socket:
        created: socket.socket = super().createInternetSocket()  # type: ignore[no-untyped-call]
        self._created = created
        return created

    def _remove_remains(self) -> None:
        """Unlink a socket at which nobody listens any more; what else is there, bind complains about."""
        path = self._bindPath
        try:
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                return
            with socket.socket(socket.AF_UNIX) as probe:
                probe.setblocking(False)
                if probe.connect_ex(path) == errno.ECONNREFUSED:
                    os.unlink(path)
        except OSError:
            return

    def connectionLost(self, reason: Failure) -> None:
        try:
            os.unlink(self._bindPath)
        except OSError:
            pass  # not our folder any more, now that root is given up: the next start removes it
        Port.connectionLost(self, reason)


class _Reactor:
    """A reactor whose ports are ours."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = BACKLOG, interface: str = ""
    ) -> IListeningPort:
        listening = MailPort(port, factory, max(backlog, BACKLOG), interface, self._reactor)
        listening.startListening()
        return listening

    def listenUNIX(
        self, address: str, factory: IProtocolFactory, backlog: int = BACKLOG, mode: int = 0o666, wantPID: int = 0
    ) -> IListeningPort:
        listening = LocalPort(os.fsencode(address), factory, max(backlog, BACKLOG), mode, self._reactor)
        listening.startListening()
        return listening


def listen(reactor: Any, description: str, factory: IProtocolFactory) -> Deferred[IListeningPort]:
    """Listen at a Twisted server endpoint string; fails with CannotListenError, or ValueError when it is none."""
    try:
        endpoint = serverFromString(_Reactor(reactor), description)
        return endpoint.listen(factory)  # type: ignore[no-any-return]
    except Exception:  # whatever a plugin of endpoints makes of the text
        return fail()
