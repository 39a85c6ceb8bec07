"""Messages per second by POP3 from Maildirs of 2,000 messages of 4 KiB, beside Dovecot.

One session: login, STAT, UIDL, RETR of every message in turn, QUIT, without TLS.  By one client, and by twenty at a
time on mailboxes of their own.  Every mailbox has been opened before, so indexes and password caches are warm.
"""

from __future__ import annotations

import multiprocessing
import pstats
import time
from pathlib import Path
from typing import Any

from bench import report
from bench.mailboxes import Client, Source, available, fill
from bench.peers import MAILSRV

MESSAGES = 2000
CLIENTS = 20


def run(place: Path, rounds: int, only: list[str] | None, quiet: bool) -> dict[str, Any]:
    """Figures by server; prints a table unless ``quiet``."""
    made = {name: make(place, CLIENTS, ()) for name, make in available(only).items()}
    speeds: dict[str, dict[int, list[float]]] = {name: {1: [], CLIENTS: []} for name in made}
    for source in made.values():
        _fill(source)
    for _ in range(rounds):
        for name, source in made.items():
            try:
                source.start()
                _speed(source, CLIENTS)
                for clients in (1, CLIENTS):
                    speeds[name][clients].append(_speed(source, clients))
            finally:
                source.stop()
    results = {
        name: {f"{clients} clients": report.spread(values) for clients, values in by_clients.items()}
        for name, by_clients in speeds.items()
    }
    if not quiet:
        columns = ["server", "one client", f"{CLIENTS} clients"]
        print(report.table("Retrieved, messages/s", columns, [_row(name, results) for name in results]))
    return results


def look_inside(place: Path, output: Path) -> None:
    """One round of mailsrv alone under cProfile; prints where the reactor's thread spends its time."""
    profile = (f"--profile={output}", "--profiler=cProfile", "--savestats")
    source = available([MAILSRV])[MAILSRV](place, CLIENTS, profile)
    _fill(source)
    try:
        source.start()
        for clients in (1, CLIENTS):
            print(f"{clients} clients: {_speed(source, clients):,.0f} messages/s (slowed by being watched)")
    finally:
        source.stop()
    pstats.Stats(str(output)).strip_dirs().sort_stats("tottime").print_stats(45)


def _row(name: str, results: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    cells = [name]
    for clients, speed in results[name].items():
        ratio = ""
        if name != MAILSRV and MAILSRV in results:
            ratio = f"; {MAILSRV} is {results[MAILSRV][clients]['median'] / speed['median']:.2f} times"
        cells.append(f"{speed['median']:,.0f} ({speed['least']:,.0f} to {speed['most']:,.0f}{ratio})")
    return cells


def _fill(source: Source) -> None:
    for number in range(CLIENTS):
        fill(source, number, MESSAGES)


def _speed(source: Source, clients: int) -> float:
    """Messages per second of this many clients together, each in a process of its own."""
    processes = multiprocessing.get_context("fork")
    barrier = processes.Barrier(clients + 1)
    workers = [
        processes.Process(target=_client, args=(barrier, source.port, *source.login(number)))
        for number in range(clients)
    ]
    for worker in workers:
        worker.start()
    barrier.wait()
    began = time.monotonic()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit("bench: a POP3 client failed; its reason is above")
    return clients * MESSAGES / (time.monotonic() - began)


def _client(barrier: Any, port: int, user: str, password: str) -> None:
    barrier.wait()
    with Client(port) as client:
        client.log_in(user, password)
        client.ask(b"STAT")
        client.ask_long(b"UIDL")
        for number in range(1, MESSAGES + 1):
            client.ask_long(b"RETR %d" % number)
        client.ask(b"QUIT")
