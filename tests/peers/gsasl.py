"""GNU SASL's library as a client, and a TLS connection of which the channel binding can be had.

Python's own ssl does not export keys before 3.15, so the connection is one of pyOpenSSL.
"""

from __future__ import annotations

import base64
import ctypes
import ctypes.util
import socket
from types import TracebackType
from typing import Self

from OpenSSL import SSL

_OK, _NEEDS_MORE = 0, 1
_AUTHID, _PASSWORD, _CB_TLS_EXPORTER = 1, 3, 25  # gsasl.h, Gsasl_property


def library() -> ctypes.CDLL | None:
    """The library, None when it is not installed."""
    name = ctypes.util.find_library("gsasl")
    return ctypes.CDLL(name) if name else None


class Login:
    """One exchange; ``step`` takes and gives base64."""

    def __init__(
        self, gsasl: ctypes.CDLL, mechanism: str, username: str, password: str, exporter: bytes | None
    ) -> None:
        self._gsasl = gsasl
        self._context = ctypes.c_void_p()
        self._session = ctypes.c_void_p()
        assert gsasl.gsasl_init(ctypes.byref(self._context)) == _OK
        started = gsasl.gsasl_client_start(self._context, mechanism.encode(), ctypes.byref(self._session))
        assert started == _OK, f"libgsasl does not know {mechanism}"
        properties = {_AUTHID: username.encode(), _PASSWORD: password.encode()}
        if exporter is not None:
            properties[_CB_TLS_EXPORTER] = base64.b64encode(exporter)
        for name, value in properties.items():
            gsasl.gsasl_property_set(self._session, name, value)

    def step(self, challenge: str = "") -> str:
        """The answer to a challenge.  AssertionError when the server has not proved that it knows the password."""
        answer = ctypes.c_char_p()
        status = self._gsasl.gsasl_step64(self._session, challenge.encode(), ctypes.byref(answer))
        assert status in (_OK, _NEEDS_MORE), f"libgsasl: error {status}"
        return (answer.value or b"").decode()

    def end(self) -> None:
        self._gsasl.gsasl_finish(self._session)
        self._gsasl.gsasl_done(self._context)


class Channel:
    """A connection to a port with TLS from the start, read line by line."""

    def __init__(self, port: int, version: int = SSL.TLS1_3_VERSION) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_max_proto_version(version)
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._connection = SSL.Connection(context, self._socket)
        self._connection.set_connect_state()
        self._connection.do_handshake()
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    @property
    def exporter(self) -> bytes:
        """RFC 9266."""
        return self._connection.export_keying_material(b"EXPORTER-Channel-Binding", 32)

    def line(self) -> str:
        while b"\r\n" not in self._received:
            self._received += self._connection.recv(4096)
        line, _, self._received = self._received.partition(b"\r\n")
        return line.decode()

    def say(self, line: str) -> str:
        """Send a line; the first line that comes back."""
        self._connection.sendall(f"{line}\r\n".encode())
        return self.line()

    def log_in(self, gsasl: ctypes.CDLL, mechanism: str, username: str, password: str, bound: bool) -> str:
        """A whole exchange by AUTH of SMTP or POP3; the last answer."""
        login = Login(gsasl, mechanism, username, password, self.exporter if bound else None)
        try:
            answer = self.say(f"AUTH {mechanism} {login.step()}")
            while answer.startswith(("334 ", "+ ")):
                answer = self.say(login.step(answer.partition(" ")[2]))
            return answer
        finally:
            login.end()
