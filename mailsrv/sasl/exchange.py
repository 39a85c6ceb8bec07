"""What a SASL exchange is, seen from the server (RFC 4422): responses go in, one of five values comes out.

Pure: octets are what the client said after base64.  A mechanism checks no password and knows no accounts; it says what
is to be checked or looked up, and whoever does so decides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

NAME_LIMIT = 255  # RFC 4616 2: octets that have to be accepted; no mail address is longer

# Those that turn the direction of writing too, since names come before people's eyes.
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


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
class NeedKeys:
    """The client says that it is ``username``: give that user's keys to the exchange (``mailsrv.sasl.scram``)."""

    username: str


@dataclass(frozen=True, slots=True)
class Proof:
    """The exchange is over: the client has proved that it is ``username``, or has failed to.

    ``fault`` is why it failed, for the ledger and in ASCII; "" when it did not.
    """

    username: str
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """The exchange is over: the client broke the rules of the mechanism.  ``reason`` is for the ledger, in ASCII."""

    reason: str


Step: TypeAlias = Challenge | Credentials | NeedKeys | Proof | Refused


class Exchange(Protocol):
    """One attempt to log in."""

    def step(self, response: bytes | None = None) -> Step:
        """Go on.  The first call passes None, each later one the client's response to the last challenge.

        After Credentials, Proof or Refused the exchange is over and is not to be stepped again.
        """
        ...
