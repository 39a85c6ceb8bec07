"""Clients told apart: by network, because one customer of a provider has a whole IPv6 /64."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

LOCAL = "local"  # in place of the address, for a client on a local socket

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@lru_cache(maxsize=4096)
def address_of(client: str) -> Address | None:
    """The address of a client; IPv4 when it came as one mapped to IPv6 (RFC 4291 2.5.5.2), None on a local socket."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


@lru_cache(maxsize=4096)
def network_of(client: str) -> str:
    """The network that limits and penalties count for: an IPv4 address, an IPv6 /64, or the text itself."""
    address = address_of(client)
    if address is None:
        return client
    if address.version == 6:
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return str(address)


def is_within(client: str, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    """Whether the client's address is in one of these; never on a local socket."""
    address = address_of(client) if networks else None
    return address is not None and any(address in network for network in networks)


def is_loopback(client: str) -> bool:
    """Whether the client is this machine."""
    address = address_of(client)
    return address is not None and address.is_loopback
