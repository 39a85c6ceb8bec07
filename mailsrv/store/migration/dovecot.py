"""Files that Dovecot keeps in a Maildir: ``dovecot-uidlist`` and ``dovecot-keywords``.

The POP3 unique-id of a message is its ``P`` field in the uidlist, else it is made of IMAP's UID and UIDVALIDITY by
Dovecot's setting pop3_uidl_format, of which ``%u`` (UID), ``%v`` (UIDVALIDITY) and ``%f`` (the file's name) are
understood, with width and ``X`` for hexadecimal.  A message that is not in the list was never shown to a client.

The formats are those of Dovecot's documentation (Maildir mailbox format); version 1 of the uidlist is Dovecot 1.0's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Final

UIDLIST: Final = "dovecot-uidlist"
KEYWORDS: Final = "dovecot-keywords"
INDEX: Final = "dovecot.index.log"  # what every Dovecot that has opened a Maildir leaves there
DEFAULT_FORMAT: Final = "%08Xu%08Xv"

_HEADER = re.compile(rb"3 (.*)")
_HEADER_1 = re.compile(rb"1 ([0-9]{1,10}) [0-9]{1,10}")
_RECORD = re.compile(rb"([0-9]{1,10})((?: [A-Za-z][^ ]*)*) :(.+)")
_RECORD_1 = re.compile(rb"([0-9]{1,10}) (.+)")
_VALIDITY = re.compile(rb"V([0-9]{1,10})")
_VARIABLE = re.compile(r"%(0?)([0-9]{0,2})(X?)([uvf%])")
_KEYWORD = re.compile(rb"([0-9]{1,2}) (\S+)")


class UidlFormat:
    """How a Dovecot makes unique-ids (ValueError for what is not understood)."""

    def __init__(self, text: str = DEFAULT_FORMAT) -> None:
        rest = _VARIABLE.sub("", text)
        if "%" in rest or not _VARIABLE.search(text):
            raise ValueError(f'"{text}": of pop3_uidl_format only %u, %v and %f are understood, as in {DEFAULT_FORMAT}')
        self._text = text

    def uidl(self, uid: int, validity: int, name: str) -> str:
        """The unique-id of the message with this UID, in a folder of this UIDVALIDITY, in the file ``name``."""

        def value(found: re.Match[str]) -> str:
            zero, width, hexadecimal, variable = found.groups()
            if variable == "%":
                return "%"
            if variable == "f":
                return name
            number = uid if variable == "u" else validity
            return format(number, f"{zero}{width}{'x' if hexadecimal else 'd'}")

        return _VARIABLE.sub(value, self._text)


def uidls(uidlist: bytes, form: UidlFormat) -> dict[str, str]:
    """The unique-ids in a uidlist by the name of the file without flags (ValueError: it is no uidlist)."""
    header, *lines = uidlist.split(b"\n")
    version_1 = _HEADER_1.fullmatch(header)
    version_3 = _HEADER.fullmatch(header)
    validity = _VALIDITY.search(b" " + version_3[1]) if version_3 else None
    if version_1 is None and validity is None:
        raise ValueError("it does not begin as a dovecot-uidlist does")
    number = int((version_1 or validity or [b"", b""])[1])
    found: dict[str, str] = {}
    for line in lines:
        record = (_RECORD_1 if version_1 else _RECORD).fullmatch(line)
        if record is None:
            continue
        name = os.fsdecode(record[record.re.groups].partition(b":")[0])
        fields = [] if version_1 else record[2].split()
        explicit = [field[1:] for field in fields if field.startswith(b"P") and len(field) > 1]
        found[name] = os.fsdecode(explicit[0]) if explicit else form.uidl(int(record[1]), number, name)
    return found


def uidlist(validity: int, guid: str, given: Iterable[tuple[str, str]]) -> bytes:
    """A uidlist that makes Dovecot show these unique-ids: pairs of a file's name and its unique-id, in their order."""
    lines = [f"{uid} P{uidl} :{name}" for uid, (name, uidl) in enumerate(given, 1)]
    header = f"3 V{validity} N{len(lines) + 1} G{guid}"
    return b"".join(os.fsencode(line) + b"\n" for line in (header, *lines))


def keywords(text: bytes) -> dict[str, str]:
    """The names of the keywords, by the letter that stands for them in the flags of files."""
    found = [_KEYWORD.fullmatch(line) for line in text.split(b"\n")]
    return {chr(ord("a") + int(line[1])): os.fsdecode(line[2]) for line in found if line and int(line[1]) < 26}


def keywords_file(names: Mapping[str, str]) -> bytes:
    """The opposite of ``keywords``."""
    return b"".join(os.fsencode(f"{ord(letter) - ord('a')} {name}\n") for letter, name in sorted(names.items()))
