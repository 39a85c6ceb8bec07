"""Who a message says it is from: the addresses of its From field (RFC 5322 3.4, 3.6.2).

Only the addresses are read; display names, comments and groups are passed over, so nothing that stands in a display
name is ever taken for an address.  What does not parse is an ``AuthorError``: who cannot be read cannot be trusted.
"""

from __future__ import annotations

import re
from functools import lru_cache

from mailsrv.mail.address import Address, AddressError

LONGEST = 16 * 1024  # octets of a field that is read
AUTHORS = 100  # addresses in one field that are read

# A piece: a quoted string, a quoted pair within it included; white space; or a run of other octets.
_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|[ \t]+|[<>,;:()@]|[^ \t<>,;:()"@]+', re.DOTALL)
# Within a comment only parentheses and quoted pairs mean something, quotes do not (RFC 5322 3.2.2).
_COMMENTED = re.compile(r"[()]|\\.|[^()\\]+|\\\Z", re.DOTALL)


class AuthorError(ValueError):
    """The field cannot be read; the message says why, for people."""


@lru_cache(maxsize=256)  # those who write here write again
def authors(value: bytes) -> tuple[Address, ...]:
    """The addresses in the unfolded value of a From field, in their order; at least one (AuthorError)."""
    if len(value) > LONGEST:
        raise AuthorError("it is too long")
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise AuthorError("it is not UTF-8") from None
    found = [_address(mailbox) for mailbox in _mailboxes(_pieces(text))]
    if not found:
        raise AuthorError("it names nobody")
    if len(found) > AUTHORS:
        raise AuthorError("it names too many")
    return tuple(found)


def _pieces(text: str) -> list[str]:
    """What stands outside of comments; a comment is as white space is."""
    pieces = []
    at = depth = 0
    while at < len(text):
        match = (_COMMENTED if depth else _PIECE).match(text, at)
        if match is None:
            raise AuthorError("a quoted string has no end")
        piece = match[0]
        at = match.end()
        if piece == "(":
            depth += 1
        elif piece == ")":
            depth -= 1
            if depth < 0:
                raise AuthorError("a closing parenthesis has no opening one")
            piece = " "
        if not depth:
            pieces.append(piece)
    if depth:
        raise AuthorError("a comment has no end")
    return pieces


def _mailboxes(pieces: list[str]) -> list[list[str]]:
    """Split at the commas of the list and of groups; each part is the pieces of one mailbox, without outer blanks."""
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
            # What stood before was the name of a group; with an @ in it, it would look like one of the authors.
            if "@" in parts[-1]:
                raise AuthorError("a group has an address for a name")
            parts[-1] = []
        elif piece.strip(" \t") or parts[-1]:
            parts[-1].append(piece)
    return [stripped for part in parts if (stripped := _stripped(part))]


def _stripped(pieces: list[str]) -> list[str]:
    end = len(pieces)
    while end and not pieces[end - 1].strip(" \t"):
        end -= 1
    return pieces[:end]


def _address(pieces: list[str]) -> Address:
    if "<" in pieces:
        begin = pieces.index("<")
        if pieces.count("<") != 1 or pieces.count(">") != 1 or pieces[-1] != ">" or "@" in pieces[:begin]:
            raise AuthorError("the angle brackets do not enclose one address at the end")
        pieces = pieces[begin + 1 : -1]
    elif ">" in pieces:
        raise AuthorError("a closing angle bracket has no opening one")
    try:
        address = Address.parse(_joined(pieces))
    except AddressError as error:
        raise AuthorError(f"an address in it is wrong: {error}") from None
    if not address.domain:
        raise AuthorError("an address in it has no domain")
    return address


def _joined(pieces: list[str]) -> str:
    """An address without the blanks that may stand beside its @ and its dots (RFC 5322 4.4), and with all others."""
    joined = ""
    blank = False
    for piece in pieces:
        if not piece.strip(" \t"):
            blank = True
            continue
        if blank and joined and joined[-1] not in "@." and piece[0] not in "@.":
            joined += " "
        joined += piece
        blank = False
    return joined
