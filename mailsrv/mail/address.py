"""Mail addresses: the grammar of Mailbox (RFC 5321 4.1.2, 6531 3.3) and one canonical form.

An :class:`Address` from :meth:`Address.parse` is safe to write into a command, a header field, a log line, a database:
it holds no control characters, its lengths are within the limits, and two ways of writing one address give one value
(quotes that are not needed go, domains become A-labels in lower case, literals get their shortest form).  The local
part is opaque: ``%``, ``!`` and a quoted ``@`` in it mean nothing, the domain is what follows the last ``@``.

Refused beyond the grammar: control characters of any kind, those of direction too, line and paragraph separators,
address literals with another tag than IPv6, top-level labels of digits only (RFC 3696 2), final dots, underscores in
domains.  Characters of a domain are mapped to lower case and in no other way (no UTS 46), so nothing that merely looks
alike becomes the same.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

import idna

LOCAL_LIMIT = 64  # RFC 5321 4.5.3.1.1: octets, as written
DOMAIN_LIMIT = 253  # RFC 5321 4.5.3.1.2: 255 octets as DNS counts them, which are 253 characters as text
ADDRESS_LIMIT = 254  # RFC 5321 4.5.3.1.3: 256 octets with the angle brackets
LABEL_LIMIT = 63  # RFC 1035 2.3.4
TEXT_LIMIT = 2 * LOCAL_LIMIT + DOMAIN_LIMIT + 3  # the longest text that can shrink to an address within the limits

ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-"
LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
DOMAIN = rf"(?:{LABEL}\.)*(?![0-9]+\Z){LABEL}"

# What nearly all addresses look like; whatever this matches, the whole grammar accepts with the same parts.
_USUAL = re.compile(rf"([{ATEXT}]+(?:\.[{ATEXT}]+)*)@({DOMAIN})")
# RFC 5321 4.1.2 and 6531 3.3: Dot-string, Quoted-string.
_DOT_STRING = re.compile(rf"[{ATEXT}\u0080-\U0010ffff]+(?:\.[{ATEXT}\u0080-\U0010ffff]+)*")
_QUOTED_STRING = re.compile(r'"((?:[ !#-\[\]-~\u0080-\U0010ffff]|\\[ -~])*)"')
_QUOTED_PAIR = re.compile(r"\\(.)")
_TO_QUOTE = re.compile(r'(["\\])')
_LABEL = re.compile(LABEL)
_DOMAIN = re.compile(DOMAIN)
# Controls (C0, DEL, C1), line and paragraph separators, surrogates: never in an address, a reply or a log line.  Nor
# what turns the direction of writing, for then people read another address than programs do.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_LITERAL_4 = re.compile(r"[0-9.]{7,15}")
_LITERAL_6 = re.compile(r"IPv6:([0-9A-Fa-f:.]{2,45})", re.IGNORECASE | re.ASCII)


class AddressError(ValueError):
    """The text is not a mail address; the message says why, for people, in ASCII and without quoting the text."""


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox name.

    ``local`` is the local part without quotes, as its owner wrote it.  ``domain`` is made of A-labels in lower case, or
    is a literal (``[192.0.2.1]``, ``[IPv6:2001:db8::1]``), or is "" for a bare ``postmaster``, the one address without
    domain.  Only :meth:`parse` checks; construct directly from parts that were checked.
    """

    local: str
    domain: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """The address that ``text`` writes, without angle brackets; AddressError.

        A bare ``postmaster`` in any case gives POSTMASTER (RFC 5321 4.5.1); callers for whom an address needs a domain
        look at ``domain``.
        """
        usual = _USUAL.fullmatch(text)
        if usual and len(text) <= ADDRESS_LIMIT and usual.end(1) <= LOCAL_LIMIT:
            return cls(usual[1], usual[2].lower())
        return _parse_any(text)

    def __str__(self) -> str:
        """The form of RFC 5321, the local part quoted only where it must be; ``parse`` reads it back."""
        local = _written(self.local)
        return f"{local}@{self.domain}" if self.domain else local

    @property
    def key(self) -> str:
        """For looking up our own addresses, whose local parts do not tell ASCII upper case from lower case."""
        return f"{_ascii_lower(self.local)}@{self.domain}"

    @property
    def text(self) -> str:
        """For people: like ``str`` with the domain in U-labels."""
        if "xn--" not in self.domain:
            return str(self)
        return f"{_written(self.local)}@{'.'.join(map(_u_label, self.domain.split('.')))}"

    @property
    def is_ascii(self) -> bool:
        """Whether the address can go where SMTPUTF8 is not spoken (RFC 6531)."""
        return self.local.isascii()


POSTMASTER = Address("postmaster", "")


