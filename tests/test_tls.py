"""What our side of a TLS connection allows, and how certificates are taken up.  Both sides are in memory."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat
from OpenSSL import SSL

from mailsrv.tls import CertificateError, ServerCertificate, describe
from tests.peers import certificate as peer_certificate

UNUSED: Any = None  # Twisted passes the protocol; nothing here depends on it


def write(folder: Path, hostname: str = "mx.example.org") -> tuple[str, str]:
    certificate, key = peer_certificate.write(folder, hostname)
    return str(certificate), str(key)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    return write(tmp_path)


def trusting() -> ssl.SSLContext:
    """A client that takes any certificate, so that only what is looked at here decides."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Talk:
    """A client of Python's and a server of ours; ``handshake`` raises what either side says."""

    def __init__(self, server: ServerCertificate, context: ssl.SSLContext, session: ssl.SSLSession | None = None):
        self.server = server.serverConnectionForTLS(UNUSED)
        self.server.set_accept_state()
        self._to_client, self._to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.client = context.wrap_bio(self._to_client, self._to_server, session=session)

    def pump(self) -> bool:
        """Carry what waits, both ways; False when nothing did."""
        moved = False
        if self._to_server.pending:
            self.server.bio_write(self._to_server.read())
            moved = True
        try:
            self._to_client.write(self.server.bio_read(1 << 16))
            moved = True
        except SSL.WantReadError:
            pass
        return moved

    def handshake(self) -> Talk:
        done: dict[Any, bool] = {self.client: False, self.server: False}
        while True:
            for side in done:
                try:
                    side.do_handshake()
                    done[side] = True
                except (ssl.SSLWantReadError, SSL.WantReadError):
                    pass
            if not self.pump() and all(done.values()):
                return self

    def say(self, octets: bytes) -> bytes:
        """From the server to the client."""
        self.server.send(octets)
        self.pump()
        return self.client.read(len(octets))

    def certificate(self) -> bytes | None:
        """The server's, as the client has it."""
        return self.client.getpeercert(binary_form=True)


class RawTalk:
    """The same with a client that can do more than Python's."""

    def __init__(self, server: ServerCertificate, version: int = SSL.TLS1_3_VERSION) -> None:
        self.server = server.serverConnectionForTLS(UNUSED)
        self.server.set_accept_state()
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_max_proto_version(version)
        self.client = SSL.Connection(context, None)
        self.client.set_connect_state()

    def handshake(self) -> RawTalk:
        for _ in range(4):
            for source, target in ((self.client, self.server), (self.server, self.client)):
                try:
                    source.do_handshake()
                except SSL.WantReadError:
                    pass
                try:
                    target.bio_write(source.bio_read(1 << 16))
                except SSL.WantReadError:
                    pass
        return self


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions_that_are_spoken(files: tuple[str, str], version: ssl.TLSVersion) -> None:
    context = trusting()
    context.minimum_version = context.maximum_version = version
    talk = Talk(ServerCertificate(*files), context).handshake()
    cipher = talk.client.cipher()
    assert cipher is not None
    assert describe(talk.server) == f"{talk.client.version()} {cipher[0]}"
    assert talk.say(b"hello") == b"hello"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_older_versions_are_not(files: tuple[str, str]) -> None:
    context = trusting()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((SSL.Error, ssl.SSLError)):
        Talk(ServerCertificate(*files), context).handshake()


