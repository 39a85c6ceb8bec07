"""The two families of addresses, and refusals that concern the address from which we came."""

from __future__ import annotations

from mailsrv.relay.remedies import Action, remedy_for


def family_of(address: str) -> str:
    """``"IPv6"`` or ``"IPv4"``."""
    return "IPv6" if ":" in address else "IPv4"


def refuses_our_address(answer: str) -> bool:
    """Whether a refusal is about the address that we came from: another address of ours may fare better."""
    remedy = remedy_for(answer)
    return remedy is not None and remedy.action is Action.OTHER_FAMILY
