"""The configuration file: what an operator may set, read into values that the program can trust.

One TOML file; every key has a default but ``hostname`` and ``domains``.  The attributes of ``Config`` are named as the
keys of the file.  ``load`` reports the first wrong thing, in the order of the file, as one sentence
``FILE:LINE: key: problem``; an unknown key comes with the nearest valid one.  Relative paths are relative to the file.
Nothing is opened but the file itself: whether a certificate can be read or a port be bound shows when it is done, and
``mailsrv check`` tells beforehand.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Any, Final, get_args, get_type_hints
from urllib.parse import unquote_to_bytes

import msgspec

from mailsrv.mail.address import AddressError, domain_a_label
from mailsrv.toml_lines import Path, key_lines

DEFAULT_PATH: Final = "/etc/mailsrv/mailsrv.toml"

Network = IPv4Network | IPv6Network

_NUMBER = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)")
_DURATION_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST_S = 3650 * 86400
_SIZE_UNITS = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1024, "mib": 1024**2, "gib": 1024**3}
_LARGEST = 1024**4
_PORT = re.compile(r"[0-9]{1,5}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_DEFAULT_PORTS = {"smtp": 25, "smtps": 465}
_ENDPOINT_PREFIXES = ("tcp", "tcp6", "unix", "systemd")
_MISSING = "missing, and it has no default"


class ConfigError(Exception):
    """The configuration cannot be used; the message is one sentence for the operator."""


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
        return _ip(host), _port(rest[1:]) if rest else default
    host, colon, port = text.partition(":")
    try:
        host = _ip(host)
    except ValueError:
        host = _domain(host)
    return host, _port(port) if colon else default


def _ip(text: str) -> str:
    address = ip_address(text)
    if "%" in text:
        raise ValueError(f'"{text}" names a network interface; write the address alone')
    return str(address)


def _port(text: str, lowest: int = 1) -> int:
    if not _PORT.fullmatch(text) or not lowest <= int(text) <= 65535:
        raise ValueError(f'"{text}" is not a port number')
    return int(text)


# What an operator writes, one function for each form: the value, or ValueError saying what is wrong with it.


def duration(value: str | float) -> float:
    """Seconds.  ``"90s"``, ``"5m"``, ``"4h"``, ``"5d"``, or a number of seconds; more than 0, at most ten years."""
    seconds = _with_unit(value, _DURATION_UNITS) if isinstance(value, str) else value
    if seconds is None or math.isnan(seconds):
        raise ValueError(f'"{value}" is not a duration such as "90s", "5m", "4h" or "5d"')
    if not 0 < seconds <= _LONGEST_S:
        raise ValueError(f"{value} is not between 0 and 3650 days")
    return float(seconds)


def size(value: str | int) -> int:
    """Octets.  ``"50 MiB"`` (1024), ``"10 MB"`` (1000), or a number of octets; more than 0, at most 1 TiB."""
    octets = _with_unit(value, _SIZE_UNITS) if isinstance(value, str) else value
    if octets is None:
        raise ValueError(f'"{value}" is not a size such as "50 MiB", "10 MB" or 4096')
    if not 1 <= octets <= _LARGEST:
        raise ValueError(f"{value} is not between 1 octet and 1024 GiB")
    return int(octets)


def _with_unit(text: str, units: dict[str, int]) -> float | None:
    found = _NUMBER.fullmatch(text.strip(" "))
    if found is None:
        return None
    unit = units.get(found.group(2).lower())
    return None if unit is None else float(found.group(1)) * unit


def _domain(text: str) -> str:
    try:
        domain = domain_a_label(text)
    except AddressError as error:
        raise ValueError(f'"{text}" is not a domain: {error}') from None
    if domain.startswith("[") or domain.rpartition(".")[2].isdigit():
        raise ValueError(f'"{text}" is an address, not a domain')
    return domain


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        meant = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f'"{text}" is not a network such as "192.168.7.0/24"') from None
    raise ValueError(f'"{text}" is an address within a network: write "{meant}" or the address alone')


def _dns_server(text: str) -> str:
    try:
        if text.count(":") > 1 and not text.startswith("["):
            return f"[{_ip(text)}]:53"
        host, port = _host_and_port(text, 53)
        address = ip_address(host)
    except ValueError:
        raise ValueError(f'"{text}" is not an address such as "127.0.0.1:53" or "[::1]:53"') from None
    return f"[{host}]:{port}" if address.version == 6 else f"{host}:{port}"


def _endpoint(text: str) -> str:
    """A Twisted server endpoint string.  Only a running reactor can tell for certain; this finds the usual slips."""
    prefix, *arguments = re.split(r"(?<!\\):", text)
    if not re.fullmatch(r"[A-Za-z0-9_.+-]+", prefix) or not arguments:
        raise ValueError(f'"{text}" is not an endpoint such as "tcp:25" or "tcp6:25:interface=\\:\\:1"')
    if prefix not in _ENDPOINT_PREFIXES:
        near = difflib.get_close_matches(prefix, _ENDPOINT_PREFIXES, 1, 0.6)
        if near:
            raise ValueError(f'"{text}" begins with an unknown kind of endpoint (did you mean "{near[0]}:"?)')
    if prefix in ("tcp", "tcp6"):
        named = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
        _port(named.get("port", arguments[0]), lowest=0)
    return text


def _path(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("a path holds no control characters")
    return text


def _some_path(text: str) -> str:
    if not text:
        raise ValueError("must not be empty")
    return _path(text)


def _count(value: int) -> int:
    if not 1 <= value <= 1_000_000:
        raise ValueError(f"{value} is not between 1 and 1000000")
    return value


def _cleartext(text: str) -> str:
    if text not in ("never", "loopback"):
        raise ValueError(f'"{text}" is neither "never" nor "loopback"')
    return text


def _same(value: bool) -> bool:
    return value


def _route_domain(text: str) -> str:
    return text if text == "*" else _domain(text)


@dataclass(frozen=True, slots=True)
class _Key:
    """How the value of a key is read: its TOML type, that type in words, the function, the default as in the file."""

    type: Any
    words: str
    read: Callable[[Any], Any]
    default: Any = None  # None: the key has to be there
    needed: bool = False  # an empty array says nothing


def _strings(read: Callable[[str], Any], *default: str, needed: bool = False) -> _Key:
    return _Key(list[str], "an array of strings", read, None if needed and not default else list(default), needed)


def _string(read: Callable[[str], Any], default: str | None) -> _Key:
    return _Key(str, "a string", read, default)


def _duration(default: str) -> _Key:
    return _Key(str | int | float, 'a duration such as "90s" or a number of seconds', duration, default)


def _whole(default: int) -> _Key:
    return _Key(int, "a whole number", _count, default)


class Listen(msgspec.Struct, frozen=True):
    """Twisted server endpoint strings; an empty tuple turns a service off."""

    smtp: Annotated[tuple[str, ...], _strings(_endpoint, "tcp:25", "tcp6:25")]
    submission: Annotated[tuple[str, ...], _strings(_endpoint, "tcp:587", "tcp6:587")]
    submissions: Annotated[tuple[str, ...], _strings(_endpoint, "tcp:465", "tcp6:465")]
    pop3: Annotated[tuple[str, ...], _strings(_endpoint, "tcp:110", "tcp6:110")]
    pop3s: Annotated[tuple[str, ...], _strings(_endpoint, "tcp:995", "tcp6:995")]


class Tls(msgspec.Struct, frozen=True):
    """Absolute paths; ``authorities`` is "" when there is no extra bundle."""

    certificate: Annotated[str, _string(_some_path, "tls/cert.pem")]
    key: Annotated[str, _string(_some_path, "tls/key.pem")]
    authorities: Annotated[str, _string(_path, "")]


class Auth(msgspec.Struct, frozen=True):
    """``cleartext`` is "never" or "loopback"."""

    cleartext: Annotated[str, _string(_cleartext, "never")]


class Dns(msgspec.Struct, frozen=True):
    """``servers`` are ``address:port``; an IPv6 address stands in brackets.  Empty: the system's resolver."""

    servers: Annotated[tuple[str, ...], _strings(_dns_server)]


