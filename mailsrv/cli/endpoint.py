"""What a Twisted server endpoint string says, for verbs that tell of ports."""

from __future__ import annotations

import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """A TCP port; ``address`` is "" or "::" for every address of the family."""

    family: socket.AddressFamily
    address: str
    port: int


def place(endpoint: str) -> Place | None:
    """Where ``tcp:25:interface=192.0.2.1`` listens; None for anything but ``tcp:`` and ``tcp6:``."""
    kind, words, named = _words(endpoint)
    if kind not in ("tcp", "tcp6"):
        return None
    address = named.get("interface", "::" if kind == "tcp6" else "")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return Place(family, address, int(named.get("port", words[0])))


def socket_path(endpoint: str) -> str:
    """The path of ``unix:/run/mailsrv/lmtp:mode=660``; "" for another kind."""
    kind, words, named = _words(endpoint)
    return named.get("address", words[0]) if kind == "unix" else ""


def _words(endpoint: str) -> tuple[str, list[str], dict[str, str]]:
    """The kind of an endpoint, its other words, and those of them that are ``name=value``."""
    # A backslash makes a colon part of a word.
    kind, *words = (word.replace("\0", ":") for word in endpoint.replace("\\:", "\0").split(":"))
    return kind, words, dict(word.split("=", 1) for word in words if "=" in word)
