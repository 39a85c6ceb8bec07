"""Which checks there are, and in which order they are asked."""

from __future__ import annotations

from mailsrv.checks.blocklists import Blocklists
from mailsrv.checks.first_contact import FirstContact
from mailsrv.checks.hop_limit import HopLimit
from mailsrv.checks.ordered import Checks
from mailsrv.checks.reverse_name import ReverseName
from mailsrv.checks.sanity import Sanity
from mailsrv.outside.interfaces import IResolver, Outside
from mailsrv.store.database import Database
from mailsrv.store.recorder import Recorder
from mailsrv.store.settings import Settings


def all_checks(
    settings: Settings, outside: Outside, resolver: IResolver, database: Database, recorder: Recorder
) -> Checks:
    """The cheap ones first; whoever acts on the doubts of others comes last."""
    seconds = outside.reactor.seconds
    return Checks(
        (
            HopLimit(),
            Blocklists(
                resolver,
                lambda: settings.config.checks.blocklists if settings.config.checks.dns else (),
                seconds,
                recorder.record,
            ),
            ReverseName(resolver, lambda: settings.config.checks.dns, lambda: settings.config.checks.first_contact > 0),
            Sanity(),
            FirstContact(lambda: settings.config.checks.first_contact, database, outside.wall),
        ),
        lambda: settings.config.checks.observe,
        recorder.record,
    )
