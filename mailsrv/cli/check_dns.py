"""What DNS says about us, for ``mailsrv check``: are the records of ``mailsrv dns`` there, does PTR name us, is our
address on one of the configured blocklists.

A name server that does not answer is one warning, and the rest is left out: nothing is known then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address

import dns.exception
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver
import dns.reversename
from dns.rdtypes.txtbase import TXTBase

from mailsrv.cli import dns as published
from mailsrv.cli.finding import Finding, ok, warning, wrong
from mailsrv.config import Config
from mailsrv.store.keys import KeyFileError, is_same

_TIMEOUT_S = 4.0

# From name and type to values as in a zone file, TXT joined; none when there are none; LookupFailed.
Lookup = Callable[[str, str], list[str]]


class LookupFailed(Exception):
    """No name server gave an answer."""


def lookup(servers: Sequence[str]) -> Lookup:
    """Ask ``servers`` ("address:port"), or the system's when empty."""

    def ask(name: str, kind: str) -> list[str]:
        try:
            resolver = dns.resolver.Resolver(configure=not servers)
            if servers:
                resolver.nameservers = [_server(server) for server in servers]
            answer = resolver.resolve(name, kind, lifetime=_TIMEOUT_S, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []
        except (dns.exception.DNSException, OSError) as error:
            raise LookupFailed(str(error).split("\n")[0]) from None
        return [_text(record) for record in answer]

    return ask


def _server(text: str) -> dns.nameserver.Nameserver:
    address, _, port = text.rpartition(":")
    return dns.nameserver.Do53Nameserver(address.strip("[]"), int(port))


def _text(record: object) -> str:
    if isinstance(record, TXTBase):
        return b"".join(record.strings).decode("latin-1")
    return str(record)


def records(config: Config, ask: Lookup) -> Iterator[Finding]:
    """The findings; one warning instead when there is no answer."""
    try:
        addresses = ask(config.hostname, "A") + ask(config.hostname, "AAAA")
        yield from _host(config, addresses, ask)
        for domain in config.domains:
            yield _exchangers(config, domain, ask)
        for record in _wanted(config):
            if record.type == "TXT":
                yield _text_record(record, ask)
        for blocklist in config.checks.blocklists:
            for address in addresses:
                yield _listed(blocklist, address, ask)
    except LookupFailed as error:
        yield warning("DNS", f"no answer, so the records are not looked at: {error}", "see [dns] servers, or wait")


def _wanted(config: Config) -> list[published.Record]:
    try:
        return published.records(config)
    except KeyFileError:
        return []  # said where the keys themselves are looked at


def _host(config: Config, addresses: list[str], ask: Lookup) -> Iterator[Finding]:
    host = config.hostname
    if not addresses:
        yield wrong("DNS", f"{host} has no address", "publish its A and AAAA records; 'mailsrv dns' prints them")
    for address in addresses:
        names = [name.rstrip(".").lower() for name in ask(str(dns.reversename.from_address(address)), "PTR")]
        if host in names:
            yield ok("PTR", f"{address} is {host}")
        else:
            has = f"is {', '.join(names)}" if names else "has none"
            yield wrong("PTR", f"{address} {has}", f"ask who gave you the address to name it {host}")


def _exchangers(config: Config, domain: str, ask: Lookup) -> Finding:
    exchangers = [value.split()[-1].rstrip(".").lower() for value in ask(domain, "MX")]
    if config.hostname in exchangers:
        return ok("MX", f"{domain} is served by {config.hostname}")
    has = f"names {', '.join(exchangers)}" if exchangers else "has none"
    return wrong("MX", f"{domain} {has}", f"publish: {domain}. MX 10 {config.hostname}.")


def _text_record(record: published.Record, ask: Lookup) -> Finding:
    """One of the TXT records to publish.  A key has to be the very one, a policy may be another of its kind."""
    there = ask(record.name, "TXT")
    kind = record.value.split(" ")[0].rstrip(";")
    of_kind = [value for value in there if value.startswith(kind)]
    if any(is_same(record.value, text) for text in there) if kind == "v=DKIM1" else of_kind:
        return ok("TXT", f"{record.name} has {kind}")
    if of_kind:
        return wrong("TXT", f"{record.name} has another key", "publish what 'mailsrv dns' prints")
    return warning("TXT", f"{record.name} has no {kind}", "publish what 'mailsrv dns' prints")


def _listed(blocklist: str, address: str, ask: Lookup) -> Finding:
    # RFC 5782 2.1 and 2.4: the address reversed below the list; an answer in 127.0.0.0/8 is a listing.
    labels = ip_address(address).reverse_pointer.rsplit(".", 2)[0]
    answers = ask(f"{labels}.{blocklist}", "A")
    # 127.255.255.x are the error codes of large lists, such as for questions through a public resolver.
    if any(answer.startswith("127.255.255.") for answer in answers):
        return warning("blocklist", f"{blocklist} answers with an error", "ask it through a resolver of your own")
    if any(answer.startswith("127.") for answer in answers):
        return wrong("blocklist", f"{address} is on {blocklist}", f"see the site of {blocklist} for how to get off it")
    return ok("blocklist", f"{address} is not on {blocklist}")
