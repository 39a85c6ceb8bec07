"""What is configured in a simulated world: the same on every machine, but for routes and the queue's patience."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Iterable

from argon2 import low_level
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mailsrv import config
from mailsrv.store.accounts import scram_keys
from mailsrv.store.accounts.accounts import parse_directory
from mailsrv.store.key_states import Keys
from mailsrv.store.keys import SigningKey
from mailsrv.tls import ServerCertificate
from tests.simulation import scenario
from tests.simulation.certificates import pem
from tests.simulation.elsewhere import Elsewhere

_CONFIG = """
hostname = "mx.example.org"
domains = ["example.org"]
state = "/var/lib/mailsrv"
auth.cleartext = "loopback"
checks.dns = false
outbound.connect_timeout = "20s"
queue.retry = ["5s", "20s", "1m", "5m"]
"""
_USUAL = 'queue.warn = "2m"\nqueue.expire = "10m"\n'
_OUTGOING = """
queue.warn = "10m"
queue.expire = "90m"
limits.recipients_per_hour = 100000
limits.recipients_per_day = 100000
"""
NOWHERE = "203.0.113.253"


@functools.cache
def _certificate() -> ServerCertificate:
    with tempfile.TemporaryDirectory() as folder:
        paths = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
        for path, octets in zip(paths, pem(scenario.HOSTNAME), strict=True):
            with open(path, "wb") as file:
                file.write(octets)
        return ServerCertificate(*paths)


@functools.cache
def _accounts() -> str:
    """An accounts file, its hashes as cheap as Argon2id allows; with SCRAM keys, so that no login adds them."""
    kind = low_level.Type.ID
    encoded = low_level.hash_secret(scenario.PASSWORD.encode(), bytes(16), 1, 8, 1, 16, kind).decode()
    stored = f"{{ARGON2ID}}{encoded}"
    keys = f"{scram_keys.FIELD}={scram_keys.make(scenario.PASSWORD, stored, bytes)}"
    return "".join(f"{name}:{stored}::::::{keys}\n" for name in scenario.MAILBOXES)


def _signing_key() -> SigningKey:
    """The same in every process, as a run has to be."""
    return SigningKey("example.org", "ed25519", Ed25519PrivateKey.from_private_bytes(bytes(32)))


@functools.cache
def _parsed(text: str) -> config.Config:
    return config.parse(text, "/etc/mailsrv/mailsrv.toml")


def authorities(hosts: Iterable[str], path: str) -> str:
    """Write the certificates of ``hosts`` to ``path`` as a bundle to be trusted; the path."""
    with open(path, "wb") as file:
        for host in hosts:
            file.write(pem(host)[0])
    return path


class WorldSettings:
    """``mailsrv.app.Settings`` from text; no files to look at.

    ``config`` is what is in force: ``usual``, or ``misrouted``, which sends everything to a host that is not there.
    """

    def __init__(self, elsewhere: Elsewhere | None, bundle: str) -> None:
        text, routes = _CONFIG + _USUAL, ""
        if elsewhere is not None:
            routes = "".join(f'outbound.routes."{d.name}" = "{d.route}"\n' for d in elsewhere.domains if d.route)
            text = f'{_CONFIG}{_OUTGOING}tls.authorities = "{bundle}"\n'
        self.usual = _parsed(text + routes)
        self.misrouted = _parsed(f'{text}outbound.routes."*" = "smtp://{NOWHERE}:25"\n')
        self.config = self.usual
        aliases = "".join(f"{name}: {', '.join(ends)}\n" for name, ends in scenario.ALIASES.items())
        self.directory = parse_directory(self.usual, _accounts(), aliases)
        self.certificate = _certificate()
        self.keys = Keys({"example.org": (_signing_key(),)}, {})
        self.changed: Callable[[], None] = lambda: None
        self.refused: Callable[[str], None] = lambda problem: None

    def look(self) -> None:
        """Nothing changes by itself."""
