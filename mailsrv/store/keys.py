"""The keys that sign the mail of our domains (DKIM, RFC 6376), as files under ``state/keys``.

A file is named after the DNS record that publishes its public half: ``<selector>._domainkey.<domain>.pem``, PKCS #8
without a password, mode 0600.  A domain may have several; which of them sign is said in ``key_states``.
"""

from __future__ import annotations

import base64
import os
import re
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

KINDS = ("rsa", "ed25519")  # RSA first: some verifiers know nothing else, and some look at the first signature only

_MIDDLE = "._domainkey."
_END = ".pem"
_RSA_BITS = 2048  # RFC 8301 3.2: at least 1024, should be 2048; larger ones do not fit everywhere in DNS
_RSA_LEAST = 1024
# RFC 6376 3.1: names of DNS; an underscore is seen in practice.
_SELECTOR = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*")
_SHA256 = Prehashed(hashes.SHA256())


class KeyFileError(Exception):
    """A key cannot be used; the message is one sentence for the operator."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What is to be published: ``record`` is the text of the TXT record at ``name``."""

    domain: str
    selector: str
    record: str

    @property
    def name(self) -> str:
        return record_name(self.domain, self.selector)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key, ready to sign for ``domain`` (A-labels)."""

    domain: str
    selector: str
    private: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey = field(repr=False)

    @property
    def kind(self) -> str:
        """The ``k=`` tag: "rsa" or "ed25519"."""
        return "rsa" if isinstance(self.private, rsa.RSAPrivateKey) else "ed25519"

    @property
    def algorithm(self) -> str:
        """The ``a=`` tag."""
        return f"{self.kind}-sha256"

    def sign(self, digest: bytes) -> bytes:
        """The signature of a SHA-256 digest."""
        if isinstance(self.private, rsa.RSAPrivateKey):
            return self.private.sign(digest, padding.PKCS1v15(), _SHA256)
        return self.private.sign(digest)  # RFC 8463 3: PureEdDSA of the digest

    @property
    def public(self) -> PublicKey:
        """What is to be published."""
        key = self.private.public_key()
        if isinstance(key, rsa.RSAPublicKey):
            # RFC 6376 3.6.1: the SubjectPublicKeyInfo in DER.
            octets = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        else:
            octets = key.public_bytes_raw()  # RFC 8463 4: the 32 octets alone
        record = f"v=DKIM1; k={self.kind}; p={base64.b64encode(octets).decode()}"
        return PublicKey(self.domain, self.selector, record)


def record_name(domain: str, selector: str) -> str:
    """Where the public half of a key is published."""
    return f"{selector}{_MIDDLE}{domain}"


def path(state: str, domain: str, selector: str) -> str:
    """Where a key is."""
    return os.path.join(folder(state), f"{record_name(domain, selector)}{_END}")


def folder(state: str) -> str:
    """Where all of them are."""
    return os.path.join(state, "keys")


def of_domain(state: str, domain: str) -> list[str]:
    """The selectors of a domain's keys, sorted; none when there is no folder (KeyFileError)."""
    end = f"{_MIDDLE}{domain}{_END}"
    try:
        names = os.listdir(folder(state))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise KeyFileError(f"{folder(state)}: cannot be read: {error.strerror}.") from None
    return sorted(name.removesuffix(end) for name in names if name.endswith(end) and not name.startswith("."))


def generate(kind: str) -> bytes:
    """A new private key as PEM; ``kind`` is "rsa" (RFC 6376) or "ed25519" (RFC 8463)."""
    key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
    key = rsa.generate_private_key(65537, _RSA_BITS) if kind == "rsa" else ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read(state: str, domain: str, selector: str) -> SigningKey:
    """A private key (KeyFileError)."""
    place = path(state, domain, selector)
    try:
        with open(place, "rb") as file:
            data = file.read()
    except OSError as error:
        raise KeyFileError(f"{place}: cannot be read: {error.strerror}.") from None
    return parse(data, domain, selector, place)


def parse(data: bytes, domain: str, selector: str, place: str) -> SigningKey:
    """A private key from PEM that stands at ``place`` (KeyFileError)."""
    if not _SELECTOR.fullmatch(selector):
        raise KeyFileError(f"{place}: its name does not begin with a selector.")
    try:
        # The full validation of an RSA key takes some 40 ms, which nobody can wait for at a reload; see _proven.
        key = serialization.load_pem_private_key(data, None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyFileError(f"{place}: not a private key in PEM without a password.") from None
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < _RSA_LEAST:
            raise KeyFileError(
                f"{place}: an RSA key of {key.key_size} bits; other servers ignore less than {_RSA_LEAST}."
            )
    elif not isinstance(key, ed25519.Ed25519PrivateKey):
        raise KeyFileError(f"{place}: neither an RSA nor an Ed25519 key.")
    return _proven(SigningKey(domain, selector, key), place)


def _proven(key: SigningKey, place: str) -> SigningKey:
    """The key, if a signature by it is one for those who have its public half (KeyFileError)."""
    digest = bytes(32)
    try:
        public = key.private.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            public.verify(key.sign(digest), digest, padding.PKCS1v15(), _SHA256)
        else:
            public.verify(key.sign(digest), digest)
    except (ValueError, InvalidSignature):
        raise KeyFileError(f"{place}: the parts of the key do not belong together.") from None
    return key


def public(state: str, domain: str, selector: str) -> PublicKey:
    """The public half of a key, as it is published (KeyFileError)."""
    return read(state, domain, selector).public


def is_same(record: str, text: str) -> bool:
    """Whether a TXT record has the key of ``record``, however it is written (RFC 6376 3.6.1)."""
    there, own = _tags(text), _tags(record)
    return there.get("p") == own["p"] and there.get("k", "rsa") == own["k"] and there.get("v", "DKIM1") == own["v"]


def _tags(text: str) -> dict[str, str]:
    pairs = (tag.partition("=") for tag in "".join(text.split()).split(";"))
    return {name: value for name, _, value in pairs}
