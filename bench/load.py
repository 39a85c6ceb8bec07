"""One run: many messages sent by Postfix's smtp-source, timed until the last is where it should be, and durable."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.peers import Peer, processor_s
from tests.peers.programs import find, wait_until

CLIENTS = 20
SIZE = 4096
WARM_UP = 200
_PATIENCE_S = 600.0


@dataclass(frozen=True)
class Load:
    """``many``: all messages of a client over one connection; otherwise a connection for each message."""

    messages: int
    many: bool
    recipient: str


@dataclass(frozen=True)
class Sample:
    """Messages per second until the last was accepted (250) and until the last was finished; processor time of the
    server for each, in microseconds."""

    accepted: float
    finished: float
    processor_us: float


def send(port: int, load: Load, messages: int) -> None:
    """Return when every message got its 250; SystemExit with what smtp-source said otherwise."""
    source = find("smtp-source")
    if source is None:
        raise SystemExit("bench: smtp-source is needed as the client (Debian: apt install postfix; it need not run)")
    command = [source, "-s", str(CLIENTS), "-l", str(SIZE), "-m", str(messages)]
    command += ["-M", "client.example.net", "-f", "sender@example.net", "-t", load.recipient]
    command += ["-d"] if load.many else []
    done = subprocess.run([*command, f"127.0.0.1:{port}"], check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"bench: {done.stderr.strip() or 'smtp-source failed'}")


def files_in(inbox: Path) -> int:
    return len(os.listdir(inbox)) if inbox.exists() else 0


def _flush(place: Path) -> None:
    subprocess.run(["sync", "--file-system", str(place)], check=True)


def measure(peer: Peer, load: Load, finished: Callable[[], int], durable: Path) -> Sample:
    """Start ``peer``, warm it up, send the load, stop it.

    ``finished`` counts the messages that have arrived; the clock stops when all have, and the file system of
    ``durable`` has been flushed, so that nobody gains by leaving writes to later.
    """
    try:
        peer.start()
        before = finished()
        send(peer.port, load, WARM_UP)
        wait_until(lambda: finished() - before >= WARM_UP, _PATIENCE_S, "the messages of the warm-up")
        _flush(durable)

        processor_before = processor_s(peer.processes())
        began = time.monotonic()
        send(peer.port, load, load.messages)
        accepted = time.monotonic()
        wait_until(lambda: finished() - before >= WARM_UP + load.messages, _PATIENCE_S, "all messages")
        _flush(durable)
        ended = time.monotonic()
        processor = processor_s(peer.processes()) - processor_before
    finally:
        peer.stop()
    return Sample(
        load.messages / (accepted - began), load.messages / (ended - began), processor / load.messages * 1_000_000
    )
