"""No turn of the reactor takes long while a mailbox of 100,000 messages is opened and listed and others are talking.

On the real reactor, as the question is what threads do to it.  A turn is measured in processor time of the whole
process while the reactor never rests: what a worker does side by side with it hardly counts then, what keeps it from
the interpreter counts in full, and what other programs of the machine do hardly.  A thread that is taken off its
processor at a bad moment may still make a turn look long, so that a long one counts only when it comes every time.
"""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailsrv.checks.login_delay import LoginDelay
from mailsrv.outside.real import RealOutside
from mailsrv.pop3.protocol import Pop3Factory
from mailsrv.store.accounts.passwords import Passwords
from mailsrv.store.ledger import Event
from mailsrv.store.mailbox import maildir
from mailsrv.store.mailbox.mailboxes import MailStore
from tests.pop3.world import PASSWORD, Doorkeeper, Settings
from tests.worlds.worker import ImmediateWorker

reactor: Any = _reactor

MESSAGES = 100_000
LINKS = 20_000  # names for one file
LONGEST_S = 0.020
TRIES = 4

# In a process of its own: what it does must not count.
CLIENT = """
import poplib, sys
port, user, password, messages = sys.argv[1:]
client = poplib.POP3("127.0.0.1", int(port), timeout=60)
client.user(user)
client.pass_(password)
if int(messages):
    assert client.stat()[0] == int(messages)
    assert len(client.list()[1]) == int(messages)
    assert len(set(client.uidl()[1])) == int(messages)
    client.dele(1)
    client.quit()
else:
    print("ready", flush=True)
    while sys.stdin.read(1):
        client.noop()
"""


class Watchdog:
    """Keeps the reactor busy and notes the longest turn."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self.turns = 0
        self._last = time.process_time()
        self._call = reactor.callLater(0, self._turn)

    def _turn(self) -> None:
        now = time.process_time()
        self.longest_s = max(self.longest_s, now - self._last)
        self.turns += 1
        self._last = now
        self._call = reactor.callLater(0, self._turn)

    def stop(self) -> None:
        self._call.cancel()


class LargeMailbox(TestCase):
    timeout = 120

    def setUp(self) -> None:
        # In memory where that can be had: some disks take a minute to make and remove so many names.
        memory = Path("/dev/shm")
        self.root = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None)).absolute()
        self.addCleanup(shutil.rmtree, self.root)
        self.outside = RealOutside(reactor)
        box = self.root / "example.org" / "alice"
        maildir.ensure(self.outside.filesystem, str(box))
        first = box
        for n in range(MESSAGES):
            name = maildir.file_name(maildir.unique("1J4BS1D7M00", n, 1764000000 + n // 7, "mx.example.org"), 18, 20)
            path = box / "new" / name
            if n % LINKS:
                os.link(first, path)
            else:
                first = path
                path.write_bytes(b"Subject: x\n\nhello\n")
        self.passwords = Passwords(self.outside)
        self.mailboxes = MailStore(self.outside, str(self.root), lambda mailbox: None)
        self.factory = Pop3Factory(
            Settings('[auth]\ncleartext = "loopback"'),
            self.outside,
            self.mailboxes,
            self.passwords,
            Doorkeeper(),
            Doorkeeper(),
            LoginDelay(lambda: 0.0, reactor.seconds),
            self,
            None,
        )
        self.port = reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        # Collecting the garbage of all the tests before this one is no part of the question.
        gc.collect()
        gc.freeze()
        self.addCleanup(gc.unfreeze)

    async def tearDown(self) -> None:  # type: ignore[override]
        await self.port.stopListening()
        ended = Deferred.fromCoroutine(self.factory.shut_down())
        self.factory.abort()
        await ended
        self.mailboxes.stop()
        self.passwords.stop()

    def record(self, event: Event) -> None:
        pass

    def record_seldom(self, event: Event, who: str) -> None:
        self.record(event)

    async def record_all(self, events: Sequence[Event]) -> None:
        pass

    async def longest_turn_s(self, messages: int) -> float:
        """While alice's mailbox is opened, its messages are listed and one is removed, and bob is talking."""
        with subprocess.Popen(self.client("bob", 0), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as bob:
            assert bob.stdin is not None
            assert bob.stdout is not None
            await deferToThread(bob.stdout.readline)
            watchdog = Watchdog()
            alice = deferToThread(subprocess.run, self.client("alice", messages), check=True, timeout=60)
            while not alice.called:
                bob.stdin.write(b".")
                bob.stdin.flush()
                turn: Deferred[None] = Deferred()
                reactor.callLater(0.001, turn.callback, None)
                await turn
            await alice
            watchdog.stop()
            assert watchdog.turns > 100
        return watchdog.longest_s

    def client(self, name: str, messages: int) -> list[str]:
        port = self.port.getHost().port
        return [sys.executable, "-c", CLIENT, str(port), f"{name}@example.org", PASSWORD, str(messages)]

    async def test_no_turn_is_long(self) -> None:
        longest = []
        for removed in range(TRIES):
            longest.append(await self.longest_turn_s(MESSAGES - removed))
            if longest[-1] < LONGEST_S:
                break
        assert min(longest) < LONGEST_S, longest
        assert not self.mailboxes._open & {"alice@example.org"}

    async def test_the_watchdog_barks_when_the_reactor_lists(self) -> None:
        worker, self.mailboxes._worker = self.mailboxes._worker, ImmediateWorker()
        try:
            assert await self.longest_turn_s(MESSAGES) > 5 * LONGEST_S
        finally:
            self.mailboxes._worker = worker
