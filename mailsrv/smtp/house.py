"""What all sessions share: the settings, the world, the store, the checks, the signer."""

from __future__ import annotations

from dataclasses import dataclass

from mailsrv.checks.bursts import Bursts
from mailsrv.checks.caps import Caps
from mailsrv.checks.ordered import Checks
from mailsrv.checks.penalties import Penalties
from mailsrv.dkim.signer import Signer
from mailsrv.outside.interfaces import Outside
from mailsrv.store.accounts.passwords import Passwords
from mailsrv.store.mailbox.usage import MailboxUsage
from mailsrv.store.notices import Notices
from mailsrv.store.recorder import Recorder
from mailsrv.store.settings import Settings
from mailsrv.store.spool import Spool


@dataclass(frozen=True, slots=True)
class House:
    """One for the whole server."""

    settings: Settings
    outside: Outside
    spool: Spool
    passwords: Passwords
    penalties: Penalties
    recorder: Recorder
    checks: Checks
    caps: Caps
    signer: Signer
    bursts: Bursts
    notices: Notices
    usage: MailboxUsage