class Checks(msgspec.Struct, frozen=True):
    dns: Annotated[bool, _Key(bool, "true or false", _same, True)]
    blocklists: Annotated[tuple[str, ...], _strings(_domain)]


class Limits(msgspec.Struct, frozen=True):
    """``message_size`` in octets."""

    message_size: Annotated[int, _Key(str | int, 'a size such as "50 MiB" or a number of octets', size, "50 MiB")]
    recipients: Annotated[int, _whole(1000)]
    connections: Annotated[int, _whole(10000)]
    connections_per_client: Annotated[int, _whole(50)]
    penalties: Annotated[bool, _Key(bool, "true or false", _same, True)]


class Outbound(msgspec.Struct, frozen=True):
    """``routes`` by domain (A-label) or "*"; ``connect_timeout`` in seconds."""

    routes: Annotated[dict[str, Route], _Key(dict[str, str], "a table of strings", Route.parse, {})]
    connect_timeout: Annotated[float, _duration("30s")]


class Queue(msgspec.Struct, frozen=True):
    """Seconds.  The last of ``retry`` repeats."""

    retry: Annotated[
        tuple[float, ...],
        _Key(
            list[str | int | float],
            'an array of durations such as "90s"',
            duration,
            ["1m", "5m", "15m", "30m", "1h", "2h", "4h"],
            needed=True,
        ),
    ]
    warn: Annotated[float, _duration("4h")]
    expire: Annotated[float, _duration("5d")]


