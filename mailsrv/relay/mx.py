"""Which servers take mail for a domain, and in which order to try them (RFC 5321 5, 7505).

Pure policy over a resolver.  A plan is a list of hops: MX hosts by preference, equal ones in random order, of each
host its IPv6 and IPv4 addresses in turn.  Where there is no plan there is an ``Outcome`` that says why: what the DNS
denies is FAILED, what it could not answer is DEFERRED.

Refused as next hops, since only the operator may send mail to this machine, by a route: addresses of loopback,
unspecified and multicast ones, MX records that name an address or localhost.  Private addresses are not refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import chain, groupby, zip_longest
from typing import Final

from twisted.internet.defer import Deferred, gatherResults

from mailsrv.mail.outcome import Outcome, Result
from mailsrv.outside.interfaces import IResolver, LookupFailed, NameNotFound

_MOST_HOSTS: Final = 20  # of one domain; a longer list is somebody's mistake or joke
_MOST_ADDRESSES: Final = 8  # of one host
_PORT: Final = 25


@dataclass(frozen=True, slots=True)
class Hop:
    """A server: its name (as MX or route have it), one of its addresses as text, a port.

    ``preference`` is that of its MX (less is better): it tells when the server is asked, not which server it is.
    """

    name: str
    address: str
    port: int = _PORT
    preference: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return f"{self.name} [{self.address}]:{self.port}"


Plan = tuple[Hop, ...]


@dataclass(frozen=True, slots=True)
class Host:
    """A host name and its addresses; ``unknown`` when a lookup failed, so that there may be more."""

    name: str
    addresses: tuple[str, ...]
    unknown: bool


async def plan(
    resolver: IResolver, domain: str, *, hostname: str, own_addresses: frozenset[str], random: Callable[[int], bytes]
) -> Plan | Outcome:
    """The hops for ``domain``, an A-label or an address literal; never empty.

    ``hostname`` and ``own_addresses`` say who we are: an MX that is us is dropped with all of equal or lower
    preference (RFC 5321 5.1), as is one that shares an address with ``hostname``.  ``random(n)`` gives ``n`` octets.
    """
    if domain.startswith("["):
        return _literal(domain)
    try:
        records = (await resolver.query(domain, "MX")).records
    except NameNotFound:
        return _failed("5.1.2", f"The domain {domain} does not exist.", f"no DNS entry for {domain}")
    except LookupFailed as error:
        return _deferred(f"The MX records of {domain} could not be looked up: {error}.")
    # RFC 7505 3: a null MX stands alone; beside others "." is no host and is passed over.
    exchanges = [(preference, host) for preference, host in records if host]
    if records and not exchanges:
        return _failed("5.1.10", f"The domain {domain} says that it receives no mail.", "RFC 7505 (null MX)")
    # RFC 5321 5.1: without MX the domain itself is the host.
    exchanges = exchanges or [(0, domain)]
    order = sorted((preference, random(8), host) for preference, host in exchanges if not _is_bad_name(host))
    order = order[:_MOST_HOSTS]
    us, *hosts = await _all_addresses(resolver, [hostname, *(host for _, _, host in order)])
    own = own_addresses | frozenset(us.addresses)
    usable: list[tuple[int, Host]] = []
    for (preference, _, _), host in zip(order, hosts, strict=True):
        if host.name == hostname or not own.isdisjoint(host.addresses):
            usable = [kept for kept in usable if kept[0] < preference]
            if not any(kept.unknown or kept.addresses for _, kept in usable):
                reason = f"Mail for {domain} would come back to this server, which does not take it."
                return _failed("5.4.6", reason, "RFC 5321 5.1")
            break
        usable.append((preference, host))
    hops = tuple(Hop(host.name, address, _PORT, n) for n, host in usable for address in host.addresses)
    if hops:
        return hops
    if any(host.unknown for _, host in usable):
        names = ", ".join(host.name for _, host in usable if host.unknown)
        return _deferred(f"The address of {names} could not be looked up.")
    names = ", ".join(sorted({host for _, host in exchanges}))
    reason = f"No server takes mail for {domain}: {names} has no address that mail may go to."
    return _failed("5.4.4", reason, "RFC 5321 5.1")


def shuffled(plan: Plan, random: Callable[[int], bytes]) -> Plan:
    """The same plan with hosts of equal preference in another random order (RFC 5321 5.1)."""
    hosts = [tuple(hops) for _, hops in groupby(plan, lambda hop: (hop.preference, hop.name))]
    if len(hosts) == 1:
        return plan
    order = sorted(hosts, key=lambda hops: (hops[0].preference, random(8)))
    return tuple(chain.from_iterable(order))


async def look_up(resolver: IResolver, name: str, usable: Callable[[str], bool]) -> Host:
    """The addresses of a host that are ``usable``, IPv6 and IPv4 in turn, each family in the order of the answer."""
    families = await gatherResults(
        [Deferred.fromCoroutine(_records(resolver, name, kind)) for kind in ("AAAA", "A")], consumeErrors=True
    )
    mixed = chain.from_iterable(zip_longest(*(records for records, _ in families)))
    addresses = dict.fromkeys(str(ip_address(address)) for address in mixed if address and usable(address))
    return Host(name, tuple(addresses)[:_MOST_ADDRESSES], any(unknown for _, unknown in families))


def is_public(address: str) -> bool:
    """Whether mail may go to an address that the DNS or a stranger named: not to this machine, not to many."""
    ip: IPv4Address | IPv6Address = ip_address(address)
    if isinstance(ip, IPv6Address):
        ip = ip.ipv4_mapped or ip
    this_network = isinstance(ip, IPv4Address) and int(ip) >> 24 in (0, 255)
    return not (ip.is_loopback or ip.is_unspecified or ip.is_multicast or this_network)


def _is_bad_name(host: str) -> bool:
    if host == "localhost" or host.endswith((".localhost", "localhost.localdomain")):
        return True
    # RFC 5321 5.1: an MX names a host; no top level domain is a number.
    return ":" in host or host.rpartition(".")[2].isdigit()


async def _all_addresses(resolver: IResolver, names: Iterable[str]) -> list[Host]:
    lookups = [Deferred.fromCoroutine(look_up(resolver, name, is_public)) for name in names]
    return list(await gatherResults(lookups, consumeErrors=True))


async def _records(resolver: IResolver, name: str, kind: str) -> tuple[tuple[str, ...], bool]:
    """The addresses of one family, and whether that is not known."""
    try:
        return (await resolver.query(name, kind)).records, False
    except NameNotFound:
        return (), False
    except LookupFailed:
        return (), True


def _literal(domain: str) -> Plan | Outcome:
    """RFC 5321 4.1.3: ``[192.0.2.1]``, ``[IPv6:2001:db8::1]``."""
    try:
        address = str(ip_address(domain[1:-1].removeprefix("IPv6:")))
    except ValueError:
        return _failed("5.1.2", f"{domain} is an address of a kind that cannot be reached.", "RFC 5321 4.1.3")
    if not is_public(address):
        return _failed("5.4.4", f"Mail may not go to {domain}; only a route may say so.", "outbound.routes")
    return (Hop(domain, address),)


def _failed(status: str, reason: str, rule: str) -> Outcome:
    return Outcome(Result.FAILED, status, reason, rule=rule)


def _deferred(reason: str) -> Outcome:
    return Outcome(Result.DEFERRED, "4.4.3", reason, rule="DNS")
