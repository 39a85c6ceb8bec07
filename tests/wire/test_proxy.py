"""PROXY headers as proxies write them, and as nobody should."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.wire.proxy import V1_LIMIT, V2_LIMIT, Client, Header, ProxyError, parse

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
LOCAL, PROXY = 0x20, 0x21
UNSPEC, TCP4, UDP4, TCP6, UNIX = 0x00, 0x11, 0x12, 0x21, 0x31


def binary(command: int, family: int, rest: bytes, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest) if length is None else length) + rest


def addresses(source: str, destination: str, source_port: int, destination_port: int) -> bytes:
    packed = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    return packed + struct.pack("!HH", source_port, destination_port)


V4 = addresses("192.0.2.7", "198.51.100.1", 56324, 25)
V6 = addresses("2001:db8::7", "2001:db8::1", 1, 65535)
TLVS = b"\x04\x00\x03abc" + b"\x20\x00\x00"
LONGEST = b"PROXY UNKNOWN " + b"f" * (V1_LIMIT - 16) + b"\r\n"

GOOD = [
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 25\r\n", Client("192.0.2.7", 56324)),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", Client("255.255.255.255", 65535)),
    (b"PROXY TCP4 192.0.2.7 192.0.2.7 0 0\r\n", Client("192.0.2.7", 0)),
    (b"PROXY TCP6 2001:db8::7 2001:DB8::1 1 65535\r\n", Client("2001:db8::7", 1)),
    (b"PROXY TCP6 2001:0DB8:0000:0000:0000:0000:0000:0007 ::1 1 2\r\n", Client("2001:db8::7", 1)),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n", Client("192.0.2.7", 1)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN whatever may stand here 0\r\n", None),
    (LONGEST, None),
    (binary(PROXY, TCP4, V4), Client("192.0.2.7", 56324)),
    (binary(PROXY, TCP4, V4 + TLVS), Client("192.0.2.7", 56324)),
    (binary(PROXY, TCP6, V6 + TLVS), Client("2001:db8::7", 1)),
    (binary(PROXY, TCP6, addresses("::ffff:192.0.2.7", "::1", 9, 25)), Client("192.0.2.7", 9)),
    (binary(PROXY, TCP6, V6 + b"\0" * (V2_LIMIT - 16 - len(V6))), Client("2001:db8::7", 1)),
    (binary(PROXY, UNSPEC, b""), None),
    (binary(PROXY, UNSPEC, TLVS), None),
    (binary(LOCAL, UNSPEC, b""), None),
    (binary(LOCAL, TCP4, V4), None),
    (binary(LOCAL, UNIX, b"x"), None),
]

BAD = [
    b"EHLO client.example.net\r\n",
    b"\x16\x03\x01",  # TLS
    b"proxy TCP4 192.0.2.7 198.51.100.1 56324 25\r\n",
    b"PROXY  TCP4 192.0.2.7 198.51.100.1 56324 25\r\n",
    b"PROXY TCP4  192.0.2.7 198.51.100.1 56324 25\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 25 \r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 56324\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 25 26\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 25\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 25\nMAIL\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 25\rx\r\n",
    b"PROXY TCP4 192.0.2.7\t198.51.100.1 56324 25\r\n",
    b"PROXY TCP4 192.0.2.07 198.51.100.1 56324 25\r\n",
    b"PROXY TCP4 192.0.2 198.51.100.1 56324 25\r\n",
    b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
    b"PROXY TCP4 192.0.2.7 mx.example.org 1 2\r\n",
    b"PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    b"PROXY TCP6 [::1] ::1 1 2\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 056324 25\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 +1 25\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 1_0 25\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 1 65536\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 1 \xd9\xa2\r\n",
    b"PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
    b"PROXY \r\n",
    b"PROXY UNKNOWN\x00\r\n",
    b"PROXY UNKNOWN " + b"f" * (V1_LIMIT - 15) + b"\r\n",
    b"PROXY UNKNOWN " + b"f" * 1000,
    SIGNATURE[:-1] + b"\r",
    binary(0x11, TCP4, V4),
    binary(0x22, TCP4, V4),
    binary(PROXY, UDP4, V4),
    binary(PROXY, UNIX, b"\0" * 216),
    binary(PROXY, 0x41, V4),
    binary(PROXY, TCP4, V4[:-1]),
    binary(PROXY, TCP6, V4),
    binary(PROXY, TCP4, b"", length=0xFFFF),
    binary(LOCAL, UNSPEC, b"", length=V2_LIMIT - 15),
]


@pytest.mark.parametrize(("octets", "client"), GOOD)
def test_headers_of_proxies(octets: bytes, client: Client | None) -> None:
    assert parse(octets) == Header(len(octets), client)
    assert parse(octets + b"EHLO client.example.net\r\n") == Header(len(octets), client)
    for length in range(len(octets)):
        assert parse(octets[:length]) is None


@pytest.mark.parametrize("octets", BAD)
def test_what_is_no_header(octets: bytes) -> None:
    with pytest.raises(ProxyError):
        parse(octets)


def test_nothing_yet() -> None:
    assert parse(b"") is None


def test_waiting_is_bounded() -> None:
    line = b"PROXY UNKNOWN " + b"f" * V1_LIMIT
    assert parse(line[: V1_LIMIT - 1]) is None
    with pytest.raises(ProxyError, match="longer"):
        parse(line[:V1_LIMIT])


_headers = st.sampled_from([octets for octets, _ in GOOD] + BAD)
_damaged = st.tuples(_headers, st.integers(0, 120), st.binary(max_size=3), st.integers(0, 3)).map(
    lambda drawn: drawn[0][: drawn[1]] + drawn[2] + drawn[0][drawn[1] + drawn[3] :]
)
_octets = st.one_of(
    st.binary(max_size=200),
    _damaged,
    st.binary(max_size=150).map(lambda rest: b"PROXY " + rest),
    st.binary(max_size=150).map(lambda rest: SIGNATURE + rest),
)


@given(_octets)
def test_every_cut_leads_to_the_same(octets: bytes) -> None:
    """Whatever comes: a header, a ProxyError or None; and once it is decided, more octets change nothing."""
    decided: Header | str | None = None
    for length in range(len(octets) + 1):
        now: Header | str | None
        try:
            now = parse(octets[:length])
        except ProxyError:
            now = "no header"
        if decided is not None:
            assert now == decided
        if isinstance(now, Header):
            assert now.size <= length
        decided = now


@given(st.ip_addresses(v=4), st.ip_addresses(v=4), st.integers(0, 65535), st.integers(0, 65535), st.booleans())
def test_both_versions_say_the_same(
    source: ipaddress.IPv4Address, destination: ipaddress.IPv4Address, port: int, other: int, mapped: bool
) -> None:
    line = f"PROXY TCP4 {source} {destination} {port} {other}\r\n".encode()
    prefix = b"\0" * 10 + b"\xff\xff" if mapped else b""
    packed = prefix + source.packed + prefix + destination.packed + struct.pack("!HH", port, other)
    one, two = parse(line), parse(binary(PROXY, TCP6 if mapped else TCP4, packed))
    assert one is not None
    assert two is not None
    assert one.client == two.client == Client(str(source), port)
