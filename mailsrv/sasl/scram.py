"""The server's side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, 7677, 9266), pure.

The server keeps no password but :class:`StoredKeys`, from which nobody can log in.  An exchange answers NeedKeys when
it knows the name; the caller looks the keys up and gives them to :meth:`Scram.keys`.  For who has none it gives those
of :func:`stand_in`, which fit nothing, so that the exchange looks the same from outside.

Refused: anything but the exact grammar, extensions that are mandatory, other channel bindings than tls-exporter, a
client that claims to see no channel binding where it was offered (a downgrade), acting for another user.

What is kept as text (:func:`to_text`) is what Dovecot writes behind ``{SCRAM-SHA-256}``: the number of iterations, then
salt, stored key and server key in base64, with commas in between.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
import stringprep
import unicodedata
from dataclasses import dataclass, field

from mailsrv.sasl import base64
from mailsrv.sasl.exchange import CONTROLS, NAME_LIMIT, Challenge, NeedKeys, Proof, Refused, Step

# RFC 7677 4: at least 4096.  Many more cost a client some hundredths of a second and a thief of the accounts file
# fifteen times the work; more than 65,536 would keep out clients that are built on Cyrus SASL.
ITERATIONS = 60_000
SALT_OCTETS = 16
WRONG_PASSWORD = "wrong password"  # noqa: S105  # the fault of a proof that is in order but for that
_KEY_OCTETS = 32
_FEWEST_ITERATIONS = 4096
_MOST_ITERATIONS = 10_000_000

# RFC 5802 7.  Optional extensions may follow; "m=" is one that this server would have to know, so it is refused.
_EXTENSIONS = r"((?:,[A-Za-ln-z]=[^,\0]+)*)"
_NONCE = r"[!-+\--~]{1,128}"
_CLIENT_FIRST = re.compile(
    rf"(?P<header>(?P<binding>n|y|p=[A-Za-z0-9.-]{{1,40}}),(?:a=(?P<authzid>[^,\0]+))?,)"
    rf"(?P<bare>n=(?P<name>[^,\0]+),r=(?P<nonce>{_NONCE}){_EXTENSIONS})"
)
_CLIENT_FINAL = re.compile(
    rf"(?P<without>c=(?P<binding>[A-Za-z0-9+/=]+),r=(?P<nonce>[!-+\--~]{{1,256}}){_EXTENSIONS}),p=(?P<proof>[A-Za-z0-9+/=]+)"
)
_ESCAPE = re.compile("=(2C|3D)?")
_LOCAL_NONCE = re.compile(_NONCE)
_STORED = re.compile(r"([0-9]{1,8}),([A-Za-z0-9+/=]{1,100}),([A-Za-z0-9+/=]{1,100}),([A-Za-z0-9+/=]{1,100})")


@dataclass(frozen=True, slots=True)
class StoredKeys:
    """What a server keeps of a password (RFC 5802 3): octets, no text."""

    salt: bytes
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ServerFirst:
    """What the server's first message is made of: the user's keys, or else those of ``stand_in``.

    ``nonce`` is fresh random printable ASCII without commas, at least 18 characters (24 of base64, say).
    """

    keys: StoredKeys
    nonce: str


class _Next(enum.Enum):
    FIRST = enum.auto()
    KEYS = enum.auto()
    FINAL = enum.auto()
    ACKNOWLEDGED = enum.auto()
    NOTHING = enum.auto()


def derive_keys(password: str, salt: bytes, iterations: int = ITERATIONS) -> StoredKeys:
    """The keys to be kept for a password; ValueError when SASLprep (RFC 4013) forbids it.

    Takes some milliseconds of processor: not for the reactor's thread.
    """
    salted = hashlib.pbkdf2_hmac("sha256", saslprep(password).encode(), salt, iterations)
    stored = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
    return StoredKeys(salt, iterations, stored, _hmac(salted, b"Server Key"))


def stand_in(secret: bytes, name: str) -> StoredKeys:
    """Keys for a user who has none: of ``secret`` and ``name`` always the same ones, which no password fits.

    ``secret`` is random and to be kept for ever: salts that changed would tell who does not exist.
    """
    salt = _hmac(secret, b"salt" + name.encode())[:SALT_OCTETS]
    # No client key hashes to this one, as far as anybody can find.
    nothing = _hmac(secret, b"key" + name.encode())
    return StoredKeys(salt, ITERATIONS, nothing, nothing)


def to_text(keys: StoredKeys) -> str:
    """``iterations,salt,stored,server``, without white space and colons."""
    octets = (keys.salt, keys.stored_key, keys.server_key)
    return ",".join((str(keys.iterations), *(base64.encode(part).decode("ascii") for part in octets)))


def from_text(text: str) -> StoredKeys:
    """What ``to_text`` has written (ValueError)."""
    match = _STORED.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        salt, stored, server = (base64.decode(part.encode("ascii")) for part in match.groups()[1:])
    except ValueError:
        raise ValueError("SCRAM keys that are not well formed") from None
    iterations = int(match[1])
    if not (salt and len(stored) == len(server) == _KEY_OCTETS):
        raise ValueError("SCRAM keys of a wrong length")
    if not _FEWEST_ITERATIONS <= iterations <= _MOST_ITERATIONS:
        raise ValueError("SCRAM keys with too few or too many iterations")
    return StoredKeys(salt, iterations, stored, server)


def saslprep(text: str) -> str:
    """RFC 4013 for strings to be stored; ValueError for what it prohibits."""
    if text.isascii() and text.isprintable():
        return text
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c))
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if any(any(table(c) for table in _PROHIBITED) for c in prepared):
        raise ValueError("characters that RFC 4013 prohibits")
    # RFC 3454 6: what is written from right to left is so from end to end.
    if any(map(stringprep.in_table_d1, prepared)) and (
        any(map(stringprep.in_table_d2, prepared))
        or not (stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1]))
    ):
        raise ValueError("directions are mixed in a way that RFC 3454 6 prohibits")
    return prepared


_PROHIBITED = (
    stringprep.in_table_a1,
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


class Scram:
    """One exchange.

    ``initial`` is the decoded initial response or None.  ``exporter`` is the channel's binding by RFC 9266 (32 octets
    that TLS exports under "EXPORTER-Channel-Binding"), None when there is none; where it is given the PLUS variant has
    been offered too.
    """

    def __init__(self, initial: bytes | None, *, plus: bool, exporter: bytes | None) -> None:
        if plus and exporter is None:
            raise ValueError("channel binding without a channel to bind to")
        self._initial = initial
        self._plus = plus
        self._exporter = exporter
        self._next = _Next.FIRST
        self._username = ""
        self._nonce = ""
        self._gs2_header = ""
        self._first_bare = ""
        self._server_first = ""
        self._keys: StoredKeys | None = None

    def step(self, response: bytes | None = None) -> Step:
        """Go on, as :meth:`mailsrv.sasl.exchange.Exchange.step`; after NeedKeys call :meth:`keys` instead."""
        if self._next is _Next.FIRST:
            response = self._initial if response is None else response
            return Challenge(b"") if response is None else self._first(response)
        if self._next is _Next.FINAL:
            return self._final(response or b"")
        if self._next is _Next.ACKNOWLEDGED:
            self._next = _Next.NOTHING
            return Proof(self._username, "data behind the end of the exchange" if response else "")
        raise RuntimeError("a step that is not due")

    def keys(self, first: ServerFirst) -> Challenge:
        """Go on after NeedKeys."""
        keys, nonce = first.keys, first.nonce
        if self._next is not _Next.KEYS:
            raise RuntimeError("keys that are not due")
        if not _LOCAL_NONCE.fullmatch(nonce) or len(nonce) < 18:
            raise ValueError("the server's nonce is too short or not printable")
        self._keys = keys
        self._nonce += nonce
        salt = base64.encode(keys.salt).decode("ascii")
        self._server_first = f"r={self._nonce},s={salt},i={keys.iterations}"
        self._next = _Next.FINAL
        return Challenge(self._server_first.encode("ascii"))

    def _first(self, response: bytes) -> NeedKeys | Proof | Refused:
        self._next = _Next.NOTHING
        try:
            match = _CLIENT_FIRST.fullmatch(response.decode())
            if not match:
                return Refused("a first SCRAM message that is not well formed")
            username = _unescaped(match["name"])
            authorized = _unescaped(match["authzid"] or "")
        except ValueError:
            return Refused("a name that is not well formed")
        if authorized and authorized != username:
            return Refused("nobody may act for another user")
        wrong = self._binding_fault(match["binding"])
        if wrong:
            return Proof(username, wrong)
        self._username = username
        self._gs2_header = match["header"]
        self._first_bare = match["bare"]
        self._nonce = match["nonce"]
        self._next = _Next.KEYS
        return NeedKeys(username)

    def _binding_fault(self, binding: str) -> str:
        """RFC 5802 6: what is wrong with the client's channel binding flag, "" when nothing."""
        if self._plus:
            return "" if binding == "p=tls-exporter" else "the channel binding has to be tls-exporter"
        if binding.startswith("p"):
            return "channel binding without the PLUS variant"
        if binding == "y" and self._exporter is not None:
            return "the client was kept from seeing that channel binding is offered"
        return ""

    def _final(self, response: bytes) -> Challenge | Proof:
        self._next = _Next.NOTHING
        assert self._keys is not None
        try:
            match = _CLIENT_FINAL.fullmatch(response.decode())
            if not match:
                raise ValueError
            bound = base64.decode(match["binding"].encode("ascii"))
            proof = base64.decode(match["proof"].encode("ascii"))
        except ValueError:
            return Proof(self._username, "a final SCRAM message that is not well formed")
        exporter = self._exporter if self._plus and self._exporter is not None else b""
        if not hmac.compare_digest(bound, self._gs2_header.encode() + exporter):
            return Proof(self._username, "the channel binding does not match: somebody may sit in between")
        if not hmac.compare_digest(match["nonce"].encode("ascii"), self._nonce.encode("ascii")):
            return Proof(self._username, "the nonce does not match")
        said = f"{self._first_bare},{self._server_first},{match['without']}".encode()
        signature = _hmac(self._keys.stored_key, said)
        if len(proof) != len(signature):
            return Proof(self._username, "the proof has the wrong length")
        client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
        if not hmac.compare_digest(hashlib.sha256(client_key).digest(), self._keys.stored_key):
            return Proof(self._username, WRONG_PASSWORD)
        self._next = _Next.ACKNOWLEDGED
        return Challenge(b"v=" + base64.encode(_hmac(self._keys.server_key, said)))


def _unescaped(name: str) -> str:
    """RFC 5802 5.1: a name with =2C and =3D, prepared; ValueError for any other =, control characters, overlength."""
    if any(not found for found in _ESCAPE.findall(name)):
        raise ValueError("an = that escapes nothing")
    plain = saslprep(_ESCAPE.sub(lambda escape: "," if escape[1] == "2C" else "=", name))
    if not plain and name:
        raise ValueError("an empty name")
    if len(plain.encode()) > NAME_LIMIT or CONTROLS.search(plain):
        raise ValueError("a name that is too long or has control characters")
    return plain


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")
