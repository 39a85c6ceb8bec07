"""Replies of a POP3 server: one line, +OK or -ERR, and a response code where it helps (RFC 1939 3, 2449 8, 3206).

The text is one line of printable characters and never repeats what the client sent.  It is ASCII unless the client has
asked for a language that needs more (RFC 6856 3).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mailsrv.pop3.languages import DEFAULT, Language

_LIMIT = 500  # octets; RFC 2449 4: at most 512 with the CRLF and the indicator
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Refusal:
    """-ERR.  ``code`` is for the client's program, "" for none (RFC 2449 8.1, 3206 4)."""

    text: str
    code: str = ""


def ok(text: str, *values: object, language: Language = DEFAULT) -> bytes:
    """A positive reply; ValueError when it would be no single line."""
    return b"+OK %b\r\n" % _checked(language.say(text, *values), language)


def err(refusal: Refusal, language: Language = DEFAULT) -> bytes:
    """A negative reply; ValueError as above."""
    text = language.say(refusal.text)
    # RFC 2449 8: text that begins with [ would be taken for a code.
    return b"-ERR %b\r\n" % _checked(f"[{refusal.code}] {text}" if refusal.code else text.lstrip("["), language)


def _checked(text: str, language: Language) -> bytes:
    encoded = text.encode()
    if not 0 < len(encoded) <= _LIMIT or _CONTROL.search(text) or not (language.texts or text.isascii()):
        raise ValueError("the text of a reply is one line of printable characters")
    return encoded


BAD_LOGIN = Refusal("the user name or the password is wrong", "AUTH")
LOGIN_BUSY = Refusal("too many are logging in, try again in a minute", "SYS/TEMP")
LOGIN_TOO_SOON = Refusal("the last login was too short a time ago", "LOGIN-DELAY")
LOGIN_IN_USE = Refusal("another session has the mailbox open", "IN-USE")
MAILBOX_TROUBLE = Refusal("the mailbox cannot be opened at present", "SYS/TEMP")
MAILBOX_BROKEN = Refusal("the mailbox cannot be opened, its operator has to look", "SYS/PERM")
NO_SUCH_MESSAGE = Refusal("there is no such message")
MESSAGE_GONE = Refusal("another program has removed the message")
MESSAGE_TROUBLE = Refusal("the message cannot be read at present", "SYS/TEMP")
MESSAGE_BROKEN = Refusal("the message cannot be read, its operator has to look", "SYS/PERM")
UPDATE_TROUBLE = Refusal("some deleted messages not removed", "SYS/TEMP")
TURNED_AWAY = Refusal("too many connections, try again in a minute", "SYS/TEMP")
GOING_DOWN = Refusal("the server is going down, try again in a minute", "SYS/TEMP")
TOO_MANY_ERRORS = Refusal("too many errors")
BARE_LF = Refusal("a line ends in CR LF, not in LF alone")
