"""TLS as mailsrv offers it: a certificate, others for further names, all taken up anew for new connections.

The name that a client asks for (SNI, RFC 6066 3) chooses the certificate: the one for that name, else the one for a
wildcard in place of its first label, else the usual one, as for clients that name none.  Nobody is turned away for the
name it asks for, since most mail servers ask for none or do not look at what they get.

TLS 1.2 and later, no renegotiation, no compression, no session taken up again, and no certificate is asked of a client.
What cannot be read or does not belong together is a ``CertificateError`` of one sentence; what was in force stays in
force as a whole.

No tickets, under TLS 1.3 neither, for a large provider's client stumbles over them: ``name_seen`` says how.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer


class CertificateError(Exception):
    """The certificate or its key cannot be used; the message is one sentence for the operator."""


class Pair(Protocol):
    """Paths of PEM files: a certificate with its chain, and its private key."""

    @property
    def certificate(self) -> str: ...

    @property
    def key(self) -> str: ...


@implementer(IOpenSSLServerConnectionCreator)
class ServerCertificate:
    """What Twisted asks for each TLS connection that a client begins.

    ``certificate`` and ``key`` are paths; ``names`` has the pairs for further names: A-labels in lower case, or such a
    name behind ``*.``, which stands for one label (RFC 9525 6.3).
    """

    def __init__(self, certificate: str, key: str, names: Mapping[str, Pair] | None = None) -> None:
        self._context = _choosing(certificate, key, names or {})

    def replace(self, certificate: str, key: str, names: Mapping[str, Pair] | None = None) -> None:
        """Use these files from the next connection on (CertificateError: the old ones stay)."""
        self._context = _choosing(certificate, key, names or {})

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return SSL.Connection(self._context, None)


def describe(connection: SSL.Connection) -> str:
    """Version and cipher of a connection whose handshake is done: ``"TLSv1.3 TLS_AES_256_GCM_SHA384"``."""
    return f"{connection.get_protocol_version_name()} {connection.get_cipher_name() or ''}".rstrip()


def exporter(connection: SSL.Connection) -> bytes | None:
    """What a connection whose handshake is done has for channel bindings (RFC 9266): 32 octets, None before TLS 1.3.

    TLS 1.2 is unique in this way only with the extended master secret (RFC 7627), and whether that was agreed on cannot
    be seen through pyOpenSSL.
    """
    if connection.get_protocol_version() != SSL.TLS1_3_VERSION:
        return None
    return connection.export_keying_material(b"EXPORTER-Channel-Binding", 32)


def _choosing(certificate: str, key: str, names: Mapping[str, Pair]) -> SSL.Context:
    usual = _context(certificate, key)
    pairs = {(pair.certificate, pair.key) for pair in names.values()}
    contexts = {pair: _context(*pair) for pair in sorted(pairs)}
    others = {name.encode("ascii"): contexts[pair.certificate, pair.key] for name, pair in names.items()}

    def name_seen(connection: SSL.Connection) -> None:
        """Asked by OpenSSL once it has read the client's hello, whether that names us or not.

        Here, and not in the context, tickets are turned off.  An option of the context makes TLS 1.3 send two that name
        a session of the cache instead, cache or not; one that is set between the hello and the answer makes it send
        none: what was to be sent is called off (OpenSSL since 1.1.1, final_server_name).
        """
        connection.set_options(SSL.OP_NO_TICKET)
        name = (connection.get_servername() or b"").lower()
        other = others.get(name) or others.get(b"*." + name.partition(b".")[2])
        if other is not None:
            connection.set_context(other)

    usual.set_tlsext_servername_callback(name_seen)
    return usual


def _context(certificate: str, key: str) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE)
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
