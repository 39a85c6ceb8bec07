"""TLS as mailsrv offers it: one certificate, taken up anew when its files change, for new connections only.

TLS 1.2 and later, no renegotiation, no compression, no session taken up again (a large provider's client stumbles over
tickets), and no certificate is asked of a client.  What cannot be read or does not belong together is a
``CertificateError`` of one sentence; the certificate in force stays in force.
"""

from __future__ import annotations

from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer


class CertificateError(Exception):
    """The certificate or its key cannot be used; the message is one sentence for the operator."""


@implementer(IOpenSSLServerConnectionCreator)
class ServerCertificate:
    """What Twisted asks for each TLS connection that a client begins."""

    def __init__(self, certificate: str, key: str) -> None:
        self._context = _context(certificate, key)

    def replace(self, certificate: str, key: str) -> None:
        """Use these files from the next connection on (CertificateError: the old ones stay)."""
        self._context = _context(certificate, key)

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return SSL.Connection(self._context, None)


def describe(connection: SSL.Connection) -> str:
    """Version and cipher of a connection whose handshake is done: ``"TLSv1.3 TLS_AES_256_GCM_SHA384"``."""
    return f"{connection.get_protocol_version_name()} {connection.get_cipher_name() or ''}".rstrip()


def _context(certificate: str, key: str) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(
        SSL.OP_NO_COMPRESSION | SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE
    )
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # An idle connection then keeps no record buffers of 16 KiB each.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_cipher_list(b"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:!aNULL:!eNULL")
    for path in (certificate, key):
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            raise CertificateError(f"{path}: cannot be read: {error.strerror}.") from None
    try:
        context.use_certificate_chain_file(certificate)
    except SSL.Error:
        raise CertificateError(f"{certificate}: holds no certificate in PEM form.") from None
    try:
        # Not by use_privatekey_file: that asks the terminal for the passphrase of a key, and waits for the answer.
        with open(key, "rb") as file:
            private: Any = load_pem_private_key(file.read(), None)
        context.use_privatekey(private)
        context.check_privatekey()
    except (SSL.Error, ValueError, TypeError, UnsupportedAlgorithm):
        raise CertificateError(
            f"{key}: holds no private key in PEM form, without a passphrase, that belongs to {certificate}."
        ) from None
    return context
