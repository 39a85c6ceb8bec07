"""Header sections (RFC 5322 2.2): reading them without a parser, and writing fields that nobody can break out of.

Reading takes any octets, in time linear in the header section, and never fails: what is no field is passed over.  MIME
is not looked at.  Line ends are CRLF, as in everything that SMTP accepted; a plain LF is understood within a header
section.  Names are compared without regard to case.

Writing refuses (ValueError) control characters, CR and LF above all, and whatever has no place in a field of that kind.
Lines are folded at spaces to 76 characters where there are spaces (RFC 5322 2.1.1, 2047 2).
"""

from __future__ import annotations

import binascii
import quopri
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

HEADER_LIMIT = 1 << 20  # octets of a header section that are looked at
MESSAGE_ID_LIMIT = 250
LINE_LENGTH = 76  # RFC 2047 2 for lines with encoded words; RFC 5322 2.1.1 has 78
LINE_LIMIT = 998  # RFC 5322 2.1.1: must
WORD_LIMIT = 60  # RFC 2047 2 allows 75; shorter ones fit behind a field's name

_MESSAGE_ID = b"\nmessage-id:"
_RECEIVED = b"\nreceived:"
_FIELD_END = re.compile(rb"\r?\n(?![ \t])|\Z")
_FIELD = re.compile(rb"^([!-9;-~]+)[ \t]*:(.*(?:\n[ \t].*)*)", re.MULTILINE)
_COLON = re.compile(rb"[ \t]*:")
_BRACKETED = re.compile(rb"<([!-;=?-~]+)>")
_UNBRACKETED = re.compile(rb"[!-;=?-~]+")
_ENCODED_WORD = re.compile(r"=\?([!->@-~]{1,40}?)(?:\*[!->@-~]*)?\?([BbQq])\?([!->@-~]*)\?=")
_BETWEEN_WORDS = re.compile(r"(?<=\?=)[ \t]+(?==\?[!->@-~]+\?[BbQq]\?)")
# Character sets of mail; Python knows others, some of which are no character sets at all.
_CHARSET = re.compile(
    "utf-?8|us-ascii|iso-8859-[0-9]{1,2}|windows-[0-9]{3,4}|cp[0-9]{3,4}|koi8-[rut]|macintosh|tis-620"
    "|gb2312|gbk|gb18030|hz-gb-2312|big5(?:-hkscs)?|euc-(?:jp|kr)|shift_jis|iso-2022-(?:jp(?:-[0-9])?|kr)",
    re.IGNORECASE,
)
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_FOLDABLE = re.compile("(?<=[^ ]) (?=[^ ])")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_NAME = re.compile(r"[!-9;-~]{1,70}")


def split(content: bytes, limit: int = HEADER_LIMIT) -> tuple[bytes, bytes]:
    """The header section with the line end of its last field, and the body behind the empty line.

    Without an empty line within the first ``limit`` octets these are the header section and the rest is the body.
    """
    if content.startswith(b"\r\n"):
        return b"", content[2:]
    end = content.find(b"\r\n\r\n", 0, limit)
    if end < 0:
        return content[:limit], content[limit:]
    return content[: end + 2], content[end + 4 :]


@dataclass(frozen=True, slots=True)
class Scan:
    """What every accepted message is asked for.

    ``message_id`` as from :func:`message_id`; ``received`` is the number of Received fields; ``size`` is the number of
    octets of the header section with the empty line, or -1 when it does not end within what was looked at.
    """

    message_id: str
    received: int
    size: int


def scan(head: bytes) -> Scan:
    """Look through the beginning of a message in one cheap pass: some microseconds, whatever is in it.

    Only CRLF counts as a line end here, and no white space before a colon.
    """
    if head.startswith(b"\r\n"):
        return Scan("", 0, 2)
    end = head.find(b"\r\n\r\n", 0, HEADER_LIMIT)
    header = b"\n" + (head[: end + 2] if end >= 0 else head[:HEADER_LIMIT])
    lower = header.lower()
    at = lower.find(_MESSAGE_ID)
    identifier = _identifier(_value(header, at + len(_MESSAGE_ID))) if at >= 0 else ""
    return Scan(identifier, lower.count(_RECEIVED), end + 4 if end >= 0 else -1)


