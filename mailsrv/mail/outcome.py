"""What became of one recipient in one attempt: a value, never an exception.

Every delivery agent, local or remote, answers with outcomes; the spool records them, the ledger
tells of them, a report quotes them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Result(enum.Enum):
    DELIVERED = "delivered"  # stored, or the next hop took responsibility
    DEFERRED = "deferred"  # try again later
    FAILED = "failed"  # never: the sender is told


@dataclass(frozen=True, slots=True)
class Outcome:
    """``status`` is an enhanced status code (RFC 3463) such as ``"4.4.1"``.

    ``reason`` is our own sentence in plain words.  ``answer`` is what the other server said, cleaned of
    control characters and bounded, "" when it said nothing.  ``remote`` names the host that
    answered as ``name [address]:port``, "" when none did.  ``rule`` names the setting, record or RFC
    that decided.  ``tls`` tells of the channel, such as ``"TLSv1.3 TLS_AES_256_GCM_SHA384, unverified"``.
    ``tells_sender``: who took the message also took over telling the sender what becomes of it (RFC 3461).
    """

    result: Result
    status: str
    reason: str
    answer: str = ""
    remote: str = ""
    rule: str = ""
    tls: str = ""
    tells_sender: bool = False
