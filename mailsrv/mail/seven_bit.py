"""Content with octets above 127 made 7-bit, without a change to what it says (RFC 2045, 2046, 6152, 1428).

A walk through the parts of a MIME message.  Leaves with octets above 127 are encoded: text as quoted-printable, all
else as base64; the Content-Transfer-Encoding of these, and of the parts around them, is replaced.  Everything else
stays byte for byte as it came.  Decoded, every part is what it was.

``Unconvertible`` where that cannot be done or would do harm: octets above 127 in a header or between parts, what is
signed (RFC 1847), malformed MIME, an encoding that is not known, more than ``DEPTH`` levels or ``PARTS`` parts.  Time
is linear in the size of the content for each level.
"""

from __future__ import annotations

import binascii
import re
from typing import Final

DEPTH: Final = 20
PARTS: Final = 1000
_HEADER_LIMIT: Final = 256 * 1024

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:((?:[^\n]*\n[ \t])*[^\n]*\n)")
_TYPE = re.compile(rb"[ \t]*([!#-'*+.0-9A-Z^-~-]+)[ \t]*/[ \t]*([!#-'*+.0-9A-Z^-~-]+)[ \t]*(?=;|\Z)", re.IGNORECASE)
_PARAMETER = re.compile(rb"[ \t]*;[ \t]*(?:([^\s;=\"()]+)[ \t]*=[ \t]*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s;\"()]+))[ \t]*)?")
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_ENCODING: Final = b"content-transfer-encoding"
_AS_THEY_ARE: Final = (b"7bit", b"8bit", b"binary")
_PIECE: Final = 256 * 1024
_BASE64_LINE: Final = 57  # octets that make a line of 76


class Unconvertible(Exception):
    """The message is a phrase that says why, without an end."""


def seven_bit(content: bytes) -> bytes:
    """``content``, with CRLF line ends, without octets above 127 (Unconvertible)."""
    return b"".join(_Walk().entity(content, 0, message=True, default=b"text/plain"))


class _Walk:
    """One message."""

    def __init__(self) -> None:
        self._parts = 0

    def entity(self, data: bytes, depth: int, *, message: bool, default: bytes) -> list[bytes]:
        """The pieces of what one entity becomes; ``message``: it is a whole message, and so may lack all of MIME."""
        if data.isascii():
            return [data]
        self._parts += 1
        if depth > DEPTH or self._parts > PARTS:
            raise Unconvertible(f"it has more than {DEPTH} levels or {PARTS} parts that would have to be converted")
        head, body = _split(data)
        if not head.isascii():
            raise Unconvertible("a header has octets above 127")
        fields = _fields(head)
        kind, parameters = _content_type(fields.get(b"content-type"), default)
        encoding = (fields.get(_ENCODING) or b"7bit").strip().lower()
        if encoding not in _AS_THEY_ARE:
            raise Unconvertible(f"a part says that it is {_shown(encoding)}, and has octets above 127")
        family = kind.partition(b"/")[0]
        if kind == b"multipart/signed":
            raise Unconvertible("it is signed, and the signature would not hold any more")
        if family == b"multipart":
            encoding = b"7bit"
            default = b"message/rfc822" if kind == b"multipart/digest" else b"text/plain"
            pieces = self._multipart(body, parameters.get(b"boundary", b""), depth, default)
        elif kind in (b"message/rfc822", b"message/news"):
            encoding = b"7bit"
            pieces = [body[:2], *self.entity(body[2:], depth + 1, message=True, default=b"text/plain")]
        elif family == b"message" and kind != b"message/global":
            raise Unconvertible(f"a part of type {_shown(kind)} has octets above 127, which it may not be encoded for")
        elif family == b"text":
            encoding = b"quoted-printable"
            pieces = [_quoted_printable(body)]
        else:
            encoding = b"base64"
            pieces = [_base64(body)]
        return [_new_head(head, fields, encoding, message), *pieces]

    def _multipart(self, body: bytes, boundary: bytes, depth: int, default: bytes) -> list[bytes]:
        if not _BOUNDARY.fullmatch(boundary):
            raise Unconvertible("a multipart has no boundary, or none that is allowed")
        # RFC 2046 5.1.1: the CRLF before a delimiter belongs to it.
        delimiter = re.compile(rb"(?:\A|\r\n)--%b(--)?[ \t]*(?=\r\n|\Z)" % re.escape(boundary))
        pieces: list[bytes] = []
        start, inside = 0, False
        for found in delimiter.finditer(body):
            pieces += self._between(body[start : found.start()], depth, default, inside=inside)
            pieces.append(found[0])
            start, inside = found.end(), not found[1]
            if not inside:
                break
        else:
            if not pieces:
                raise Unconvertible("a multipart has no parts")
        pieces += self._between(body[start:], depth, default, inside=inside)
        return pieces

    def _between(self, data: bytes, depth: int, default: bytes, *, inside: bool) -> list[bytes]:
        """A part with the CRLF that ends the line of the delimiter before it, or what is outside of all parts."""
        if data.isascii():
            return [data]
        if not inside:
            raise Unconvertible("there are octets above 127 outside of the parts of a multipart")
        return [data[:2], *self.entity(data[2:], depth + 1, message=False, default=default)]


