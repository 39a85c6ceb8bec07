"""The lines that a client sends for a transaction, with the parameters that the server offered to understand.

SIZE (RFC 1870), BODY=8BITMIME (RFC 6152), SMTPUTF8 (RFC 6531), RET, ENVID, NOTIFY, ORCPT (RFC 3461, 6533).
Nothing that holds a control character becomes a command (ValueError): the last line of defence against an address
that would be two commands at the next server.
"""

from __future__ import annotations

import re

from mailsrv.mail.address import Address
from mailsrv.mail.envelope import Recipient
from mailsrv.smtp.client_events import Extensions, Transaction

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def line(text: str) -> bytes:
    """One command line with its CRLF; ValueError when it would be anything else."""
    if _CONTROL.search(text):
        raise ValueError("a control character in a command")
    return text.encode() + b"\r\n"


def mail(transaction: Transaction, extensions: Extensions) -> bytes:
    """MAIL FROM with its parameters."""
    envelope = transaction.envelope
    words = [f"MAIL FROM:<{envelope.sender if envelope.sender is not None else ''}>"]
    if "SIZE" in extensions:
        words.append(f"SIZE={transaction.size}")
    if "8BITMIME" in extensions and transaction.eight_bit:
        words.append("BODY=8BITMIME")
    if "SMTPUTF8" in extensions and (envelope.smtputf8 or _any_unicode(transaction)):
        words.append("SMTPUTF8")
    if "DSN" in extensions:
        if envelope.ret:
            words.append(f"RET={envelope.ret}")
        if envelope.envid and envelope.envid.isascii():
            words.append(f"ENVID={xtext(envelope.envid)}")
    return line(" ".join(words))


def rcpt(recipient: Recipient, extensions: Extensions) -> bytes:
    """RCPT TO with its parameters."""
    words = [f"RCPT TO:<{recipient.address}>"]
    if "DSN" in extensions:
        if recipient.notify:
            words.append(f"NOTIFY={','.join(recipient.notify)}")
        kind, separator, address = recipient.original.partition(";")
        if separator and kind.lower() == "utf-8":
            words.append(f"ORCPT={kind};{utf8_xtext(address)}")
        elif separator and address.isascii():
            words.append(f"ORCPT={kind};{xtext(address)}")
    return line(" ".join(words))


def xtext(text: str) -> str:
    """RFC 3461 4, of ASCII text."""
    return "".join(c if "!" <= c <= "~" and c not in "+=" else f"+{ord(c):02X}" for c in text)


def utf8_xtext(text: str) -> str:
    """RFC 6533 3, the form that any server can carry: ``\\x{...}`` for what is not plain ASCII."""
    return "".join(c if "!" <= c <= "~" and c not in "+=\\" else f"\\x{{{ord(c):X}}}" for c in text)


def is_ascii(address: Address | None) -> bool:
    """Whether any server can take the address; domains always are A-labels."""
    return address is None or address.local.isascii()


def _any_unicode(transaction: Transaction) -> bool:
    addresses = (transaction.envelope.sender, *(recipient.address for recipient in transaction.recipients))
    return not all(map(is_ascii, addresses))
