"""What is told of a submission that is held: to the owner of the account, and to the postmaster, who can release it.

Once for each burst and not for each message: again after an hour without, or once a day while it goes on.  The notices
are accepted in the transaction that accepts the message.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from mailsrv.mail import header
from mailsrv.mail.address import POSTMASTER, Address
from mailsrv.smtp.house import House
from mailsrv.store import notices, queue_id
from mailsrv.store.message import Acceptance, Arrival, Hold
from mailsrv.store.notices import Notice
from mailsrv.store.spool import Also

QUIET_S = 3600.0
AGAIN_S = 86400.0
NAMED = 5  # recipients that are named


async def told(house: House, arrival: Arrival, hold: Hold, head: bytes) -> Also:
    """What the transaction that accepts ``arrival`` does besides, since it is held.  ``head`` is its header."""
    now = house.outside.wall()
    owner = Address.parse(arrival.account)
    what = _what(arrival, head)
    subject = f"Mail sent as {arrival.account} is held"
    # An owner who is the postmaster gets one mail, with what the postmaster can do.
    wanted = [(f"held {arrival.account}", owner, _for_postmaster(arrival, hold, what))]
    if house.settings.directory.resolve(POSTMASTER) != house.settings.directory.resolve(owner):
        for_owner = _for_owner(arrival, hold, what, house.settings.directory.domains[0])
        wanted = [
            (f"held {arrival.account}", owner, for_owner),
            (f"held {arrival.account}, postmaster", POSTMASTER, _for_postmaster(arrival, hold, what)),
        ]
    about = queue_id.text(arrival.id)
    composed = [
        await house.notices.wanted(Notice(cause, quiet_s=QUIET_S, again_s=AGAIN_S), to, subject, text, now, about)
        for cause, to, text in wanted
    ]

    def also(connection: sqlite3.Connection) -> Sequence[Acceptance]:
        return notices.accept(connection, now, composed)

    return also


def _what(arrival: Arrival, head: bytes) -> str:
    addresses = list(dict.fromkeys(str(recipient.original) for recipient in arrival.recipients))
    more = f" and {len(addresses) - NAMED} more" if len(addresses) > NAMED else ""
    subject = header.decoded(header.field(head, "Subject") or b"") or "(none)"
    return (
        f"  Queue id: {queue_id.text(arrival.id)}\n"
        f"  Subject: {subject}\n"
        f"  To: {', '.join(addresses[:NAMED])}{more}\n"
        f"  Sent from: {arrival.client}\n"
    )


def _for_owner(arrival: Arrival, hold: Hold, what: str, domain: str) -> str:
    return (
        f"A message that was sent with your account {arrival.account} is held: the server has taken it, and sends it "
        "only when the postmaster says so. This is the first; more like it may follow, and are held too.\n\n"
        f"{what}\n"
        f"Why: {hold.reason}. Mail like this often means that somebody else has the password.\n\n"
        f"If it was you: write to postmaster@{domain}, who can let it go. Nothing is lost, and it does not expire. "
        "There is no need to send it again.\n\n"
        "If it was not you: tell the postmaster so, and have your password changed at once.\n"
    )


def _for_postmaster(arrival: Arrival, hold: Hold, what: str) -> str:
    return (
        f"A message that was sent with the account {arrival.account} is held until you decide. This is the first; "
        "more like it may follow, and are held too. The owner of the account is told as well.\n\n"
        f"{what}\n"
        f"Why: {hold.reason}. Decided by: {hold.rule}.\n\n"
        "`mailsrv queue list --held` shows what is held. Ask the owner, not by mail.\n\n"
        f"If all is well: `mailsrv queue release --account {arrival.account}` sends it, and the network counts as "
        "known.\n\n"
        f"If not: `mailsrv account passwd {arrival.account}` first, then `mailsrv queue remove --account "
        f"{arrival.account}`.\n"
    )
