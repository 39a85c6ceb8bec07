"""Twisted server endpoint strings, as far as they can be judged before they are listened at.

Only a running reactor can tell for certain what a string means; this finds the usual slips, and what must not be.  All
functions raise ValueError, which says what is wrong with the string.
"""

from __future__ import annotations

import difflib
import re
from ipaddress import ip_address
from typing import Final

_KINDS: Final = ("tcp", "tcp6", "unix", "systemd")
_PORT = re.compile(r"[0-9]{1,5}")


def port_number(text: str, lowest: int = 1) -> int:
    """A TCP port from ``lowest`` to 65535."""
    if not _PORT.fullmatch(text) or not lowest <= int(text) <= 65535:
        raise ValueError(f'"{text}" is not a port number')
    return int(text)


def endpoint(text: str) -> str:
    """Any endpoint: ``tcp:25``, ``tcp6:25:interface=\\:\\:1``, ``unix:/run/x``, ``systemd:index=0``, or of a plugin."""
    kind, *arguments = _words(text)
    if not re.fullmatch(r"[A-Za-z0-9_.+-]+", kind) or not arguments:
        raise ValueError(f'"{text}" is not an endpoint such as "tcp:25" or "tcp6:25:interface=\\:\\:1"')
    if kind not in _KINDS:
        near = difflib.get_close_matches(kind, _KINDS, 1, 0.6)
        if near:
            raise ValueError(f'"{text}" begins with an unknown kind of endpoint (did you mean "{near[0]}:"?)')
    if kind in ("tcp", "tcp6"):
        port_number(_named(arguments).get("port", arguments[0]), lowest=0)
    return text


def local_endpoint(text: str) -> str:
    """An endpoint that only this machine can reach: a socket in the file system, or a port on loopback."""
    kind, *arguments = _words(endpoint(text))
    named = _named(arguments)
    if kind == "unix":
        if not named.get("address", arguments[0]).startswith("/"):
            raise ValueError(f'"{text}" does not name the socket by its whole path, as in "unix:/run/mailsrv/lmtp"')
    elif kind not in ("tcp", "tcp6") or not _is_loopback(named.get("interface", "")):
        raise ValueError(
            f'"{text}" could be reached from elsewhere; name a socket, "unix:/run/mailsrv/lmtp", or loopback, '
            '"tcp:24:interface=127.0.0.1"'
        )
    return text


def _words(text: str) -> list[str]:
    """The parts between colons; a backslash takes the character behind it as it is."""
    return [re.sub(r"\\(.)", r"\1", word) for word in re.split(r"(?<!\\):", text)]


def _named(arguments: list[str]) -> dict[str, str]:
    return dict(argument.split("=", 1) for argument in arguments if "=" in argument)


def _is_loopback(text: str) -> bool:
    try:
        return ip_address(text).is_loopback
    except ValueError:
        return False