class Config(msgspec.Struct, frozen=True):
    """The whole file.  Domains are A-labels in lower case, paths are absolute."""

    hostname: Annotated[str, _string(_domain, None)]
    domains: Annotated[tuple[str, ...], _strings(_domain, needed=True)]
    state: Annotated[str, _string(_some_path, "/var/lib/mailsrv")]
    accounts: Annotated[str, _string(_some_path, "accounts")]
    aliases: Annotated[str, _string(_some_path, "aliases")]
    trusted_networks: Annotated[tuple[Network, ...], _strings(_network)]
    listen: Listen
    tls: Tls
    auth: Auth
    dns: Dns
    checks: Checks
    limits: Limits
    outbound: Outbound
    queue: Queue


def load(path: str) -> Config:
    """Read a configuration file (ConfigError)."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from None
    try:
        source = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text.") from None
    return parse(source, path)


def parse(source: str, path: str) -> Config:
    """Read the text of a configuration file; ``path`` is where it stands (ConfigError)."""
    try:
        document = tomllib.loads(source)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_syntax_problem(source, path, str(error))) from None
    reading = _Reading(key_lines(source))
    config = reading.table(Config, document, ())
    if reading.problems:
        # A key that is missing may be the one that was misspelt, so that comes last.
        line, key, problem = min(reading.problems, key=lambda found: (found[2] == _MISSING, found[0]))
        raise ConfigError(f"{path}:{line}: {key}: {problem}.")
    return _absolute(config, os.path.dirname(os.path.abspath(path)))


def _syntax_problem(source: str, path: str, message: str) -> str:
    found = re.fullmatch(r"(.*) \(at (?:line ([0-9]+), column [0-9]+|end of document)\)", message, re.DOTALL)
    if found is None:
        return f"{path}:1: not TOML: {message}."
    line = int(found.group(2) or source.rstrip("\n").count("\n") + 1)
    text = source.split("\n")[line - 1].strip()
    return (
        f"{path}:{line}: not TOML: {found.group(1)}: {text}" if text else f"{path}:{line}: not TOML: {found.group(1)}."
    )


def _absolute(config: Config, folder: str) -> Config:
    def at(path: str) -> str:
        return os.path.normpath(os.path.join(folder, path)) if path else ""

    tls = Tls(at(config.tls.certificate), at(config.tls.key), at(config.tls.authorities))
    return msgspec.structs.replace(
        config, state=at(config.state), accounts=at(config.accounts), aliases=at(config.aliases), tls=tls
    )


class _Reading:
    """One pass over a document, collecting ``(line, key, problem)``."""

    def __init__(self, lines: dict[Path, int]) -> None:
        self.problems: list[tuple[int, str, str]] = []
        self._lines = lines

    def table(self, kind: type[Any], values: Any, path: Path) -> Any:
        """A Struct of ``kind``; None after a problem."""
        if not isinstance(values, dict):
            return self._problem(path, f"expected a table [{_dotted(path)}]")
        before = len(self.problems)
        forms = _forms(kind)
        for name in values:
            if name not in forms:
                self._problem((*path, name), f"unknown key{_suggestion((*path, name), forms)}")
        read: dict[str, Any] = {}
        for name, form in forms.items():
            if not isinstance(form, _Key):
                read[name] = self.table(form, values.get(name, {}), (*path, name))
            elif name in values or form.default is not None:
                read[name] = self._value(form, values.get(name, form.default), (*path, name))
            else:
                self._problem((*path, name), _MISSING)
        return None if len(self.problems) > before else kind(**read)

    def _value(self, form: _Key, value: Any, path: Path) -> Any:
        try:
            checked = msgspec.convert(value, form.type)
        except msgspec.ValidationError:
            return self._problem(path, f"expected {form.words}")
        if isinstance(checked, list):
            if form.needed and not checked:
                self._problem(path, "must not be empty")
            elements = (self._one(form.read, element, (*path, n)) for n, element in enumerate(checked))
            return tuple(dict.fromkeys(elements)) if form.read is _domain else tuple(elements)
        if isinstance(checked, dict):
            return dict(self._routes(form, checked, path))
        return self._one(form.read, checked, path)

    def _routes(self, form: _Key, values: dict[str, str], path: Path) -> Iterator[tuple[str, Any]]:
        seen = set()
        for name, value in values.items():
            domain = self._one(_route_domain, name, (*path, name))
            if domain in seen:
                self._problem((*path, name), f'a second route for "{domain}"')
            seen.add(domain)
            yield domain, self._one(form.read, value, (*path, name))

    def _one(self, read: Callable[[Any], Any], value: Any, path: Path) -> Any:
        try:
            return read(value)
        except ValueError as error:
            return self._problem(path, str(error))

    def _problem(self, path: Path, problem: str) -> None:
        place = path
        while place and place not in self._lines:
            place = place[:-1]
        self.problems.append((self._lines.get(place, 1), _dotted(path), problem))


def _forms(kind: type[Any]) -> dict[str, Any]:
    """What stands behind each key of a table: a ``_Key``, or the Struct of a table within."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: next((a for a in get_args(hint) if isinstance(a, _Key)), hint) for name, hint in hints.items()}


def _dotted(path: Path) -> str:
    names = [part for part in path if isinstance(part, str)]
    return ".".join(name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'"{name}"' for name in names)


def _suggestion(path: Path, siblings: dict[str, Any]) -> str:
    name = str(path[-1])
    within = ".".join(str(part) for part in path[:-1])
    near = difflib.get_close_matches(name, list(siblings), 1, 0.7)
    if near:
        return f' (did you mean "{near[0]}"?)'
    every = dict.fromkeys(_forms(Config), "")
    for table, form in _forms(Config).items():
        if not isinstance(form, _Key) and table != within:
            every |= dict.fromkeys(_forms(form), table)
    near = difflib.get_close_matches(name, list(every), 1, 0.7) or difflib.get_close_matches(name, list(siblings), 1, 0)
    table = every.get(near[0], within) if near else ""
    return f' (did you mean "{near[0]}"{f" in [{table}]" if table and table != within else ""}?)' if near else ""
