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
    # A backslash makes a colon part of a word.
    kind, *words = (word.replace("\0", ":") for word in endpoint.replace("\\:", "\0").split(":"))
    if kind not in ("tcp", "tcp6"):
        return None
    named = dict(word.split("=", 1) for word in words if "=" in word)
    address = named.get("interface", "::" if kind == "tcp6" else "")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return Place(family, address, int(named.get("port", words[0])))
