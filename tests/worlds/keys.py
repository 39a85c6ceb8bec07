"""Keys for tests, made once, and a DNS for the verifiers."""

from __future__ import annotations

import functools

from mailsrv.store import keys
from mailsrv.store.keys import SigningKey


@functools.cache
def signing_key(kind: str, selector: str = "", domain: str = "example.org") -> SigningKey:
    """``kind`` is "rsa" or "ed25519", which is the selector too when that is not given."""
    return keys.parse(keys.generate(kind), domain, selector or kind, "a key of the tests")


def pair(domain: str = "example.org", end: str = "") -> tuple[SigningKey, SigningKey]:
    """Keys of both kinds, whose selectors are their kinds with ``end``."""
    return signing_key("rsa", f"rsa{end}", domain), signing_key("ed25519", f"ed25519{end}", domain)


def zone(*of_keys: SigningKey) -> dict[str, str]:
    """The TXT record of each key by its name."""
    return {key.public.name: key.public.record for key in of_keys}
