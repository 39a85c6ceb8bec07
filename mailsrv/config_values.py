"""What an operator writes in the configuration, one function for each form: the value, or ValueError.

The message of the ValueError says what is wrong with the text, and is shown behind the name of the key.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import unquote_to_bytes

from mailsrv.endpoints import port_number
from mailsrv.mail.address import AddressError, domain_a_label

Network = IPv4Network | IPv6Network

_NUMBER = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)")
_DURATION_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST_S = 3650 * 86400
_SIZE_UNITS = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1024, "mib": 1024**2, "gib": 1024**3}
_LARGEST = 1024**4
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
CHECKS = ("hop_limit", "blocklists", "reverse_name", "sanity", "first_contact")  # those of mailsrv.checks.members
TLS_DEMANDS = ("opportunistic", "required", "verified")  # each asks more than the one before
_DEFAULT_PORTS = {"smtp": 25, "smtps": 465}


@dataclass(frozen=True, slots=True)
class Route:
    """Where mail goes instead of to its MX: ``scheme`` is "smtp" (STARTTLS when offered) or "smtps" (implicit TLS).

    ``host`` is a name or an IP address, without brackets.  ``username`` is "" when there is no login.
    """

    scheme: str
    host: str
    port: int
    username: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, text: str) -> Route:
        """``smtps://user:password@smart.example:465``; ValueError, whose message never shows the password.

        The login ends at the last ``@``, so a user name may be an address.  Octets may be written ``%40``.
        """
        scheme, separator, rest = text.partition("://")
        if not separator or scheme not in _DEFAULT_PORTS:
            raise ValueError('a route begins with "smtp://" or "smtps://"')
        login, at, place = rest.rpartition("@")
        username, _, password = login.partition(":")
        if at and not (username and password):
            raise ValueError('before the "@" of a route stand user and password, as in "smtp://user:password@host:587"')
        host, port = _host_and_port(place, _DEFAULT_PORTS[scheme])
        return cls(scheme, host, port, _percent_decoded(username), _percent_decoded(password))


def _percent_decoded(text: str) -> str:
    try:
        decoded = unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise ValueError("user or password of the route is not UTF-8 once %XX is decoded") from None
    if _CONTROL.search(decoded):
        raise ValueError("user or password of the route holds a control character")
    return decoded


def _host_and_port(text: str, default: int) -> tuple[str, int]:
    """``mx.example.org:25``, ``192.0.2.1``, ``[2001:db8::1]:25``."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f'"{text}" is not of the form [IPv6 address]:port')
        return _ip(host), port_number(rest[1:]) if rest else default
    host, colon, port = text.partition(":")
    try:
        host = _ip(host)
    except ValueError:
        host = domain(host)
    return host, port_number(port) if colon else default


def _ip(text: str) -> str:
    address = ip_address(text)
    if "%" in text:
        raise ValueError(f'"{text}" names a network interface; write the address alone')
    return str(address)


def duration(value: str | float) -> float:
    """Seconds.  ``"90s"``, ``"5m"``, ``"4h"``, ``"5d"``, or a number of seconds; more than 0, at most ten years."""
    seconds = _with_unit(value, _DURATION_UNITS) if isinstance(value, str) else value
    if seconds is None or math.isnan(seconds):
        raise ValueError(f'"{value}" is not a duration such as "90s", "5m", "4h" or "5d"')
    if not 0 < seconds <= _LONGEST_S:
        raise ValueError(f"{value} is not more than 0 and at most 3650 days")
    return float(seconds)


def duration_or_off(value: str | float) -> float:
    """The same, and ``""`` or 0 for never: 0.0."""
    return 0.0 if value in ("", 0) else duration(value)


def share_or_off(text: str) -> float:
    """``"90%"`` is 0.9, from 1% to 100%; ``""`` is 0.0."""
    found = re.fullmatch("([0-9]{1,3})%", text)
    if text and (found is None or not 1 <= int(found[1]) <= 100):
        raise ValueError(f'"{text}" is not a share such as "90%"')
    return int(found[1]) / 100 if found else 0.0


