"""``courierpop3dsizelist``: the POP3 unique-ids that Courier gave to the messages of a Maildir.

A header ``/VERSION NEXT VALIDITY``, then a line ``name size uid:validity`` for each message, with one more field in
version 3.  The unique-id is ``UID<uid>-<validity>``, ``UID<uid>`` without a validity; and for messages from before that
scheme (uid 0) the name of the file, in which some characters are written ``+XX``.
"""

from __future__ import annotations

import os
import re
from typing import Final

SIZELIST: Final = "courierpop3dsizelist"

_HEADER = re.compile(rb"/[123] [0-9]{1,20}(?: [0-9]{1,20})?")
_RECORD = re.compile(rb"(.+) [0-9]{1,20} ([0-9]{1,20}):([0-9]{1,20})(?::[01])?")
_ESCAPED = re.compile(rb"[^!#-&(-*,-~]")


def uidls(sizelist: bytes) -> dict[str, str]:
    """The unique-ids by the name of the file without flags (ValueError: it is no such list)."""
    header, *lines = sizelist.split(b"\n")
    if not _HEADER.fullmatch(header):
        raise ValueError(f"it does not begin as a {SIZELIST} does")
    found: dict[str, str] = {}
    for line in lines:
        record = _RECORD.fullmatch(line)
        if record is None:
            continue
        name = record[1].partition(b":")[0]
        uid, validity = int(record[2]), int(record[3])
        if uid:
            uidl = f"UID{uid}-{validity}" if validity else f"UID{uid}"
        else:
            uidl = _ESCAPED.sub(lambda octet: b"+%02X" % octet[0][0], name).decode("ascii")
        found[os.fsdecode(name)] = uidl
    return found
