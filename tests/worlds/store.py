"""Database, spool and local delivery together, on a simulated machine: virtual time, a disk that forgets and fails."""

from __future__ import annotations

import errno
import os
import random
import sqlite3
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mailsrv import config
from mailsrv.mail.address import Address
from mailsrv.mail.envelope import Envelope
from mailsrv.store import ledger, queue_id
from mailsrv.store.accounts.accounts import Account, Directory
from mailsrv.store.database import Database
from mailsrv.store.delivery import LocalDelivery
from mailsrv.store.due import local_waiting
from mailsrv.store.mailbox.quota import Quota
from mailsrv.store.mailbox.usage import MailboxUsage
from mailsrv.store.message import Arrival, FinalRecipient
from mailsrv.store.spool import Spool
from tests.simulation.network import Network
from tests.simulation.outside import Machine, SimulatedOutside
from tests.simulation.resolver import Zone
from tests.simulation.timeline import Timeline
from tests.worlds.resolver import RecordsResolver

T = TypeVar("T")

STATE = "/state"
DATABASE = f"{STATE}/mailsrv.db"
SPOOL = f"{STATE}/spool"
RETRY_S = (60.0, 300.0)
PREFIX = b"Received: from client.example.net by mx.example.org\r\n"
LETTER = b"Subject: hello\r\n\r\n.body\r\nand more\r\n"


def machine(timeline: Timeline, records: RecordsResolver | None = None) -> Machine:
    """A machine with nothing on it, the same every time."""
    zone = Zone(random.Random(0), records or RecordsResolver())
    made = Machine("mx.example.org", ("192.0.2.1",), timeline, Network(timeline, random.Random(0)), zone, "0")
    made.disk.make_folders(STATE)
    return made


def wait(timeline: Timeline, work: Deferred[T] | Coroutine[Deferred[Any], Any, T], within_s: float = 300.0) -> T:
    """Let time pass until ``work`` is done; its result, or its exception."""
    done = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)
    results: list[Any] = []
    done.addBoth(results.append)
    timeline.run(timeline.now + within_s, lambda: bool(results))
    assert results, f"not done within {within_s} s"
    if isinstance(results[0], Failure):
        results[0].raiseException()
    found: T = results[0]
    return found


def disk_error(number: int = errno.EIO) -> OSError:
    return OSError(number, os.strerror(number))


class Accounts:
    """Those of example.org that have a quota, by local part, as settings in force."""

    def __init__(self, limits: Mapping[str, Quota] | None = None) -> None:
        self.config = config.parse('hostname = "mx.example.org"\ndomains = ["example.org"]', "/etc/mailsrv.toml")
        self.limit(limits or {})

    def limit(self, limits: Mapping[str, Quota]) -> None:
        accounts = [Account(Address.parse(f"{name}@example.org"), quota=quota) for name, quota in limits.items()]
        self.directory = Directory(["example.org"], accounts, {})


