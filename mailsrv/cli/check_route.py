"""The ways out, for ``mailsrv check``: do the next hops of routes take connections, and may this machine speak to the
world on port 25.

Many providers close that port, for new customers above all, and then mail goes in but none comes out.  Without a route
for ``"*"`` a connection is made to the mail servers of large providers, one after the other until one answers, for IPv4
and, where the host name has an IPv6 address, for that too.  Nothing is said on it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence

from mailsrv.cli.check_dns import Lookup, LookupFailed
from mailsrv.cli.finding import Finding, ok, warning, wrong
from mailsrv.config import Config

_TIMEOUT_S = 5.0
_PROBED = ("gmail.com", "outlook.com", "yahoo.com")  # domains with mail servers that are nearly always there
_FAMILIES = (("IPv4", "A"), ("IPv6", "AAAA"))

Dial = Callable[[str, int, float], None]  # address, port, seconds; OSError


def dial(address: str, port: int, timeout_s: float) -> None:
    """Connect and hang up (OSError)."""
    socket.create_connection((address, port), timeout_s).close()


def routes(config: Config) -> Iterator[Finding]:
    """Whether the next hops that routes name take connections."""
    for domain, route in config.outbound.routes.items():
        what = f'route "{domain}"'
        try:
            dial(route.host, route.port, min(_TIMEOUT_S, config.outbound.connect_timeout))
        except OSError as error:
            problem = error.strerror or str(error)
            yield wrong(what, f"{route.host} port {route.port}: {problem}", "mend [outbound] routes, or that server")
        else:
            yield ok(what, f"{route.host} port {route.port} takes connections")


def direct(config: Config, ask: Lookup, dial: Dial = dial) -> Iterator[Finding]:
    """Whether port 25 elsewhere can be reached; nothing when all mail has a route, or when no name can be looked up."""
    if "*" in config.outbound.routes:
        return
    try:
        exchangers = [host for domain in _PROBED for host in _exchangers(ask(domain, "MX"))[:1]]
        for family, kind in _FAMILIES:
            addresses = [address for host in exchangers for address in ask(host, kind)[:1]]
            if addresses and (kind == "A" or ask(config.hostname, kind)):
                yield _family(family, addresses, dial)
    except LookupFailed:
        return  # told with the records


def _exchangers(records: Sequence[str]) -> list[str]:
    """The hosts of MX records as in a zone file, the most preferred first."""
    pairs = [record.split() for record in records]
    return [host.rstrip(".") for _, host in sorted((int(pair[0]), pair[-1]) for pair in pairs)]


def _family(family: str, addresses: Sequence[str], dial: Dial) -> Finding:
    problem = ""
    for address in addresses:
        try:
            dial(address, 25, _TIMEOUT_S)
        except OSError as error:
            problem = f"{address} port 25: {error.strerror or error}"
        else:
            return ok("route out", f"port 25 of the world can be reached by {family}")
    remedy = 'ask your provider to open port 25, or send through another server: [outbound] routes, "*"'
    if family == "IPv6":
        return warning("route out", f"no server can be reached by IPv6: {problem}", f"IPv4 is used instead; {remedy}")
    return wrong("route out", f"no server can be reached by IPv4: {problem}", remedy)