@pytest.mark.parametrize("ciphers", ["AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "AECDH-AES128-SHA", "NULL"])
def test_ciphers_without_forward_secrecy_authentication_or_integrity(files: tuple[str, str], ciphers: str) -> None:
    context = trusting()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    with pytest.raises((SSL.Error, ssl.SSLError)):
        Talk(ServerCertificate(*files), context).handshake()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_session_is_taken_up_again(files: tuple[str, str], version: ssl.TLSVersion) -> None:
    server, context = ServerCertificate(*files), trusting()
    context.minimum_version = context.maximum_version = version
    first = Talk(server, context).handshake()
    first.say(b"hello")
    session = first.client.session
    assert session is None or not session.has_ticket
    second = Talk(server, context, session).handshake()
    second.say(b"hello")
    assert not second.client.session_reused


def test_no_renegotiation(files: tuple[str, str]) -> None:
    talk = RawTalk(ServerCertificate(*files), SSL.TLS1_2_VERSION).handshake()
    assert describe(talk.server).startswith("TLSv1.2 ")
    assert talk.client.renegotiate()
    with pytest.raises(SSL.WantReadError):
        talk.client.do_handshake()
    talk.server.bio_write(talk.client.bio_read(1 << 16))
    with pytest.raises(SSL.WantReadError):
        talk.server.recv(1)
    talk.client.bio_write(talk.server.bio_read(1 << 16))
    with pytest.raises(SSL.Error, match="no renegotiation"):
        talk.client.do_handshake()


def test_no_certificate_is_asked_of_a_client(files: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "client").mkdir()
    context = trusting()
    context.load_cert_chain(*write(tmp_path / "client", "client.example.net"))
    talk = Talk(ServerCertificate(*files), context).handshake()
    talk.say(b"hello")
    assert talk.server.get_peer_certificate() is None


def test_the_chain_is_sent_whole(tmp_path: Path) -> None:
    certificate, key = write(tmp_path)
    (tmp_path / "issuer").mkdir()
    issuer, _ = write(tmp_path / "issuer", "ca.example.org")
    with open(certificate, "ab") as file:
        file.write(Path(issuer).read_bytes())
    talk = RawTalk(ServerCertificate(certificate, key)).handshake()
    chain = talk.client.get_peer_cert_chain()
    assert chain is not None
    assert [each.to_cryptography().subject.rfc4514_string() for each in chain] == [
        "CN=mx.example.org",
        "CN=ca.example.org",
    ]


def test_keys_of_every_usual_form(tmp_path: Path) -> None:
    certificate, key = write(tmp_path)
    loaded = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        Path(key).write_bytes(loaded.private_bytes(Encoding.PEM, form, serialization.NoEncryption()))
        Talk(ServerCertificate(certificate, key), trusting()).handshake()
    # Both in one file, as some programs want them.
    both = tmp_path / "both.pem"
    both.write_bytes(Path(key).read_bytes() + Path(certificate).read_bytes())
    Talk(ServerCertificate(str(both), str(both)), trusting()).handshake()


def _spoil(certificate: str, key: str, how: str) -> None:
    paths = {"certificate": certificate, "key": key}
    what, _, how = how.partition(" ")
    path = Path(paths[what])
    match how:
        case "missing":
            path.unlink()
        case "a folder":
            path.unlink()
            path.mkdir()
        case "empty":
            path.write_bytes(b"")
        case "no PEM":
            path.write_bytes(b"\x00\xff" * 500)
        case "damaged":
            path.write_bytes(path.read_bytes()[:-60] + b"\n-----END CERTIFICATE-----\n")
        case "another's":
            other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            path.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, serialization.NoEncryption()))
        case "with a passphrase":
            loaded = serialization.load_pem_private_key(path.read_bytes(), None)
            path.write_bytes(
                loaded.private_bytes(
                    Encoding.PEM, PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"tulip and thyme")
                )
            )


SPOILT = [
    *("certificate missing", "certificate a folder", "certificate empty", "certificate no PEM", "certificate damaged"),
    *(
        "key missing",
        "key a folder",
        "key empty",
        "key no PEM",
        "key damaged",
        "key another's",
        "key with a passphrase",
    ),
]


@pytest.mark.parametrize("how", SPOILT)
def test_what_cannot_be_used_is_one_sentence_that_names_the_file(files: tuple[str, str], how: str) -> None:
    _spoil(*files, how)
    with pytest.raises(CertificateError) as caught:
        ServerCertificate(*files)
    sentence = str(caught.value)
    assert sentence.startswith(f"{files[how.startswith('key')]}: ")
    assert sentence.endswith(".")
    assert "\n" not in sentence


@pytest.mark.parametrize("how", SPOILT)
def test_what_cannot_be_used_leaves_the_old_in_force(files: tuple[str, str], how: str) -> None:
    server = ServerCertificate(*files)
    before = Talk(server, trusting()).handshake().certificate()
    _spoil(*files, how)
    with pytest.raises(CertificateError):
        server.replace(*files)
    assert Talk(server, trusting()).handshake().certificate() == before


def test_a_new_certificate_is_for_new_connections(tmp_path: Path) -> None:
    server = ServerCertificate(*write(tmp_path))
    old = Talk(server, trusting()).handshake()
    begun = Talk(server, trusting())
    server.replace(*write(tmp_path, "new.example.org"))
    new = Talk(server, trusting()).handshake()
    assert new.certificate() != old.certificate()
    assert old.say(b"still here") == b"still here"
    assert begun.handshake().certificate() == old.certificate()
