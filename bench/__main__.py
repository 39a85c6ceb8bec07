"""``make bench``, or ``python -m bench``: what can be measured here, measured."""

from __future__ import annotations

import argparse
import json
import pstats
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench import disk, idle, latency, opening, queue, retrieve, throughput
from bench.peers import MAILSRV, SERVERS, Bench, unavailable
from tests.peers.programs import ROOT, ProgramError, find

KINDS = ("receive", "relay", "latency", "idle", "retrieve", "opening", "queue")

_ABOUT = """\
receive   durable messages/s by SMTP into a Maildir: 4 KiB, 20 clients
relay     durable messages/s by SMTP through the queue to a next hop that throws them away
latency   milliseconds from 250 to the next hop and to the Maildir, one message at a time on an idle server
idle      memory for each idle connection, and how long a new client waits for its greeting meanwhile
retrieve  messages/s by POP3 from a Maildir, beside Dovecot
opening   milliseconds until a large mailbox is open by POP3, beside Dovecot
queue     a full queue: start, memory, what a new message waits; the queue runner alone, about 3 GB of disk

The client of receive and relay is Postfix's smtp-source (Debian: apt install postfix; no service need run).  Postfix
and Dovecot are measured when they are installed and the caller is root: with private configurations on loopback, never
the system's.
"""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench", epilog=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", default=["receive"], help=f"{', '.join(KINDS)}; default: receive")
    parser.add_argument("--rounds", type=int, default=3, help="alternating runs of each server (default 3)")
    parser.add_argument(
        "--messages", type=int, default=5000, help="messages of a run (default 5000; latency: 100 at most)"
    )
    parser.add_argument("--connections", type=int, default=10_000, help="idle connections (default 10000)")
    parser.add_argument("--queued", type=int, default=1_000_000, help="messages of a full queue (default 1000000)")
    parser.add_argument("--only", metavar="SERVER", action="append", help=f"one of {', '.join(SERVERS)}, Dovecot")
    parser.add_argument(
        "--mode", choices=list(throughput.MODES), help="one or many messages per connection; default both"
    )
    parser.add_argument("--dir", type=Path, default=ROOT / "bench/work", help="where to write; its disk is measured")
    parser.add_argument(
        "--loop",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="measure on a journaled ext4 in an image file (root; default: when the disk has no journal)",
    )
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    parser.add_argument(
        "--profile", action="store_true", help="run mailsrv alone under cProfile; shows the reactor's thread"
    )
    parser.add_argument("--strace", action="store_true", help="run mailsrv alone and count its system calls")
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    unknown = set(arguments.what) - set(KINDS)
    if unknown:
        raise SystemExit(f"bench: no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    try:
        with disk.workspace(arguments.dir.resolve(), arguments.loop) as place:
            environment = disk.environment(place)
            if not arguments.json:
                print("; ".join(f"{name}: {value}" for name, value in environment.items()) + "\n")
            results: dict[str, Any] = {"environment": environment}
            for what in arguments.what:
                folder = place / what
                folder.mkdir(mode=0o755)
                results[what] = _run(what, arguments, folder)
    except ProgramError as error:
        raise SystemExit(f"bench: {error}") from error
    if arguments.json:
        print(json.dumps(results, indent=2))


def _run(what: str, arguments: argparse.Namespace, place: Path) -> Any:
    if what == "idle":
        return idle.run(place, arguments.connections, arguments.only, arguments.json)
    if what == "queue":
        return queue.run(place, arguments.queued, arguments.json)
    if what == "opening":
        return opening.run(place, arguments.rounds, arguments.only, arguments.json)
    if what == "retrieve":
        if arguments.profile:
            return retrieve.look_inside(place, place / "inside")
        return retrieve.run(place, arguments.rounds, arguments.only, arguments.json)
    if what == "latency":
        servers = _available(arguments.only or list(SERVERS))
        messages = min(arguments.messages, latency.MESSAGES)
        return latency.run(Bench(place), servers, messages, arguments.rounds, arguments.json)
    modes = [arguments.mode] if arguments.mode else list(throughput.MODES)
    if arguments.profile or arguments.strace:
        return _look_inside(what, modes, arguments, place)
    results = throughput.compare(
        Bench(place),
        _available(arguments.only or list(SERVERS)),
        modes,
        arguments.messages,
        arguments.rounds,
        relay=what == "relay",
    )
    if not arguments.json:
        print(throughput.text(results, {"receive": "Received", "relay": "Relayed"}[what]))
    return results


def _available(wanted: list[str]) -> list[str]:
    found = []
    for name in wanted:
        if why := unavailable(name):
            print(f"left out: {name}: {why}\n", file=sys.stderr)
        else:
            found.append(name)
    if not found:
        raise SystemExit("bench: nothing that can be measured here")
    return found


def _look_inside(what: str, modes: list[str], arguments: argparse.Namespace, place: Path) -> None:
    """Runs of mailsrv alone that show where its time goes."""
    output = place / "inside"
    if arguments.strace and find("strace") is None:
        raise SystemExit("bench: strace is not installed")
    profile = () if arguments.strace else (f"--profile={output}", "--profiler=cProfile", "--savestats")
    for mode in modes:
        results = throughput.compare(
            Bench(place, twistd=profile, trace=output if arguments.strace else None),
            [MAILSRV],
            [mode],
            arguments.messages,
            1,
            relay=what == "relay",
        )
        print(throughput.text(results, f"{what} (slowed by being watched)"))
        if arguments.strace:
            print(subprocess.run(["head", "-40", str(output)], check=True, capture_output=True, text=True).stdout)
        else:
            pstats.Stats(str(output)).strip_dirs().sort_stats("tottime").print_stats(45)
        output.unlink()


if __name__ == "__main__":
    main()
