"""Messages per second by POP3 from Maildirs of messages of 4 and of 100 KiB, beside Dovecot.

One session: login, STAT, UIDL, RETR of every message in turn, QUIT, without TLS.  By one client, and by twenty at a
time on mailboxes of their own.  Every mailbox has been opened before, so indexes and password caches are warm.
"""

from __future__ import annotations

import multiprocessing
import pstats
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import report
from bench.mailboxes import Client, Source, available, fill
from bench.peers import MAILSRV


@dataclass(frozen=True)
class Load:
    """``clients`` fetch ``messages`` of ``lines`` lines of 64 octets each, the first one from mailbox ``first``."""

    name: str
    clients: int
    messages: int
    lines: int
    first: int = 0


ONE = Load("one client", 1, 2000, 62)
TWENTY = Load("20 clients", 20, 2000, 62)
LARGE = Load("one client, 100 KiB", 1, 200, 1575, TWENTY.clients)
LOADS = (ONE, TWENTY, LARGE)
MAILBOXES = TWENTY.clients + LARGE.clients


def run(place: Path, rounds: int, only: list[str] | None, quiet: bool) -> dict[str, Any]:
    """Figures by server and load; prints a table unless ``quiet``."""
    made = {name: make(place, MAILBOXES, ()) for name, make in available(only).items()}
    speeds: dict[str, dict[str, list[float]]] = {name: {load.name: [] for load in LOADS} for name in made}
    for source in made.values():
        _fill(source)
    for _ in range(rounds):
        for name, source in made.items():
            try:
                source.start()
                _speed(source, TWENTY)
                _speed(source, LARGE)
                for load in LOADS:
                    speeds[name][load.name].append(_speed(source, load))
            finally:
                source.stop()
    results = {
        name: {load: report.spread(values) for load, values in by_load.items()} for name, by_load in speeds.items()
    }
    if not quiet:
        columns = ["server", *(load.name for load in LOADS)]
        print(report.table("Retrieved, messages/s", columns, [_row(name, results) for name in results]))
    return results


def look_inside(place: Path, output: Path) -> None:
    """One round of mailsrv alone under cProfile; prints where the reactor's thread spends its time."""
    profile = (f"--profile={output}", "--profiler=cProfile", "--savestats")
    source = available([MAILSRV])[MAILSRV](place, MAILBOXES, profile)
    _fill(source)
    try:
        source.start()
        for load in LOADS:
            print(f"{load.name}: {_speed(source, load):,.0f} messages/s (slowed by being watched)")
    finally:
        source.stop()
    pstats.Stats(str(output)).strip_dirs().sort_stats("tottime").print_stats(45)


def _row(name: str, results: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    cells = [name]
    for load, speed in results[name].items():
        ratio = ""
        if name != MAILSRV and MAILSRV in results:
            ratio = f"; {MAILSRV} is {results[MAILSRV][load]['median'] / speed['median']:.2f} times"
        cells.append(f"{speed['median']:,.0f} ({speed['least']:,.0f} to {speed['most']:,.0f}{ratio})")
    return cells


def _fill(source: Source) -> None:
    for load in (TWENTY, LARGE):
        for number in range(load.first, load.first + load.clients):
            fill(source, number, load.messages, lines=load.lines)


def _speed(source: Source, load: Load) -> float:
    """Messages per second of all clients together, each in a process of its own."""
    processes = multiprocessing.get_context("fork")
    barrier = processes.Barrier(load.clients + 1)
    workers = [
        processes.Process(target=_client, args=(barrier, source.port, load.messages, *source.login(number)))
        for number in range(load.first, load.first + load.clients)
    ]
    for worker in workers:
        worker.start()
    barrier.wait()
    began = time.monotonic()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit("bench: a POP3 client failed; its reason is above")
    return load.clients * load.messages / (time.monotonic() - began)


def _client(barrier: Any, port: int, messages: int, user: str, password: str) -> None:
    barrier.wait()
    with Client(port) as client:
        client.log_in(user, password)
        client.ask(b"STAT")
        client.ask_long(b"UIDL")
        for number in range(1, messages + 1):
            client.ask_long(b"RETR %d" % number)
        client.ask(b"QUIT")
