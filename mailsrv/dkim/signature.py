"""The DKIM-Signature fields of a message (RFC 6376 3.5, 3.7), with keys of RSA (RFC 8301) and Ed25519 (RFC 8463).

A field that is named once more than it occurs is *oversigned*: nobody can add another one without breaking the
signature, and most programs show a field that was added rather than the one that was signed.

What is not there: ``l=``, with which anybody may go on where the signed body ends, and ``x=``, for mail may wait for
days on its way.  Domains and selectors are ASCII, also in messages for SMTPUTF8 (RFC 8616 5).
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Protocol

from mailsrv.dkim.canonical import Field, fields, relaxed_field

# There or not, nobody may add one.
OVERSIGNED = (
    *("From", "Reply-To", "Subject", "Date", "To", "Cc", "Message-ID", "List-Unsubscribe", "List-Unsubscribe-Post"),
    *("MIME-Version", "Content-Type", "Content-Transfer-Encoding", "Content-Disposition", "Content-ID"),
    "Content-Description",
)
# RFC 6376 5.4.1, as often as they are there: others add these on the way, and rightly so.
SIGNED = (
    *("Sender", "In-Reply-To", "References", "Resent-Date", "Resent-From", "Resent-Sender", "Resent-To", "Resent-Cc"),
    *("Resent-Message-ID", "List-Id", "List-Help", "List-Subscribe", "List-Post", "List-Owner", "List-Archive"),
)
# Of one name; so a header section of a megabyte gives no signature of a megabyte.
MOST = 20

_LINE = 76  # RFC 5322 2.1.1 has 78
_OURS = re.compile(rb"(?:DKIM-Signature:[^\n]*\n(?:[ \t][^\n]*\n)*)*")
_DOMAIN = re.compile(rb"[;\s]d=([^;\s]+)")
_SIGNER = re.compile(rb"\td=([^;\s]+); s=([^;\s]+);")  # the line as _unsigned writes it


class Key(Protocol):
    """A private key; its public half is published at ``<selector>._domainkey.<domain>``."""

    @property
    def domain(self) -> str:
        """As A-labels."""
        ...

    @property
    def selector(self) -> str: ...

    @property
    def algorithm(self) -> str:
        """The ``a=`` tag: rsa-sha256 or ed25519-sha256."""
        ...

    def sign(self, digest: bytes) -> bytes:
        """The signature of a SHA-256 digest."""
        ...


def sign(keys: Sequence[Key], header: bytes, body: bytes, at: float) -> bytes:
    """One DKIM-Signature field for each key, in their order, to go in front of the message.

    ``header`` is the header section as it will leave, ``body`` the SHA-256 digest of the relaxed body, ``at`` seconds
    since 1970.
    """
    found = fields(header)
    names = _names(found)
    signed = hashlib.sha256()
    for raw in _selected(found, names):
        signed.update(relaxed_field(raw) + b"\r\n")
    made = []
    for key in keys:
        field = _unsigned(key, names, body, int(at))
        whole = signed.copy()
        whole.update(relaxed_field(field))
        made.append(field + _folded(_base64(key.sign(whole.digest())), len("\tb=")) + b"\r\n")
    return b"".join(made)


def take_off(message: bytes) -> tuple[str, bytes]:
    """A message, or the beginning of one, without the signatures that :func:`sign` put in front, and their domain.

    The domain is "" when there were none.  Whoever changes a message signs it anew for that domain.
    """
    ours = _OURS.match(message)
    domain = _DOMAIN.search(ours[0]) if ours else None
    if ours is None or domain is None:
        return "", message
    return domain[1].decode("ascii"), message[ours.end() :]


def signers(message: bytes) -> tuple[str, list[str]] | None:
    """Domain and selectors of the signatures that :func:`sign` put in front; "" and none when there are none.

    None when the beginning of a message does not show whether these are all: a line of something else has to follow.
    """
    ours = _OURS.match(message)
    end = ours.end() if ours else 0
    if message.find(b"\n", end) < 0:
        return None
    found = _SIGNER.findall(message[:end])
    return (found[0][0].decode("ascii"), [selector.decode("ascii") for _, selector in found]) if found else ("", [])


def _names(found: Sequence[Field]) -> list[str]:
    """The names for ``h=``, each as often as it is signed."""
    count: dict[bytes, int] = {}
    for field in found:
        count[field.name] = count.get(field.name, 0) + 1
    names = []
    for more, group in ((1, OVERSIGNED), (0, SIGNED)):
        for name in group:
            names += [name] * (min(count.get(name.lower().encode(), 0), MOST) + more)
    return names


def _selected(found: Sequence[Field], names: Sequence[str]) -> Iterator[bytes]:
    """The fields that names stand for (RFC 6376 5.4.2): of several the last one first; nothing when there is none."""
    of_name: dict[bytes, list[bytes]] = {}
    for field in found:
        of_name.setdefault(field.name, []).append(field.raw)
    for name in names:
        left = of_name.get(name.lower().encode())
        if left:
            yield left.pop()


def _unsigned(key: Key, names: Sequence[str], body: bytes, at: int) -> bytes:
    lines = [
        f"DKIM-Signature: v=1; a={key.algorithm}; c=relaxed/relaxed; t={at};",
        f"\td={key.domain}; s={key.selector};",
        "\th=",
    ]
    for n, name in enumerate(names):
        end = ";" if n == len(names) - 1 else ":"
        if len(lines[-1]) + len(name) + 1 > _LINE:
            lines.append("\t ")
        lines[-1] += name + end
    return "\r\n".join([*lines, f"\tbh={_base64(body)};", "\tb="]).encode("ascii")


def _base64(octets: bytes) -> str:
    return binascii.b2a_base64(octets, newline=False).decode("ascii")


def _folded(text: str, used: int) -> bytes:
    """``text`` in lines, the first of which has ``used`` octets already."""
    lines = [text[: _LINE - used]]
    lines += [text[at : at + _LINE - 2] for at in range(_LINE - used, len(text), _LINE - 2)]
    return "\r\n\t ".join(lines).encode("ascii")
