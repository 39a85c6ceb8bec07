"""A SCRAM-SHA-256 client for tests, made from RFC 5802 and nothing of the program's; and the example of RFC 7677."""

from __future__ import annotations

import base64
import hashlib
import hmac

from mailsrv.sasl.scram import ServerFirst, derive_keys


def final_message(
    password: str, header: str, first_bare: str, server_first: str, exporter: bytes = b"", extra: str = ""
) -> bytes:
    """The client's final message; ``header`` is its channel binding flag and name, ``first_bare`` what followed it."""
    values = dict(item.split("=", 1) for item in server_first.split(","))
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(values["s"]), int(values["i"]))
    key = hmac.digest(salted, b"Client Key", "sha256")
    without = f"c={base64.b64encode(header.encode() + exporter).decode()},r={values['r']}{extra}"
    said = f"{first_bare},{server_first},{without}".encode()
    signature = hmac.digest(hashlib.sha256(key).digest(), said, "sha256")
    proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
    return f"{without},p={base64.b64encode(proof).decode()}".encode()


class ScramClient:
    """One login.  With ``exporter`` it binds to that channel; ``flag`` is the channel binding flag without."""

    def __init__(self, username: str, password: str, exporter: bytes | None = None, flag: str = "n") -> None:
        self._password = password
        self._exporter = exporter or b""
        self._header = f"{flag if exporter is None else 'p=tls-exporter'},,"
        self._bare = f"n={username},r=fyko+d2lbbFgONRv9qkxdawL"

    def first(self) -> str:
        """The first message in base64."""
        return _base64((self._header + self._bare).encode())

    def final(self, server_first: str) -> str:
        """The answer to the server's first message, both in base64."""
        told = base64.b64decode(server_first).decode()
        return _base64(final_message(self._password, self._header, self._bare, told, self._exporter))

    def answer(self, first: ServerFirst) -> str:
        """The final message to a server that says this, in base64."""
        nonce = self._bare.rpartition("r=")[2] + first.nonce
        salt = _base64(first.keys.salt)
        return self.final(_base64(f"r={nonce},s={salt},i={first.keys.iterations}".encode()))

    @staticmethod
    def salt(server_first: str) -> str:
        """What a server's first message says but for the nonce."""
        return base64.b64decode(server_first).decode().partition(",")[2]


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


# The example of RFC 7677 3: user "user", password "pencil".
EXAMPLE_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
EXAMPLE_FIRST = ServerFirst(derive_keys("pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096), EXAMPLE_NONCE)
