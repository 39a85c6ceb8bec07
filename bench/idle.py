"""Idle connections: what each costs in memory, and how long a new client waits for its greeting meanwhile.

A server that gives each client a process is asked for fewer connections, so that it can keep up; the cost of one is
what is compared.
"""

from __future__ import annotations

import resource
import socket
import sys
import time
from pathlib import Path
from typing import Any

from bench import report
from bench.peers import MAILSRV, TUNED, Bench, Peer, memory_kib, unavailable

_GREETINGS = 200
_PER_PROCESS_SERVER = 150  # below the 200 processes that the tuned Postfix may start


def run(place: Path, connections: int, only: list[str] | None, quiet: bool) -> dict[str, Any]:
    """Figures by server; prints a table unless ``quiet``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    bench = Bench(place, mailsrv_settings={"limits.connections": connections + 1000})
    results = {}
    for name, wanted in ((MAILSRV, min(connections, hard - 500)), (TUNED, _PER_PROCESS_SERVER)):
        if only and name not in only:
            continue
        if why := unavailable(name):
            print(f"left out: {name}: {why}\n", file=sys.stderr)
            continue
        results[name] = _measure(bench.make(name), wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if not quiet:
        rows = [
            [
                name,
                f"{result['connections']:,}",
                f"{result['kib_each']:,.1f}",
                f"{result['greeting_ms']['median']:.1f}",
                f"{result['greeting_ms']['most']:.1f}",
            ]
            for name, result in results.items()
        ]
        columns = ["server", "idle connections", "KiB each", "greeting ms, median", "longest"]
        print(report.table("Idle connections", columns, rows))
    return results


def _measure(peer: Peer, wanted: int) -> dict[str, Any]:
    idle: list[socket.socket] = []
    try:
        peer.start()
        for _ in range(5):  # what the first clients load once is not the price of an idle one
            _greeted(peer.port, 0).close()
        before = memory_kib(peer.processes())
        idle += [_greeted(peer.port, index) for index in range(wanted)]
        time.sleep(1)  # the server is to be at rest
        each = (memory_kib(peer.processes()) - before) / wanted
        greetings = []
        for index in range(_GREETINGS):
            began = time.monotonic()
            _greeted(peer.port, index).close()
            greetings.append((time.monotonic() - began) * 1000)
    finally:
        for connection in idle:
            connection.close()
        peer.stop()
    return {"connections": wanted, "kib_each": each, "greeting_ms": report.spread(greetings)}


def _greeted(port: int, index: int) -> socket.socket:
    """A connection that has seen its greeting; from many addresses of loopback, as each has a limit of ports."""
    source = f"127.0.{1 + index // 250 % 250}.{1 + index % 250}"
    connection = socket.create_connection(("127.0.0.1", port), timeout=30, source_address=(source, 0))
    greeting = connection.recv(512)
    if not greeting.startswith(b"220"):
        raise SystemExit(f"bench: instead of a greeting after {index} connections: {greeting!r}")
    return connection
