"""The database and the queue, for ``mailsrv check``: can it be read, does mail lie in it for longer than it should, and
what have other servers said of late that the operator can do something about.

Before the first start there is no database, and nothing to say of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from mailsrv.cli.finding import Finding, ok, warning, wrong
from mailsrv.cli.wording import counted, moment, span
from mailsrv.config import Config
from mailsrv.relay.remedies import remedy_of
from mailsrv.store import notices, queue, schema
from mailsrv.store.connection import opened, snapshot
from mailsrv.store.notices import Count

_LATELY_S = 7 * 86400.0


def findings(config: Config, now: float) -> Iterator[Finding]:
    """What waits at ``now`` (seconds since 1970), and for how long."""
    path = os.path.join(config.state, "mailsrv.db")
    if not os.path.exists(path):
        return
    try:
        with opened(path, upgrade=False) as connection, snapshot(connection):
            load, held = queue.load(connection), len(queue.held(connection))
            refused = notices.counts(connection, now - _LATELY_S)
    except schema.Outdated:
        yield warning("database", f"{path} is of an older version", "restart the server, which brings it up to date")
        return
    except schema.DatabaseError as error:
        text = str(error).removesuffix(".")
        yield wrong("database", text, "'mailsrv ledger --verify' once it can be read; see docs on backup")
        return
    yield ok("database", f"{path} can be read")
    if load.queued and now - load.oldest > config.queue.warn:
        text = f"{counted(load.queued, 'recipient')} waiting, one for {span(now - load.oldest)}"
        yield warning("queue", text, "'mailsrv queue list' tells why")
    else:
        yield ok("queue", f"{counted(load.queued, 'recipient')} waiting")
    if held:
        remedy = "'mailsrv queue list --held', then release or remove"
        yield warning("queue", f"{counted(held, 'message')} held until you decide", remedy)
    yield from _refusals(refused)


def _refusals(refused: Sequence[Count]) -> Iterator[Finding]:
    """The latest first."""
    for count in refused:
        remedy = remedy_of(count.cause)
        if remedy is not None and remedy.tell:
            often = f"{counted(count.times, 'time')}, the last one on {moment(count.seen)}"
            yield warning("refused elsewhere", f"{count.cause}, {often}: {remedy.meaning}", remedy.remedy)
