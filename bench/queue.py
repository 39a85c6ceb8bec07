"""A full queue: how long a start takes with it, what it needs in memory, how fast it empties, and what a new one waits.

The queue is generated, a database of so many messages, and the queue runner is the real one; the servers of the world
are one line of Python that takes everything.  Each case runs in a process of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater
from zope.interface import implementer

from bench import report
from bench.peers import memory_kib
from mailsrv import config
from mailsrv.dkim.signer import Signer
from mailsrv.mail.address import Address
from mailsrv.mail.envelope import Envelope
from mailsrv.mail.outcome import Outcome, Result
from mailsrv.outside.real import RealOutside
from mailsrv.relay.bounce import Reports
from mailsrv.relay.job import IDeliveryAgent, Job
from mailsrv.relay.queue import QueueRunner
from mailsrv.store import schema
from mailsrv.store.accounts.accounts import parse_directory
from mailsrv.store.database import Database
from mailsrv.store.message import Arrival, FinalRecipient, QueuedMessage
from mailsrv.store.spool import Spool

CASES = {
    "one": "all due, for one destination",
    "many": "all due, for {destinations:,} destinations",
    "later": "none due, for {destinations:,} destinations",
}
_WATCHED_S = 10.0
_TICK_S = 0.005
_CONTENT = b"Subject: hello\r\n\r\n" + b"0123456789abcdef\r\n" * 100
_TAKEN = Outcome(
    Result.DELIVERED, "2.0.0", "mx.example.net took the message.", "250 ok", "mx.example.net [192.0.2.9]:25"
)


def run(place: Path, messages: int, quiet: bool) -> dict[str, Any]:
    """Figures by case; prints a table unless ``quiet``."""
    results = {}
    for case in CASES:
        folder = place / case
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-m", "bench.queue", str(folder), case, str(messages)], check=False, capture_output=True
        )
        shutil.rmtree(folder)
        if done.returncode:
            raise SystemExit(f"bench: {done.stderr.decode(errors='replace')}")
        results[case] = json.loads(done.stdout)
    if not quiet:
        rows = [
            [
                CASES[case].format(**result),
                f"{result['start_s']:.1f}",
                f"{result['first_s']:.1f}",
                f"{result['kib'] / 1024:,.0f}",
                f"{result['rate']:,.0f}",
                f"{result['new_ms']:.1f}",
                f"{result['longest_ms']:.0f}",
            ]
            for case, result in results.items()
        ]
        columns = ["queue", "start s", "looked s", "MiB", "messages/s", "new one ms", "longest turn ms"]
        print(report.table(f"A queue of {messages:,} messages", columns, rows))
    return results


def fill(path: str, case: str, messages: int) -> int:
    """Make the database; the number of destinations."""
    connection = RealOutside(reactor).connect_database(path)
    schema.prepare(connection, path)
    connection.execute("PRAGMA synchronous = OFF")
    destinations = 1 if case == "one" else max(messages // 10, 1)
    now = time.time()
    first = int((now - 3600) * 1_000_000)
    many = "WITH RECURSIVE many (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM many WHERE n < ?1 - 1)"
    connection.execute("BEGIN")
    connection.execute(
        f"{many} INSERT INTO message SELECT ?2 + n, ?3, 'alice@example.org', n || '@example.org', ?4, 102, '7BIT', 0,"
        " '', '', 'alice@example.org', '192.0.2.7', 'client.example', 'ESMTPSA' FROM many",
        (messages, first, now - 3600, len(_CONTENT)),
    )
    connection.execute(
        f"{many} INSERT INTO content SELECT ?2 + n, ?3, ?4 FROM many",
        (messages, first, b"Received: from client.example\r\n", _CONTENT),
    )
    due = "?3 + 3600 + (n * 7919) % 14400" if case == "later" else "?3 - 3600 + n / 1000.0"
    connection.execute(
        f"{many} INSERT INTO recipient SELECT ?2 + n, 0, 'bob@' || d, 'bob@' || d, '', '', '', d, '', '', 'queued', 1,"
        " ?3 - 3600, due, 0, '', '', 'alice@example.org'"
        f" FROM (SELECT n, 'domain' || (n % ?4) || '.example' AS d, {due} AS due FROM many)",
        (messages, first, now, destinations),
    )
    connection.execute("COMMIT")
    connection.close()
    return destinations


@implementer(IDeliveryAgent)
class Everybody:
    """Takes everything, in the next turn of the reactor."""

    def __init__(self) -> None:
        self.taken = 0
        self.first: float | None = None
        self.awaited = ""
        self.came = 0.0

    async def deliver(self, job: Job) -> list[Outcome]:
        self.taken += 1
        self.first = self.first or time.monotonic()
        if job.destination == self.awaited:
            self.came = time.monotonic()
        async for _ in job.content.chunks():
            pass
        await deferLater(cast(Any, reactor), 0)
        return [_TAKEN] * len(job.recipients)

    async def close(self) -> None:
        pass


class _NoMailboxes:
    def waiting(self, messages: list[QueuedMessage], last: bool) -> None:
        pass


class _Settings:
    def __init__(self, state: str) -> None:
        text = f'hostname = "mx.example.org"\ndomains = ["example.org"]\nstate = "{state}"\n'
        text += '[queue]\nretry = ["4h"]\nexpire = "30d"\n'
        self.config = config.parse(text, "/etc/mailsrv/mailsrv.toml")
        self.directory = parse_directory(self.config, "alice@example.org:!\n", "")


class Measurement:
    """One case, from the start of the queue runner on."""

    def __init__(self, state: str, destinations: int) -> None:
        settings = _Settings(state)
        outside = RealOutside(reactor)
        self.began = time.monotonic()
        self.destinations = destinations
        self.database = Database(outside, os.path.join(state, "mailsrv.db"))
        self.spool = Spool(outside, self.database, state, lambda: "mx.example.org")
        self.spool.open(self.database.open())
        self.agent = Everybody()
        reports = Reports(cast(Any, settings), outside, self.spool, self.database, Signer(outside, dict))
        self.queue = QueueRunner(
            cast(Any, settings), outside, self.database, self.spool, self.agent, reports, cast(Any, _NoMailboxes())
        )
        self.spool.on_accepted = self.queue.accepted
        self.turns: list[float] = []

    async def figures(self) -> dict[str, Any]:
        last = time.monotonic()

        def tick() -> None:
            nonlocal last
            now = time.monotonic()
            self.turns.append(now - last - _TICK_S)
            last = now

        ticking = LoopingCall(tick)
        ticking.start(_TICK_S)
        started = time.monotonic()
        self.queue.wake()
        while self.agent.first is None and self.queue.is_looking():
            await deferLater(cast(Any, reactor), 0.01)
        looked = time.monotonic()
        before = self.agent.taken
        new = [await self._new(n) for n in range(20)]
        await deferLater(cast(Any, reactor), max(_WATCHED_S - (time.monotonic() - looked), 0))
        rate = (self.agent.taken - before) / (time.monotonic() - looked)
        kib = memory_kib([os.getpid()])
        ticking.stop()
        await self.queue.stop()
        await self.database.close()
        self.spool.stop()
        return {
            "destinations": self.destinations,
            "start_s": started - self.began,
            "first_s": (self.agent.first or looked) - started,
            "rate": rate,
            "new_ms": sorted(new)[len(new) // 2],
            "kib": kib,
            "longest_ms": max(self.turns) * 1000,
        }

    async def _new(self, n: int) -> float:
        """Milliseconds from the commit of another account's message to its attempt."""
        await deferLater(cast(Any, reactor), 0.2)
        domain = self.agent.awaited = f"domain{n}.example" if self.destinations > 1 else "domain0.example"
        address = Address.parse(f"carol@{domain}")
        draft = self.spool.draft()
        draft.append(_CONTENT)
        facts = ("new@example.org", "carol@example.org", "192.0.2.7", "client.example", "ESMTPSA")
        recipients = (FinalRecipient(address, address, ""),)
        arrival = Arrival(
            draft.id, Envelope(Address.parse("carol@example.org")), recipients, b"", *facts, len(_CONTENT), 102
        )
        committed = 0.0

        def accepted(acceptance: Any) -> None:
            nonlocal committed
            committed = time.monotonic()
            self.agent.came = 0.0
            self.queue.accepted(acceptance)

        self.spool.on_accepted = accepted
        await self.spool.accept(draft, arrival)
        while not self.agent.came:
            await deferLater(cast(Any, reactor), 0.001)
        return (self.agent.came - committed) * 1000


def main(state: str, case: str, messages: int) -> None:
    destinations = fill(os.path.join(state, "mailsrv.db"), case, messages)
    measurement = Measurement(state, destinations)

    def end(result: Any) -> None:
        if isinstance(result, dict):
            print(json.dumps(result))
        else:
            result.printTraceback()
        cast(Any, reactor).stop()

    def begin() -> None:
        Deferred.fromCoroutine(measurement.figures()).addBoth(end)

    cast(Any, reactor).callWhenRunning(begin)
    cast(Any, reactor).run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
