"""The ways in which passwords are stored: ``SCHEMES``, one row each.

The names and forms are Dovecot's: ``{SCHEME}hash``, where ``.b64``, ``.base64`` or ``.hex`` behind the name says how
the hash is written down.  Only ARGON2ID is used for new passwords (RFC 9106).  The others are there so that people can
move in with the passwords that they have; ``mailsrv.store.accounts.passwords`` tells when one was right, and then it is
replaced.

Nothing here takes long but ``verify``.  Hashes that would keep a worker busy for minutes are not well formed: whoever
knows the address could stop all logins with them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import argon2
from argon2 import low_level

from mailsrv.store.accounts import libcrypt

CURRENT: Final = "ARGON2ID"

_STORED = re.compile(r"\{([A-Za-z0-9-]+)(?:\.([A-Za-z0-9]+))?\}(.*)", re.DOTALL)
_ENCODINGS: Final = {"HEX": "hex", "B64": "base64", "BASE64": "base64"}

_ARGON2_KIB_LIMIT = 1024 * 1024
_ARGON2_PASSES_LIMIT = 64

_DES = rb"[./0-9A-Za-z]{13}"
_MD5 = rb"\$1\$[^$:\s]{0,8}\$[./0-9A-Za-z]{22}"
# Seven digits of rounds are some seconds, nine would be minutes; bcrypt's cost is a power of two.
_SHA256 = rb"\$5\$(?:rounds=[0-9]{1,7}\$)?[^$:\s]{0,16}\$[./0-9A-Za-z]{43}"
_SHA512 = rb"\$6\$(?:rounds=[0-9]{1,7}\$)?[^$:\s]{0,16}\$[./0-9A-Za-z]{86}"
_BLOWFISH = rb"\$2[abxy]\$(?:0[4-9]|1[0-5])\$[./0-9A-Za-z]{53}"
# yescrypt, gost-yescrypt and scrypt up to the highest cost that crypt_gensalt makes, some seconds and a GiB; and the
# older ones of the BSDs and Solaris.
_OTHERS = (
    rb"\$g?y\$j[./0-9A-F][./0-9A-Za-z]{1,6}\$[./0-9A-Za-z]{0,86}\$[./0-9A-Za-z]{43}"
    rb"|\$7\$[./0-9A-G][./0-9A-Za-z]\.{4}/\.{4}[./0-9A-Za-z]{0,86}\$[./0-9A-Za-z]{43}"
    rb"|\$sha1\$[0-9]{1,7}\$[./0-9A-Za-z]{1,64}\$[./0-9A-Za-z]{28}"
    rb"|\$md5(?:,rounds=[0-9]{1,7})?\$[./0-9A-Za-z]{0,16}\${1,2}[./0-9A-Za-z]{22}"
    rb"|\$3\$\$[0-9a-f]{32}|_[./0-9A-Za-z]{19}"
)
_ANY = b"|".join((_DES, _MD5, _SHA256, _SHA512, _BLOWFISH, _OTHERS))


class UnknownScheme(ValueError):
    """A stored password cannot be used; the message is a sentence without the hash."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way to store passwords.

    ``check`` says whether a hash is well formed, ``verify`` compares it with a password (slowly); both get the hash as
    octets, after ``encoding`` ("" as it stands, "base64" or "hex") is undone.  ``octets`` is the length of a hash that
    always has the same, else 0.
    """

    check: Callable[[bytes], bool]
    verify: Callable[[bytes, bytes], bool]
    encoding: str = ""
    octets: int = 0


def _argon2(kind: low_level.Type) -> Scheme:
    def check(encoded: bytes) -> bool:
        try:
            found = argon2.extract_parameters(encoded.decode("ascii"))
        except (argon2.exceptions.InvalidHashError, UnicodeDecodeError):
            return False
        bearable = found.memory_cost <= _ARGON2_KIB_LIMIT and found.time_cost <= _ARGON2_PASSES_LIMIT
        return found.type is kind and bearable

    def verify(encoded: bytes, password: bytes) -> bool:
        try:
            return low_level.verify_secret(encoded, password, kind)
        except argon2.exceptions.VerificationError:
            return False

    return Scheme(check, verify)


def _crypt(form: bytes) -> Scheme:
    pattern = re.compile(form)

    def check(encoded: bytes) -> bool:
        return pattern.fullmatch(encoded) is not None and libcrypt.known(encoded)

    return Scheme(check, libcrypt.verify)


def _digest(name: str, encoding: str = "base64") -> Scheme:
    """A hash of the password alone."""
    size = hashlib.new(name, usedforsecurity=False).digest_size

    def check(stored: bytes) -> bool:
        return len(stored) == size

    def verify(stored: bytes, password: bytes) -> bool:
        return hmac.compare_digest(hashlib.new(name, password, usedforsecurity=False).digest(), stored)

    return Scheme(check, verify, encoding, size)


def _salted(name: str) -> Scheme:
    """A hash of the password and a salt, with the salt behind it."""
    size = hashlib.new(name, usedforsecurity=False).digest_size

    def check(stored: bytes) -> bool:
        return len(stored) > size

    def verify(stored: bytes, password: bytes) -> bool:
        found = hashlib.new(name, password + stored[size:], usedforsecurity=False).digest()
        return hmac.compare_digest(found, stored[:size])

    return Scheme(check, verify, "base64")


_PLAIN = Scheme(bool, hmac.compare_digest)

SCHEMES: Final[Mapping[str, Scheme]] = {
    CURRENT: _argon2(low_level.Type.ID),
    "ARGON2I": _argon2(low_level.Type.I),
    "CRYPT": _crypt(_ANY),
    "SHA512-CRYPT": _crypt(_SHA512),
    "SHA256-CRYPT": _crypt(_SHA256),
    "BLF-CRYPT": _crypt(_BLOWFISH),
    "MD5-CRYPT": _crypt(_MD5),
    "MD5": _crypt(_MD5),
    "DES-CRYPT": _crypt(_DES),
    "SSHA512": _salted("sha512"),
    "SSHA256": _salted("sha256"),
    "SSHA": _salted("sha1"),
    "SMD5": _salted("md5"),
    "SHA512": _digest("sha512"),
    "SHA256": _digest("sha256"),
    "SHA": _digest("sha1"),
    "SHA1": _digest("sha1"),
    "LDAP-MD5": _digest("md5"),
    "PLAIN-MD5": _digest("md5", "hex"),
    "PLAIN": _PLAIN,
    "CLEAR": _PLAIN,
    "CLEARTEXT": _PLAIN,
}


def scheme_of(stored: str) -> str:
    """The name of the scheme in capitals, without what is said of its encoding; "" when there is none."""
    found = _STORED.fullmatch(stored)
    return found[1].upper() if found else ""


def take_apart(stored: str) -> tuple[Scheme, bytes]:
    """The scheme of a stored password, and its hash as ``Scheme`` wants it (UnknownScheme)."""
    found = _STORED.fullmatch(stored)
    if found is None:
        raise UnknownScheme("the password does not begin with a {SCHEME}")
    name = found[1].upper()
    scheme = SCHEMES.get(name)
    if scheme is None:
        raise UnknownScheme(f"the password scheme {name} is not known; known are {', '.join(SCHEMES)}")
    encoding = scheme.encoding
    if found[2] is not None:
        if found[2].upper() not in _ENCODINGS:
            raise UnknownScheme(f"the password scheme {name}.{found[2]} is not known: behind the dot is b64 or hex")
        encoding = _ENCODINGS[found[2].upper()]
    elif scheme.octets:
        # As Dovecot does: the length tells, because these hashes have only one.
        encoding = "hex" if len(found[3]) == 2 * scheme.octets else "base64"
    try:
        decoded = _decode(found[3], encoding)
    except ValueError:
        raise UnknownScheme(f"the hash is not a well-formed {name} hash") from None
    if not scheme.check(decoded):
        raise UnknownScheme(f"the hash is not a well-formed {name} hash, or one that this machine cannot check")
    return scheme, decoded


def _decode(text: str, encoding: str) -> bytes:
    """ValueError."""
    if encoding == "hex":
        return binascii.unhexlify(text)
    if encoding == "base64":
        # Some programs leave the padding away.
        return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True)
    return text.encode()
