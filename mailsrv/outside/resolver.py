"""DNS by dnspython, on Twisted's network.

A stub resolver: it asks recursive servers and believes them.  What is asked of an answer before it is believed (RFC
5452): it comes from the server that was asked, to the port that asked, with the id and the question that were
sent; anything else is passed over while the time lasts.  Truncated answers are asked for again over a stream.
Answers are kept as long as their TTL allows.  ``LookupFailed`` is everything that says nothing about the name.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.name
import dns.nameserver
import dns.rdata
import dns.rdatatype
import dns.resolver
from zope.interface import implementer

from mailsrv.outside.dns_network import TwistedBackend
from mailsrv.outside.interfaces import Answer, IReactor, IResolver, LookupFailed, NameNotFound

_CACHED_ANSWERS = 10_000
_UDP_OCTETS = 1232  # what passes everywhere without fragments (DNS flag day 2020)
_RESOLV_CONF = "/etc/resolv.conf"
_LOOK_AGAIN_S = 5.0


@implementer(IResolver)
class DnsResolver:
    """Asks ``servers`` ("address:port", "[address]:port" or an address alone) in turn, or the system's when empty.

    The system's are read again when ``/etc/resolv.conf`` changes.  ``timeout_s`` is for one question to one server,
    ``lifetime_s`` for all that is done about one ``query``.  ValueError when a server is not an address.
    """

    def __init__(
        self, reactor: IReactor, servers: Sequence[str], *, timeout_s: float = 3.0, lifetime_s: float = 12.0
    ) -> None:
        self._reactor = reactor
        self._backend = TwistedBackend(reactor)
        self._resolver = dns.asyncresolver.Resolver(configure=False)
        self._resolver.cache = dns.resolver.LRUCache(_CACHED_ANSWERS)
        self._resolver.timeout = timeout_s
        self._resolver.lifetime = lifetime_s
        self._resolver.use_edns(0, 0, _UDP_OCTETS)
        # RFC 6840 5.7: AD in the question asks for AD in the answer, without the signatures themselves.
        self._resolver.flags = dns.flags.RD | dns.flags.AD
        self._system = not servers
        self._looked_at = -_LOOK_AGAIN_S
        self._seen: tuple[int, int, int] | None = None
        if servers:
            self._resolver.nameservers = [_nameserver(text) for text in servers]

    async def query(self, name: str, kind: str) -> Answer:
        """Look up ``kind`` of ``name``; NameNotFound, LookupFailed."""
        if self._system:
            self._follow_system()
        try:
            # Absolute: the system's search list is for people at a terminal, never for mail.
            absolute = dns.name.from_text(name.encode("ascii"), dns.name.root)
        except (UnicodeEncodeError, dns.exception.DNSException) as error:
            raise NameNotFound(f"{name!r} cannot be a name in the DNS") from error
        try:
            found = await self._resolver.resolve(
                absolute, kind, raise_on_no_answer=False, search=False, backend=self._backend
            )
        except dns.resolver.NXDOMAIN:
            raise NameNotFound(f"{name} does not exist") from None
        except dns.exception.Timeout:
            raise LookupFailed(f"no answer about {kind} of {name}: {self._asked()}") from None
        except (dns.exception.DNSException, OSError, EOFError) as error:
            raise LookupFailed(f"{kind} of {name}: {_in_words(error)}: {self._asked()}") from error
        records = tuple(_record(record) for record in found.rrset or ())
        secure = bool(found.response.flags & dns.flags.AD) and _is_loopback(found.nameserver)
        return Answer(records, _host(found.canonical_name), secure)

    def _asked(self) -> str:
        servers = [str(getattr(server, "address", server)) for server in self._resolver.nameservers]
        return f"asked {', '.join(servers)}" if servers else f"no DNS server in {_RESOLV_CONF}"

    def _follow_system(self) -> None:
        now = self._reactor.seconds()
        if now - self._looked_at < _LOOK_AGAIN_S:
            return
        self._looked_at = now
        try:
            status = os.stat(_RESOLV_CONF)
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
            if seen == self._seen:
                return
            system = dns.resolver.Resolver(_RESOLV_CONF)
        except (OSError, ValueError, dns.exception.DNSException):
            return  # keep the servers that are known; without any each query is LookupFailed
        self._seen = seen
        self._resolver.nameservers = [dns.nameserver.Do53Nameserver(str(server), 53) for server in system.nameservers]


def _nameserver(text: str) -> dns.nameserver.Do53Nameserver:
    if text.startswith("["):
        address, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    else:
        address, port = text, ""
    return dns.nameserver.Do53Nameserver(str(ip_address(address)), int(port or 53))


def _record(record: Any) -> Any:
    """One record in the form that ``Answer`` promises."""
    match record.rdtype:
        case dns.rdatatype.A | dns.rdatatype.AAAA:
            return record.address
        case dns.rdatatype.MX:
            return record.preference, _host(record.exchange)
        case dns.rdatatype.TXT:
            return b"".join(record.strings).decode("latin-1")
        case dns.rdatatype.PTR | dns.rdatatype.CNAME:
            return _host(record.target)
    return record.to_text()


def _host(name: dns.name.Name) -> str:
    return "" if name == dns.name.root else name.to_text(omit_final_dot=True).lower()


def _is_loopback(address: str | None) -> bool:
    try:
        return address is not None and ip_address(address).is_loopback
    except ValueError:
        return False


def _in_words(error: Exception) -> str:
    if isinstance(error, dns.resolver.NoNameservers):
        errors = error.kwargs.get("errors") or ()
        return "; ".join(sorted({str(each[3]) for each in errors})) or "no server answered"
    return str(error) or type(error).__name__
