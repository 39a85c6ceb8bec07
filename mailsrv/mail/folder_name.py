"""Names of mail folders: as people write them, and as Maildir++ names their directories.

People write ``Sent/2026``; the directory is ``.Sent.2026``, and whatever is not printable ASCII is in the modified
UTF-7 of IMAP (RFC 3501 5.1.3), as Dovecot and Courier write it.  The inbox is "", the Maildir itself.

Refuses (ValueError) what would be no single directory below the mailbox.
"""

from __future__ import annotations

import binascii
import re

_OTHERS = re.compile(r"[^\x20-\x7e]+")
_SHIFTED = re.compile(r"&([A-Za-z0-9+,]*)-")
_LENGTH = 200  # octets; 255 is what most file systems take


def directory_of(name: str) -> str:
    """The directory of the folder that people call ``name``; "" for INBOX (ValueError).

    >>> directory_of("Entwürfe/2026")
    '.Entw&APw-rfe.2026'
    """
    if name.upper() == "INBOX":
        return ""
    parts = name.replace(".", "/").split("/")
    if not all(part.strip() for part in parts) or any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in name):
        raise ValueError("a part of the folder's name is empty or has control characters")
    directory = "".join(f".{_encoded(part)}" for part in parts)
    if len(directory) > _LENGTH:
        raise ValueError("the name of the folder is too long")
    return directory


def name_of(directory: str) -> str:
    """What people call the folder in ``directory``; what is not in modified UTF-7 stays as it is.

    >>> name_of(".Entw&APw-rfe.2026")
    'Entwürfe/2026'
    """
    if not directory:
        return "INBOX"
    return "/".join(_SHIFTED.sub(_decoded, part) for part in directory.removeprefix(".").split("."))


def _encoded(part: str) -> str:
    def shift(found: re.Match[str]) -> str:
        octets = binascii.b2a_base64(found[0].encode("utf-16-be"), newline=False).decode("ascii")
        return f"&{octets.rstrip('=').replace('/', ',')}-"

    return _OTHERS.sub(shift, part.replace("&", "&-"))


def _decoded(found: re.Match[str]) -> str:
    text = found[1].replace(",", "/")
    if not text:
        return "&"
    try:
        return binascii.a2b_base64(text + "=" * (-len(text) % 4)).decode("utf-16-be")
    except ValueError:
        return found[0]
