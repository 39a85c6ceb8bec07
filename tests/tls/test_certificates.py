"""What a TLS client sees of us: which certificate, which versions, which messages.  All in memory, by Python's ssl."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL

from mailsrv.config import KeyPair
from mailsrv.tls import CertificateError, ServerCertificate
from tests.simulation.certificates import pem

CERTIFICATE_REQUEST, NEW_SESSION_TICKET, SERVER_HELLO = 13, 4, 2  # RFC 8446 4
HANDSHAKE = 22


def write(folder: Path, name: str) -> KeyPair:
    certificate, key = pem(name)
    folder.mkdir(exist_ok=True)
    stem = name.replace("*", "any")
    (folder / f"{stem}.pem").write_bytes(certificate)
    (folder / f"{stem}.key").write_bytes(key)
    return KeyPair(str(folder / f"{stem}.pem"), str(folder / f"{stem}.key"))


@dataclass
class Meeting:
    """A handshake that succeeded.  ``messages`` are the types of handshake messages that the server sent."""

    presented: bytes
    version: str | None
    session: Any
    reused: bool | None
    messages: list[int] = field(default_factory=list)


def client_context(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def attempt(work: Callable[[], object]) -> None:
    try:
        work()
    except (ssl.SSLWantReadError, SSL.WantReadError):
        pass


def meet(server: Any, name: str | None, context: Any = None, session: Any = None) -> Meeting:
    context = context or client_context()
    messages: list[int] = []

    def seen(connection: Any, direction: str, version: Any, content: Any, message: Any, data: bytes) -> None:
        if direction == "read" and content == HANDSHAKE:
            messages.append(int(message))

    context._msg_callback = seen
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name, session=session)
    connection = server.serverConnectionForTLS(None)
    connection.set_accept_state()
    for _ in range(4):
        attempt(client.do_handshake)
        if outgoing.pending:
            connection.bio_write(outgoing.read())
        attempt(connection.do_handshake)
        attempt(lambda: incoming.write(connection.bio_read(1 << 16)))
    connection.send(b"220 \r\n")
    incoming.write(connection.bio_read(1 << 16))
    assert client.read(100) == b"220 \r\n"  # with it came what the server had to say behind the handshake
    presented = client.getpeercert(binary_form=True)
    assert presented is not None
    return Meeting(presented, client.version(), client.session, client.session_reused, messages)


def of(pair: KeyPair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(Path(pair.certificate).read_text())


@pytest.fixture
def usual(tmp_path: Path) -> KeyPair:
    return write(tmp_path, "mx.example.org")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_name_chooses_the_certificate(tmp_path: Path, usual: KeyPair, version: ssl.TLSVersion) -> None:
    exact, wild, other = (write(tmp_path, name) for name in ("mail.example.net", "*.example.net", "mail.example.com"))
    names = {"mail.example.net": exact, "*.example.net": wild, "mail.example.com": other, "smtp.example.com": other}
    server = ServerCertificate(usual.certificate, usual.key, names)
    for name, expected in (
        ("mx.example.org", usual),
        ("mail.example.net", exact),
        ("MAIL.Example.NET", exact),
        ("pop.example.net", wild),
        ("a.pop.example.net", usual),  # RFC 9525 6.3: one label
        ("example.net", usual),
        ("mail.example.com", other),
        ("smtp.example.com", other),
        ("elsewhere.example", usual),
        ("localhost", usual),
        (None, usual),
    ):
        meeting = meet(server, name, client_context(version))
        assert meeting.presented == of(expected), name
        assert meeting.version == version.name.replace("_", ".")


def test_what_every_certificate_has_in_common(tmp_path: Path, usual: KeyPair) -> None:
    """No certificate is asked of a client; no session is taken up again."""
    server = ServerCertificate(usual.certificate, usual.key, {"mail.example.net": write(tmp_path, "mail.example.net")})
    for name in ("mx.example.org", "mail.example.net", None):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = client_context(version)
            first = meet(server, name, context)
            assert SERVER_HELLO in first.messages
            assert CERTIFICATE_REQUEST not in first.messages
            assert NEW_SESSION_TICKET not in first.messages
            assert not first.session.has_ticket
            if version is ssl.TLSVersion.TLSv1_2:
                assert first.session.id == b""


def test_a_ticket_of_elsewhere_opens_no_session(tmp_path: Path, usual: KeyPair) -> None:
    """A client that brings a ticket all the same, under either version, gets a whole handshake and no new ticket."""
    giving = SSL.Context(SSL.TLS_SERVER_METHOD)
    giving.use_certificate_chain_file(usual.certificate)
    giving.use_privatekey_file(usual.key)

    class Giving:
        def serverConnectionForTLS(self, protocol: object) -> SSL.Connection:
            return SSL.Connection(giving, None)

    server = ServerCertificate(usual.certificate, usual.key)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = client_context(version)
        given = meet(Giving(), None, context)
        assert given.session.has_ticket
        met = meet(server, None, context, given.session)
        assert met.reused is False
        assert NEW_SESSION_TICKET not in met.messages


@pytest.mark.parametrize("version", [b"\x03\x00", b"\x03\x01", b"\x03\x02"])
def test_older_versions_are_refused(usual: KeyPair, version: bytes) -> None:
    """A ClientHello of TLS 1.1 and before, by hand, since OpenSSL no longer writes one."""
    hello = version + bytes(32) + b"\x00" + b"\x00\x06\xc0\x09\xc0\x14\x00\x2f" + b"\x01\x00"
    message = b"\x01" + len(hello).to_bytes(3, "big") + hello
    connection = ServerCertificate(usual.certificate, usual.key).serverConnectionForTLS(None)  # type: ignore[arg-type]
    connection.set_accept_state()
    connection.bio_write(b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message)
    with pytest.raises(SSL.Error, match=r"unsupported protocol|version too low"):
        connection.do_handshake()
    alert = connection.bio_read(100)
    assert alert[0] == 21
    assert alert[-2:] == b"\x02\x46"  # fatal, protocol_version


def test_new_files_are_for_new_connections(tmp_path: Path, usual: KeyPair) -> None:
    server = ServerCertificate(usual.certificate, usual.key)
    assert meet(server, "mail.example.net").presented == of(usual)
    pair = write(tmp_path, "mail.example.net")
    server.replace(usual.certificate, usual.key, {"mail.example.net": pair})
    assert meet(server, "mail.example.net").presented == of(pair)
    server.replace(pair.certificate, pair.key)
    assert meet(server, None).presented == of(pair)


def test_all_or_nothing(tmp_path: Path, usual: KeyPair) -> None:
    first, second = write(tmp_path, "mail.example.net"), write(tmp_path, "mail.example.com")
    names = {"mail.example.net": first, "mail.example.com": second}
    server = ServerCertificate(usual.certificate, usual.key, names)
    Path(second.key).unlink()
    with pytest.raises(CertificateError) as caught:
        server.replace(first.certificate, first.key, names)
    assert str(caught.value) == f"{second.key}: cannot be read: No such file or directory."
    Path(second.key).write_text("nonsense")
    with pytest.raises(CertificateError, match="holds no private key"):
        ServerCertificate(usual.certificate, usual.key, names)
    Path(second.certificate).write_text("nonsense")
    with pytest.raises(CertificateError, match=r"mail\.example\.com\.pem: holds no certificate"):
        server.replace(usual.certificate, usual.key, names)
    assert meet(server, None).presented == of(usual)
