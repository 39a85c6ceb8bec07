"""Which addresses are one network to a person; the rest of ``bursts`` is told by ``tests/smtp/test_held.py``."""

from __future__ import annotations

import pytest

from mailsrv.checks.bursts import network_of


@pytest.mark.parametrize(
    ("client", "network"),
    [
        ("192.0.2.7", "192.0.2.0/24"),
        ("::ffff:192.0.2.200", "192.0.2.0/24"),
        ("2001:db8:1:2::7", "2001:db8:1::/48"),
        ("::1", "::/48"),
        ("local", "local"),
    ],
)
def test_a_network_is_what_a_provider_gives_addresses_from(client: str, network: str) -> None:
    assert network_of(client) == network
