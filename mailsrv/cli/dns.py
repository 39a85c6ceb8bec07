"""``mailsrv dns``: the zone records to publish for the domains, in the form of a zone file (RFC 1035 5) or as JSON.

MX, the sender policy (SPF, RFC 7208), the keys that sign (DKIM, RFC 6376), what others should do with mail that fails
(DMARC), and where mail programs find the services (SRV, RFC 6186 and 8314).  The addresses of the machine are left for
the operator to fill in: a machine behind a router does not know them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from mailsrv.cli.command import add_common, config_of, print_json, wants_json
from mailsrv.cli.endpoint import place
from mailsrv.cli.wording import moment, now
from mailsrv.config import Config
from mailsrv.store import key_states, keys
from mailsrv.store.key_states import KeyState

_TTL_S = 3600
_STRING_LIMIT = 255  # RFC 1035 3.3.14: octets of one string of a TXT record


@dataclass(frozen=True, slots=True)
class Record:
    """``name`` without final dot; ``value`` as in a zone file, but TXT as one string; ``remark`` for people."""

    name: str
    type: str
    value: str
    remark: str = ""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    text = "print the DNS records to publish"
    verb = subparsers.add_parser("dns", help=text, description="Print the DNS records to publish.")
    add_common(verb, json=True)
    verb.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    found = records(config)
    if wants_json(arguments):
        print_json(found)
    else:
        print(zone(config, found))
    return 0


def records(config: Config) -> list[Record]:
    """What to publish (KeyFileError)."""
    host = config.hostname
    found = [
        Record(host, "A", "<IPv4 address of this machine>", "leave out what the machine does not have"),
        Record(host, "AAAA", "<IPv6 address of this machine>"),
    ]
    if host not in config.domains:
        # RFC 7208 2.3: the name in EHLO is checked as well, for bounces above all.
        found.append(Record(host, "TXT", "v=spf1 a -all"))
    for domain in config.domains:
        found += _of_domain(config, domain)
    return found


def _of_domain(config: Config, domain: str) -> list[Record]:
    host = config.hostname
    smarthost = "*" in config.outbound.routes
    found = [
        Record(domain, "MX", f"10 {host}."),
        Record(
            domain,
            "TXT",
            "v=spf1 mx ~all",
            "mail goes out by another server (routes): it has to be named here too" if smarthost else "",
        ),
    ]
    for key in key_states.of_domain(config.state, domain):
        if not key_states.is_over(key, config, now()):
            found.append(key_record(config, key))
    found.append(Record(f"_dmarc.{domain}", "TXT", f"v=DMARC1; p=none; rua=mailto:postmaster@{domain}"))
    for service, endpoints in (
        ("submissions", config.listen.submissions),  # RFC 8314 5.1: implicit TLS first
        ("submission", config.listen.submission),
        ("pop3s", config.listen.pop3s),
        ("pop3", config.listen.pop3),
    ):
        port = _port(endpoints)
        if port:
            preference = 0 if service.endswith("s") else 10
            found.append(Record(f"_{service}._tcp.{domain}", "SRV", f"{preference} 1 {port} {host}."))
    return found


def key_record(config: Config, key: KeyState) -> Record:
    """The record of a key (KeyFileError)."""
    public = keys.public(config.state, key.domain, key.selector)
    remark = ""
    if key.state == key_states.NEXT:
        remark = "signs when it has been seen here for a while"
    elif key.state == key_states.RETIRED and key.since is not None:
        remark = f"signs no more; may go after {moment(key.since + key_states.kept_s(config))}"
    return Record(public.name, "TXT", public.record, remark)


def zone(config: Config, found: list[Record]) -> str:
    """The records as text for a zone file."""
    remark = f"; PTR: whoever gave this machine its addresses has to name each of them {config.hostname}."
    return "\n".join([*lines(found), remark])


def lines(found: Sequence[Record]) -> list[str]:
    """Each record as a line of a zone file."""
    width = max(len(record.name) for record in found) + 1
    made = []
    for record in found:
        value = _strings(record.value) if record.type == "TXT" else record.value
        remark = f"  ; {record.remark}" if record.remark else ""
        # A placeholder is a comment, so that the rest can be loaded as it is.
        hidden = "; " if record.value.startswith("<") else ""
        made.append(f"{hidden}{record.name + '.':{width}} {_TTL_S} IN {record.type:4} {value}{remark}")
    return made


def _strings(text: str) -> str:
    """A TXT value as quoted strings of at most 255 octets, which whoever reads the record joins again."""
    parts = [text[start : start + _STRING_LIMIT] for start in range(0, len(text), _STRING_LIMIT)]
    quoted = " ".join(f'"{part}"' for part in parts)
    return f"( {quoted} )" if len(parts) > 1 else quoted


def _port(endpoints: tuple[str, ...]) -> int:
    """The first TCP port among endpoint strings, 0 when there is none that others could know of."""
    places = (place(endpoint) for endpoint in endpoints)
    return next((at.port for at in places if at is not None and at.port), 0)
