"""Durable messages per second: received into a Maildir, or relayed to smtp-sink.

Twenty clients, 4 KiB, one message per connection and many per connection, servers in turn in every round.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from bench import report
from bench.load import Load, Sample, files_in, measure
from bench.peers import MAILSRV, Bench
from tests.peers.programs import Program, find, free_port, listens, wait_until

MODES = {"one": "one message per connection", "many": "many messages per connection"}


def compare(
    bench: Bench, servers: list[str], modes: list[str], messages: int, rounds: int, relay: bool
) -> dict[str, Any]:
    """Figures by mode and server, ready for JSON."""
    samples: dict[str, dict[str, list[Sample]]] = {mode: {name: [] for name in servers} for mode in modes}
    for turn in range(rounds):
        for mode in modes:
            for name in servers:
                _progress(f"round {turn + 1} of {rounds}: {MODES[mode]}, {name}")
                run = _relay if relay else _receive
                samples[mode][name].append(run(bench, name, messages, mode == "many"))
    _progress("")
    return {
        mode: {
            name: {
                "accepted": report.spread([sample.accepted for sample in taken]),
                "finished": report.spread([sample.finished for sample in taken]),
                "processor_us": report.spread([sample.processor_us for sample in taken]),
            }
            for name, taken in by_name.items()
        }
        for mode, by_name in samples.items()
    }


def text(results: dict[str, Any], what: str) -> str:
    tables = [report.throughput(f"{what}, {MODES[mode]}", by_name, MAILSRV) for mode, by_name in results.items()]
    return "\n".join(tables)


def _receive(bench: Bench, name: str, messages: int, many: bool) -> Sample:
    peer = bench.make(name)
    load = Load(messages, many, "alice@example.org")
    return measure(peer, load, lambda: files_in(peer.inbox), bench.place)


def _relay(bench: Bench, name: str, messages: int, many: bool) -> Sample:
    with Sink(bench.place) as sink:
        bench.route = f"127.0.0.1:{sink.port}"
        return measure(bench.make(name), Load(messages, many, "carol@example.com"), sink.messages, bench.place)


class Sink:
    """Postfix's smtp-sink as the next hop; it throws away what it takes, and counts."""

    def __init__(self, place: Path) -> None:
        self.port = free_port()
        self._log = place / "sink"
        self._log.unlink(missing_ok=True)
        program = find("smtp-sink")
        if program is None:
            raise SystemExit("bench: smtp-sink is needed as the next hop (Debian: apt install postfix)")
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        self._program = Program([program, "-4", "-c", *user, f"127.0.0.1:{self.port}", "1000"], self._log)

    def __enter__(self) -> Sink:
        wait_until(lambda: listens(self.port), 10, "smtp-sink")
        return self

    def __exit__(self, *_: object) -> None:
        self._program.kill()

    def messages(self) -> int:
        """How many it has taken: the last of the counters that -c prints."""
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - 200))
            found = re.findall(rb"mesg=(\d+)", file.read())
        return int(found[-1]) if found else 0


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
