"""What a POP3 client may write (RFC 1939 3, 2449 4, 5034 4): command lines and their arguments.

Refused: control characters anywhere, what is not UTF-8, numbers that are anything but a few ASCII digits.
"""

from __future__ import annotations

import re

LINE_LIMIT = 253  # RFC 2449 4: a command has at most 255 octets with its CRLF
SASL_LINE_LIMIT = 12_288 - 2  # RFC 4954 4.5.3's figure; RFC 5034 gives none of its own

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_DIGITS = 10  # enough for every message there can be
# RFC 4422 3.1: names of mechanisms.
_MECHANISM = re.compile(r"[A-Za-z0-9_-]{1,20}")


class SyntaxProblem(Exception):
    """The line means nothing; the message says why, in English and without quoting it."""


def parse_command(line: bytes) -> tuple[str, str]:
    """Verb in upper case and argument of a line without its CRLF: "" for none.  SyntaxProblem.

    The argument is all that follows one space, for a password may contain and end in spaces (RFC 1939 7, PASS).
    """
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise SyntaxProblem("the command is not UTF-8") from None
    # Printable text has no control characters, and that is soon seen.
    if not text.isprintable() and _CONTROL.search(text):
        raise SyntaxProblem("the command contains control characters")
    verb, _, argument = text.partition(" ")
    if not verb.isascii():
        raise SyntaxProblem("there is no such command")
    return verb.upper(), argument


def parse_number(text: str) -> int:
    """SyntaxProblem unless ``text`` is one to ten ASCII digits."""
    # int() would take more than that.
    if len(text) > _DIGITS or not (text.isdigit() and text.isascii()):
        raise SyntaxProblem("a number is needed here")
    return int(text)


def parse_two_numbers(text: str) -> tuple[int, int]:
    """The arguments of TOP."""
    first, _, second = text.partition(" ")
    return parse_number(first), parse_number(second)


def parse_auth(text: str) -> tuple[str, bytes | None]:
    """Mechanism in upper case and initial response still in base64, None without one (RFC 5034 4)."""
    mechanism, space, initial = text.partition(" ")
    if not _MECHANISM.fullmatch(mechanism):
        raise SyntaxProblem("AUTH needs the name of a mechanism")
    return mechanism.upper(), initial.encode() if space else None


def no_argument(text: str) -> None:
    """SyntaxProblem when there is one."""
    if text:
        raise SyntaxProblem("this command has no argument")