def fields(header: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names, as written, and values, unfolded, of all fields of a header section in their order."""
    for match in _FIELD.finditer(header):
        yield match[1], _unfold(match[2])


def whole_fields(header: bytes, name: str) -> list[bytes]:
    """The fields of that name in a header section, octet for octet with their line ends."""
    return [header[begin:end] for begin, end in _extents(header, name)]


def without(header: bytes, removed: Collection[bytes]) -> bytes:
    """A header section without the fields that are among ``removed``, as ``whole_fields`` has given them."""
    names = {whole.partition(b":")[0].rstrip(b" \t").lower() for whole in removed}
    extents = sorted(extent for name in names for extent in _extents(header, name.decode("ascii")))
    kept = []
    at = 0
    for begin, end in extents:
        if header[begin:end] in removed:
            kept.append(header[at:begin])
            at = end
    return b"".join((*kept, header[at:]))


def field(content: bytes, name: str) -> bytes | None:
    """The value, unfolded, of the first field of that name in the header section of ``content``; None without one."""
    header, _ = split(content)
    for at in _places(header, name):
        return _value(header, at)
    return None


def count(content: bytes, name: str) -> int:
    """How many fields of that name the header section of ``content`` has."""
    header, _ = split(content)
    return sum(1 for _ in _places(header, name))


def message_id(content: bytes) -> str:
    """The Message-ID without angle brackets, at most 250 characters of printable ASCII; "" when there is none."""
    return _identifier(field(content, "Message-ID") or b"")


def decoded(value: bytes, limit: int = 200) -> str:
    """A field's value as people read it: encoded words (RFC 2047) decoded, no control characters, bounded.

    What cannot be decoded stays as it is.
    """
    text = _BETWEEN_WORDS.sub("", value[: 10 * limit].decode("utf-8", "replace"))
    text = _CONTROLS.sub(" ", _ENCODED_WORD.sub(_decoded_word, text)).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def build(name: str, value: str) -> bytes:
    """One field, folded, with its line end; ValueError when a field cannot hold that.

    Beyond ASCII goes out as UTF-8, for internationalised messages only (RFC 6532); others pass values through
    :func:`phrase` or :func:`unstructured` first.
    """
    if not _NAME.fullmatch(name):
        raise ValueError("not a field name")
    if _CONTROLS.search(value):
        raise ValueError("control characters in a header field")
    lines = [f"{name}:"]
    for word in _FOLDABLE.split(value.strip(" ")):
        if len(lines[-1]) + 1 + len(word) > LINE_LENGTH and lines[-1] != f"{name}:":
            lines.append("")
        lines[-1] += f" {word}"
    data = "\r\n".join(lines).encode() + b"\r\n"
    if max(map(len, data.split(b"\r\n"))) > LINE_LIMIT:
        raise ValueError("a header field with a line of more than 998 octets")
    return data


def unstructured(text: str) -> str:
    """Text for a field such as Subject: itself in ASCII, else as encoded words; ValueError for control characters."""
    if _CONTROLS.search(text):
        raise ValueError("control characters in a header field")
    return text if text.isascii() and "=?" not in text else _encoded_words(text)


def phrase(text: str) -> str:
    """A display name: atoms, a quoted string or encoded words (RFC 5322 3.2.5, 2047 5); ValueError as above."""
    if _CONTROLS.search(text):
        raise ValueError("control characters in a header field")
    if not text.isascii() or "=?" in text:
        return _encoded_words(text)
    if _ATOMS.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _places(header: bytes, name: str) -> Iterator[int]:
    """Where the values of the fields of that name begin."""
    wanted = b"\n" + name.lower().encode("ascii")
    lower = b"\n" + header.lower()
    found = lower.find(wanted)
    while found >= 0:
        colon = _COLON.match(lower, found + len(wanted))
        if colon:
            yield colon.end() - 1
        found = lower.find(wanted, found + len(wanted))


def _extents(header: bytes, name: str) -> Iterator[tuple[int, int]]:
    """Where the fields of that name begin and end; not of one that is cut."""
    for at in _places(header, name):
        end = _FIELD_END.search(header, at)
        if end is not None and end[0]:
            yield header.rfind(b"\n", 0, at) + 1, end.end()


def _value(header: bytes, at: int) -> bytes:
    end = _FIELD_END.search(header, at)
    return _unfold(header[at : end.start() if end else None])


def _unfold(value: bytes) -> bytes:
    # RFC 5322 2.2.3
    return value.replace(b"\r\n", b"").replace(b"\n", b"").strip(b" \t\r")


def _identifier(value: bytes) -> str:
    found = _BRACKETED.search(value)
    if found:
        return found[1][:MESSAGE_ID_LIMIT].decode("ascii")
    # Some programs forget the brackets.
    return value[:MESSAGE_ID_LIMIT].decode("ascii") if _UNBRACKETED.fullmatch(value) else ""


def _decoded_word(match: re.Match[str]) -> str:
    charset, encoding, text = match.groups()
    if not _CHARSET.fullmatch(charset):
        return match[0]
    try:
        if encoding in "Bb":
            data = binascii.a2b_base64(text + "=" * (-len(text) % 4))
        else:
            data = quopri.decodestring(text, header=True)
        return data.decode(charset, "replace")
    except (ValueError, LookupError):  # no such charset, damaged base64
        return match[0]


def _encoded_words(text: str) -> str:
    """RFC 2047: UTF-8 in base64, each word at most 60 characters and made of whole characters."""
    room = (WORD_LIMIT - len("=?utf-8?B??=")) // 4 * 3
    pieces = [b""]
    for character in text:
        octets = character.encode()
        if len(pieces[-1]) + len(octets) > room:
            pieces.append(b"")
        pieces[-1] += octets
    return " ".join(f"=?utf-8?B?{binascii.b2a_base64(piece, newline=False).decode('ascii')}?=" for piece in pieces)
