"""The shell of the POP3 server: time-outs, slow and vanishing clients, half-closed sockets, shutting down."""

from __future__ import annotations

import os
import tracemalloc
from itertools import pairwise
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred

from mailsrv.pop3.dialog import INPUT_LIMIT, OUTPUT_LIMIT
from mailsrv.pop3.protocol import IDLE_S, LOGIN_S, PIECE, UNREAD_S
from mailsrv.store.mailbox.mailboxes import AT_ONCE
from mailsrv.store.mailbox.reading import CHUNK
from tests.pop3.world import BUFFER, PASSWORD, World
from tests.worlds.worker import HeldWorker

LOGIN = b"USER alice@example.org\r\nPASS %b\r\n" % PASSWORD.encode()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, cached=False)


def test_replies_to_pipelined_commands_are_one_write(world: World) -> None:
    world.deliver(b"hello\n")
    client = world.connect().log_in()
    client.writes.clear()
    client.send(b"STAT\r\nRETR 1\r\nNOOP\r\nLIST\r\n")
    assert len(client.writes) == 1
    assert client.writes[0].count(b"+OK") == 4


def test_thousands_of_pipelined_commands_do_not_recurse(world: World) -> None:
    world.deliver(b"hello\n")
    client = world.connect()
    client.send(LOGIN + b"RETR 1\r\nNOOP\r\n" * 5000)
    assert client.received.count(b"nothing done") == 5000
    assert client.received.count(b"hello\r\n.\r\n") == 5000


