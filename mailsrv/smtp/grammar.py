"""Grammar of the arguments of SMTP commands (RFC 5321 4.1.1, 4.1.2, and the extensions that add parameters).

Pure functions from the octets of an argument to a value, or ``CommandError`` with the reply that refuses it.  Command
lines come here already free of control characters.  Numbers are ASCII digits of bounded length, each parameter may be
given once, and what a parameter decodes to (xtext, RFC 3461 4) holds no control characters either, so that nothing a
client says can become a line of a header, a log or another command.

Honoured leniently, because it harms nothing: spaces behind the colon of MAIL FROM: and RCPT TO:, and between
parameters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from mailsrv.mail.address import Address, AddressError
from mailsrv.mail.envelope import Envelope, Recipient
from mailsrv.sasl.base64 import decode_initial
from mailsrv.smtp import replies
from mailsrv.smtp.events import Mail
from mailsrv.smtp.replies import Reply

# Longest command lines, CRLF not counted.  RFC 5321 4.5.3.1.4, and what SIZE (26), 8BITMIME (17), SMTPUTF8 (10), AUTH
# (500), DSN (500) and FUTURERELEASE (34) add to MAIL and RCPT; RFC 4954 4 for AUTH and its responses.
COMMAND_LIMIT = 510
MAIL_LIMIT = RCPT_LIMIT = COMMAND_LIMIT + 26 + 17 + 10 + 500 + 500 + 34
AUTH_LIMIT = 12_286

ENVID_LIMIT = 100  # RFC 3461 4.4, as written
ORCPT_LIMIT = 500  # RFC 3461 4.2, as written

# A path, up to the > that ends it; a quoted string may hold <, > and spaces.
_PATH = rb'<((?:[^"<> ]|"(?:[^"\\]|\\.)*+")*+)>'
_MAIL = re.compile(rb"FROM: *+" + _PATH + rb"(?: +(.*))?", re.IGNORECASE)
# What nearly all clients say; the same value comes out either way.
_USUAL_MAIL = re.compile(rb"FROM:<([!#-;=?-~]*)>(?: SIZE=([0-9]{1,20}))?(?: BODY=(7BIT|8BITMIME))?")
_USUAL_EXTENSIONS = frozenset({"SIZE", "8BITMIME"})
_RCPT = re.compile(rb"TO: *+" + _PATH + rb"(?: +(.*))?", re.IGNORECASE)
# RFC 5321 4.1.2 At-domain.
_AT_DOMAIN = r"@(?:\[[^\]@,]*\]|[^@,:\[\"<> ]+)"
_ROUTE = re.compile(rf"({_AT_DOMAIN}(?:,{_AT_DOMAIN})*):(.+)")
_HELLO = re.compile(rb"[A-Za-z0-9._:\[\]-]{1,255}")
_MECHANISM = re.compile(rb"([A-Za-z0-9_-]{1,20})(?: +([^ ]+))?")
_CHUNK = re.compile(rb"([0-9]{1,20})(?: +(LAST))?", re.IGNORECASE)
_PARAMETER = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^= ]+))?")
_SIZE = re.compile(rb"[0-9]{1,20}")
_SECONDS = re.compile(rb"[0-9]{1,9}")
_DATE_TIME = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_XTEXT = re.compile(r"(?:[!-*,-<>-~\u00a0-\U0010ffff]|\+[0-9A-F]{2})+")
_XTEXT_OCTET = re.compile(rb"\+([0-9A-F]{2})")
# RFC 6533 3: the type utf-8 may write a character as \x{HEX}.
_UNICODE_POINT = re.compile(r"\\x\{([0-9A-F]{1,6})\}")
_ADDRESS_TYPE = re.compile(rb"[A-Za-z0-9-]{1,64}")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class CommandError(Exception):
    """The command is refused with ``reply``."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


def hello(argument: bytes) -> str:
    """The name of HELO, EHLO, LHLO.  Looser than RFC 5321 4.1.1.1 (underscores too), yet safe in a header."""
    if not argument:
        raise CommandError(replies.ARGUMENT_MISSING)
    if not _HELLO.fullmatch(argument):
        raise CommandError(replies.BAD_HELLO)
    return argument.decode("ascii")


