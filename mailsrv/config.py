"""The configuration file: what an operator may set, read into values that the program can trust.

One TOML file; every key has a default but ``hostname`` and ``domains``.  The attributes of ``Config`` are named as the
keys of the file.  ``load`` reports the first wrong thing, in the order of the file, as one sentence
``FILE:LINE: key: problem``; an unknown key comes with the nearest valid one.  Relative paths are relative to the file.
Nothing is opened but the file itself: whether a certificate can be read or a port be bound shows when it is done, and
``mailsrv check`` tells beforehand.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final, get_args, get_type_hints

import msgspec

from mailsrv import config_values as values
from mailsrv.config_values import Network, Route, duration, size
from mailsrv.endpoints import endpoint, local_endpoint
from mailsrv.toml_lines import Path, key_lines

__all__ = ["DEFAULT_PATH", "Config", "ConfigError", "KeyPair", "Network", "Route", "duration", "load", "parse", "size"]

DEFAULT_PATH: Final = "/etc/mailsrv/mailsrv.toml"

_MISSING = "missing, and it has no default"


class ConfigError(Exception):
    """The configuration cannot be used; the message is one sentence for the operator."""


@dataclass(frozen=True, slots=True)
class _Key:
    """How the value of a key is read: its TOML type, that type in words, the function, the default as in the file.

    What is read by a Struct is a table of its own.
    """

    type: Any
    words: str
    read: Callable[[Any], Any]
    default: Any = None  # None: the key has to be there
    needed: bool = False  # an empty array says nothing
    name: Callable[[str], str] = str  # of a table whose keys are the operator's: how one is read


def _strings(read: Callable[[str], Any], *default: str, needed: bool = False) -> _Key:
    return _Key(list[str], "an array of strings", read, None if needed and not default else list(default), needed)


def _string(read: Callable[[str], Any], default: str | None) -> _Key:
    return _Key(str, "a string", read, default)


def _duration(default: str) -> _Key:
    return _Key(str | int | float, 'a duration such as "90s" or a number of seconds', duration, default)


def _whole(default: int) -> _Key:
    return _Key(int, "a whole number", values.count, default)


class Listen(msgspec.Struct, frozen=True):
    """Twisted server endpoint strings; an empty tuple turns a service off.  ``proxies``: who sends PROXY headers."""

    smtp: Annotated[tuple[str, ...], _strings(endpoint, "tcp:25", "tcp6:25")]
    submission: Annotated[tuple[str, ...], _strings(endpoint, "tcp:587", "tcp6:587")]
    submissions: Annotated[tuple[str, ...], _strings(endpoint, "tcp:465", "tcp6:465")]
    pop3: Annotated[tuple[str, ...], _strings(endpoint, "tcp:110", "tcp6:110")]
    pop3s: Annotated[tuple[str, ...], _strings(endpoint, "tcp:995", "tcp6:995")]
    lmtp: Annotated[tuple[str, ...], _strings(local_endpoint)]
    proxies: Annotated[tuple[Network, ...], _strings(values.proxies)]


class KeyPair(msgspec.Struct, frozen=True):
    """A certificate and its key, absolute paths."""

    certificate: Annotated[str, _string(values.some_path, None)]
    key: Annotated[str, _string(values.some_path, None)]


class Tls(msgspec.Struct, frozen=True):
    """Absolute paths; ``authorities`` is "" when there is no extra bundle.

    ``names`` has further pairs by the name that a client asks for: an A-label, or ``*.`` and an A-label.
    """

    certificate: Annotated[str, _string(values.some_path, "tls/cert.pem")]
    key: Annotated[str, _string(values.some_path, "tls/key.pem")]
    names: Annotated[
        dict[str, KeyPair],
        _Key(dict[str, Any], "a table of tables with certificate and key", KeyPair, {}, name=values.server_name),
    ]
    authorities: Annotated[str, _string(values.path, "")]


class Auth(msgspec.Struct, frozen=True):
    """``cleartext`` is "never" or "loopback"."""

    cleartext: Annotated[str, _string(values.cleartext, "never")]


class Submission(msgspec.Struct, frozen=True):
    """What is done for our own users' clients.  ``mend_lines``: a bare LF in a message is made CRLF."""

    mend_lines: Annotated[bool, _Key(bool, "true or false", values.same, False)]


class Dns(msgspec.Struct, frozen=True):
    """``servers`` are ``address:port``; an IPv6 address stands in brackets.  Empty: the system's resolver."""

    servers: Annotated[tuple[str, ...], _strings(values.dns_server)]


class Checks(msgspec.Struct, frozen=True):
    """``observe``: names of checks that refuse nothing.  ``first_contact`` in seconds, 0.0 is never."""

    dns: Annotated[bool, _Key(bool, "true or false", values.same, True)]
    blocklists: Annotated[tuple[str, ...], _strings(values.domain)]
    observe: Annotated[tuple[str, ...], _strings(values.check)]
    first_contact: Annotated[
        float, _Key(str | int | float, 'a duration such as "5m", or "" for never', values.duration_or_off, "")
    ]


