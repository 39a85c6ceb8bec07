"""The whole server, built as ``twistd`` builds it, on a simulated machine: start, work, change, stop."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs

from mailsrv import app
from mailsrv.app import Server, StartError, build
from mailsrv.config import parse
from mailsrv.dkim import publication
from mailsrv.outside import listening
from mailsrv.store import key_states, ledger, queue
from mailsrv.store.accounts import homes
from mailsrv.store.accounts.accounts import parse_directory
from mailsrv.store.key_states import NO_KEYS
from mailsrv.store.ledger import Event
from mailsrv.store.mailbox import housekeeping, maildirsize
from mailsrv.store.schema import DatabaseError
from mailsrv.tls import ServerCertificate
from tests.simulation.certificates import pem
from tests.simulation.clients import Manner, connect, dot_stuffed
from tests.simulation.disk import SimulatedFilesystem
from tests.simulation.lines import Conversation, Gone
from tests.simulation.reactor import SimulatedReactor
from tests.simulation.timeline import Life, SimulatedCrash, Timeline
from tests.worlds.resolver import RecordsResolver
from tests.worlds.store import DATABASE, machine, wait

ADDRESS = "192.0.2.1"
CONFIG = """
hostname = "mx.example.org"
domains = ["example.org"]
state = "/state"
checks.dns = false
[listen]
smtp = ["tcp:25"]
submission = []
submissions = ["tcp:465"]
pop3 = ["tcp:110"]
pop3s = []
"""
LETTER = (
    b"From: bob@example.net\r\nDate: Mon, 1 Sep 2025 10:00:00 +0000\r\nMessage-ID: <1@example.net>\r\n"
    b"Subject: hello\r\n\r\n.dots\r\nand more\r\n"
)


class Forgetful(random.Random):
    """What was not synced is gone."""

    def choice(self, seq: Any) -> Any:
        return seq[0]


class Settings:
    """Settings as text."""

    def __init__(self, certificate: ServerCertificate, text: str = CONFIG) -> None:
        self.certificate = certificate
        self.keys = NO_KEYS
        self.changed: Callable[[], None] = lambda: None
        self.refused: Callable[[str], None] = lambda problem: None
        self.accounts = "alice@example.org:!\n"
        self.change(text)

    def change(self, text: str) -> None:
        self.config = parse(text, "/etc/mailsrv/mailsrv.toml")
        self.directory = parse_directory(self.config, self.accounts, "")

    def look(self) -> None:
        """Nothing changes by itself."""


class World:
    """A machine on which the server may be started, and clients elsewhere."""

    def __init__(self, certificate: ServerCertificate) -> None:
        self.timeline = Timeline()
        self.records = RecordsResolver()
        self.machine = machine(self.timeline, self.records)
        self.disk = self.machine.disk
        self.settings = Settings(certificate)
        self.server: Server

    def boot(self, text: str = CONFIG) -> Server:
        self.settings.change(text)
        outside = self.machine.boot()
        self.machine.life.ended[:] = [self.machine.databases.crash]
        self.server = build(self.settings, outside)
        return self.server

    def start(self, text: str = CONFIG) -> World:
        server = self.boot(text)
        server.listen()
        server.start()
        return self

    def reconfigure(self, text: str) -> None:
        self.settings.change(text)
        self.settings.changed()
        self.advance(0.5)

    def crash_at(self, step: str) -> None:
        """The machine stops before the next step of this name."""

        def failure(what: str) -> None:
            if what == step:
                self.machine.life.end()
                raise SimulatedCrash(what)

        self.machine.steps.failures.append(failure)

    def stop(self) -> float:
        """How long it took."""
        begun = self.timeline.now
        wait(self.timeline, self.server.stop(), 60)
        return self.timeline.now - begun

    def close(self) -> None:
        self.machine.life.end()
        self.machine.databases.remove()

    def advance(self, seconds: float) -> None:
        self.timeline.run(self.timeline.now + seconds)

    # -- clients

    def connect(self, port: int = 25, address: str = ADDRESS, client: str = "198.51.100.1") -> Conversation:
        """A client that has read the greeting; ``Gone``."""
        reactor = SimulatedReactor(self.timeline, self.machine.network, "client", (client,), Life("client"))
        conversation = wait(self.timeline, connect(reactor, address, port, Manner()))
        assert wait(self.timeline, conversation.line())[:3] in (b"220", b"+OK")
        return conversation

    def say(self, conversation: Conversation, command: bytes) -> bytes:
        """The last line of the answer."""
        conversation.send(command + b"\r\n")
        while (line := wait(self.timeline, conversation.line()))[3:4] == b"-":
            pass
        return line

    def begin_data(self, conversation: Conversation) -> None:
        for command in (b"EHLO client.example.net", b"MAIL FROM:<bob@example.net>", b"RCPT TO:<alice@example.org>"):
            assert self.say(conversation, command).startswith(b"250")
        assert self.say(conversation, b"DATA").startswith(b"354")

    def send(self, content: bytes = LETTER) -> bytes:
        """The answer to the final dot."""
        conversation = self.connect()
        self.begin_data(conversation)
        answer = self.say(conversation, dot_stuffed(content)[:-2])
        conversation.close()
        return answer

    def mailbox(self) -> list[bytes]:
        return list(self.disk.files("/state/mail/example.org/alice/new").values())

    def rows(self, query: str, *arguments: object) -> list[Any]:
        connection = self.machine.databases.look(DATABASE)
        try:
            return connection.execute(query, arguments).fetchall()
        finally:
            connection.close()

    def operator(self, function: Callable[..., Any], *arguments: object) -> None:
        """A verb of the tool, on a connection of its own."""
        connection = self.machine.databases.look(DATABASE)
        connection.execute("BEGIN IMMEDIATE")
        function(connection, self.machine.wall(), *arguments)
        connection.execute("COMMIT")
        connection.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ServerCertificate:
    folder = tmp_path_factory.mktemp("tls")
    for name, octets in zip(("cert.pem", "key.pem"), pem("mx.example.org"), strict=True):
        (folder / name).write_bytes(octets)
    return ServerCertificate(str(folder / "cert.pem"), str(folder / "key.pem"))


@pytest.fixture
def world(certificate: ServerCertificate) -> Iterator[World]:
    world = World(certificate)
    yield world
    world.close()


# -- at work


def test_the_next_keys_sign_when_dns_has_shown_them(world: World, tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    for _ in range(2):
        key_states.begin(state, "example.org", 0.0)
    world.start()
    # Of the new configuration the server looks only at where the keys are, which are files of the real disk.
    config = world.settings.config = parse(CONFIG.replace('"/state"', f'"{state}"'), "/etc/mailsrv/mailsrv.toml")
    world.settings.keys = key_states.load(config)
    following = world.settings.keys.next["example.org"]
    world.advance(2 * publication.SEEN_S)
    assert key_states.load(config).next != {}
    world.records.records.update({(key.name, "TXT"): [key.record] for key in following})
    world.advance(publication.SEEN_S + 3 * app.PUBLICATION_EVERY_S)
    now = key_states.load(config)
    assert now.next == {}
    assert tuple(key.public for key in now.signing["example.org"]) == following


@pytest.mark.parametrize("size", [0, 100, 300_000])
def test_a_message_that_comes_in_is_in_the_mailbox(world: World, size: int) -> None:
    world.start()
    content = LETTER + b"0123456789abcde\r\n" * (size // 17)
    assert world.send(content).startswith(b"250 2.0.0 Accepted as ")
    world.advance(5)
    (octets,) = world.mailbox()
    assert octets.endswith(b"\n" + content.replace(b"\r\n", b"\n"))
    assert octets.startswith(b"Return-Path: <bob@example.net>\nDelivered-To: alice@example.org\nReceived: from client")
    assert world.rows("SELECT DISTINCT state FROM recipient") == [("delivered",)]
    world.stop()


def test_a_quota_is_kept_the_account_warned_and_the_next_message_refused(world: World) -> None:
    world.start()
    world.settings.accounts = "alice@example.org:!::::::userdb_quota_rule=*:messages=3\n"
    world.settings.change(CONFIG)
    assert world.send().startswith(b"250")
    world.advance(5)
    assert world.send().startswith(b"250")
    world.advance(5)
    # The warning is never refused; it counts like any other message.
    world.settings.accounts = "alice@example.org:!::::::userdb_quota_rule=*:messages=2\n"
    world.settings.change(CONFIG)
    world.advance(1)
    client = world.connect()
    for command in (b"EHLO client.example.net", b"MAIL FROM:<bob@example.net>"):
        assert world.say(client, command).startswith(b"250")
    assert world.say(client, b"RCPT TO:<alice@example.org>") == b"452 4.2.2 The mailbox is full\r\n"
    world.advance(30)
    (warning,) = [octets for octets in world.mailbox() if b"Subject: Your mailbox is 100% full" in octets]
    assert warning.startswith(b"Return-Path: <>\nDelivered-To: alice@example.org\n")
    told = maildirsize.read(SimulatedFilesystem(world.disk), "/state/mail/example.org/alice")
    assert told is not None
    assert told.usage == (sum(map(len, world.mailbox())), 3)
    world.stop()


def test_tmp_is_swept_soon_after_the_start(world: World) -> None:
    world.disk.make_folders("/state/mail/example.org/alice/tmp")
    SimulatedFilesystem(world.disk).create("/state/mail/example.org/alice/tmp/left").close()
    world.advance(housekeeping.OLD_S + 1)
    world.start()
    world.advance(housekeeping.FIRST_S + 1)
    assert world.disk.files("/state/mail/example.org/alice/tmp") == {}
    world.stop()


def test_what_the_last_run_left_is_taken_up(world: World) -> None:
    world.start()
    world.crash_at("disk: rename")
    assert world.send().startswith(b"250")
    world.advance(5)
    assert not world.machine.life.alive
    world.machine.steps.failures.clear()
    world.disk.lose_power(random.Random(1))
    world.start()
    world.advance(5)
    assert len(world.mailbox()) == 1


def test_the_first_start_is_durable_with_all_its_folders(world: World) -> None:
    """A large message waits in a file, and the power fails before anything else was synced."""
    world.disk.make_folders("/var")
    text = CONFIG.replace('"/state"', '"/var/new/state"')
    world.start(text)
    SimulatedFilesystem(world.disk).create("/state/unrelated").close()
    world.crash_at("disk: sync all")
    content = LETTER + b"x\r\n" * 100_000
    assert world.send(content).startswith(b"250")
    world.advance(5)
    world.disk.lose_power(Forgetful())
    world.machine.steps.failures.clear()
    assert list(world.disk.files("/var/new/state/spool").values()) == [content]


@pytest.mark.parametrize("after_s", [0.01, 0.2, 10.0])
def test_a_verb_of_the_operator_is_in_force_within_a_second(world: World, after_s: float) -> None:
    world.start()
    world.stop()
    world.machine.life.end()
    id = waiting_for_a_day(world)
    world.start()
    world.advance(after_s)
    world.operator(queue.retry, id)
    world.advance(1.0)
    assert world.rows("SELECT attempts FROM recipient WHERE message = ?", id) != [(3,)]


def waiting_for_a_day(world: World) -> int:
    """A message for elsewhere that has been tried three times."""
    from tests.worlds.rows import Rows

    rows = Rows(world.machine.databases._file(DATABASE))
    id = rows.accept(["carol@example.net"], at=world.machine.wall())
    rows.connection.execute("UPDATE recipient SET attempts = 3, next_attempt = next_attempt + 3600")
    rows.connection.close()
    world.records.records["example.net", "MX"] = [(0, "")]
    return id


def test_where_an_account_was_used_is_known_to_the_next_run(world: World) -> None:
    """So guessing that goes on over a restart does not slow the owner down."""
    text = CONFIG.replace("checks.dns = false", 'checks.dns = false\nauth.cleartext = "loopback"')

    def logs_in(client: str, password: bytes = b"tulip") -> tuple[bytes, float]:
        """The answer, and how long it took."""
        conversation = world.connect(110, client=client)
        begun = world.timeline.now
        assert world.say(conversation, b"USER alice@example.org").startswith(b"+OK")
        answer = world.say(conversation, b"PASS " + password)[:4]
        conversation.close()
        return answer, world.timeline.now - begun

    world.settings.accounts = "alice@example.org:{PLAIN}tulip\n"
    world.start(text)
    assert logs_in("127.0.0.5")[0] == b"+OK "
    world.advance(1)
    world.stop()
    world.machine.life.end()
    world.start(text)
    for n in range(40):
        assert logs_in(f"127.0.1.{n}", b"wrong")[0] == b"-ERR"
    answer, took_s = logs_in("127.0.0.5")
    assert answer == b"+OK "
    assert took_s < 0.5
    assert logs_in("127.0.0.6")[1] > 3
    # With the password goes what was known by it.
    world.settings.accounts = "alice@example.org:{PLAIN}thyme\n"
    world.reconfigure(text)
    assert logs_in("127.0.0.5", b"thyme")[1] > 3
    assert logs_in("127.0.0.5", b"thyme")[1] < 0.5
    world.advance(1)
    world.operator(lambda connection, at: homes.prune(connection, at + 1))
    assert world.rows("SELECT * FROM home") == []


def test_old_events_are_pruned_as_fast_as_they_come(world: World) -> None:
    world.start()
    old = world.machine.wall() - 100 * 86400
    connection = world.machine.databases.look(DATABASE)
    ledger.write(connection, old, [Event(ledger.REFUSED, client="198.51.100.9")] * (3 * app.PRUNED_AT_ONCE))
    connection.commit()
    connection.close()
    world.advance(app.PRUNE_EVERY_S + 10)
    assert world.rows("SELECT count(*) FROM event") == [(0,)]


def test_a_clock_that_jumps_forward_makes_nothing_old(world: World) -> None:
    world.start()
    world.operator(lambda connection, at: ledger.write(connection, at, [Event(ledger.REFUSED, client="198.51.100.9")]))
    world.machine.clock_offset_s += 2 * app.LEDGER_KEPT_S
    world.advance(app.PRUNE_EVERY_S + 10)
    assert world.rows("SELECT count(*) FROM event WHERE kind = 'refused'") == [(1,)]


# -- what keeps it from starting


def sentence(error: pytest.ExceptionInfo[Exception]) -> str:
    text = str(error.value)
    assert "\n" not in text and text.endswith(".") and "Traceback" not in text
    return text


def test_a_port_in_use(world: World) -> None:
    server = world.boot(CONFIG.replace('pop3 = ["tcp:110"]', 'pop3 = ["tcp:25"]'))
    with pytest.raises(StartError) as caught:
        server.listen()
    assert sentence(caught).lower() == 'listen.pop3: cannot listen at "tcp:25": address already in use.'


@pytest.mark.parametrize("description", ["tcp:110:backlogg=5", "tcp:110:backlog=many", "carrier-pigeon:110"])
def test_an_endpoint_that_means_nothing(world: World, description: str) -> None:
    text = CONFIG.replace('["tcp:25"]', "[]").replace('["tcp:465"]', "[]")
    server = world.boot(text.replace('"tcp:110"', f'"{description}"'))
    outside: Any = server._outside
    outside.listen = lambda *arguments: listening.listen(outside.reactor, *arguments)
    with pytest.raises(StartError) as caught:
        server.listen()
    assert sentence(caught).startswith(f'listen.pop3: "{description}" is no endpoint')


@pytest.mark.parametrize("place", ["/state/mail", "/state/spool"])
def test_a_file_where_a_folder_should_be(world: World, place: str) -> None:
    SimulatedFilesystem(world.disk).create(place).close()
    server = world.boot()
    with pytest.raises(StartError) as caught:
        server.start()
    assert sentence(caught).startswith(place)


def test_a_state_folder_that_cannot_be_made(world: World) -> None:
    SimulatedFilesystem(world.disk).create("/file").close()
    server = world.boot(CONFIG.replace('"/state"', '"/file/state"'))
    with pytest.raises(StartError) as caught:
        server.start()
    assert sentence(caught) == "/file/state: cannot be made: Not a directory."


def test_a_database_that_is_none(world: World) -> None:
    server = world.boot()
    with open(world.machine.databases._file(DATABASE), "wb") as file:
        file.write(b"this is no database, whatever its name says" * 1000)
    with pytest.raises(DatabaseError) as caught:
        server.start()
    assert sentence(caught).startswith(f"{DATABASE}: the database cannot be used: file is not a database.")


def test_a_database_with_a_damaged_table(world: World) -> None:
    world.start()
    world.send()
    world.stop()
    world.machine.life.end()
    path = world.machine.databases._file(DATABASE)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    server = world.boot()
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(os.urandom(os.path.getsize(path) - 4096))
    with pytest.raises(DatabaseError) as caught:
        server.start()
    assert "Move it aside" in sentence(caught)


def test_a_machine_without_ipv6_listens_at_what_it_has(world: World) -> None:
    import errno

    def listen(description: str, factory: object) -> Deferred[Any]:
        if description.startswith("tcp6"):
            from twisted.internet.error import CannotListenError

            error = OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
            failed: Deferred[Any] = Deferred()
            failed.errback(CannotListenError("", 25, error))
            return failed
        listening: Deferred[Any] = real(description, factory)
        return listening

    server = world.boot(CONFIG.replace('["tcp:25"]', '["tcp:25", "tcp6:25"]'))
    outside: Any = server._outside
    real, outside.listen = outside.listen, listen
    server.listen()
    server.start()
    assert world.say(world.connect(), b"NOOP").startswith(b"250")


# -- a change while it runs


def test_listeners_come_and_go_with_the_configuration_and_connections_stay(world: World) -> None:
    world.start()
    old = world.connect()
    world.reconfigure(CONFIG.replace('smtp = ["tcp:25"]', 'smtp = ["tcp:2525"]'))
    with pytest.raises(Gone):
        world.connect(25)
    assert world.say(world.connect(2525), b"NOOP").startswith(b"250")
    assert world.say(old, b"NOOP").startswith(b"250")
    assert world.connect(110)


def test_a_listener_may_take_over_the_port_of_the_one_before(world: World) -> None:
    world.start()
    world.reconfigure(CONFIG.replace('"tcp:25"', '"tcp:25:interface=192.0.2.1"'))
    assert world.say(world.connect(25), b"NOOP").startswith(b"250")
    world.reconfigure(CONFIG.replace('"tcp:25"', '"tcp:110"').replace('pop3 = ["tcp:110"]', 'pop3 = ["tcp:25"]'))
    assert world.say(world.connect(110), b"NOOP").startswith(b"250")
    assert world.say(world.connect(25), b"CAPA").startswith(b"+OK")


def test_a_listener_that_cannot_be_made_leaves_the_others_at_work(world: World) -> None:
    world.start()
    world.reconfigure(CONFIG.replace('submissions = ["tcp:465"]', 'submissions = ["tcp:465", "tcp:25"]'))
    assert world.say(world.connect(25), b"NOOP").startswith(b"250")
    world.reconfigure(CONFIG)
    assert world.say(world.connect(25), b"NOOP").startswith(b"250")


def test_a_configuration_taken_up_and_one_refused_are_in_the_ledger(world: World) -> None:
    world.start()
    world.reconfigure(CONFIG)
    world.settings.refused("/etc/mailsrv/mailsrv.toml:3: state: no.")
    world.advance(2)
    reasons = [reason for (reason,) in world.rows("SELECT reason FROM event WHERE kind = 'config' ORDER BY id")]
    assert reasons[0] == "the configuration was taken up"
    assert "mailsrv.toml:3" in reasons[1]


# -- the end


def test_stopping_with_nothing_to_do_takes_no_time(world: World) -> None:
    world.start()
    world.advance(5)
    assert world.stop() < 1
    with pytest.raises(Gone):
        world.connect()


def test_stopping_while_the_database_is_looked_at_is_no_error(certificate: ServerCertificate) -> None:
    with capturedLogs() as logged:
        for n in range(20):
            world = World(certificate).start()
            world.advance(app.LOOK_EVERY_S + n * 0.0001)
            world.stop()
            world.close()
    assert [event for event in logged if event["log_level"] >= LogLevel.error] == []


def test_what_was_to_be_written_is_written_when_the_server_has_stopped(world: World) -> None:
    world.start()
    conversation = world.connect()
    world.say(conversation, b"EHLO client.example.net")
    world.say(conversation, b"MAIL FROM:<bob@example.net>")
    assert world.say(conversation, b"RCPT TO:<nobody@example.org>").startswith(b"550")
    world.stop()
    assert world.rows("SELECT count(*) FROM event WHERE kind = 'refused'") == [(1,)]
    assert not os.path.exists(world.machine.databases._file(DATABASE) + "-wal")


def test_idle_clients_are_told_goodbye(world: World) -> None:
    world.start()
    smtp, pop3 = world.connect(), world.connect(110)
    assert world.stop() < 2
    world.advance(1)
    assert smtp.pending.startswith(b"421 ")
    assert pop3.pending.startswith(b"-ERR") or pop3.gone


@pytest.mark.parametrize("behaviour", ["idle", "in data", "never reads", "begins TLS and stops", "half a line"])
def test_stopping_takes_less_than_twenty_seconds_whatever_clients_do(world: World, behaviour: str) -> None:
    world.start()
    conversation = world.connect() if behaviour != "begins TLS and stops" else None
    if behaviour == "in data":
        assert conversation is not None
        world.begin_data(conversation)
        conversation.send(b"Subject: half\r\n" * 1000)
    elif behaviour == "never reads":
        assert conversation is not None and conversation.transport is not None
        conversation.transport.pauseProducing()  # type: ignore[attr-defined]
        conversation.send(b"HELP\r\n" * 20_000)
    elif behaviour == "half a line":
        assert conversation is not None
        conversation.send(b"EHLO client")
    elif conversation is None:
        reactor = SimulatedReactor(world.timeline, world.machine.network, "client", ("198.51.100.1",), Life("client"))
        wait(world.timeline, connect(reactor, ADDRESS, 465, Manner())).send(b"\x16\x03\x01")
    world.advance(2)
    assert world.stop() < 20
    assert world.mailbox() == []


def test_what_is_being_accepted_when_the_server_stops_is_answered(world: World) -> None:
    world.start()
    conversation = world.connect()
    world.begin_data(conversation)
    conversation.send(dot_stuffed(LETTER))
    for _ in range(1000):
        world.advance(0.001)
        if world.rows("SELECT * FROM message"):
            break
    assert world.stop() < 20
    world.advance(1)
    assert conversation.pending.startswith(b"250 2.0.0 Accepted")
    world.machine.life.end()
    world.start()
    world.advance(5)
    assert len(world.mailbox()) == 1


def test_stopping_does_not_wait_for_servers_that_do_not_answer(world: World) -> None:
    world.start()
    world.stop()
    world.machine.life.end()
    id = waiting_for_a_day(world)
    world.records.records["example.net", "MX"] = [(10, "mx.example.net")]
    world.records.records["mx.example.net", "A"] = ["203.0.113.1"]
    world.machine.network.black_holes.add("203.0.113.1")
    world.start()
    world.operator(queue.retry, id)
    world.advance(3)
    assert world.stop() < 20
    assert world.rows("SELECT state, attempts FROM recipient") == [("queued", 4)]


def test_stopping_does_not_wait_for_a_disk_that_fails(world: World) -> None:
    world.start()

    def failure(step: str) -> None:
        if step.startswith("database"):
            raise sqlite3.OperationalError("disk I/O error")
        if step == "disk: sync all":
            raise OSError(5, "Input/output error")

    world.send()
    world.machine.steps.failures.append(failure)
    world.advance(3)
    assert world.stop() < 20


def test_a_server_that_was_built_and_not_started_can_be_stopped(world: World) -> None:
    world.boot()
    assert world.stop() < 1
