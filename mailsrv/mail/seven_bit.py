"""Content with octets above 127 made 7-bit, without a change to what it says (RFC 2045, 2046, 6152, 1428).

A walk through the parts of a MIME message, which says what has to change; ``transfer_encoding.py`` changes it.  Leaves
with octets above 127 are encoded: text as quoted-printable, all else as base64; the Content-Transfer-Encoding of these,
and of the parts around them, is replaced.  Everything else stays byte for byte as it came.  Decoded, every part is what
it was.

``Unconvertible`` where that cannot be done or would do harm: octets above 127 in a header or between parts, what is
signed (RFC 1847), malformed MIME, an encoding that is not known, more than ``DEPTH`` levels or ``PARTS`` parts.  Time
is linear in the size of the content for each level; the walk needs no second copy of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from mailsrv.mail.transfer_encoding import Becomes, Changes

DEPTH: Final = 20
PARTS: Final = 1000
_HEADER_LIMIT: Final = 256 * 1024

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:((?:[^\n]*\n[ \t])*[^\n]*\n)")
_TYPE = re.compile(rb"[ \t]*([!#-'*+.0-9A-Z^-~-]+)[ \t]*/[ \t]*([!#-'*+.0-9A-Z^-~-]+)[ \t]*(?=;|\Z)", re.IGNORECASE)
_PARAMETER = re.compile(rb"[ \t]*;[ \t]*(?:([^\s;=\"()]+)[ \t]*=[ \t]*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s;\"()]+))[ \t]*)?")
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_ENCODING: Final = b"content-transfer-encoding"
_AS_THEY_ARE: Final = (b"7bit", b"8bit", b"binary")
_AFTER_BOUNDARY = re.compile(rb"(--)?[ \t]*+(?=\r\n|\Z)")
_PIECE: Final = 256 * 1024


class Unconvertible(Exception):
    """The message is a phrase that says why, without an end."""


def changes(content: bytes | bytearray) -> Changes:
    """What makes ``content``, with CRLF line ends, one without octets above 127 (Unconvertible)."""
    walk = _Walk(content)
    walk.entity(0, len(content), 0, message=True, default=b"text/plain")
    return walk.changes


class _Walk:
    """One message.  A part is two positions, for a copy at each level would make twenty of a large message."""

    def __init__(self, content: bytes | bytearray) -> None:
        self.changes = Changes()
        self._content = content
        self._parts = 0

    def entity(self, start: int, end: int, depth: int, *, message: bool, default: bytes) -> None:
        """One entity; ``message``: it is a whole message, and so may lack all of MIME."""
        if self._is_ascii(start, end):
            return
        self._parts += 1
        if depth > DEPTH or self._parts > PARTS:
            raise Unconvertible(f"it has more than {DEPTH} levels or {PARTS} parts that would have to be converted")
        body = self._body(start, end)
        head = bytes(self._content[start:body])
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
            self._new_head(start, body, head, fields, Becomes.SAYS_7BIT, message)
            default = b"message/rfc822" if kind == b"multipart/digest" else b"text/plain"
            self._multipart(body, end, parameters.get(b"boundary", b""), depth, default)
        elif kind in (b"message/rfc822", b"message/news"):
            self._new_head(start, body, head, fields, Becomes.SAYS_7BIT, message)
            self.entity(body + 2, end, depth + 1, message=True, default=b"text/plain")
        elif family == b"message" and kind != b"message/global":
            raise Unconvertible(f"a part of type {_shown(kind)} has octets above 127, which it may not be encoded for")
        elif family == b"text":
            self._new_head(start, body, head, fields, Becomes.SAYS_QUOTED_PRINTABLE, message)
            self.changes.add(body + 2, end, Becomes.QUOTED_PRINTABLE)
        else:
            self._new_head(start, body, head, fields, Becomes.SAYS_BASE64, message)
            self.changes.add(body + 2, end, Becomes.BASE64)

    def _multipart(self, start: int, end: int, boundary: bytes, depth: int, default: bytes) -> None:
        """``start`` is the empty line after the header."""
        if not _BOUNDARY.fullmatch(boundary):
            raise Unconvertible("a multipart has no boundary, or none that is allowed")
        begin, inside = start, False
        for found, behind, last in self._delimiters(start, end, boundary):
            self._between(begin, found, depth, default, inside=inside)
            begin, inside = behind, not last
            if last:
                break
        if begin == start:
            raise Unconvertible("a multipart has no parts")
        self._between(begin, end, depth, default, inside=inside)

    def _delimiters(self, start: int, end: int, boundary: bytes) -> Iterator[tuple[int, int, bool]]:
        """Where each begins and ends, and whether it is the last one."""
        # RFC 2046 5.1.1: the CRLF before a delimiter belongs to it.
        delimiter = b"\r\n--" + boundary
        while (found := self._content.find(delimiter, start, end)) >= 0:
            start = found + len(delimiter)
            rest = _AFTER_BOUNDARY.match(self._content, start, end)
            if rest is not None:
                start = rest.end()
                yield found, start, rest[1] is not None

    def _between(self, start: int, end: int, depth: int, default: bytes, *, inside: bool) -> None:
        """A part with the CRLF that ends the line of the delimiter before it, or what is outside of all parts."""
        if self._is_ascii(start, end):
            return
        if not inside:
            raise Unconvertible("there are octets above 127 outside of the parts of a multipart")
        self.entity(start + 2, end, depth + 1, message=False, default=default)

    def _is_ascii(self, start: int, end: int) -> bool:
        content = self._content
        return all(content[at : min(at + _PIECE, end)].isascii() for at in range(start, end, _PIECE))

    def _body(self, start: int, end: int) -> int:
        """Where the header section of an entity has ended: at the CRLF that is the empty line."""
        if self._content.startswith(b"\r\n", start, end):
            return start
        found = self._content.find(b"\r\n\r\n", start, min(start + _HEADER_LIMIT, end))
        if found < 0:
            raise Unconvertible("a header does not end")
        return found + 2

    def _new_head(
        self, start: int, body: int, head: bytes, fields: dict[bytes, bytes], encoding: Becomes, message: bool
    ) -> None:
        add = self.changes.add
        if _ENCODING in fields:
            field = next(f for f in _FIELD.finditer(head) if f[1].lower() == _ENCODING)
            add(start + field.start(), start + field.end(), encoding)
        if message and b"mime-version" not in fields:
            add(body, body, Becomes.SAYS_MIME)
            if b"content-type" not in fields:
                add(body, body, Becomes.SAYS_UNKNOWN_8BIT)
        if _ENCODING not in fields:
            add(body, body, encoding)


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


def _shown(value: bytes) -> str:
    return repr(value[:60].decode("ascii", "replace"))
