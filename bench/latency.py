"""How soon a message is delivered on a server with nothing else to do: from the 250 to the next hop, or to the mailbox.

One message of 4 KiB at a time, on a connection of its own; the next one is sent a moment after the one before has
arrived.  The clock starts when the client has read the 250 for the final dot.

relay
    until the next hop has read the final dot
relay, answered
    until the next hop's 250 for it is out
anew; anew, answered
    the same, with a next hop that ends the connection after each message, as after a pause: mailsrv keeps one for some
    seconds, which Postfix does only under load
anew, BDAT; anew, BDAT, answered
    the same, with a next hop that offers CHUNKING, as most do; Postfix makes no use of that
local
    until the file is in the Maildir's folder ``new``

A server that hands a message on while it answers can be there before the client has read the 250: such a time is
negative, and counted as it is.
"""

from __future__ import annotations

import smtplib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench import report
from bench.arrivals import Arrival, NextHop, Watch
from bench.load import SIZE, files_in
from bench.peers import TUNED, Bench
from tests.peers.programs import wait_until

MESSAGES = 100
_HOPS = {"relay": (True, False), "anew": (False, False), "anew, BDAT": (False, True)}  # keeps, offers CHUNKING
CASES = (*(case for hop in _HOPS for case in (hop, f"{hop}, answered")), "local")
_WARM_UP = 10
_PAUSE_S = 0.1  # for what a server does after delivery: settle, remove files; batches at most every 20 ms
_PATIENCE_S = 60.0


def run(bench: Bench, servers: list[str], messages: int, rounds: int, quiet: bool) -> dict[str, Any]:
    """Milliseconds by case and server; prints tables unless ``quiet``."""
    taken: dict[str, dict[str, list[list[float]]]] = {case: {name: [] for name in servers} for case in CASES}
    for _ in range(rounds):
        for name in servers:
            for case, (keeps, chunking) in _HOPS.items():
                relayed = _relay(bench, name, messages, keeps, chunking)
                taken[case][name].append([(whole - accepted) * 1000 for accepted, (whole, _) in relayed])
                taken[f"{case}, answered"][name].append([(out - accepted) * 1000 for accepted, (_, out) in relayed])
            local = _local(bench, name, messages)
            taken["local"][name].append([(whole - accepted) * 1000 for accepted, (whole, _) in local])
    results = {case: {name: summary(times) for name, times in by_name.items()} for case, by_name in taken.items()}
    if not quiet:
        print("\n".join(text(case, by_name) for case, by_name in results.items()))
    return results


def summary(rounds: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Of all messages of all rounds; "rounds" is the spread of the medians of rounds."""
    times = sorted(time for taken in rounds for time in taken)
    return {
        "median": statistics.median(times),
        "p90": times[(9 * len(times) + 9) // 10 - 1],
        "worst": times[-1],
        "rounds": report.spread([statistics.median(taken) for taken in rounds]),
    }


def text(case: str, results: dict[str, dict[str, Any]]) -> str:
    rows = []
    for name, result in results.items():
        ratio = f"{result['median'] / results[TUNED]['median']:.2f}" if name != TUNED and TUNED in results else ""
        figures = [f"{result[what]:,.2f}" for what in ("median", "p90", "worst")]
        rows.append([name, *figures, f"{result['rounds']['least']:,.2f} to {result['rounds']['most']:,.2f}", ratio])
    columns = ["server", "median", "90 % within", "worst", "medians of rounds", f"times {TUNED}"]
    return report.table(f"From 250 to delivered, milliseconds: {case}", columns, rows)


def _relay(bench: Bench, name: str, messages: int, keeps: bool, chunking: bool) -> list[tuple[float, Arrival]]:
    with NextHop(keeps, chunking) as hop:
        bench.route = f"127.0.0.1:{hop.port}"
        peer = bench.make(name)
        try:
            peer.start()
            return _one_by_one(peer.port, "carol@example.com", messages, hop.next)
        finally:
            peer.stop()


def _local(bench: Bench, name: str, messages: int) -> list[tuple[float, Arrival]]:
    bench.route = ""
    peer = bench.make(name)
    try:
        peer.start()
        _send(peer.port, "alice@example.org", 0)  # makes the folder
        wait_until(lambda: files_in(peer.inbox) == 1, _PATIENCE_S, "the first message")
        with Watch(peer.inbox) as watch:
            return _one_by_one(peer.port, "alice@example.org", messages, watch.next)
    finally:
        peer.stop()


def _one_by_one(
    port: int, recipient: str, messages: int, arrival: Callable[[float], Arrival]
) -> list[tuple[float, Arrival]]:
    """When each message was accepted and when it arrived, without the first ones, which warm the server up."""
    taken = []
    for number in range(_WARM_UP + messages):
        accepted = _send(port, recipient, number + 1)
        taken.append((accepted, arrival(_PATIENCE_S)))
        time.sleep(_PAUSE_S)
    return taken[_WARM_UP:]


def _send(port: int, recipient: str, number: int) -> float:
    """When the 250 for the final dot was read."""
    headers = (
        f"From: sender@example.net\r\nTo: {recipient}\r\nSubject: Number {number}\r\n"
        f"Date: Sat, 28 Nov 2026 12:00:00 +0000\r\nMessage-ID: <{number}@example.net>\r\n\r\n"
    ).encode()
    line = b"x" * 70 + b"\r\n"
    content = (headers + line * (SIZE // len(line)))[: SIZE - 2] + b"\r\n"
    with smtplib.SMTP("127.0.0.1", port, "client.example.net", timeout=_PATIENCE_S) as client:
        client.ehlo()
        client.mail("sender@example.net")
        client.rcpt(recipient)
        client.putcmd("DATA")
        code, reply = client.getreply()
        if code == 354 and client.sock is not None:
            client.sock.sendall(content + b".\r\n")
            answer = client.sock.recv(4096)
            accepted = time.monotonic()
            if answer.startswith(b"250"):
                return accepted
            code, reply = 0, answer
    raise SystemExit(f"bench: instead of taking a message: {code or ''} {reply.decode(errors='replace')}")
