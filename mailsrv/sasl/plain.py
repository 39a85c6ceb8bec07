"""The server's side of the mechanisms that send the password: PLAIN (RFC 4616), LOGIN (draft-murchison-sasl-login).

Refused here: anything but UTF-8, empty or overlong names, control characters in names, NUL and line ends in passwords,
acting for another user (an authorization identity that differs).
"""

from __future__ import annotations

import re

from mailsrv.sasl.exchange import CONTROLS, NAME_LIMIT, Challenge, Credentials, Refused, Step

_LINE_ENDS = re.compile("[\x00\r\n]")


class Plain:
    """``initial`` is the decoded initial response, None when there was none."""

    def __init__(self, initial: bytes | None) -> None:
        self._initial = initial

    def step(self, response: bytes | None = None) -> Step:
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


class Login:
    """``initial`` is the user name, None when it is still to be asked for."""

    def __init__(self, initial: bytes | None) -> None:
        self._username = initial
        self._asked = initial is not None

    def step(self, response: bytes | None = None) -> Step:
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
    if CONTROLS.search(name):
        return Refused("control characters in the user name")
    if _LINE_ENDS.search(secret):
        return Refused("NUL or a line end in the password")
    return Credentials(name, secret)
