"""Messages per second by POP3 from a Maildir of 2,000 messages of 4 KiB, beside Dovecot.

One login each: STAT, UIDL, RETR of all, QUIT; by one client, and by twenty at a time on mailboxes of their own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def run(place: Path, rounds: int, quiet: bool) -> dict[str, Any]:
    raise SystemExit("bench: retrieve is not written yet")
