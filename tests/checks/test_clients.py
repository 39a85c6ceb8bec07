"""Clients told apart by network."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from mailsrv.checks.clients import address_of, is_loopback, network_of


@pytest.mark.parametrize(
    ("client", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8:0:0:ffff::1", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("local", "local"),
    ],
)
def test_the_network_of_a_client(client: str, network: str) -> None:
    assert network_of(client) == network


@pytest.mark.parametrize(
    ("client", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("128.0.0.1", False),
        ("192.0.2.1", False),
        ("::ffff:192.0.2.1", False),
        ("::2", False),
        ("::127.0.0.1", False),
        ("local", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_this_machine(client: str, loopback: bool) -> None:
    assert is_loopback(client) is loopback


def test_addresses() -> None:
    assert address_of("192.0.2.1") == address_of("::ffff:192.0.2.1") == ip_address("192.0.2.1")
    assert address_of("2001:DB8::1") == ip_address("2001:db8::1")
    assert address_of("/run/mailsrv/lmtp") is None
