"""A real server killed, stopped and restarted under load keeps every message that it answered 250."""

from __future__ import annotations

import collections
import contextlib
import json
import signal
import socket
import subprocess
import time

import pytest

from mailsrv.tap import TOGETHER_S
from tests.peers.conftest import Outside, StartMailsrv
from tests.peers.mailbox import pop3, submission
from tests.peers.programs import wait_until
from tests.peers.samples import small, written_by
from tests.peers.senders import Senders
from tests.peers.server import ALICE, Mailsrv


def settled(server: Mailsrv) -> bool:
    done = server.tool("queue", "list", "--json")
    assert done.returncode == 0, done.stderr
    return bool(json.loads(done.stdout) == [])


def message_names(server: Mailsrv) -> collections.Counter[str]:
    """How often each message is in alice's mailbox, by the name in its Subject."""
    found: collections.Counter[str] = collections.Counter()
    with pop3(server) as client:
        for number in range(client.stat()[0]):
            for line in client.top(number + 1, 0)[1]:
                if line.startswith(b"Subject: "):
                    found[line[9:].decode()] += 1
    return found


def check_nothing_lost(server: Mailsrv, senders: Senders) -> None:
    """Each promised message once; one that was never answered at most once; no other."""
    wait_until(lambda: settled(server), 60, "an empty queue", every_s=0.2)
    found = message_names(server)
    lost = [name for name in senders.promised if name not in found]
    assert not lost, f"{len(lost)} of {len(senders.promised)} lost, such as {lost[:5]}"
    doubled = [name for name, times in found.items() if times > 1]
    assert not doubled, f"{len(doubled)} doubled, such as {doubled[:5]}"
    verified = server.tool("ledger", "--verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_kill_under_load_loses_nothing(start_mailsrv: StartMailsrv) -> None:
    server = start_mailsrv()
    senders = Senders(server.port["smtp"], [ALICE], "kill")
    senders.start()
    try:
        for turn in range(5):
            senders.wait_for(300 * (turn + 1))
            server.kill()
            server.start()
        senders.wait_for(1800)
    finally:
        senders.stop()
    check_nothing_lost(server, senders)


def test_kill_under_load_loses_nothing_on_its_way_out(start_mailsrv: StartMailsrv, outside: Outside) -> None:
    server = start_mailsrv(
        {
            "trusted_networks": ["127.0.0.0/8"],
            "outbound.routes": {"*": f"smtp://127.0.0.1:{outside.port}"},
            "queue.retry": ["1s"],
        }
    )
    senders = Senders(server.port["smtp"], ["carol@example.com", "dan@example.net"], "out")
    senders.start()
    try:
        for turn in range(3):
            senders.wait_for(150 * (turn + 1))
            server.kill()
            server.start()
    finally:
        senders.stop()
    wait_until(lambda: settled(server), 60, "an empty queue", every_s=0.2)
    for recipient in ("carol@example.com", "dan@example.net"):
        taken = [caught.content for caught in outside if recipient in caught.recipients]
        names = {name for name in senders.promised if any(f"<{name}@".encode() in content for content in taken)}
        assert set(senders.promised) - names == set()


def test_stop_under_load_loses_nothing(start_mailsrv: StartMailsrv) -> None:
    server = start_mailsrv()
    senders = Senders(server.port["smtp"], [ALICE], "stop")
    senders.start()
    try:
        for turn in range(3):
            senders.wait_for(300 * (turn + 1))
            began = time.monotonic()
            server.stop()
            assert server.ended_in_order(), server.running.output()
            assert time.monotonic() - began < 20
            server.start()
    finally:
        senders.stop()
    assert senders.unanswered == [], "SIGTERM finishes what it has begun to accept"
    assert {code for code, _ in senders.refused} <= {421}
    check_nothing_lost(server, senders)


def test_idle_clients_are_told_of_the_end(start_mailsrv: StartMailsrv) -> None:
    server = start_mailsrv()
    clients = {name: socket.create_connection(("127.0.0.1", server.port[name]), 30) for name in ("smtp", "pop3")}
    for client in clients.values():
        client.recv(1000)
    server.stop()
    assert server.ended_in_order()
    assert clients["smtp"].recv(1000).startswith(b"421 4.3.2 ")  # RFC 5321 3.8; RFC 3463 3.4
    assert clients["pop3"].recv(1000).startswith(b"-ERR ") or not clients["pop3"].recv(1)
    for client in clients.values():
        client.close()


def test_stop_does_not_wait_for_clients_that_do_nothing(start_mailsrv: StartMailsrv) -> None:
    server = start_mailsrv()
    client = socket.create_connection(("127.0.0.1", server.port["smtp"]), 30)
    client.sendall(b"EHLO client.example.net\r\nMAIL FROM:<>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\nSubject: ")
    wait_until(lambda: b"354" in client.recv(1000), 10, "354")
    began = time.monotonic()
    server.stop()
    assert server.ended_in_order()
    assert time.monotonic() - began < 20
    client.close()


def test_a_second_start_finds_everything_in_place(start_mailsrv: StartMailsrv) -> None:
    """Stale lock and socket files of a killed server do not matter."""
    server = start_mailsrv({"outbound.routes": {"*": "smtp://127.0.0.1:9"}, "queue.retry": ["1h"]})
    with submission(server) as client:
        client.sendmail(ALICE, ["carol@example.com", ALICE], written_by(ALICE, small("twofold")))
    wait_until(lambda: message_names(server)["twofold"] == 1, 10, "delivery")
    server.running.signal(signal.SIGKILL)
    server.running.process.wait()
    server.start()
    assert message_names(server)["twofold"] == 1
    done = server.tool("queue", "list", "--json")
    assert "carol@example.com" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(start_mailsrv: StartMailsrv, number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        route = f"smtp://127.0.0.1:{silent.getsockname()[1]}"
        server = start_mailsrv({"outbound.routes": {"*": route}})
        with submission(server) as client:
            client.sendmail(ALICE, ["carol@example.com"], written_by(ALICE, small("waiting")))
        connection, _ = silent.accept()  # the end in order waits for an answer from here
        program, begun = server.running, time.monotonic()
        status = None
        while status is None and time.monotonic() < begun + 3.5:
            program.signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = program.process.wait(0.1)
        connection.close()
    assert status == -number, program.output()
    assert time.monotonic() > begun + TOGETHER_S
    assert program.output().count("Told to end a second time") == 1
    assert "Traceback" not in program.output()
    assert "Server Shut Down." not in program.output()
    server.start()
    assert "carol@example.com" in server.tool("queue", "list", "--json").stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_that_end_it_in_order(start_mailsrv: StartMailsrv, number: signal.Signals) -> None:
    server = start_mailsrv()
    server.running.signal(number)
    server.running.wait(20)
    assert server.ended_in_order()
