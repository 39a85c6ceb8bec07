"""Trace fields that we put in front of a message: Received, Return-Path (RFC 5321 4.4), Delivered-To (RFC 9228).

Whatever strings a stranger manages to get here, each function gives exactly one field: what has no place in it becomes
a question mark.  Nothing here fails.
"""

from __future__ import annotations

import re

from mailsrv.mail.address import Address
from mailsrv.mail.date import rfc5322_date

NAME_LIMIT = 255

_NAME = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")
_NOT_NAME = re.compile(r"[^A-Za-z0-9._:\[\]-]")
_NOT_COMMENT = re.compile(r"[^A-Za-z0-9 ._,:/+=-]")
_NOT_ADDRESS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_TLS = re.compile(r"(TLSv[0-9.]+) (TLS_[A-Z0-9_]+)(.*)")


def protocol(
    *, extended: bool = True, tls: bool = False, authenticated: bool = False, utf8: bool = False, lmtp: bool = False
) -> str:
    """The name for the ``with`` clause: SMTP, ESMTP, ESMTPSA, LMTPS, UTF8SMTPS ... (RFC 3848, 6531 4.3).

    ``extended``: the client said EHLO.  ``utf8``: MAIL had SMTPUTF8.  A client that says HELO is SMTP, TLS or not, for
    no name is registered for the rest.
    """
    if not extended and not lmtp:
        return "SMTP"
    kind = "LMTP" if lmtp else "SMTP"
    prefix = "UTF8" if utf8 else "" if lmtp else "E"
    return f"{prefix}{kind}{'S' if tls else ''}{'A' if authenticated else ''}"


def received(
    *,
    hostname: str,
    helo: str,
    client: str,
    queue_id: str,
    at: float,
    protocol: str,
    client_name: str = "",
    tls: str = "",
    recipient: Address | None = None,
    hide_client: bool = False,
) -> bytes:
    """One Received field (RFC 5321 4.4).

    ``client`` is the address as text ("192.0.2.1", "2001:db8::1"), "" on a local socket; ``client_name`` its name in
    DNS when that is confirmed, else "".  ``tls`` is the version and the cipher ("TLSv1.3 TLS_AES_256_GCM_SHA384").
    ``recipient`` goes in only when it is the only one, so that no recipient learns of another (RFC 5321 7.2); the
    caller gives None otherwise.  ``hide_client`` leaves out who the client is and where, for submissions of our users.
    """
    if hide_client or not (client or helo):
        origin = ""
    elif not client:
        origin = f"from {_name(helo)}\r\n\t"
    else:
        known = f"{_name(client_name)} " if client_name else ""
        origin = f"from {_name(helo)} ({known}{_literal(client)})\r\n\t"
    encrypted, cipher = _encryption(tls)
    to = f"\r\n\tfor <{_address(recipient)}>" if recipient is not None else ""
    return (
        f"Received: {origin}by {_name(hostname)} with {_name(protocol)}{encrypted} id {_name(queue_id)}{to}{cipher};"
        f"\r\n\t{rfc5322_date(at)}\r\n"
    ).encode()


def return_path(sender: Address | None) -> bytes:
    """The field that final delivery adds (RFC 5321 4.4); None is the null reverse-path."""
    return f"Return-Path: <{_address(sender)}>\r\n".encode()


def delivered_to(address: Address) -> bytes:
    """The field that tells loops and the address that was meant (RFC 9228)."""
    return f"Delivered-To: {_address(address)}\r\n".encode()


def _encryption(tls: str) -> tuple[str, str]:
    """A comment behind the protocol, and RFC 8314 4.3's clause when the cipher has its IANA name."""
    if not tls:
        return "", ""
    known = _TLS.fullmatch(tls)
    if known:
        return f" ({known[1]}{_NOT_COMMENT.sub('?', known[3])})", f"\r\n\ttls {known[2]}"
    return f" ({_NOT_COMMENT.sub('?', tls[:NAME_LIMIT])})", ""


def _name(text: str) -> str:
    if _NAME.fullmatch(text):
        return text
    return _NOT_NAME.sub("?", text[:NAME_LIMIT]) or "unknown"


def _literal(client: str) -> str:
    # RFC 5321 4.1.3
    return f"[IPv6:{_name(client)}]" if ":" in client else f"[{_name(client)}]"


def _address(address: Address | None) -> str:
    return "" if address is None else _NOT_ADDRESS.sub("?", str(address))