def _split(data: bytes) -> tuple[bytes, bytes]:
    """The header section with the line end of its last field, and the rest, which begins with the empty line's CRLF."""
    if data.startswith(b"\r\n"):
        return b"", data
    end = data.find(b"\r\n\r\n", 0, _HEADER_LIMIT)
    if end < 0:
        raise Unconvertible("a header does not end")
    return data[: end + 2], data[end + 2 :]


def _fields(head: bytes) -> dict[bytes, bytes]:
    """Unfolded values of the fields that say how a part is to be read, by their names in lower case."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(head):
        field = _FIELD.match(head, at)
        if field is None:
            raise Unconvertible("a header has a line that is no field")
        at = field.end()
        name = field[1].lower()
        if name in (_ENCODING, b"content-type", b"mime-version"):
            if name in found:
                raise Unconvertible(f"a header has two fields {_shown(name)}")
            found[name] = field[2].replace(b"\r\n", b"").strip()
    return found


def _content_type(value: bytes | None, default: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """The type in lower case, and the parameters (RFC 2045 5.1)."""
    if value is None:
        return default, {}
    found = _TYPE.match(value)
    if found is None:
        raise Unconvertible(f"a part says that it is of type {_shown(value)}")
    parameters: dict[bytes, bytes] = {}
    at = found.end()
    while at < len(value):
        parameter = _PARAMETER.match(value, at)
        if parameter is None:
            raise Unconvertible(f"a part says that it is of type {_shown(value)}")
        at = parameter.end()
        if parameter[1]:
            name = parameter[1].lower()
            if name in parameters:
                raise Unconvertible(f"a part says that it is of type {_shown(value)}")
            quoted = parameter[2]
            parameters[name] = parameter[3] if quoted is None else re.sub(rb"\\(.)", rb"\1", quoted)
    return (found[1] + b"/" + found[2]).lower(), parameters


def _new_head(head: bytes, fields: dict[bytes, bytes], encoding: bytes, message: bool) -> bytes:
    line = b"Content-Transfer-Encoding: %b\r\n" % encoding
    if message and b"mime-version" not in fields:
        head += b"MIME-Version: 1.0\r\n"
        if b"content-type" not in fields:
            # RFC 1428 3: what it is in, nobody knows.
            head += b"Content-Type: text/plain; charset=unknown-8bit\r\n"
    if _ENCODING not in fields:
        return head + line
    return b"".join(line if f[1].lower() == _ENCODING else f[0] for f in _FIELD.finditer(head))


def _quoted_printable(body: bytes) -> bytes:
    """The empty line and the encoded text.  The line end at the end tells the encoder which kind of line end to use."""
    text = body[2:] + b"\r\n"
    encoded = []
    start = 0
    while start < len(text):
        # In pieces of whole lines, for no other thread gets the interpreter while one is encoded.
        end = text.find(b"\r\n", start + _PIECE) + 2
        if end < 2:
            end = len(text)
        encoded.append(binascii.b2a_qp(text[start:end], quotetabs=False, istext=True, header=False))
        start = end
    return b"\r\n" + b"".join(encoded)[:-2]


def _base64(body: bytes) -> bytes:
    text = body[2:]
    lines = [
        binascii.b2a_base64(text[at : at + _BASE64_LINE], newline=False) for at in range(0, len(text), _BASE64_LINE)
    ]
    return b"\r\n" + b"\r\n".join(lines) + (b"\r\n" if text.endswith(b"\r\n") else b"")


def _shown(value: bytes) -> str:
    return repr(value[:60].decode("ascii", "replace"))
