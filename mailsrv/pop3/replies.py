"""Replies of a POP3 server: one line, +OK or -ERR, and a response code where it helps (RFC 1939 3, 2449 8, 3206).

The text is printable ASCII and never repeats what the client sent.
"""

from __future__ import annotations

import re

_TEXT = re.compile(r"[\x20-\x7e]{1,500}")  # RFC 2449 4: at most 512 octets with the CRLF and the indicator

# RFC 2449 8.1 and 3206 4: codes that a client's program understands.
IN_USE = "IN-USE"
AUTH = "AUTH"
TEMPORARY = "SYS/TEMP"
PERMANENT = "SYS/PERM"


def ok(text: str) -> bytes:
    """A positive reply; ValueError when ``text`` is not printable ASCII."""
    return b"+OK %b\r\n" % _checked(text)


def err(text: str, code: str = "") -> bytes:
    """A negative reply, with a response code or none; ValueError as above."""
    # RFC 2449 8: text that begins with [ would be taken for a code.
    return b"-ERR %b\r\n" % _checked(f"[{code}] {text}" if code else text.lstrip("["))


def _checked(text: str) -> bytes:
    if not _TEXT.fullmatch(text):
        raise ValueError("the text of a reply is printable ASCII")
    return text.encode()


BAD_LOGIN = err("the user name or the password is wrong", AUTH)
LOGIN_BUSY = err("too many are logging in, try again in a minute", TEMPORARY)
LOGIN_IN_USE = err("another session has the mailbox open", IN_USE)
MAILBOX_TROUBLE = err("the mailbox cannot be opened at present", TEMPORARY)
NO_SUCH_MESSAGE = err("there is no such message")
MESSAGE_GONE = err("another program has removed the message")
MESSAGE_TROUBLE = err("the message cannot be read at present", TEMPORARY)
UPDATE_TROUBLE = err("some deleted messages not removed", TEMPORARY)
TURNED_AWAY = err("too many connections, try again in a minute", TEMPORARY)
GOING_DOWN = err("the server is going down, try again in a minute", TEMPORARY)
