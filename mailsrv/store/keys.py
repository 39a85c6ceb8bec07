"""The keys that sign the mail of our domains (DKIM, RFC 6376), as files under ``state/keys``.

A file is named after the DNS record that publishes its public half: ``<selector>._domainkey.<domain>.pem``, PKCS #8
without a password, mode 0600.  A domain may have several; each is published, so that a new one can be known to the
world before it signs and an old one after it has.
"""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

_MIDDLE = "._domainkey."
_END = ".pem"
_RSA_BITS = 2048  # RFC 8301 3.2: at least 1024, should be 2048; larger ones do not fit everywhere in DNS


class KeyFileError(Exception):
    """A key cannot be used; the message is one sentence for the operator."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What is to be published: ``record`` is the text of the TXT record at ``name``."""

    name: str
    record: str


def path(state: str, domain: str, selector: str) -> str:
    """Where a key is."""
    return os.path.join(state, "keys", f"{selector}{_MIDDLE}{domain}{_END}")


def of_domain(state: str, domain: str) -> list[str]:
    """The selectors of a domain's keys, sorted; none when there is no folder."""
    end = f"{_MIDDLE}{domain}{_END}"
    try:
        names = os.listdir(os.path.join(state, "keys"))
    except FileNotFoundError:
        return []
    return sorted(name.removesuffix(end) for name in names if name.endswith(end) and not name.startswith("."))


def generate(kind: str) -> bytes:
    """A new private key as PEM; ``kind`` is "rsa" (RFC 6376) or "ed25519" (RFC 8463)."""
    key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
    key = rsa.generate_private_key(65537, _RSA_BITS) if kind == "rsa" else ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public(state: str, domain: str, selector: str) -> PublicKey:
    """The public half of a key, as it is published (KeyFileError)."""
    place = path(state, domain, selector)
    try:
        with open(place, "rb") as file:
            key = serialization.load_pem_private_key(file.read(), None)
    except OSError as error:
        raise KeyFileError(f"{place}: cannot be read: {error.strerror}.") from None
    except (ValueError, TypeError):
        raise KeyFileError(f"{place}: not a private key in PEM without a password.") from None
    if isinstance(key, rsa.RSAPrivateKey):
        # RFC 6376 3.6.1: the SubjectPublicKeyInfo in DER.
        kind, octets = (
            "rsa",
            key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
        )
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        # RFC 8463 4: the 32 octets alone.
        kind, octets = "ed25519", key.public_key().public_bytes_raw()
    else:
        raise KeyFileError(f"{place}: neither an RSA nor an Ed25519 key.")
    record = f"v=DKIM1; k={kind}; p={base64.b64encode(octets).decode()}"
    return PublicKey(f"{selector}{_MIDDLE}{domain}", record)
