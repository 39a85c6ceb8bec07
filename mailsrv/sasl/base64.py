"""Base64 as SASL exchanges carry it (RFC 4648 4, 4954 4, 5034 4): one text for one value.

Accepts exactly what :func:`encode` would have written.  White space, missing or superfluous padding, other alphabets
and set bits behind the last octet are refused, so that two servers cannot read different secrets from one line.
"""

from __future__ import annotations

import binascii


def encode(data: bytes) -> bytes:
    """Base64 in one line without a line end."""
    return binascii.b2a_base64(data, newline=False)


def decode(text: bytes) -> bytes:
    """The octets that ``text`` stands for; ValueError when it is not base64."""
    data = binascii.a2b_base64(text, strict_mode=True)
    if encode(data) != text:
        raise ValueError("not canonical base64")
    return data


def decode_initial(text: bytes) -> bytes:
    """An initial response: ``=`` stands for an empty one (RFC 4954 4, 5034 4), nothing else does; ValueError."""
    if text == b"=":
        return b""
    if not text:
        raise ValueError("an empty initial response is written =")
    return decode(text)
