"""The database and the queue, for ``mailsrv check``: can it be read, and does mail lie in it for longer than it should.

Before the first start there is no database, and nothing to say of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from mailsrv.cli.finding import Finding, ok, warning, wrong
from mailsrv.cli.wording import counted, span
from mailsrv.config import Config
from mailsrv.store import queue, schema
from mailsrv.store.connection import opened, snapshot


def findings(config: Config, now: float) -> Iterator[Finding]:
    """What waits at ``now`` (seconds since 1970), and for how long."""
    path = os.path.join(config.state, "mailsrv.db")
    if not os.path.exists(path):
        return
    try:
        with opened(path) as connection, snapshot(connection):
            load = queue.load(connection)
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
    if load.held:
        yield warning(
            "queue", f"{counted(load.held, 'recipient')} held", "'mailsrv queue list --held', then release or remove"
        )