class Store:
    """Addresses at example.org are own mailboxes.  ``boot`` begins a life of the program, ``crash`` ends it."""

    def __init__(self) -> None:
        self.timeline = Timeline()
        self.machine = machine(self.timeline)
        self.disk = self.machine.disk
        self.steps = self.machine.steps
        self.deferred: list[float] = []
        self.accounts = Accounts()
        self.usage: MailboxUsage
        self.outside: SimulatedOutside
        self.database: Database
        self.spool: Spool
        self.local: LocalDelivery
        self.connection: sqlite3.Connection

    def boot(self, *, recover: bool = True) -> Store:
        """Start; ``recover``: what waits for own mailboxes is handed to local delivery, as the queue runner does."""
        outside = self.outside = self.machine.boot()
        # What a crash leaves is the test's decision.
        self.machine.life.ended[:] = [self.machine.databases.crash]
        self.database = Database(outside, DATABASE)
        self.connection = self.database.open()
        self.spool = Spool(outside, self.database, STATE, lambda: "mx.example.org")
        self.spool.open(self.connection)
        self.usage = MailboxUsage(outside, f"{STATE}/mail", self.accounts)
        self.local = LocalDelivery(
            outside,
            self.database,
            self.spool,
            STATE,
            lambda attempts: RETRY_S[min(attempts, len(RETRY_S) - 1)],
            self.usage,
        )
        self.local.on_deferred = self.deferred.append
        self.spool.on_accepted = lambda acceptance: self.local.accepted(
            acceptance.arrival, acceptance.names, acceptance.content
        )
        if recover:
            self.look()
        return self

    def look(self) -> None:
        """What the queue runner does now and then."""
        self.local.waiting(self.wait(self.database.read(local_waiting, self.machine.wall(), 1000)), True)

    def crash(self, power: int | None = None) -> None:
        """End this life; ``power``: the machine's power fails as well, and the seed says what the disk forgets."""
        self.machine.life.end()
        if power is None:
            self.disk.stop_program()
        else:
            self.disk.lose_power(random.Random(power))

    def close(self) -> None:
        self.machine.life.end()
        self.machine.databases.remove()

    # -- time

    def wait(self, work: Deferred[T] | Coroutine[Deferred[Any], Any, T], within_s: float = 300.0) -> T:
        return wait(self.timeline, work, within_s)

    def advance(self, seconds: float) -> None:
        self.timeline.run(self.timeline.now + seconds)

    def settle(self) -> None:
        """Let local delivery come to rest."""
        self.advance(5.0)

    # -- faults

    def fail(self, step: str, times: int = 1, error: Callable[[], Exception] = disk_error) -> None:
        """The next ``times`` steps of this name fail."""
        left = [times]

        def failure(what: str) -> None:
            if what == step and left[0]:
                left[0] -= 1
                raise error()

        self.steps.failures.append(failure)

    def healthy(self) -> None:
        self.steps.failures.clear()

    # -- mail

    def arrival(
        self,
        number: int,
        content: bytes = LETTER,
        to: Sequence[str] = ("alice@example.org",),
        sender: str = "bob@example.net",
    ) -> Arrival:
        recipients = tuple(
            FinalRecipient(address, address, address.key if address.domain == "example.org" else "")
            for address in map(Address.parse, to)
        )
        return Arrival(
            id=number,
            envelope=Envelope(Address.parse(sender) if sender else None),
            recipients=recipients,
            prefix=PREFIX,
            message_id=f"{queue_id.text(number)}@example.net",
            account="",
            client="192.0.2.7",
            helo="client.example.net",
            protocol="ESMTP",
            size=len(content),
            lines=content.count(b"\n"),
        )

    def accept(
        self,
        content: bytes = LETTER,
        to: Sequence[str] = ("alice@example.org",),
        sender: str = "bob@example.net",
        piece: int = 65536,
    ) -> Arrival:
        """A message comes in, in pieces, and is accepted; StorageTrouble when it is not."""
        draft = self.spool.draft()
        for start in range(0, len(content), piece):
            writing = draft.append(content[start : start + piece])
            if writing is not None:
                self.wait(writing)
        arrival = self.arrival(draft.id, content, to, sender)
        self.wait(self.spool.accept(draft, arrival))
        return arrival

    # -- what there is

    def mailbox(self, address: str = "alice@example.org", folder: str = "new") -> dict[str, bytes]:
        local, _, domain = address.partition("@")
        return self.disk.files(f"{STATE}/mail/{domain}/{local}/{folder}")

    def rows(self, query: str, *arguments: object) -> list[Any]:
        connection = self.machine.databases.look(DATABASE)
        try:
            return connection.execute(query, arguments).fetchall()
        finally:
            connection.close()

    def states(self) -> list[str]:
        return [state for (state,) in self.rows("SELECT state FROM recipient ORDER BY message, n")]

    def kinds(self) -> list[str]:
        """The events that tell of messages."""
        return [kind for (kind,) in self.rows("SELECT kind FROM event WHERE message IS NOT NULL ORDER BY id")]

    def gaps(self) -> list[str]:
        """What the ledger has to complain about."""
        connection = self.machine.databases.look(DATABASE)
        try:
            return ledger.verify(connection, set(self.disk.files(SPOOL))).gaps
        finally:
            connection.close()


def stored(arrival: Arrival, content: bytes = LETTER, to: str = "alice@example.org") -> bytes:
    """What the file of a copy holds."""
    sender = str(arrival.envelope.sender or "").encode()
    head = b"Return-Path: <" + sender + b">\r\nDelivered-To: " + to.encode() + b"\r\n" + PREFIX
    return (head + content).replace(b"\r\n", b"\n")
