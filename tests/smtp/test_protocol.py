"""The shell of the SMTP server: back-pressure, time-outs, TLS, half-closed and vanishing clients, shutting down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from mailsrv.checks.penalties import FREE_ERRORS, LONGEST_ERROR_S
from mailsrv.smtp.dialog import BUFFER_LIMIT
from mailsrv.smtp.pace import IDLE_S
from mailsrv.smtp.protocol import CLOSING_S, HANDSHAKE_S, UNREAD_S, SmtpProtocol
from mailsrv.store.spool import KEPT, MEMORY
from tests.smtp.world import TURN_S, Client, World, plain

MAIL = "MAIL FROM:<dave@example.net>"
RCPT = "RCPT TO:<alice@example.org>"
CONTENT = "Subject: hello\r\n\r\nhello\r\n."
WINDOW = 65_536  # of the simulated sockets
LINE = b"x" * 78 + b"\r\n"


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.end()


def shells(world: World, service: str = "smtp") -> list[SmtpProtocol]:
    return list(world.factories[service].connections)


def only(world: World, service: str = "smtp") -> SmtpProtocol:
    (shell,) = shells(world, service)
    return shell


def unsent(shell: SmtpProtocol) -> int:
    """Octets in the transport's buffer."""
    transport = shell.transport
    return int(len(transport.dataBuffer) - transport.offset + transport._tempDataLen)


def shut_down(world: World) -> list[bool]:
    """Begin to shut all services down; holds an item once that is done."""
    done: list[bool] = []
    for factory in world.factories.values():
        Deferred.fromCoroutine(factory.shut_down()).addCallback(lambda result: done.append(True))
    return done


# Commands and replies.


def test_a_whole_conversation(world: World) -> None:
    client = world.connect()
    assert client.received == b"220 mx.example.org ESMTP mailsrv\r\n"
    client.say("EHLO client.example.net")
    assert client.codes(MAIL, RCPT, "DATA") == [250, 250, 354]
    assert client.codes(CONTENT) == [250]
    assert client.codes("QUIT") == [221]
    assert client.gone
    assert world.messages() == [b"Subject: hello\r\n\r\nhello\r\n"]


def test_a_conversation_octet_by_octet(world: World) -> None:
    client = world.connect()
    for octet in "\r\n".join(["EHLO client.example.net", MAIL, RCPT, "DATA", CONTENT, "QUIT", ""]).encode():
        client.send(bytes([octet]))
    assert client.received.count(b"\r\n250 ") == 4
    assert client.received.endswith(b"221 2.0.0 Goodbye\r\n")
    assert world.messages() == [b"Subject: hello\r\n\r\nhello\r\n"]


def test_replies_keep_their_order_while_an_answer_is_awaited(world: World) -> None:
    client = world.greeted()
    gate = world.gate("database-writer")
    assert client.codes(MAIL, RCPT, "DATA", CONTENT, "NOOP", "nonsense", MAIL) == [250, 250, 354]
    gate.release()
    before = len(client.received)
    world.run()
    assert [line[:3] for line in client.received[before:].splitlines()] == [b"250", b"250", b"500", b"250"]


def test_thousands_of_answers_that_come_at_once_do_not_recurse() -> None:
    world = World('checks.blocklists = ["bl.example.com"]\nlimits.recipients = 5000')
    client = world.greeted()
    client.say(MAIL)
    codes = client.codes(*[RCPT] * 5000)
    assert codes == [250] * 5000
    world.end()


# Clients that do not read, and clients that send more than is wanted.


