"""The header of the PROXY protocol, versions 1 and 2: in one's own words, who is the client behind a proxy.

``parse`` looks at the octets that have come so far.  It is strict, for what is read here decides whom all limits and
checks are about: one form of writing for each header, no header longer than ``V2_LIMIT``, and a ``ProxyError`` as soon
as the octets cannot become one.  The answer never depends on how the octets were cut: for a beginning of a header it is
None, whatever follows the header changes nothing.

Source: "The PROXY protocol, Versions 1 & 2", published with HAProxy (doc/proxy-protocol.txt), sections 2.1 and 2.2.
Who may be believed is the caller's to know.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from dataclasses import dataclass

V1_LIMIT = 107  # section 2.1: the longest line, with its CRLF
V2_LIMIT = 4096  # of the 65,551 that are possible: two IPv6 addresses need 52, the rest is for TLVs

_V1_BEGIN = b"PROXY "
_V2_BEGIN = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_FIXED = struct.Struct("!12sBBH")  # signature, version and command, family and transport, length of what follows
_PORT = re.compile(r"0|[1-9][0-9]{0,4}", re.ASCII)
_LINE = re.compile(rb"[ -~]*")

_LOCAL, _PROXY = 0x20, 0x21
_UNSPECIFIED, _TCP4, _TCP6 = 0x00, 0x11, 0x21
_ADDRESSES = {_TCP4: struct.Struct("!4s4sHH"), _TCP6: struct.Struct("!16s16sHH")}


class ProxyError(Exception):
    """These octets are no header, or none that is understood; the message says why, for the log."""


@dataclass(frozen=True, slots=True)
class Client:
    """``address`` is an IP address in its usual form; IPv4 when it came as one mapped to IPv6 (RFC 4291 2.5.5.2)."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Header:
    """A whole header of ``size`` octets.

    ``client`` None: the proxy speaks for itself (LOCAL), or does not know for whom (UNKNOWN, UNSPEC); sections 2.1 and
    2.2 then have the addresses of the connection itself used.
    """

    size: int
    client: Client | None


def parse(data: bytes) -> Header | None:
    """The header with which ``data`` begins; None while it is not whole; ProxyError when it never will be."""
    if data.startswith(_V1_BEGIN[: len(data)]):
        return _line(data)
    if data.startswith(_V2_BEGIN[: len(data)]):
        return _binary(data)
    raise ProxyError("it does not begin as a PROXY header")


# Version 1: "PROXY TCP4 192.0.2.1 198.51.100.1 56324 25", CRLF.


def _line(data: bytes) -> Header | None:
    end = data.find(b"\r\n", 0, V1_LIMIT)
    line = data[:end] if end >= 0 else data[:V1_LIMIT].removesuffix(b"\r")
    if not _LINE.fullmatch(line):
        raise ProxyError("the line holds octets that are not printable ASCII")
    if end < 0:
        if len(data) >= V1_LIMIT:
            raise ProxyError(f"the line is longer than {V1_LIMIT} octets")
        return None
    return Header(end + 2, _client(line.decode("ascii").split(" ")))


def _client(words: list[str]) -> Client | None:
    if words[1] == "UNKNOWN":
        return None  # section 2.1: what follows on the line is not looked at
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise ProxyError("the line is neither TCP4 nor TCP6 with two addresses and two ports, nor UNKNOWN")
    _, family, source, destination, source_port, destination_port = words
    _address(destination, family)
    _port(destination_port)
    return Client(_address(source, family), _port(source_port))


def _address(text: str, family: str) -> str:
    kind = ipaddress.IPv4Address if family == "TCP4" else ipaddress.IPv6Address
    try:
        address = kind(text)
    except ValueError:
        raise ProxyError(f"an address is not one of {family}") from None
    if "%" in text:
        raise ProxyError("an address names a network interface")
    return _usual(address)


def _port(text: str) -> int:
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise ProxyError("a port is not a number from 0 to 65535")
    return int(text)


# Version 2: a signature, then fields of fixed size, then TLVs.


def _binary(data: bytes) -> Header | None:
    if len(data) < _V2_FIXED.size:
        return None
    _, command, family, length = _V2_FIXED.unpack_from(data)
    if command not in (_LOCAL, _PROXY):
        raise ProxyError(f"version and command are 0x{command:02x}, not 0x20 or 0x21")
    size = _V2_FIXED.size + length
    if size > V2_LIMIT:
        raise ProxyError(f"the header says that it is {size} octets long, more than {V2_LIMIT}")
    form = None
    if command == _PROXY and family != _UNSPECIFIED:
        form = _ADDRESSES.get(family)
        if form is None:
            raise ProxyError(f"family and transport are 0x{family:02x}, neither TCP over IPv4 nor TCP over IPv6")
        if length < form.size:
            raise ProxyError("the header is too short for its addresses")
    if len(data) < size:
        return None
    if form is None:
        return Header(size, None)
    source, _, port, _ = form.unpack_from(data, _V2_FIXED.size)
    return Header(size, Client(_usual(ipaddress.ip_address(source)), port))


def _usual(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    return str(getattr(address, "ipv4_mapped", None) or address)
