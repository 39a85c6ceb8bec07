"""Clients told apart: by network, because one customer of a provider has a whole IPv6 /64."""

from __future__ import annotations

import ipaddress
from functools import lru_cache


@lru_cache(maxsize=4096)
def network_of(client: str) -> str:
    """The network that limits and penalties count for: an IPv4 address, an IPv6 /64, or the text itself."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client  # a local socket
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return str(address)


@lru_cache(maxsize=4096)
def is_loopback(client: str) -> bool:
    """Whether the client is this machine."""
    try:
        return ipaddress.ip_address(client).is_loopback
    except ValueError:
        return False