@pytest.mark.parametrize("line", [b"EHLO client.example.net\r\n", b"HELP\r\n", b"NOOP\r\n", b"VRFY a\r\n"])
def test_replies_that_nobody_reads_cost_little_and_stop_the_reading(world: World, line: bytes) -> None:
    client = world.greeted()
    client.stop_reading()
    client.send(line * (1_000_000 // len(line)))
    shell = only(world)
    assert unsent(shell) <= 2 * 65_536
    assert shell._core.buffered <= 2 * BUFFER_LIMIT
    assert shell._core.unsent == 0
    waiting = client.wire._tempDataLen + len(client.wire.dataBuffer) - client.wire.offset
    assert waiting > 1_000_000 - 2 * BUFFER_LIMIT - WINDOW - 4 * 65_536, "the server goes on reading"


def test_a_client_that_reads_nothing_is_gone_after_a_minute(world: World) -> None:
    client = world.greeted()
    client.stop_reading()
    client.send(b"HELP\r\n" * 50_000)
    world.run(UNREAD_S - 1)
    assert shells(world)
    world.run(2)
    assert not shells(world)


def test_who_says_much_at_once_lets_others_have_their_turn(world: World) -> None:
    """Or forty clients that say NOOP for ever would keep others waiting for seconds."""
    shell: Any = world.factories["smtp"].buildProtocol(None)
    wire = StringTransport()
    shell.makeConnection(wire)
    wire.clear()
    shell.dataReceived(b"NOOP\r\n" * 10_000)
    assert 0 < wire.value().count(b"250 2.0.0") < 500
    assert wire.producerState == "paused"
    world.run(1)
    assert wire.value().count(b"250 2.0.0") == 10_000
    assert wire.producerState == "producing"
    # Meanwhile it may be told goodbye, or go.
    shell.dataReceived(b"NOOP\r\n" * 10_000)
    shell.shut_down()
    assert wire.value().endswith(b"421 4.3.2 Shutting down; try again soon\r\n")
    shell.connectionLost(Failure(ConnectionDone()))


def test_a_slow_reader_gets_every_reply(world: World) -> None:
    client = world.greeted()
    before = len(client.received)
    client.stop_reading()
    client.send(b"HELP\r\n" * 20_000)
    turns = 0
    while client.received[before:].count(b"\r\n") < 20_000:
        client.wire.resumeProducing()
        world.run(0.002)
        client.stop_reading()
        world.run(UNREAD_S / 3)
        turns += 1
    assert turns * UNREAD_S / 3 > 2 * UNREAD_S
    client.read_on()
    assert client.codes("NOOP") == [250]


def test_what_waits_for_an_answer_is_not_read_without_end(world: World) -> None:
    client = world.greeted()
    gate = world.gate("database-writer")
    client.send("\r\n".join([MAIL, RCPT, "DATA", CONTENT, ""]).encode() + b"NOOP\r\n" * 100_000)
    assert only(world)._core.buffered <= 2 * BUFFER_LIMIT
    gate.release()
    world.run(1)
    assert client.received.count(b"250 2.0.0 OK\r\n") == 100_000


def test_content_is_not_read_faster_than_it_is_written_away(world: World) -> None:
    client = world.greeted()
    assert client.codes(MAIL, RCPT, "DATA")[-1] == 354
    gate = world.gate("spool")
    client.send(LINE * 50_000)
    assert world.spool.memory <= KEPT
    assert only(world)._core.buffered <= 2 * BUFFER_LIMIT
    gate.release()
    world.run(1)
    assert client.codes(".") == [250]
    assert world.ask("SELECT size FROM message") == [50_000 * len(LINE)]


def test_twenty_clients_with_ten_megabytes_each(world: World) -> None:
    clients = [world.greeted(host=f"198.51.100.{n}") for n in range(20)]
    for client in clients:
        client.say(MAIL, RCPT, "DATA")
    for _ in range(10):
        for client in clients:
            client.wire.write(LINE * 13_000)
        world.run()
        assert world.spool.memory <= MEMORY
        assert sum(shell._core.buffered for shell in shells(world)) <= 20 * 2 * BUFFER_LIMIT
    for client in clients:
        client.vanish()
    assert world.spool.memory == 0
    assert world.files() == []


def test_an_endless_line_costs_nothing_and_is_refused_once(world: World) -> None:
    client = world.greeted()
    for _ in range(20):
        client.send(b"x" * 100_000)
        assert only(world)._core.buffered <= BUFFER_LIMIT
    assert client.codes("", "NOOP") == [500, 250]


# Time.


def test_an_idle_client_is_told_so(world: World) -> None:
    client = world.greeted()
    world.run(IDLE_S - 10)
    client.say("NOOP")
    world.run(IDLE_S - 10)
    assert not client.gone
    world.run(11)
    assert client.received.endswith(b"421 4.4.2 Nothing heard for too long; closing\r\n")
    assert client.gone


def test_an_idle_client_that_does_not_close_is_gone_all_the_same(world: World) -> None:
    client = world.greeted()
    client.start_tls()
    client.wire.pauseProducing()
    world.run(IDLE_S + CLOSING_S + 1)
    assert not shells(world)


def test_silence_within_content_is_silence(world: World) -> None:
    client = world.greeted()
    client.say(MAIL, RCPT, "DATA")
    client.send(b"begun")
    world.run(IDLE_S + 1)
    assert client.received.endswith(b"421 4.4.2 Nothing heard for too long; closing\r\n")
    assert world.spool.memory == 0


def test_a_client_is_not_idle_while_it_waits_for_us(world: World) -> None:
    client = world.greeted()
    gate = world.gate("database-writer")
    client.say(MAIL, RCPT, "DATA", CONTENT)
    world.run(2 * IDLE_S + 1)
    gate.release()
    world.run(1)
    assert b"Accepted as" in client.received
    world.run(IDLE_S - 10)
    assert not client.gone


def test_a_client_is_not_idle_while_its_content_is_written_away(world: World) -> None:
    client = world.greeted()
    client.say(MAIL, RCPT, "DATA")
    gate = world.gate("spool")
    client.send(LINE * (KEPT // len(LINE) + 1))
    world.run(2 * IDLE_S - 1)
    gate.release()
    world.run(100)
    assert client.codes(".") == [250]


def test_one_timer_is_enough(world: World) -> None:
    client = world.greeted()
    for _ in range(20):
        client.say("NOOP")
    assert len(world.outside.reactor.getDelayedCalls()) == 1


# TLS.


def test_starttls(world: World) -> None:
    client = world.greeted().start_tls()
    assert "STARTTLS" not in client.say("EHLO client.example.net")
    assert client.transaction("alice@example.org")[-1] == 250
    (prefix,) = world.ask("SELECT prefix FROM content")
    assert b"with ESMTPS (TLSv1.3)" in prefix
    assert client.codes("QUIT") == [221]
    assert client.gone


def test_tls_from_the_first_octet(world: World) -> None:
    client = world.connect(465, tls=True)
    assert client.received == b"220 mx.example.org ESMTP mailsrv\r\n"
    assert " PLAIN LOGIN\r\n" in client.say("EHLO client.example.net")
    assert client.codes(plain("alice@example.org")) == [235]
    assert client.transaction("bob@example.org", sender="alice@example.org")[-1] == 250
    assert world.ask("SELECT protocol, account FROM message") == [("ESMTPSA", "alice@example.org")]


def test_everything_said_before_tls_is_forgotten(world: World) -> None:
    client = world.greeted()
    assert client.codes(MAIL, RCPT) == [250, 250]
    client.start_tls()
    assert client.codes(RCPT, "DATA", MAIL) == [503, 503, 503]
    client.say("EHLO other.example.net")
    assert client.codes("DATA", RCPT) == [503, 503]
    assert client.transaction("bob@example.org")[-1] == 250
    assert world.recipients() == [("bob@example.org", "bob@example.org")]
    assert world.ask("SELECT helo FROM message") == ["other.example.net"]


def test_a_login_in_clear_is_forgotten_under_tls() -> None:
    world = World('auth.cleartext = "loopback"')
    client = world.connect(587, "127.0.0.1")
    client.say("EHLO client.example.net")
    assert client.codes(plain("alice@example.org")) == [235]
    client.start_tls()
    client.say("EHLO client.example.net")
    assert client.codes("MAIL FROM:<alice@example.org>") == [530]
    world.end()


@pytest.mark.parametrize("behind", ["NOOP\r\n", "N", "EHLO a\r\nMAIL FROM:<dave@example.net>\r\n"])
def test_anything_behind_starttls_ends_the_connection(world: World, behind: str) -> None:
    client = world.greeted()
    client.send(f"STARTTLS\r\n{behind}".encode())
    assert client.gone
    assert b"\r\n220 " not in client.received
    assert client.received.endswith(b"421 4.7.0 Data behind STARTTLS; closing\r\n")


@pytest.mark.parametrize("octets", [b"", b"\x16\x03\x01\x02\x00\x01"])
def test_a_handshake_that_never_ends_on_a_port_with_tls(world: World, octets: bytes) -> None:
    client = world.connect(465)
    client.send(octets)
    world.run(HANDSHAKE_S - 1)
    assert not client.gone
    world.run(2)
    assert client.gone
    assert client.received == b""
    assert not shells(world, "submissions")


@pytest.mark.parametrize("octets", [b"", b"\x16\x03\x01\x02\x00\x01"])
def test_a_handshake_that_never_ends_after_starttls(world: World, octets: bytes) -> None:
    client = world.greeted()
    assert client.codes("STARTTLS") == [220]
    for _ in range(6):  # slowly is not progress
        client.send(octets[:1])
        octets = octets[1:]
        world.run(HANDSHAKE_S / 6)
    world.run(1)
    assert client.gone
    assert not shells(world)


@pytest.mark.parametrize("port", [25, 465])
def test_no_handshake_at_all(world: World, port: int) -> None:
    client = world.connect(port)
    if port == 25:
        client.say("EHLO client.example.net", "STARTTLS")
    before = len(client.received)
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    assert client.gone
    assert b"421" not in client.received[before:]  # not in clear
    world.run()
    assert not shells(world) + shells(world, "submissions")


def test_the_greeting_does_not_stop_a_slow_handshake(world: World) -> None:
    world.network.weather = type(world.network.weather)(latency_s=(2.0, 2.0), splits=0.0)
    client = world.connect(465, tls=True)
    world.run(20)
    assert client.received.startswith(b"220 ")
    client.wire.write(b"QUIT\r\n")
    world.run(CLOSING_S + 15)
    assert client.received.endswith(b"221 2.0.0 Goodbye\r\n")


def test_quit_behind_content_closes_tls_at_once(world: World) -> None:
    client = world.greeted().start_tls()
    client.say("EHLO client.example.net")
    gate = world.gate("database-writer")
    client.say(MAIL, RCPT, "DATA", CONTENT, "QUIT")
    gate.release()
    world.run(4 * TURN_S)
    assert client.received.endswith(b"221 2.0.0 Goodbye\r\n")
    assert client.gone
    assert not shells(world)


def test_a_client_that_does_not_answer_the_end_of_tls_is_gone_soon(world: World) -> None:
    client = world.greeted().start_tls()
    client.wire.pauseProducing()
    client.send(b"QUIT\r\n")
    world.run(CLOSING_S - 1)
    assert shells(world)
    world.run(2)
    assert not shells(world)


# Clients that end the conversation in their own way.


@pytest.mark.parametrize("more", [0, 1, 10_000])
def test_a_half_closed_client_gets_its_answers(world: World, more: int) -> None:
    client = world.greeted()
    gate = world.gate("database-writer")
    client.say(MAIL, RCPT, "DATA", CONTENT, *["NOOP"] * more)
    client.end_sending()
    assert not client.gone
    gate.release()
    world.run(1)
    assert b"Accepted as" in client.received
    assert client.received.count(b"250 2.0.0 OK\r\n") == more
    assert client.gone
    assert len(world.messages()) == 1


def test_a_half_closed_client_in_the_middle_of_content(world: World) -> None:
    client = world.greeted()
    client.say(MAIL, RCPT, "DATA")
    client.send(b"Subject: hello\r\n\r\nhello\r\n")
    client.end_sending()
    assert client.gone
    assert world.messages() == []
    assert world.spool.memory == 0


@pytest.mark.parametrize("size", [1, 1000, 20_000], ids=["one line", "in memory", "in a file"])
@pytest.mark.parametrize("leave", [Client.vanish, Client.end_sending])
def test_a_client_gone_in_the_middle_of_content_leaves_nothing(world: World, size: int, leave: Any) -> None:
    client = world.greeted()
    client.say(MAIL, RCPT, "DATA")
    client.send(LINE * size)
    assert world.spool.memory > 0
    assert len(world.files()) == (size == 20_000)
    leave(client)
    assert world.spool.memory == 0
    assert world.files() == []
    assert world.messages() == []


def test_a_client_gone_while_its_content_is_written_away_leaves_nothing(world: World) -> None:
    client = world.greeted()
    client.say(MAIL, RCPT, "DATA")
    gate = world.gate("spool")
    client.send(LINE * 20_000)
    client.vanish()
    gate.release()
    world.run()
    assert world.files() == []
    assert world.spool.memory == 0


def test_a_client_gone_while_its_message_is_stored(world: World) -> None:
    client = world.greeted()
    gate = world.gate("database-writer")
    client.say(MAIL, RCPT, "DATA", CONTENT)
    client.vanish()
    gate.release()
    world.run()
    assert len(world.messages()) == 1
    assert world.spool.memory == 0


def test_a_client_gone_between_two_chunks(world: World) -> None:
    client = world.greeted()
    assert client.codes(MAIL, RCPT) == [250, 250]
    client.send(b"BDAT 1000\r\n" + b"x" * 1000)
    assert world.spool.memory == 1000
    client.vanish()
    assert world.spool.memory == 0


def test_rset_and_a_new_hello_forget_the_content(world: World) -> None:
    client = world.greeted()
    for end in ("RSET", "EHLO again.example.net"):
        assert client.codes(MAIL, RCPT) == [250, 250]
        client.send(b"BDAT 1000\r\n" + b"x" * 1000)
        client.say(end)
        assert world.spool.memory == 0


def test_too_many_errors_end_the_connection() -> None:
    world = World("limits.penalties = false")
    client = world.greeted()
    codes = client.codes(*["nonsense"] * 30)
    assert codes == [500] * 20 + [421]
    assert client.gone
    world.end()


def test_errors_make_a_client_wait_longer_and_longer_in_all_its_connections(world: World) -> None:
    client = world.greeted()
    assert client.codes(*["nonsense"] * (FREE_ERRORS + 5)) == [500] * (FREE_ERRORS + 1)
    world.run(0.25 + 0.5 + 1.0)
    assert client.received.count(b"500 ") == FREE_ERRORS + 4
    other = world.greeted()
    assert len(other.codes("nonsense", "NOOP")) == 1
    assert world.greeted(host="198.51.100.8").codes("nonsense", "NOOP") == [500, 250]
    world.run(LONGEST_ERROR_S)
    assert other.received.endswith(b"250 2.0.0 OK\r\n")


def test_trying_out_recipients_takes_long(world: World) -> None:
    client = world.greeted()
    client.codes("MAIL FROM:<dave@example.net>")
    names = [f"RCPT TO:<user{n}@example.org>" for n in range(FREE_ERRORS + 3)]
    assert len(client.codes(*names)) == FREE_ERRORS + 1


def test_an_accepted_message_makes_good_for_errors(world: World) -> None:
    client = world.greeted()
    client.codes(*["nonsense"] * FREE_ERRORS)
    assert client.transaction("alice@example.org")[-1] == 250
    assert client.codes("nonsense", "nonsense") == [500, 500]


# A slow client.


def test_a_command_that_comes_octet_by_octet_is_not_waited_for_for_ever(world: World) -> None:
    client = world.greeted()
    for _ in range(11):
        client.send(b"N")
        world.run(30)
    assert client.received.endswith(b"421 4.4.2 Nothing heard for too long; closing\r\n")
    assert client.gone


def test_content_has_a_minimum_rate(world: World) -> None:
    client = world.greeted()
    client.codes(MAIL, RCPT, "DATA")
    for _ in range(60):
        client.send(b"x" * 98 + b"\r\n")  # ten octets a second
        world.run(10)
    assert client.gone
    assert world.messages() == []


@pytest.mark.parametrize("spoilt", [b"a bare LF\n\r\n", b"x" * 1500 + b"\r\n"])
@pytest.mark.parametrize("begin", [b"DATA\r\n", b"BDAT 62000 LAST\r\n"])
def test_content_that_is_refused_may_take_its_time_to_its_end(spoilt: bytes, begin: bytes) -> None:
    """A 421 in place of the refusal would only make the client send it all again, for days."""
    world = World("limits.message_size = 1000")
    client = world.greeted()
    client.codes(MAIL, RCPT)
    client.send(begin + spoilt)
    left = 62_000 - len(spoilt)
    while left:
        client.send((b"x" * 98 + b"\r\n") * 50 if left > 5000 else b"x" * left)
        left -= min(left, 5000)
        world.run(40)
    if begin.startswith(b"DATA"):
        client.send(b"\r\n.\r\n")
    world.run(1)
    assert client.received.splitlines()[-1][:9] in (b"554 5.6.0", b"552 5.3.4")
    assert not client.gone
    world.end()


def test_a_transaction_has_a_deadline() -> None:
    world = World('limits.transaction_time = "10m"')
    client = world.greeted()
    client.codes(MAIL, RCPT, "DATA")
    for _ in range(31):
        client.send((b"x" * 98 + b"\r\n") * 40)  # fast enough by the minimum rate
        world.run(20)
    assert client.gone
    assert world.messages() == []
    world.end()


# Bugs of ours.


def test_an_exception_in_a_decision_is_421_and_the_trace_stays_here(world: World) -> None:
    client = world.greeted()
    world.settings.config = None  # type: ignore[assignment]
    assert client.say(MAIL) == "421 4.3.0 Local trouble; try again later\r\n"
    assert client.gone
    assert len(world.failures) == 1
    assert "AttributeError" in world.failures.pop()


def test_an_exception_in_something_awaited_is_451(world: World) -> None:
    world.settings.configure('checks.blocklists = ["bl.example.com"]')
    trouble: Any = RuntimeError("a bug")
    world.dns.records[("7.100.51.198.bl.example.com", "A")] = trouble
    client = world.greeted()
    assert client.say(MAIL, RCPT).endswith("451 4.3.0 Local trouble; try again later\r\n")
    assert client.codes("NOOP") == [250]
    assert all("a bug" in failure for failure in world.failures)
    world.failures.clear()


def test_an_exception_while_content_is_written_away_does_not_lose_a_part_of_it(world: World) -> None:
    def fail(step: str) -> None:
        if step.startswith("disk"):
            raise RuntimeError("a bug")

    client = world.greeted()
    client.say(MAIL, RCPT, "DATA")
    world.machine.steps.failures.append(fail)
    client.send(LINE * 20_000)
    world.machine.steps.failures.clear()
    assert client.codes(".") == [451]
    assert world.messages() == []


def test_threads_that_fail_end_the_connection(world: World) -> None:
    client = world.greeted()
    client.say(MAIL, RCPT, "DATA")
    world.outside.gates["spool"].failure = RuntimeError("no thread can be started")
    client.send(LINE * 20_000)
    world.outside.gates["spool"].failure = None
    assert client.received.endswith(b"421 4.3.0 Local trouble; try again later\r\n")
    assert client.gone
    assert world.messages() == []
    assert world.failures
    assert all("no thread can be started" in failure for failure in world.failures)
    world.failures.clear()


# Limits on connections.


def test_over_the_limit_of_one_network_a_client_is_told_to_come_back() -> None:
    world = World("limits.connections_per_client = 2")
    first, second = world.connect(), world.connect(587)
    third = world.connect()
    assert third.received == b"421 4.7.0 Too many connections; try again later\r\n"
    assert third.gone
    assert world.connect(host="198.51.100.8").received.startswith(b"220")
    first.vanish()
    assert world.connect().received.startswith(b"220")
    second.say("QUIT")
    assert world.connect().received.startswith(b"220")
    assert world.ledger("connection", "client, status, rule") == [("198.51.100.7", "4.7.0", "limits.connections")]
    world.end()


def test_a_network_is_a_64_for_ipv6() -> None:
    world = World("limits.connections_per_client = 1")
    assert world.connect(host="2001:db8:1:2::3").received.startswith(b"220")
    assert world.connect(host="2001:db8:1:2:ffff::4").received.startswith(b"421")
    assert world.connect(host="2001:db8:1:3::3").received.startswith(b"220")
    world.end()


def test_over_the_limit_in_all() -> None:
    world = World("limits.connections = 3")
    clients = [world.connect(host=f"198.51.100.{n}") for n in range(5)]
    assert [client.received[:3] for client in clients] == [b"220"] * 3 + [b"421"] * 2
    world.end()


def test_over_the_limit_one_of_a_network_has_a_handshake_to_be_told_so() -> None:
    world = World("limits.connections_per_client = 1")
    world.connect(465, tls=True)
    slow = world.connect(465)
    assert not slow.gone
    without = world.connect(465, tls=True)
    assert (without.gone, without.received) == (True, b"")
    assert len(shells(world, "submissions")) == 2
    world.run(HANDSHAKE_S + 1)
    assert (slow.gone, slow.received) == (True, b"")
    for _ in range(3):
        client = world.connect(465, tls=True)
        assert client.received == b"421 4.7.0 Too many connections; try again later\r\n"
        world.run(1)
        assert client.gone
    assert len(world.ledger("connection")) == 2  # one a minute
    world.end()


def test_a_client_that_is_turned_away_costs_no_question_to_the_dns() -> None:
    world = World('limits.connections_per_client = 1\nchecks.blocklists = ["bl.example.com"]')
    world.greeted()
    asked = len(world.dns.asked)
    assert world.connect().gone
    assert len(world.dns.asked) == asked
    assert len(world.asked()) == 1
    world.end()


def test_clients_that_come_and_go_in_every_way_are_counted_right(world: World) -> None:
    for leave in (Client.vanish, Client.end_sending, lambda client: client.say("QUIT")):
        for port, tls in ((25, False), (587, False), (465, True), (465, False)):
            leave(world.connect(port, tls=tls))
    clients = [world.connect(host="198.51.100.9") for _ in range(60)]
    assert sum(client.received.startswith(b"220") for client in clients) == 50
    for client in clients:
        if not client.gone:
            client.vanish()
    assert world.connect(host="198.51.100.9").received.startswith(b"220")


# The end.


def test_shutting_down_says_421_to_idle_clients_at_once(world: World) -> None:
    clients = [world.connect(), world.greeted(), world.greeted(587), world.connect(465, tls=True)]
    clients[1].say(MAIL)
    done = shut_down(world)
    world.run(4 * TURN_S)
    for client in clients:
        assert client.received.endswith(b"421 4.3.2 Shutting down; try again soon\r\n")
        assert client.gone
    assert done == [True] * 3


def test_shutting_down_answers_what_is_being_stored_first(world: World) -> None:
    client = world.greeted()
    gate = world.gate("database-writer")
    client.say(MAIL, RCPT, "DATA", CONTENT, MAIL, RCPT)
    done = shut_down(world)
    world.run(1)
    assert not client.gone
    assert len(done) == 2
    gate.release()
    world.run(4 * TURN_S)
    _, accepted, after = client.received.partition(b"Accepted as")
    assert accepted
    assert after[12:] == b"\r\n421 4.3.2 Shutting down; try again soon\r\n"
    assert client.gone
    assert len(done) == 3


def test_shutting_down_in_the_middle_of_content(world: World) -> None:
    small, large = world.greeted(), world.greeted()
    for client in (small, large):
        client.say(MAIL, RCPT, "DATA")
    gate = world.gate("spool")
    small.send(LINE)
    large.send(LINE * 20_000)
    shut_down(world)
    gate.release()
    world.run(4 * TURN_S)
    for client in (small, large):
        assert client.received.endswith(b"421 4.3.2 Shutting down; try again soon\r\n")
        assert client.gone
    assert world.files() == []


def test_shutting_down_does_not_wait_for_handshakes_and_penalties(world: World) -> None:
    handshaking = world.greeted()
    handshaking.say("STARTTLS")
    silent = world.connect(465)
    guessing = world.greeted(587).start_tls()
    guessing.say("EHLO client.example.net")
    for _ in range(7):
        guessing.say(plain("alice@example.org", "wrong"))
        world.run(20)
    guessing.say(plain("alice@example.org"))
    assert not guessing.received.endswith(b"succeeded\r\n")
    done = shut_down(world)
    world.run(4 * TURN_S)
    assert done == [True] * 3
    assert handshaking.gone
    assert silent.gone
    assert guessing.received.endswith(b"421 4.3.2 Shutting down; try again soon\r\n")


def test_patience_comes_to_an_end(world: World) -> None:
    client = world.greeted()
    gate = world.gate("database-writer")
    client.say(MAIL, RCPT, "DATA", CONTENT)
    done = shut_down(world)
    for factory in world.factories.values():
        factory.abort()
    world.run()
    assert client.gone
    assert client.reason is not None
    assert client.reason.check(ConnectionLost)
    assert len(done) == 3
    gate.release()


def test_a_changed_configuration_holds_for_the_next_connection(world: World) -> None:
    first = world.connect()
    world.settings.configure('limits.message_size = "1 MiB"')
    assert "SIZE 52428800" in first.say("EHLO client.example.net")
    assert "SIZE 1048576" in world.connect().say("EHLO client.example.net")