def mail(argument: bytes, extensions: frozenset[str]) -> Mail:
    """What follows MAIL (RFC 5321 4.1.1.2); parameters of ``extensions`` are accepted, SIZE and AUTH count as such."""
    usual = _USUAL_MAIL.fullmatch(argument)
    if usual and extensions >= _USUAL_EXTENSIONS:
        path, size, body = usual.groups()
        sender = _reverse_path(path, smtputf8=False)
        return Mail(Envelope(sender, body.decode() if body else "7BIT", size=int(size) if size else None))
    match = _MAIL.fullmatch(argument)
    if not match:
        raise CommandError(replies.MAIL_SYNTAX)
    path, rest = match.groups()
    if not rest:
        return Mail(Envelope(_reverse_path(path, smtputf8=False)))
    given = _parameters(rest, _MAIL_PARAMETERS, extensions)
    if "HOLDFOR" in given and "HOLDUNTIL" in given:  # RFC 4865 5
        raise CommandError(replies.BAD_PARAMETER)
    smtputf8 = "SMTPUTF8" in given
    if not smtputf8 and not rest.isascii():
        raise CommandError(replies.NEEDS_SMTPUTF8)
    return Mail(
        Envelope(
            sender=_reverse_path(path, smtputf8),
            body=given.get("BODY", "7BIT"),
            smtputf8=smtputf8,
            ret=given.get("RET", ""),
            envid=given.get("ENVID", ""),
            size=given.get("SIZE"),
        ),
        submitter=given.get("AUTH", ""),
        hold_for_s=given.get("HOLDFOR"),
        hold_until=given.get("HOLDUNTIL"),
    )


def rcpt(argument: bytes, extensions: frozenset[str], smtputf8: bool) -> Recipient:
    """What follows RCPT (RFC 5321 4.1.1.3).  ``smtputf8``: MAIL of this transaction asked for it."""
    match = _RCPT.fullmatch(argument)
    if not match:
        raise CommandError(replies.RCPT_SYNTAX)
    path, rest = match.groups()
    address = _path(path, smtputf8, replies.BAD_RECIPIENT)
    if not rest:
        return Recipient(address)
    given = _parameters(rest, _RCPT_PARAMETERS, extensions)
    if not smtputf8 and not rest.isascii():
        raise CommandError(replies.NEEDS_SMTPUTF8)
    return Recipient(address, given.get("ORCPT", ""), given.get("NOTIFY", ()))


def auth(argument: bytes) -> tuple[str, bytes | None]:
    """What follows AUTH (RFC 4954 4): the mechanism in upper case, and the decoded initial response or None."""
    match = _MECHANISM.fullmatch(argument)
    if not match:
        raise CommandError(replies.BAD_PARAMETER if argument else replies.ARGUMENT_MISSING)
    mechanism = match[1].decode("ascii").upper()
    if match[2] is None:
        return mechanism, None
    try:
        return mechanism, decode_initial(match[2])
    except ValueError:
        raise CommandError(replies.BAD_BASE64) from None


def chunk(argument: bytes) -> tuple[int, bool]:
    """What follows BDAT (RFC 3030 2): octets to come, and whether they are the last."""
    match = _CHUNK.fullmatch(argument)
    if not match:
        raise CommandError(replies.BAD_CHUNK)
    return int(match[1]), match[2] is not None


def date_time(value: bytes) -> float:
    """Seconds since 1970 of an RFC 3339 date in UTC without fractions, as ``2027-01-31T00:00:00Z``; ValueError."""
    if not _DATE_TIME.fullmatch(value):
        raise ValueError("not a date and time in UTC")
    # Not strptime: that imports a module when it is first called, which may be forbidden once root is given up.
    return datetime.fromisoformat(value.decode("ascii")).timestamp()


def _reverse_path(path: bytes, smtputf8: bool) -> Address | None:
    if not path:
        return None
    address = _path(path, smtputf8, replies.BAD_SENDER)
    if not address.domain:
        raise CommandError(replies.BAD_SENDER)
    return address


def _path(path: bytes, smtputf8: bool, refusal: Reply) -> Address:
    if not smtputf8 and not path.isascii():
        raise CommandError(replies.NEEDS_SMTPUTF8)  # RFC 6531 3.5
    try:
        return _parse_path(path)
    except ValueError:
        raise CommandError(refusal) from None


@lru_cache(maxsize=1024)
def _parse_path(path: bytes) -> Address:
    """The mailbox of a path; ValueError.  Remembered, for the same few come again and again."""
    text = path.decode()
    return Address.parse(_without_route(text) if text.startswith("@") else text)


def _without_route(text: str) -> str:
    """RFC 5321 4.1.2, 3.6.1, appendix C: a source route is accepted, checked and ignored."""
    match = _ROUTE.fullmatch(text)
    if not match:
        raise AddressError("a malformed source route")
    for at_domain in match[1].split(","):
        Address.parse("x" + at_domain)
    return match[2]


Parameters = Mapping[str, tuple[str, Callable[[bytes | None], Any]]]


