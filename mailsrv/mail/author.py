"""Who a message says it is from: the addresses of its From field (RFC 5322 3.4, 3.6.2).

Only the addresses are read; display names, comments and groups are passed over, so nothing that stands in a display
name is ever taken for an address.  What does not parse is an ``AuthorError``: who cannot be read cannot be trusted.
"""

from __future__ import annotations

import re

from mailsrv.mail.address import Address, AddressError

AUTHORS = 100  # addresses in one field that are read

# A token: a quoted string, a quoted pair within it included; white space; or a run of other octets.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[ \t]+|[<>,;:()@]|[^ \t<>,;:()"@]+', re.DOTALL)


class AuthorError(ValueError):
    """The field cannot be read; the message says why, for people."""


def authors(value: bytes) -> tuple[Address, ...]:
    """The addresses in the unfolded value of a From field, in their order; at least one (AuthorError)."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise AuthorError("it is not UTF-8") from None
    found = [_address(mailbox) for mailbox in _mailboxes(_without_comments(_tokens(text)))]
    if not found:
        raise AuthorError("it names nobody")
    if len(found) > AUTHORS:
        raise AuthorError("it names too many")
    return tuple(found)


def _tokens(text: str) -> list[str]:
    tokens = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise AuthorError("a quoted string has no end")
        tokens.append(match[0])
        at = match.end()
    return tokens


def _without_comments(tokens: list[str]) -> list[str]:
    kept = []
    depth = 0
    for token in tokens:
        if token == "(":
            depth += 1
        elif token == ")":
            depth -= 1
            if depth < 0:
                raise AuthorError("a closing parenthesis has no opening one")
        elif depth == 0:
            kept.append(token)
    if depth:
        raise AuthorError("a comment has no end")
    return kept


def _mailboxes(tokens: list[str]) -> list[list[str]]:
    """Split at the commas of the list and of groups; each part is the tokens of one mailbox, blanks left out."""
    parts: list[list[str]] = [[]]
    bracketed = False
    for token in tokens:
        if token == "<":
            bracketed = True
        elif token == ">":
            bracketed = False
        if not bracketed and token in (",", ";"):
            parts.append([])
        elif not bracketed and token == ":":
            parts[-1] = []  # what stood before was the name of a group
        elif token.strip(" \t"):
            parts[-1].append(token)
    return [part for part in parts if part]


def _address(tokens: list[str]) -> Address:
    if "<" in tokens:
        begin = tokens.index("<")
        if tokens.count("<") != 1 or tokens.count(">") != 1 or tokens[-1] != ">" or "@" in tokens[:begin]:
            raise AuthorError("the angle brackets do not enclose one address at the end")
        tokens = tokens[begin + 1 : -1]
    elif ">" in tokens:
        raise AuthorError("a closing angle bracket has no opening one")
    try:
        address = Address.parse("".join(tokens))
    except AddressError as error:
        raise AuthorError(f"an address in it is wrong: {error}") from None
    if not address.domain:
        raise AuthorError("an address in it has no domain")
    return address