class Limits(msgspec.Struct, frozen=True):
    """``message_size`` in octets, ``minimum_rate`` in octets per second, times in seconds.

    ``over_cap`` is "refuse" or "hold"; ``first_time_recipients`` 0 is never.  ``quota_warning`` is a share of the
    quota, 1.0 for all of it, 0.0 for never.  ``login_delay`` 0.0 is none.
    """

    message_size: Annotated[int, _Key(str | int, 'a size such as "50 MiB" or a number of octets', size, "50 MiB")]
    recipients: Annotated[int, _whole(1000)]
    recipients_per_hour: Annotated[int, _whole(1000)]
    recipients_per_day: Annotated[int, _whole(5000)]
    over_cap: Annotated[str, _string(values.over_cap, "refuse")]
    first_time_recipients: Annotated[int, _Key(int, "a whole number", values.count_or_none, 30)]
    connections: Annotated[int, _whole(10000)]
    connections_per_client: Annotated[int, _whole(50)]
    minimum_rate: Annotated[int, _whole(100)]
    transaction_time: Annotated[float, _duration("1h")]
    login_delay: Annotated[
        float, _Key(str | int | float, 'a duration such as "5m", or "" for none', values.duration_or_off, "")
    ]
    penalties: Annotated[bool, _Key(bool, "true or false", values.same, True)]
    quota_warning: Annotated[float, _Key(str, 'a share such as "90%", or "" for never', values.share_or_off, "90%")]


class Outbound(msgspec.Struct, frozen=True):
    """``routes`` and ``tls`` by domain (A-label) or "*"; ``tls`` is "opportunistic", "required" or "verified".

    ``tls`` may also name the host of a route, an address too.  ``connect_timeout`` in seconds.
    """

    routes: Annotated[
        dict[str, Route], _Key(dict[str, str], "a table of strings", Route.parse, {}, name=values.route_domain)
    ]
    connect_timeout: Annotated[float, _duration("30s")]
    tls: Annotated[
        dict[str, str], _Key(dict[str, str], "a table of strings", values.tls_demand, {}, name=values.tls_destination)
    ]


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

    hostname: Annotated[str, _string(values.domain, None)]
    domains: Annotated[tuple[str, ...], _strings(values.domain, needed=True)]
    state: Annotated[str, _string(values.some_path, "/var/lib/mailsrv")]
    accounts: Annotated[str, _string(values.some_path, "accounts")]
    aliases: Annotated[str, _string(values.some_path, "aliases")]
    trusted_networks: Annotated[tuple[Network, ...], _strings(values.network)]
    listen: Listen
    tls: Tls
    auth: Auth
    submission: Submission
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
    return f"{path}:{line}: not TOML: {found.group(1)}{': ' + text if text else ''}."


def _absolute(config: Config, folder: str) -> Config:
    def at(path: str) -> str:
        return os.path.normpath(os.path.join(folder, path)) if path else ""

    names = {name: KeyPair(at(pair.certificate), at(pair.key)) for name, pair in config.tls.names.items()}
    tls = Tls(at(config.tls.certificate), at(config.tls.key), names, at(config.tls.authorities))
    return msgspec.structs.replace(
        config, state=at(config.state), accounts=at(config.accounts), aliases=at(config.aliases), tls=tls
    )


class _Reading:
    """One pass over a document, collecting ``(line, key, problem)``."""

    def __init__(self, lines: dict[Path, int]) -> None:
        self.problems: list[tuple[int, str, str]] = []
        self._lines = lines

    def table(self, kind: type[Any], given: Any, path: Path) -> Any:
        """A Struct of ``kind``; None after a problem."""
        if not isinstance(given, dict):
            return self._problem(path, f"expected a table [{_dotted(path)}]")
        before = len(self.problems)
        forms = _forms(kind)
        for name in given:
            if name not in forms:
                self._problem((*path, name), f"unknown key{_suggestion((*path, name), forms)}")
        read: dict[str, Any] = {}
        for name, form in forms.items():
            if not isinstance(form, _Key):
                read[name] = self.table(form, given.get(name, {}), (*path, name))
            elif name in given or form.default is not None:
                read[name] = self._value(form, given.get(name, form.default), (*path, name))
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
            return tuple(dict.fromkeys(elements)) if form.read is values.domain else tuple(elements)
        if isinstance(checked, dict):
            return dict(self._entries(form, checked, path))
        return self._one(form.read, checked, path)

    def _entries(self, form: _Key, given: dict[str, Any], path: Path) -> Iterator[tuple[str, Any]]:
        seen = set()
        for key, value in given.items():
            place = (*path, key)
            name = self._one(form.name, key, place)
            if name in seen:
                self._problem(place, f'a second entry for "{name}"')
            seen.add(name)
            if isinstance(form.read, type):
                yield name, self.table(form.read, value, place)
            else:
                yield name, self._one(form.read, value, place)

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
    every |= dict.fromkeys(siblings, within)
    near = difflib.get_close_matches(name, list(every), 1, 0.7) or difflib.get_close_matches(name, list(siblings), 1, 0)
    table = every.get(near[0], within) if near else ""
    return f' (did you mean "{near[0]}"{f" in [{table}]" if table and table != within else ""}?)' if near else ""