def _parameters(text: bytes, known: Parameters, extensions: frozenset[str]) -> dict[str, Any]:
    """RFC 5321 4.1.2 Mail-parameters, Rcpt-parameters: values by upper-case keyword."""
    given: dict[str, Any] = {}
    for word in text.split(b" "):
        if not word:
            continue
        match = _PARAMETER.fullmatch(word)
        if not match:
            raise CommandError(replies.BAD_PARAMETER)
        keyword = match[1].decode("ascii").upper()
        extension, parse = known.get(keyword, ("", _flag))
        if extension not in extensions:
            raise CommandError(replies.UNKNOWN_PARAMETER)
        if keyword in given:
            raise CommandError(replies.BAD_PARAMETER)
        try:
            given[keyword] = parse(match[2])
        except ValueError:
            raise CommandError(replies.BAD_PARAMETER) from None
    return given


# One parser per parameter: from the value (None without one) to what it means; ValueError refuses it.


def _flag(value: bytes | None) -> bool:
    if value is not None:
        raise ValueError("a value where none is allowed")
    return True


def _size(value: bytes | None) -> int:
    if value is None or not _SIZE.fullmatch(value):
        raise ValueError("SIZE is 1 to 20 digits")  # RFC 1870 4
    return int(value)


def _choice(*choices: str) -> Callable[[bytes | None], str]:
    names = {name.encode("ascii"): name for name in choices}

    def parse(value: bytes | None) -> str:
        name = names.get((value or b"").upper())
        if name is None:
            raise ValueError("not one of the choices")
        return name

    return parse


def _decode_xtext(value: bytes, charset: str) -> str:
    """RFC 3461 4 xtext; printable text comes back, or ValueError (UnicodeDecodeError is one)."""
    if not _XTEXT.fullmatch(value.decode()):
        raise ValueError("not xtext")
    text = _XTEXT_OCTET.sub(lambda match: bytes([int(match[1], 16)]), value).decode(charset)
    if _UNPRINTABLE.search(text):
        raise ValueError("control characters")
    return text


def _envid(value: bytes | None) -> str:
    if value is None or len(value) > ENVID_LIMIT:
        raise ValueError("ENVID is 1 to 100 characters")
    return _decode_xtext(value, "ascii")


def _submitter(value: bytes | None) -> str:
    """RFC 4954 5: ``<>`` or a mailbox."""
    if value is None:
        raise ValueError("AUTH without a value")
    text = _decode_xtext(value, "utf-8")
    return text if text == "<>" else str(Address.parse(text))  # an AddressError is a ValueError


def _hold_for(value: bytes | None) -> int:
    if value is None or not _SECONDS.fullmatch(value):
        raise ValueError("HOLDFOR is 1 to 9 digits")  # RFC 4865 5
    return int(value)


def _hold_until(value: bytes | None) -> float:
    return date_time(value or b"")


def _original(value: bytes | None) -> str:
    """RFC 3461 4.2 and, for the type utf-8, RFC 6533 3: ``type;address``, decoded, the type in lower case."""
    if value is None or len(value) > ORCPT_LIMIT:
        raise ValueError("ORCPT is 1 to 500 characters")
    kind, semicolon, address = value.partition(b";")
    if not semicolon or not _ADDRESS_TYPE.fullmatch(kind):
        raise ValueError("ORCPT is type;address")
    if kind.lower() != b"utf-8":
        return f"{kind.decode('ascii').lower()};{_decode_xtext(address, 'ascii')}"
    text = _UNICODE_POINT.sub(lambda match: chr(int(match[1], 16)), _decode_xtext(address, "utf-8"))
    if _UNPRINTABLE.search(text):
        raise ValueError("control characters")
    return f"utf-8;{text}"


def _notify(value: bytes | None) -> tuple[str, ...]:
    """RFC 3461 4.1."""
    words = (value or b"").upper().split(b",")
    if words == [b"NEVER"]:
        return ("NEVER",)
    if len(set(words)) != len(words) or not set(words) <= {b"SUCCESS", b"FAILURE", b"DELAY"}:
        raise ValueError("NOTIFY is NEVER or a list of SUCCESS, FAILURE, DELAY")
    return tuple(sorted(word.decode("ascii") for word in words))


_MAIL_PARAMETERS: Parameters = {
    "SIZE": ("SIZE", _size),  # RFC 1870
    "BODY": ("8BITMIME", _choice("7BIT", "8BITMIME")),  # RFC 6152
    "SMTPUTF8": ("SMTPUTF8", _flag),  # RFC 6531
    "AUTH": ("AUTH", _submitter),  # RFC 4954
    "RET": ("DSN", _choice("FULL", "HDRS")),  # RFC 3461
    "ENVID": ("DSN", _envid),
    "HOLDFOR": ("FUTURERELEASE", _hold_for),  # RFC 4865
    "HOLDUNTIL": ("FUTURERELEASE", _hold_until),
}
_RCPT_PARAMETERS: Parameters = {"NOTIFY": ("DSN", _notify), "ORCPT": ("DSN", _original)}