def size(value: str | int) -> int:
    """Octets.  ``"50 MiB"`` (1024), ``"10 MB"`` (1000), or a number of octets; more than 0, at most 1 TiB."""
    octets = _with_unit(value, _SIZE_UNITS) if isinstance(value, str) else value
    if octets is None:
        raise ValueError(f'"{value}" is not a size such as "50 MiB", "10 MB" or 4096')
    if not 1 <= octets <= _LARGEST:
        raise ValueError(f"{value} is not between 1 octet and 1 TiB")
    return int(octets)


def _with_unit(text: str, units: dict[str, int]) -> float | None:
    found = _NUMBER.fullmatch(text.strip(" "))
    if found is None:
        return None
    unit = units.get(found.group(2).lower())
    return None if unit is None else float(found.group(1)) * unit


def domain(text: str) -> str:
    try:
        domain = domain_a_label(text)
    except AddressError as error:
        raise ValueError(f'"{text}" is not a domain: {error}') from None
    if domain.startswith("[") or domain.rpartition(".")[2].isdigit():
        raise ValueError(f'"{text}" is an address, not a domain')
    return domain


def network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        meant = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f'"{text}" is not a network such as "192.168.7.0/24"') from None
    raise ValueError(f'"{text}" is an address within a network: write "{meant}" or the address alone')


def proxies(text: str) -> Network:
    """A network of proxies."""
    found = network(text)
    if found.prefixlen == 0:
        raise ValueError(f'"{text}" is everybody, and a proxy is believed when it says who a client is')
    return found


def dns_server(text: str) -> str:
    try:
        if text.count(":") > 1 and not text.startswith("["):
            return f"[{_ip(text)}]:53"
        host, port = _host_and_port(text, 53)
        address = ip_address(host)
    except ValueError:
        raise ValueError(f'"{text}" is not an address such as "127.0.0.1:53" or "[::1]:53"') from None
    return f"[{host}]:{port}" if address.version == 6 else f"{host}:{port}"


def path(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("a path holds no control characters")
    return text


def some_path(text: str) -> str:
    if not text:
        raise ValueError("must not be empty")
    return path(text)


def count(value: int) -> int:
    if not 1 <= value <= 1_000_000:
        raise ValueError(f"{value} is not between 1 and 1000000")
    return value


def count_or_none(value: int) -> int:
    """A number of which 0 means never."""
    if not 0 <= value <= 1_000_000:
        raise ValueError(f"{value} is not between 0 and 1000000")
    return value


def over_cap(text: str) -> str:
    if text not in ("refuse", "hold"):
        raise ValueError(f'"{text}" is neither "refuse" nor "hold"')
    return text


def cleartext(text: str) -> str:
    if text not in ("never", "loopback"):
        raise ValueError(f'"{text}" is neither "never" nor "loopback"')
    return text


def same(value: bool) -> bool:
    return value


def check(text: str) -> str:
    """The name of a check of incoming mail."""
    if text in CHECKS:
        return text
    near = difflib.get_close_matches(text, CHECKS, 1, 0)
    raise ValueError(f'"{text}" is no check (did you mean "{near[0]}"?)')


def route_domain(text: str) -> str:
    return text if text == "*" else domain(text)


def tls_destination(text: str) -> str:
    """A destination, the host of a route, or ``*``."""
    if text == "*":
        return text
    try:
        return _ip(text.strip("[]"))
    except ValueError:
        return domain(text)


def tls_demand(text: str) -> str:
    if text in TLS_DEMANDS:
        return text
    near = difflib.get_close_matches(text, TLS_DEMANDS, 1, 0)
    raise ValueError(f'"{text}" is none of {", ".join(TLS_DEMANDS)} (did you mean "{near[0]}"?)')


def server_name(text: str) -> str:
    """A host name, or ``*.`` and a domain."""
    return f"*.{domain(text[2:])}" if text.startswith("*.") else domain(text)
