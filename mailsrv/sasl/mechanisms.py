"""The server's side of SASL mechanisms (RFC 4422): PLAIN (RFC 4616) and LOGIN (draft-murchison-sasl-login).

Pure: an :class:`Exchange` is fed what the client said, after base64, and answers with a value.  It checks no password
and knows no accounts; :class:`Credentials` go to whoever does.  Which mechanisms may be offered when (only under TLS,
say) is the caller's decision, as is ``*``, by which a client gives up.

Refused here: anything but UTF-8, empty or overlong names, control characters in names, NUL and line ends in passwords,
acting for another user (an authorization identity that differs).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

NAME_LIMIT = 255  # RFC 4616 2: octets that have to be accepted; no mail address is longer

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LINE_ENDS = re.compile("[\x00\r\n]")


@dataclass(frozen=True, slots=True)
class Challenge:
    """Send ``data`` (it may be empty) to the client and give its response to the next step."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Credentials:
    """The exchange is over: the client says that it is ``username`` and proves it by ``password``, to be checked."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """The exchange is over: the client broke the rules of the mechanism.  ``reason`` is for the ledger, in ASCII."""

    reason: str


class Exchange(Protocol):
    """One attempt to log in."""

    def step(self, response: bytes | None = None) -> Challenge | Credentials | Refused:
        """Go on.  The first call passes None, each later one the client's response to the last challenge.

        After Credentials or Refused the exchange is over and is not to be stepped again.
        """
        ...


def exchange(name: str, initial: bytes | None) -> Exchange:
    """Begin an exchange of the mechanism ``name`` (in upper case); KeyError when there is none of that name.

    ``initial`` is the decoded initial response, None when the client sent none (b"" is an empty one).
    """
    return _MECHANISMS[name](initial)


class _Plain:
    def __init__(self, initial: bytes | None) -> None:
        self._initial = initial

    def step(self, response: bytes | None = None) -> Challenge | Credentials | Refused:
        response = self._initial if response is None else response
        if response is None:
            return Challenge(b"")
        # RFC 4616 2: [authzid] NUL authcid NUL passwd
        parts = response.split(b"\0")
        if len(parts) != 3:
            return Refused("a PLAIN response has exactly two NULs")
        authorized, username, password = parts
        if authorized and authorized != username:
            return Refused("nobody may act for another user")
        return _credentials(username, password)


class _Login:
    def __init__(self, initial: bytes | None) -> None:
        self._username = initial
        self._asked = initial is not None

    def step(self, response: bytes | None = None) -> Challenge | Credentials | Refused:
        if not self._asked:
            self._asked = True
            return Challenge(b"Username:")
        if self._username is None:
            self._username = response or b""
            return Challenge(b"Password:")
        if response is None:
            return Challenge(b"Password:")
        return _credentials(self._username, response)


def _credentials(username: bytes, password: bytes) -> Credentials | Refused:
    if not username or not password:
        return Refused("an empty user name or password")
    if len(username) > NAME_LIMIT:
        return Refused("the user name is too long")
    try:
        name, secret = username.decode(), password.decode()
    except UnicodeDecodeError:
        return Refused("the user name or the password is not UTF-8")
    if _CONTROLS.search(name):
        return Refused("control characters in the user name")
    if _LINE_ENDS.search(secret):
        return Refused("NUL or a line end in the password")
    return Credentials(name, secret)


_MECHANISMS: dict[str, Callable[[bytes | None], Exchange]] = {"PLAIN": _Plain, "LOGIN": _Login}

# In the order in which they are offered.
NAMES = tuple(_MECHANISMS)
