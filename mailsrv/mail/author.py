"""Who a message says it is from: the addresses of its From field (RFC 5322 3.4, 3.6.2).

Only the addresses are read; display names, comments and groups are passed over, so nothing that stands in a display
name is ever taken for an address.  What does not parse is an ``AuthorError``: who cannot be read cannot be trusted.
"""

from __future__ import annotations

import re

from mailsrv.mail.address import Address, AddressError

LONGEST = 16 * 1024  # octets of a field that is read
AUTHORS = 100  # addresses in one field that are read

# A piece: a quoted string, a quoted pair within it included; white space; or a run of other octets.
_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|[ \t]+|[<>,;:()@]|[^ \t<>,;:()"@]+', re.DOTALL)


class AuthorError(ValueError):
    """The field cannot be read; the message says why, for people."""


def authors(value: bytes) -> tuple[Address, ...]:
    """The addresses in the unfolded value of a From field, in their order; at least one (AuthorError)."""
    if len(value) > LONGEST:
        raise AuthorError("it is too long")
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise AuthorError("it is not UTF-8") from None
    found = [_address(mailbox) for mailbox in _mailboxes(_without_comments(_pieces(text)))]
    if not found:
        raise AuthorError("it names nobody")
    if len(found) > AUTHORS:
        raise AuthorError("it names too many")
    return tuple(found)


def _pieces(text: str) -> list[str]:
    pieces = []
    at = 0
    while at < len(text):
        match = _PIECE.match(text, at)
        if match is None:
            raise AuthorError("a quoted string has no end")
        pieces.append(match[0])
        at = match.end()
    return pieces


def _without_comments(pieces: list[str]) -> list[str]:
    kept = []
    depth = 0
    for piece in pieces:
        if piece == "(":
            depth += 1
        elif piece == ")":
            depth -= 1
            if depth < 0:
                raise AuthorError("a closing parenthesis has no opening one")
        elif depth == 0:
            kept.append(piece)
    if depth:
        raise AuthorError("a comment has no end")
    return kept


def _mailboxes(pieces: list[str]) -> list[list[str]]:
    """Split at the commas of the list and of groups; each part is the pieces of one mailbox, blanks left out."""
    parts: list[list[str]] = [[]]
    bracketed = False
    for piece in pieces:
        if piece == "<":
            bracketed = True
        elif piece == ">":
            bracketed = False
        if not bracketed and piece in (",", ";"):
            parts.append([])
        elif not bracketed and piece == ":":
            parts[-1] = []  # what stood before was the name of a group
        elif piece.strip(" \t"):
            parts[-1].append(piece)
    return [part for part in parts if part]


def _address(pieces: list[str]) -> Address:
    if "<" in pieces:
        begin = pieces.index("<")
        if pieces.count("<") != 1 or pieces.count(">") != 1 or pieces[-1] != ">" or "@" in pieces[:begin]:
            raise AuthorError("the angle brackets do not enclose one address at the end")
        pieces = pieces[begin + 1 : -1]
    elif ">" in pieces:
        raise AuthorError("a closing angle bracket has no opening one")
    try:
        address = Address.parse("".join(pieces))
    except AddressError as error:
        raise AuthorError(f"an address in it is wrong: {error}") from None
    if not address.domain:
        raise AuthorError("an address in it has no domain")
    return address