def domain_a_label(text: str) -> str:
    """A domain name, no literal, as A-labels in lower case; AddressError.

    ASCII labels are letters, digits and inner hyphens, others U-labels of IDNA 2008 (RFC 5891); one to 63 octets each.
    """
    if len(text) > DOMAIN_LIMIT:
        raise AddressError("the domain is too long")
    domain = text.lower() if text.isascii() else ".".join(map(_a_label, text.split(".")))
    if not _DOMAIN.fullmatch(domain):
        raise AddressError(_domain_fault(domain))
    if len(domain) > DOMAIN_LIMIT:
        raise AddressError("the domain is too long")
    return domain


def _parse_any(text: str) -> Address:
    if len(text) > TEXT_LIMIT:
        raise AddressError("the address is too long")
    if _FORBIDDEN.search(text):
        raise AddressError("the address contains control characters")
    if _ascii_lower(text) == "postmaster":
        return POSTMASTER
    before, at, after = text.rpartition("@")
    if not at:
        raise AddressError("the address has no @ and domain")
    local = _parse_local(before)
    domain = _parse_literal(after) if after.startswith("[") else domain_a_label(after)
    address = Address(local, domain)
    # The limits are about the canonical form, so that they hold for an address however it was written.
    if len(_written(local).encode()) > LOCAL_LIMIT:
        raise AddressError("the part before the @ is longer than 64 octets")
    if len(str(address).encode()) > ADDRESS_LIMIT:
        raise AddressError("the address is longer than 254 octets")
    return address


def _parse_local(text: str) -> str:
    if _DOT_STRING.fullmatch(text):
        return text
    quoted = _QUOTED_STRING.fullmatch(text)
    if quoted:
        return _QUOTED_PAIR.sub(r"\1", quoted[1])
    if not text:
        raise AddressError("there is nothing before the @")
    if text.startswith('"'):
        raise AddressError("the quotes before the @ are not well formed")
    if text.startswith(".") or text.endswith(".") or ".." in text:
        raise AddressError("the part before the @ has a dot at its edge or two in a row")
    raise AddressError("the part before the @ contains characters that need quotes")


@lru_cache(maxsize=1024)  # the same address is written down a dozen times for each message
def _written(local: str) -> str:
    if _DOT_STRING.fullmatch(local):
        return local
    escaped = _TO_QUOTE.sub(r"\\\1", local)
    return f'"{escaped}"'


def _parse_literal(text: str) -> str:
    """RFC 5321 4.1.3.  Numbers with leading zeros are refused, for some programs read them as octal."""
    inner = text[1:-1]
    try:
        if text.endswith("]") and _LITERAL_4.fullmatch(inner):
            return f"[{ipaddress.IPv4Address(inner)}]"
        tagged = _LITERAL_6.fullmatch(inner)
        if text.endswith("]") and tagged:
            return f"[IPv6:{_shortest(ipaddress.IPv6Address(tagged[1]))}]"
    except ValueError:
        pass
    raise AddressError("the address literal is not a valid IPv4 or IPv6 address")


def _shortest(address: ipaddress.IPv6Address) -> str:
    # RFC 5952 5.  Releases of Python differ in how they write IPv4-mapped addresses.
    return f"::ffff:{address.ipv4_mapped}" if address.ipv4_mapped else str(address)


def _a_label(label: str) -> str:
    if label.isascii():
        return label.lower()
    if len(label) > LABEL_LIMIT:
        raise AddressError("a label of the domain is longer than 63 octets")
    try:
        return idna.alabel("".join(map(_letter_lower, label))).decode("ascii")
    except idna.IDNAError as error:
        raise AddressError("the domain is not a valid internationalised name (IDNA 2008)") from error


def _letter_lower(letter: str) -> str:
    """Lower case, but never from beyond ASCII into ASCII: the Kelvin sign is no k.  IDNA refuses what is left."""
    lower = letter.lower()
    return letter if len(lower) > 1 or (lower.isascii() and not letter.isascii()) else lower


def _u_label(label: str) -> str:
    """The U-label of an A-label, or the label itself when it is none or would not come back to the same A-label."""
    if not label.startswith("xn--"):
        return label
    try:
        unicode = idna.ulabel(label)
        return unicode if idna.alabel(unicode).decode("ascii") == label else label
    except idna.IDNAError:
        return label


def _ascii_lower(text: str) -> str:
    return text.lower() if text.isascii() else "".join(c.lower() if c.isascii() else c for c in text)


def _domain_fault(domain: str) -> str:
    if not domain:
        return "there is no domain"
    labels = domain.split(".")
    if "" in labels:
        return "the domain begins or ends with a dot or has two in a row"
    for label in labels:
        if len(label) > LABEL_LIMIT:
            return "a label of the domain is longer than 63 octets"
        if not _LABEL.fullmatch(label):
            return "the domain contains other characters than letters, digits and inner hyphens"
    return "the last label of the domain is a number"
