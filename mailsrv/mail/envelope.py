"""The envelope of a message: who sent it, to whom, and what was asked for (RFC 5321, 6152, 6531, 3461).

Plain immutable values.  The SMTP session fills them, the spool stores them, the relay sends them on.
"""

from __future__ import annotations

from dataclasses import dataclass

from mailsrv.mail.address import Address


@dataclass(frozen=True, slots=True)
class Recipient:
    """One RCPT TO.

    ``original`` is ORCPT (RFC 3461 4.2), decoded, as ``type;address``, or "" when the client gave
    none.  ``notify`` is NOTIFY (RFC 3461 4.1): a sorted subset of ``("DELAY", "FAILURE",
    "SUCCESS")``, ``("NEVER",)``, or ``()`` when the client gave none.
    """

    address: Address
    original: str = ""
    notify: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Envelope:
    """What MAIL FROM said.  ``sender`` is None for the null reverse-path ``<>``."""

    sender: Address | None
    body: str = "7BIT"  # RFC 6152: 7BIT or 8BITMIME
    smtputf8: bool = False  # RFC 6531
    ret: str = ""  # RFC 3461 4.3: FULL, HDRS or "" when not given
    envid: str = ""  # RFC 3461 4.4, decoded
    size: int | None = None  # RFC 1870: octets the client announced
