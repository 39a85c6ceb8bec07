"""A certificate for simulated servers.  Ed25519: its handshakes have the same length every time, so runs repeat."""

from __future__ import annotations

import datetime
import functools

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

_KEY = bytes(range(32))


@functools.cache
def self_signed(name: str) -> tuple[Ed25519PrivateKey, x509.Certificate]:
    """The same each time for the same ``name``."""
    key = Ed25519PrivateKey.from_private_bytes(_KEY)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(
        subject,
        subject,
        key.public_key(),
        1,
        datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
        datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC),
    ).add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return key, builder.sign(key, None)


def pem(name: str) -> tuple[bytes, bytes]:
    """Certificate and key as files hold them."""
    key, certificate = self_signed(name)
    return (
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