def test_many_messages_in_one_turn_but_not_all(tmp_path: Path) -> None:
    """A client that asks for everything at once waits for its turn like the others."""
    world = World(tmp_path)
    world.deliver((b"x" * 70 + b"\n") * 100)
    client = world.connect().log_in()
    before = len(client.received)
    client.protocol.dataReceived(b"RETR 1\r\n" * 100)
    turns = [len(client.received) - before]

    def others() -> None:
        turns.append(len(client.received) - before)
        if turns[-1] > turns[-2]:
            world.clock.callLater(0, others)

    world.clock.callLater(0, others)
    world.settle()
    message = 7200 + len("+OK 7200 octets\r\n.\r\n")
    assert turns[-1] == 100 * message
    steps = {after - before for before, after in pairwise(turns[:-2])}
    assert steps == {-(-OUTPUT_LIMIT // message) * message}


def test_nothing_more_is_read_while_the_client_does_not_take_what_is_in_memory(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.deliver((b"x" * 70 + b"\n") * 100)
    client = world.connect().log_in()
    client.reads = False
    client.send(b"RETR 1\r\n" * 100)
    assert len(client.waiting) < BUFFER + OUTPUT_LIMIT + 8192
    assert not client.server_reads
    client.read()
    assert len(client.waiting) < BUFFER + OUTPUT_LIMIT + 8192
    while client.waiting:
        client.read()
    assert client.received.count(b"+OK 7200 octets\r\n") == 100
    assert client.server_reads


def test_a_large_message_in_memory_is_read_at_once_and_goes_out_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    content = (b"." + b"x" * 69 + b"\n") * (AT_ONCE // 72)
    world.deliver(content)
    client = world.connect().log_in()
    worker = HeldWorker()
    monkeypatch.setattr(world.mailboxes, "_worker", worker)
    monkeypatch.setattr(world.outside.filesystem, "read_cached", lambda path: Path(os.fsdecode(path)).read_bytes())
    client.reads = False
    before = len(client.received)
    client.send(b"RETR 1\r\nNOOP\r\n")
    assert len(worker) == 0
    while client.waiting:
        assert len(client.waiting) <= BUFFER + PIECE
        world.clock.advance(UNREAD_S - 1)
        client.read()
    wire = content.replace(b"\n", b"\r\n")
    stuffed = wire.replace(b"\n.", b"\n..")
    assert client.received[before:] == b"+OK %d octets\r\n.%b.\r\n+OK nothing done\r\n" % (len(wire), stuffed)


def test_a_client_that_does_not_log_in(world: World) -> None:
    client = world.connect()
    world.clock.advance(LOGIN_S - 1)
    client.say("CAPA")
    world.clock.advance(0.9)
    assert client.connected
    world.clock.advance(0.2)
    assert client.closed
    assert not world.factory.connections
    assert world.doorkeeper.inside == []
    assert world.clock.getDelayedCalls() == []


def test_an_idle_client(world: World) -> None:
    client = world.connect().log_in()
    world.clock.pump([50.0] * 11)
    client.say("NOOP")
    world.clock.pump([50.0] * 11)
    assert client.connected
    world.clock.advance(IDLE_S - 550)
    assert client.aborted
    assert client.received.endswith(b"+OK nothing done\r\n")


def test_one_timer_is_enough(world: World) -> None:
    client = world.connect().log_in()
    for _ in range(100):
        client.say("NOOP")
    assert len(world.clock.getDelayedCalls()) == 1


def test_a_client_that_never_reads_holds_one_chunk(world: World) -> None:
    world.deliver(b"x" * 77 + b"\n" * 1, "1.M1.host")
    world.deliver((b"y" * 77 + b"\n") * 100_000, "2.M2.host")
    client = world.connect().log_in()
    client.reads = False
    client.send(b"RETR 2\r\n" * 100 + b"DELE 1\r\nQUIT\r\n")
    assert len(client.waiting) < 2 * BUFFER + 1024
    assert not client.server_reads
    for _ in range(20):
        client.read(1)
        world.clock.advance(UNREAD_S / 30)
    assert client.connected
    world.clock.advance(UNREAD_S)
    assert client.aborted
    assert len(world.files()) == 2
    assert not world.factory.connections


def test_a_slow_reader_gets_everything(world: World) -> None:
    content = (b"y" * 77 + b"\n") * 20_000
    world.deliver(content)
    client = world.connect().log_in()
    client.reads = False
    client.send(b"RETR 1\r\nDELE 1\r\nQUIT\r\n")
    while client.connected:
        assert len(world.files()) == (1 if client.waiting and b"goodbye" not in client.waiting else 0)
        world.clock.advance(UNREAD_S / 2)
        client.read()
    assert client.received.endswith(content.replace(b"\n", b"\r\n") + b".\r\n+OK message 1 deleted\r\n+OK goodbye\r\n")
    assert world.files() == []


def test_replies_that_nobody_reads_stop_the_reading_of_commands(world: World) -> None:
    client = world.connect()
    client.reads = False
    client.send(b"CAPA\r\n" * 2000)
    assert not client.server_reads
    assert len(client.waiting) < 3 * BUFFER
    while client.waiting:
        client.read()
    assert client.received.count(b"IMPLEMENTATION") == 2000
    assert client.server_reads


def test_input_waits_outside_while_an_answer_is_awaited(world: World) -> None:
    worker = HeldWorker()
    world.mailboxes._worker = worker
    client = world.connect().log_in()
    client.send(b"NOOP\r\n" * (INPUT_LIMIT // 6 + 1))
    assert not client.server_reads
    worker.run()
    world.settle()
    assert client.server_reads
    assert client.received.count(b"nothing done") == INPUT_LIMIT // 6 + 1


def test_long_listings_come_in_pieces(world: World) -> None:
    world.deliver(b"")
    for n in range(5000):
        (world.folder() / "new" / f"{1700000000 + n}.Q1J4BS1D7M00N{n}.mx,S=1,W=2").write_bytes(b"\n")
    client = world.connect().log_in()
    client.reads = False
    client.say("UIDL")
    client.read()
    assert len(client.received) < 2 * BUFFER + 4096
    while client.waiting:
        client.read()
    lines = client.received.split(b"\r\n")
    assert lines[-2] == b"."
    assert lines[-3] == b"5001 1764000000.Q1J4BS1D7M00N0.mx.example.org"
    assert [int(line.split()[0]) for line in lines[4:-2]] == list(range(1, 5002))


def test_what_was_received_before_a_half_close_is_answered(world: World) -> None:
    world.deliver(b"hello\n")
    worker = HeldWorker()
    client = world.connect().log_in()
    world.mailboxes._worker = worker
    client.send(b"RETR 1\r\nNOOP\r\nDELE 1\r\n")
    client.end_sending()
    assert client.connected
    worker.run()
    world.settle()
    assert client.received.endswith(b"hello\r\n.\r\n+OK nothing done\r\n+OK message 1 deleted\r\n")
    assert client.closed
    assert not client.aborted
    assert len(world.files()) == 1


def test_a_client_that_goes_while_its_message_is_read(world: World) -> None:
    world.deliver((b"y" * 77 + b"\n") * 10_000)
    client = world.connect().log_in()
    worker = HeldWorker()
    immediate, world.mailboxes._worker = world.mailboxes._worker, worker
    client.send(b"RETR 1\r\n")
    worker.run(1)
    client.vanish()
    assert world.factory.connections
    while len(worker):
        worker.run(1)
    assert not world.factory.connections
    world.mailboxes._worker = immediate
    assert world.connect().log_in().say("STAT").startswith("+OK 1 ")


def test_a_disk_that_fails_within_a_message_ends_the_connection(world: World) -> None:
    world.deliver((b"y" * 77 + b"\n") * 10_000)
    client = world.connect().log_in()
    client.reads = False
    client.send(b"RETR 1\r\n")
    broken = world.mailboxes._worker

    class Broken(HeldWorker):
        def call(self, function, *args, **kwargs):  # type: ignore[no-untyped-def]
            if function.__name__ == "next_chunk":
                return broken.call(_fail)
            return broken.call(function, *args, **kwargs)

    world.mailboxes._worker = Broken()
    client.read()
    client.read()
    assert client.aborted
    assert not client.received.endswith(b".\r\n")


def _fail() -> None:
    raise OSError(5, "Input/output error")


def test_shutting_down(world: World) -> None:
    idle, busy, unread = world.connect(), world.connect().log_in(), world.connect().log_in("bob")
    world.deliver(b"hello\n")
    world.deliver(b"y" * 1_000_000, mailbox="bob")
    unread.say("QUIT")
    unread = world.connect().log_in("bob")
    unread.reads = False
    unread.send(b"RETR 1\r\n")
    worker = HeldWorker()
    world.mailboxes._worker = worker
    busy.say("QUIT")
    busy = world.connect().log_in()
    ended = Deferred.fromCoroutine(world.factory.shut_down())
    world.settle()
    assert idle.received.endswith(b"-ERR [SYS/TEMP] the server is going down, try again in a minute\r\n")
    assert idle.closed
    assert busy.connected
    worker.run()
    world.settle()
    assert b"+OK 1 message" in busy.received
    assert busy.received.endswith(b"-ERR [SYS/TEMP] the server is going down, try again in a minute\r\n")
    assert not ended.called
    world.factory.abort()
    worker.run()
    worker.run()
    assert ended.called


def test_shutting_down_without_clients_is_done_at_once(world: World) -> None:
    assert Deferred.fromCoroutine(world.factory.shut_down()).called


def test_a_full_deletion_at_shutdown_is_finished(world: World) -> None:
    world.deliver(b"hello\n")
    client = world.connect().log_in()
    worker = HeldWorker()
    world.mailboxes._worker = worker
    client.send(b"DELE 1\r\nQUIT\r\n")
    ended = Deferred.fromCoroutine(world.factory.shut_down())
    world.factory.abort()
    assert not ended.called
    worker.run()
    assert ended.called
    assert world.files() == []


def test_under_implicit_tls_the_greeting_waits_for_the_handshake(world: World) -> None:
    world.factory.implicit_tls = True
    client = world.connect("192.0.2.1")
    assert client.writes == []
    client.protocol.handshakeCompleted()
    world.settle()
    assert client.received.startswith(b"+OK")
    assert "USER\r\nSASL SCRAM-SHA-256 PLAIN\r\n" in client.say("CAPA")
    silent = world.connect("192.0.2.1")
    world.clock.advance(LOGIN_S)
    assert silent.aborted


@pytest.mark.parametrize("end", ["refused", "shut down"])
def test_no_handshake_where_nothing_is_to_be_said(world: World, end: str) -> None:
    world.factory.implicit_tls = True
    if end == "refused":
        world.doorkeeper.refusal = "too many"
    client = world.connect()
    if end == "shut down":
        Deferred.fromCoroutine(world.factory.shut_down())
    assert client.aborted
    assert client.writes == []
    assert not world.factory.connections


def test_who_is_not_admitted_is_told_so_under_implicit_tls(world: World) -> None:
    world.factory.implicit_tls = True
    world.doorkeeper.refusal, world.doorkeeper.explains = "too many", True
    client = world.connect("192.0.2.1")
    assert world.doorkeeper.explaining == ["192.0.2.1"]
    assert (client.writes, client.aborted) == ([], False)
    client.protocol.handshakeCompleted()
    world.settle()
    assert client.received == b"-ERR [SYS/TEMP] too many connections, try again in a minute\r\n"
    assert client.closed
    assert world.doorkeeper.explaining == []
    silent = world.connect("192.0.2.1")
    world.clock.advance(LOGIN_S)
    assert silent.aborted
    assert (world.doorkeeper.explaining, world.doorkeeper.inside) == ([], [])


@pytest.mark.parametrize("reads", [True, False])
def test_a_message_of_50_mib_costs_constant_memory(world: World, reads: bool) -> None:
    block = (b"0123456789" * 7 + b"abcde\n") * 1000
    blocks = 50 * 1024 * 1024 // len(block) + 1
    size = (len(block) + 1000) * blocks
    name = f"1764000000.Q1J4BS1D7M00N0.mx.example.org,S={len(block) * blocks},W={size}"
    with open(world.deliver(b"", name), "wb") as file:
        for _ in range(blocks):
            file.write(block)
    client = world.connect().log_in()
    client.reads = False
    sent = 0
    tracemalloc.start()
    try:
        client.send(b"RETR 1\r\n")
        if reads:
            while client.waiting:
                sent += len(client.waiting)
                client.waiting = b""
                client.writes.clear()
                client.read(0)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 16 * CHUNK
    if reads:
        assert sent == size + len(f"+OK {size} octets\r\n.\r\n")
        client.reads = True
        assert client.say("STAT") == f"+OK 1 {size}\r\n"
