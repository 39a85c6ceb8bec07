"""The Sender Rewriting Scheme: forwarded mail leaves under a sender of ours, so that SPF of the next server agrees.

``alice@example.net``, forwarded by example.org, becomes ``SRS0=hash=day=example.net=alice@example.org``; what another
forwarder has rewritten becomes ``SRS1=hash=forwarder==...``, which keeps chains short.  Only who has the secret can
make such an address, and it is good for some weeks: nobody relays through it.  Pure: secret and time are passed in.
"""

from __future__ import annotations

import base64
import hmac
import re

from mailsrv.mail.address import Address, AddressError, domain_a_label

VALID_DAYS = 25
LOCAL_LIMIT = 64  # RFC 5321 4.5.3.1.1

_HASH = 8  # characters of base 32: 40 bits, and no letter case to be lost on the way
_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_DAYS = 1024
_SRS0 = re.compile(r"srs0[=+-]([a-z2-7]{8})=([a-z2-7]{2})=([^=]+)=(.+)", re.IGNORECASE | re.DOTALL)
_SRS1 = re.compile(r"srs1[=+-]([a-z2-7]{8})=([^=]+)=(.+)", re.IGNORECASE | re.DOTALL)
_OTHERS_SRS0 = re.compile(r"srs0([=+-].+)", re.IGNORECASE | re.DOTALL)
_OTHERS_SRS1 = re.compile(r"srs1[=+-][^=]+=([^=]+)=(.+)", re.IGNORECASE | re.DOTALL)


class NotOurs(ValueError):
    """The address was not made here, or too long ago; the message says which."""


def is_rewritten(address: Address) -> bool:
    """Whether the local part claims to be of this scheme."""
    return address.local[:5].lower() in ("srs0=", "srs0+", "srs0-", "srs1=", "srs1+", "srs1-")


def rewrite(sender: Address, domain: str, secret: bytes, seconds: float) -> Address | None:
    """The sender for forwarding from ``domain``; None when it would be longer than a local part may be."""
    found = _OTHERS_SRS1.fullmatch(sender.local)
    if found:
        local = f"SRS1={_mac(secret, found[1], found[2])}={found[1]}={found[2]}"
    else:
        found = _OTHERS_SRS0.fullmatch(sender.local)
        if found:
            local = f"SRS1={_mac(secret, sender.domain, found[1])}={sender.domain}={found[1]}"
        else:
            day = int(seconds // 86400) % _DAYS
            stamp = _DIGITS[day // 32] + _DIGITS[day % 32]
            local = f"SRS0={_mac(secret, stamp, sender.domain, sender.local)}={stamp}={sender.domain}={sender.local}"
    return Address(local, domain) if len(local.encode()) <= LOCAL_LIMIT else None


def restore(address: Address, secret: bytes, seconds: float) -> Address:
    """Whom a bounce to a rewritten address of ours is for (NotOurs)."""
    found = _SRS1.fullmatch(address.local)
    if found:
        _verify(found[1], secret, found[2], found[3])
        return _address(f"SRS0{found[3]}", found[2])
    found = _SRS0.fullmatch(address.local)
    if found is None:
        raise NotOurs("it is not of the form that we make")
    _verify(found[1], secret, found[2].upper(), found[3], found[4])
    stamp = found[2].upper()
    day = _DIGITS.index(stamp[0]) * 32 + _DIGITS.index(stamp[1])
    if (int(seconds // 86400) - day) % _DAYS > VALID_DAYS:
        raise NotOurs("it is too old")
    return _address(found[4], found[3])


def _address(local: str, domain: str) -> Address:
    try:
        return Address(local, domain_a_label(domain))
    except AddressError as error:
        raise NotOurs(f"what it stands for is no address: {error}") from None


def _verify(claimed: str, secret: bytes, *parts: str) -> None:
    if not hmac.compare_digest(claimed.upper(), _mac(secret, *parts)):
        raise NotOurs("its signature is not ours")


def _mac(secret: bytes, *parts: str) -> str:
    # In lower case, because letter case gets lost on the way.
    digest = hmac.digest(secret, "\0".join(parts).lower().encode(), "sha256")
    return base64.b32encode(digest).decode()[:_HASH]
