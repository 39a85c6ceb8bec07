"""PROXY headers on real sockets: from a trusted address of loopback, and from another."""

from __future__ import annotations

import socket
import ssl
import struct

import pytest

from tests.peers.conftest import StartMailsrv
from tests.peers.programs import wait_until
from tests.peers.server import ALICE, Mailsrv

PROXY, OTHER = "127.0.0.2", "127.0.0.3"
V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 25\r\n"
V2 = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11" + struct.pack(
    "!H4s4sHH", 12, socket.inet_aton("192.0.2.7"), socket.inet_aton("198.51.100.1"), 56324, 465
)


@pytest.fixture
def server(start_mailsrv: StartMailsrv) -> Mailsrv:
    return start_mailsrv({"listen.proxies": [PROXY], "trusted_networks": ["127.0.0.0/8"]})


def connect(server: Mailsrv, service: str, source: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port[service]), 10, source_address=(source, 0))


def ask(connection: socket.socket, data: bytes) -> bytes:
    connection.sendall(data)
    return connection.recv(4096)


def test_the_client_is_who_the_header_says(server: Mailsrv) -> None:
    for header in (V1, V2):
        with connect(server, "smtp", PROXY) as client:
            assert ask(client, header).startswith(b"220 ")
            assert b"250 " in ask(client, b"EHLO client.example.net\r\n")
            assert ask(client, b"MAIL FROM:<sender@example.net>\r\n").startswith(b"250 ")
            assert ask(client, b"RCPT TO:<carol@example.net>\r\n").startswith(b"550 5.7.1 ")
            assert ask(client, b"RCPT TO:<alice@example.org>\r\n").startswith(b"250 ")
            assert ask(client, b"DATA\r\n").startswith(b"354 ")
            assert ask(client, b"From: sender@example.net\r\n\r\nhello\r\n.\r\n").startswith(b"250 ")
    assert "192.0.2.7" in server.tool("why", ALICE).stdout


def test_the_header_comes_before_tls(server: Mailsrv) -> None:
    context = ssl.create_default_context(cafile=str(server.certificate))
    for service in ("submissions", "pop3s"):
        for header in (V1, V2):
            with connect(server, service, PROXY) as plain:
                plain.sendall(header)
                with context.wrap_socket(plain, server_hostname="mx.example.org") as client:
                    assert client.recv(100)[:3] in (b"220", b"+OK")
    with connect(server, "pop3", PROXY) as plain:
        assert ask(plain, V2).startswith(b"+OK ")
        assert ask(plain, b"STLS\r\n").startswith(b"+OK ")
        with context.wrap_socket(plain, server_hostname="mx.example.org") as client:
            assert ask(client, b"CAPA\r\n").startswith(b"+OK ")


def test_a_proxy_without_a_header_gets_not_a_byte(server: Mailsrv) -> None:
    for octets in (b"EHLO client.example.net\r\n", b"\x16\x03\x01\x02\x00", b"PROXY TCP4 192.0.2.7\r\n"):
        with connect(server, "smtp", PROXY) as client:
            client.sendall(octets)
            try:
                assert client.recv(100) == b""
            except ConnectionResetError:
                pass
    wait_until(lambda: "PROXY header" in server.tool("why", PROXY).stdout, 10, "a record of it", every_s=0.2)


def test_others_are_not_believed(server: Mailsrv) -> None:
    for service, greeting, answer in (("smtp", b"220 ", b"500 5.5.1 "), ("pop3", b"+OK ", b"-ERR ")):
        with connect(server, service, OTHER) as client:
            assert client.recv(4096).startswith(greeting)
            assert ask(client, V1).startswith(answer)
    with connect(server, "submissions", OTHER) as client:
        client.sendall(V1)
        try:
            assert client.recv(1)[:1] in (b"", b"\x15")  # an alert: this is no TLS
        except ConnectionResetError:
            pass


def test_check_knows_itself_behind_a_proxy(start_mailsrv: StartMailsrv, server: Mailsrv) -> None:
    """It connects from an address that is a proxy's, and so it has to introduce itself."""
    assert "mailsrv answers on" in server.tool("check", "--no-dns").stdout
    server.settings["listen.proxies"] = ["127.0.0.1"]
    server.write_config()
    wait_until(lambda: _silent(server), 4, "the new list")
    checked = server.tool("check", "--no-dns").stdout
    assert checked.count("mailsrv answers on tcp:") == 5, checked


def _silent(server: Mailsrv) -> bool:
    with socket.create_connection(("127.0.0.1", server.smtp), 10) as client:
        client.settimeout(0.3)
        try:
            return not client.recv(100)
        except TimeoutError:
            return True
