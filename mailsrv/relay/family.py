"""The two families of addresses, and refusals that concern the address from which we came."""

from __future__ import annotations

import re

_ABOUT_US = re.compile(r"PTR|reverse DNS|rDNS|blocklist|blacklist|block list|reputation|spamhaus", re.IGNORECASE)


def family_of(address: str) -> str:
    """``"IPv6"`` or ``"IPv4"``."""
    return "IPv6" if ":" in address else "IPv4"


def refuses_our_address(answer: str) -> bool:
    """Whether a refusal is about the address that we came from: another address of ours may fare better."""
    return _ABOUT_US.search(answer) is not None
