"""Listening sockets in the file system: what they leave behind, and what they find.  Only a kernel can show it."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import tempfile
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from mailsrv.outside.listening import BACKLOG, listen


class Server(Protocol):
    """Greets, and says when it is gone."""

    def __init__(self, gone: Deferred[None]) -> None:
        self._gone = gone

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(b"220 ready\r\n")
        transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone.callback(None)


class LocalSockets(TestCase):
    timeout = 20

    def setUp(self) -> None:
        folder = tempfile.mkdtemp(prefix="mailsrv-")  # short: the path of a socket has at most 107 octets
        self.addCleanup(shutil.rmtree, folder)
        self.path = os.path.join(folder, "lmtp")
        self.gone: Deferred[None] = Deferred()

    async def listening(self, arguments: str = "") -> Any:
        factory = Factory.forProtocol(lambda: Server(self.gone))
        factory.noisy = False
        return await listen(reactor, f"unix:{self.path}{arguments}", factory)

    async def greeting(self) -> bytes:
        def read() -> bytes:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(10)
                client.connect(self.path)
                return client.recv(100)

        return await deferToThread(read)

    async def test_clients_are_served_and_nothing_is_left_behind(self) -> None:
        port = await self.listening()
        assert port.backlog == BACKLOG
        assert await self.greeting() == b"220 ready\r\n"
        await self.gone
        await port.stopListening()
        assert os.listdir(os.path.dirname(self.path)) == []

    async def test_the_mode_is_that_of_the_description(self) -> None:
        for arguments, mode in (("", 0o666), (":mode=660", 0o660), (":mode=600", 0o600)):
            port = await self.listening(arguments)
            assert stat.S_IMODE(os.stat(self.path).st_mode) == mode
            await port.stopListening()

    async def test_what_a_killed_server_left_is_replaced(self) -> None:
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(self.path)
            killed.listen()
        assert os.path.exists(self.path)
        port = await self.listening()
        assert await self.greeting() == b"220 ready\r\n"
        await self.gone
        await port.stopListening()

    async def test_a_socket_in_use_is_left_to_whom_it_belongs(self) -> None:
        port = await self.listening()
        with pytest.raises(CannotListenError) as caught:
            await self.listening(":mode=600")
        assert caught.value.socketError.errno == errno.EADDRINUSE
        await self.gone  # it was seen to be alive
        assert stat.S_IMODE(os.stat(self.path).st_mode) == 0o666
        await port.stopListening()

    async def test_other_files_stay(self) -> None:
        with open(self.path, "w") as file:
            file.write("precious")
        with pytest.raises(CannotListenError):
            await self.listening()
        with open(self.path) as file:
            assert file.read() == "precious"
        os.rename(self.path, f"{self.path}.real")
        os.symlink(f"{self.path}.real", self.path)
        with pytest.raises(CannotListenError):
            await self.listening()
        assert os.path.islink(self.path)

    async def test_a_folder_that_is_not_ours_any_more_keeps_it_from_nothing(self) -> None:
        port = await self.listening()
        shutil.rmtree(os.path.dirname(self.path))
        await port.stopListening()
        os.mkdir(os.path.dirname(self.path))

    async def test_a_folder_that_is_not_there(self) -> None:
        self.path = os.path.join(self.path, "further")
        with pytest.raises(CannotListenError):
            await self.listening()
