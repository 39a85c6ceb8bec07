"""Routes: the operator's word on where mail goes, instead of MX records.

A route for the exact domain comes first, then ``"*"``, which is not for own domains.  Local trouble with a route, such
as a host that does not exist, is DEFERRED: the operator can mend it.  Only routes lead to this machine.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from functools import lru_cache
from ipaddress import ip_address

from mailsrv.config import Route
from mailsrv.mail.outcome import Outcome, Result
from mailsrv.outside.interfaces import IResolver
from mailsrv.relay.mx import Hop, Plan, is_public, look_up

_LOOPBACK = ("127.0.0.1", "::1")


def route_for(routes: Mapping[str, Route], domain: str, own_domains: Container[str]) -> Route | None:
    """The route for ``domain`` (A-label or literal); None when its MX records decide."""
    route = routes.get(domain)
    if route is None and domain not in own_domains:
        route = routes.get("*")
    return route


def is_loopback(route: Route) -> bool:
    """Whether what goes along this route never leaves the machine, by its name alone: the DNS is not asked."""
    if route.host == "localhost":
        return True
    try:
        return ip_address(route.host).is_loopback
    except ValueError:
        return False


async def hops(resolver: IResolver, route: Route) -> Plan | Outcome:
    """Where a route leads; never empty."""
    if route.host == "localhost":  # RFC 6761 6.3: not the DNS's business
        return tuple(Hop(route.host, address, route.port) for address in _LOOPBACK)
    literal = _literal(route.host, route.port)
    if literal is not None:
        return literal
    host = await look_up(resolver, route.host, lambda address: True)
    if host.addresses:
        return tuple(Hop(host.name, address, route.port) for address in host.addresses)
    if host.unknown:
        reason = f"The address of {route.host} could not be looked up."
    else:
        reason = f"The host {route.host} of the route has no address: check [outbound] routes."
    return Outcome(Result.DEFERRED, "4.4.3", reason, rule="outbound.routes")


@lru_cache(maxsize=256)
def _literal(host: str, port: int) -> Plan | None:
    """Where a route to an address leads, always the same object; None when ``host`` is a name."""
    try:
        return (Hop(host, str(ip_address(host)), port),)
    except ValueError:
        return None


def listens_at(endpoints: Iterable[str], address: str, port: int) -> bool:
    """Whether one of the endpoint strings takes what is sent to ``port`` at ``address``, an address of this machine."""
    for endpoint in endpoints:
        kind, *arguments = (part.replace("\\", "") for part in re.split(r"(?<!\\):", endpoint))
        named = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
        place = named.get("port") or next((argument for argument in arguments if "=" not in argument), "")
        family = "tcp6" if ":" in address else "tcp"
        interface = named.get("interface", "")
        if kind == family and place == str(port) and (interface in ("", address) or _is_wildcard(interface)):
            return True
    return False


def _is_wildcard(interface: str) -> bool:
    try:
        return ip_address(interface).is_unspecified
    except ValueError:
        return False


def listening_addresses(endpoints: Iterable[str]) -> frozenset[str]:
    """The addresses that endpoint strings such as ``tcp:25:interface=192.0.2.1`` name, without wildcards."""
    found = set()
    for endpoint in endpoints:
        for argument in re.split(r"(?<!\\):", endpoint):
            key, _, value = argument.partition("=")
            try:
                address = str(ip_address(value.replace("\\", ""))) if key == "interface" else ""
            except ValueError:
                continue
            if address and is_public(address):
                found.add(address)
    return frozenset(found)
