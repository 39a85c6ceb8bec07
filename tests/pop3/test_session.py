"""What a client of the POP3 server meets: logging in, reading, deleting, and everything that can go wrong with that."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred

from mailsrv.pop3 import session
from mailsrv.store import ledger
from mailsrv.store.accounts.accounts import Directory
from mailsrv.store.ledger import Event
from tests.pop3.world import PASSWORD, World
from tests.worlds.worker import HeldWorker

FIRST = b"Subject: one\n\nfirst\n"
SECOND = b"Subject: two\n\n.second\n..\n\n"


@pytest.fixture(params=[True, False], ids=["cached", "cold"])
def world(tmp_path: Path, request: pytest.FixtureRequest) -> World:
    world = World(tmp_path, cached=request.param)
    world.deliver(FIRST)
    world.deliver(SECOND)
    return world


def crlf(content: bytes) -> bytes:
    return content.replace(b"\n", b"\r\n")


def test_sizes_are_what_retr_sends(world: World) -> None:
    client = world.connect().log_in()
    assert client.say("STAT") == f"+OK 2 {len(crlf(FIRST)) + len(crlf(SECOND))}\r\n"
    assert client.say("LIST 2") == f"+OK 2 {len(crlf(SECOND))}\r\n"
    stuffed = crlf(SECOND).replace(b"\r\n.", b"\r\n..")
    assert client.say("RETR 2").encode() == b"+OK %d octets\r\n%b.\r\n" % (len(crlf(SECOND)), stuffed)


@pytest.mark.parametrize(
    ("content", "sent"),
    [
        (b"", b""),
        (b"no line end", b"no line end\r\n"),
        (b"a\r\nb\nc\r\n", b"a\r\nb\r\nc\r\n"),
        (b"bare\rcr\n", b"bare\rcr\r\n"),
        (b"cr at the end\r", b"cr at the end\r\r\n"),
        (b"\n", b"\r\n"),
        (b"x\r\r\n", b"x\r\r\n"),
    ],
)
@pytest.mark.parametrize("name", ["17.M2P3.host,S=5,W=9999:2,S", "17.M2P3.host"])
@pytest.mark.parametrize("cached", [True, False])
def test_what_others_filed_is_announced_as_it_is_sent(
    tmp_path: Path, content: bytes, sent: bytes, name: str, cached: bool
) -> None:
    world = World(tmp_path, cached=cached)
    world.deliver(content, name, folder="cur")
    client = world.connect().log_in()
    assert client.say("LIST 1") == f"+OK 1 {len(sent)}\r\n"
    assert client.say("RETR 1").encode() == b"+OK %d octets\r\n%b.\r\n" % (len(sent), sent)


@pytest.mark.parametrize("lines", [1, 40_000])
@pytest.mark.parametrize("cached", [True, False])
def test_a_file_of_ours_that_was_changed_is_corrected_when_it_is_read(tmp_path: Path, lines: int, cached: bool) -> None:
    world = World(tmp_path, cached=cached)
    path = world.deliver(b"x\n" * 10)
    path.write_bytes(b"changed\n" * lines)
    client = world.connect().log_in()
    assert client.say("STAT") == "+OK 1 30\r\n"
    assert client.say("RETR 1").endswith("changed\r\n" * lines + ".\r\n")
    assert client.say("STAT") == f"+OK 1 {9 * lines}\r\n"
    client.vanish()
    assert world.connect().log_in().say("LIST 1") == f"+OK 1 {9 * lines}\r\n"


def test_a_large_message_comes_whole(tmp_path: Path) -> None:
    world = World(tmp_path)
    content = b"".join(b".%d\r\n" % n if n % 3 else b"%d\n" % n for n in range(100_000))
    world.deliver(content, "1.M1.host")
    sent = content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    answer = world.connect().log_in().say("RETR 1").encode()
    assert answer == b"+OK %d octets\r\n" % len(sent) + sent.replace(b"\r\n.", b"\r\n..") + b".\r\n"


@pytest.mark.parametrize(
    ("lines", "expected"), [(0, b"Subject: one\r\n\r\n"), (1, b"Subject: one\r\n\r\nfirst\r\n"), (7, crlf(FIRST))]
)
def test_top(world: World, lines: int, expected: bytes) -> None:
    answer = world.connect().log_in().say(f"TOP 1 {lines}").encode()
    assert answer == b"+OK the top of the message follows\r\n" + expected + b".\r\n"


def test_deletion_happens_at_quit(world: World) -> None:
    first, second = world.files()
    client = world.connect().log_in()
    assert client.say("DELE 1") == "+OK message 1 deleted\r\n"
    assert client.say("STAT") == f"+OK 1 {len(crlf(SECOND))}\r\n"
    assert client.say("LIST") == f"+OK 1 message ({len(crlf(SECOND))} octets)\r\n2 {len(crlf(SECOND))}\r\n.\r\n"
    assert client.say("RETR 1") == client.say("DELE 1") == client.say("LIST 1") == "-ERR there is no such message\r\n"
    assert world.files() == [first, second]
    assert client.say("QUIT") == "+OK goodbye\r\n"
    assert client.closed
    assert world.files() == [second]
    [event] = world.ledger
    assert (event.kind, event.address, event.client) == ("deleted", "alice@example.org", "127.0.0.1")
    assert first.startswith(event.detail + ",")


def test_every_removal_is_told_however_many_there_are(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "TOLD_AT_ONCE", 2)
    for n in range(5):
        world.deliver(b"%d\n" % n)
    client = world.connect().log_in()
    for n in range(1, 8):
        client.say(f"DELE {n}")
    assert client.say("QUIT") == "+OK goodbye\r\n"
    assert world.files() == []
    assert len({event.detail for event in world.ledger}) == 7


def test_rset_takes_marks_back(world: World) -> None:
    client = world.connect().log_in()
    client.say("DELE 2")
    assert client.say("RSET") == client.say("LIST").partition("\r\n")[0] + "\r\n"
    client.say("QUIT")
    assert len(world.files()) == 2


@pytest.mark.parametrize("end", ["vanish", "end_sending", "timeout", "shutdown"])
def test_nothing_is_deleted_without_quit(world: World, end: str) -> None:
    client = world.connect().log_in()
    client.say("DELE 1")
    if end == "timeout":
        world.clock.pump([60.0] * 11)
    elif end == "shutdown":
        Deferred.fromCoroutine(world.factory.shut_down())
        world.settle()
    else:
        getattr(client, end)()
    assert client.closed
    assert len(world.files()) == 2
    assert world.connect().log_in().say("STAT").startswith("+OK 2 ")


def test_quit_waits_until_deliveries_are_recorded(world: World) -> None:
    world.unsettled = Deferred()
    client = world.connect().log_in()
    client.say("DELE 1")
    assert client.say("QUIT") == ""
    assert len(world.files()) == 2
    world.unsettled.callback(None)
    assert client.received.endswith(b"+OK goodbye\r\n")
    assert len(world.files()) == 1


def test_removal_goes_on_when_the_client_has_gone(world: World) -> None:
    client = world.connect().log_in()
    worker = HeldWorker()
    world.mailboxes._worker = worker
    client.say("DELE 1")
    client.say("QUIT")
    client.vanish()
    assert world.factory.connections
    assert world.connect().log_in("alice").received.endswith(b"-ERR [IN-USE] another session has the mailbox open\r\n")
    worker.run()
    assert len(world.files()) == 1
    assert client.protocol not in world.factory.connections
    assert [event.kind for event in world.ledger] == ["deleted"]


def test_removal_that_fails_is_an_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client = world.connect().log_in()
    first = world.files()[0]
    (world.folder() / "new" / first).unlink()
    (world.folder() / "new" / first).mkdir()
    client.say("DELE 1")
    client.say("DELE 2")
    assert client.say("QUIT") == "-ERR [SYS/TEMP] some deleted messages not removed\r\n"
    assert client.closed
    assert world.files() == [first]


def test_one_session_at_a_time(world: World) -> None:
    first = world.connect().log_in()
    second = world.connect().log_in()
    assert second.received.endswith(b"-ERR [IN-USE] another session has the mailbox open\r\n")
    assert world.connect().log_in("bob").received.endswith(b"+OK 0 messages (0 octets)\r\n")
    first.vanish()
    assert second.log_in().received.endswith(b"+OK 2 messages (54 octets)\r\n")


def test_the_mailbox_is_free_when_the_answer_to_quit_is_there(world: World) -> None:
    client = world.connect().log_in()
    client.reads = False
    client.say("QUIT")
    assert not client.closed
    assert world.connect().log_in().say("NOOP").startswith("+OK")


def test_a_message_that_was_moved_and_flagged_meanwhile_is_found(world: World) -> None:
    client = world.connect().log_in()
    for name in world.files():
        os.rename(world.folder() / "new" / name, world.folder() / "cur" / f"{name}:2,S")
    assert client.say("RETR 1").startswith("+OK")
    assert client.say("RETR 2").startswith("+OK")
    client.say("DELE 1")
    assert client.say("QUIT") == "+OK goodbye\r\n"
    assert len(world.files()) == 1
    assert len(world.ledger) == 1


def test_a_message_that_has_gone_disturbs_nothing(world: World) -> None:
    client = world.connect().log_in()
    (world.folder() / "new" / world.files()[0]).unlink()
    assert client.say("RETR 1") == "-ERR another program has removed the message\r\n"
    assert client.say("RETR 2").startswith("+OK")
    client.say("DELE 1")
    assert client.say("QUIT") == "+OK goodbye\r\n"
    assert world.ledger == []


def test_a_message_that_cannot_be_read_disturbs_nothing(world: World) -> None:
    client = world.connect().log_in()
    path = world.folder() / "new" / world.files()[0]
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert client.say("RETR 1") == "-ERR [SYS/PERM] the message cannot be read, its operator has to look\r\n"
    assert client.say("RETR 2").startswith("+OK")


def test_mail_that_arrives_during_a_session_is_for_the_next(world: World) -> None:
    client = world.connect().log_in()
    world.deliver(b"later\n")
    assert client.say("STAT").startswith("+OK 2 ")
    assert client.say("RETR 3") == "-ERR there is no such message\r\n"
    client.say("QUIT")
    assert world.connect().log_in().say("STAT").startswith("+OK 3 ")


def test_wrong_passwords_and_unknown_users_look_the_same(world: World) -> None:
    client = world.connect()
    answers = {
        client.say(f"USER {name}") + client.say(f"PASS {password}")
        for name, password in [("alice@example.org", "wrong"), ("nobody@example.org", PASSWORD), ("alice", PASSWORD)]
    }
    assert answers == {"+OK now the password\r\n-ERR [AUTH] the user name or the password is wrong\r\n"}
    assert [told[0] for told in world.doorkeeper.told] == ["failed"] * 3
    assert [event.address for event in world.ledger] == ["alice@example.org", "nobody@example.org", "alice"]
    assert {(event.kind, event.client, event.detail) for event in world.ledger} == {("login", "127.0.0.1", "POP3 USER")}


def test_the_name_is_case_insensitive_and_the_directory_read_anew(world: World) -> None:
    client = world.connect()
    assert client.say("USER ALICE@Example.ORG") + client.say(f"PASS {PASSWORD}") == (
        "+OK now the password\r\n+OK 2 messages (54 octets)\r\n"
    )
    client.say("QUIT")
    world.settings.directory = Directory(("example.org",), [], {})
    assert world.connect().log_in().received.endswith(b"-ERR [AUTH] the user name or the password is wrong\r\n")


def test_too_many_failed_logins_end_the_connection(world: World) -> None:
    client = world.connect()
    client.send(b"USER alice@example.org\r\nPASS wrong\r\n" * 5)
    assert client.closed
    assert client.received.count(b"-ERR [AUTH]") == 5


def test_penalties_delay_and_a_client_that_leaves_meanwhile_costs_nothing(world: World) -> None:
    world.doorkeeper.delay = 5.0
    client = world.connect().log_in()
    assert client.received.endswith(b"+OK now the password\r\n")
    leaving = world.connect().log_in("bob")
    leaving.vanish()
    world.clock.advance(5.0)
    assert client.received.endswith(b"+OK 2 messages (54 octets)\r\n")
    assert world.doorkeeper.told == [("succeeded", "127.0.0.1", "alice@example.org")]
    assert leaving.protocol not in world.factory.connections


def test_a_client_that_leaves_while_its_mailbox_is_opened_leaves_it_free(world: World) -> None:
    worker = HeldWorker()
    immediate, world.mailboxes._worker = world.mailboxes._worker, worker
    client = world.connect().log_in()
    client.vanish()
    worker.run()
    world.mailboxes._worker = immediate
    assert not world.factory.connections
    assert world.connect().log_in().say("STAT").startswith("+OK 2")


def test_a_mailbox_that_is_none_is_a_matter_for_the_operator(world: World) -> None:
    (world.folder("bob")).mkdir(parents=True)
    (world.folder("bob") / "cur").symlink_to(world.folder("alice") / "cur")
    answer = world.connect().log_in("bob").received
    assert answer.endswith(b"-ERR [SYS/PERM] the mailbox cannot be opened, its operator has to look\r\n")


def test_a_disk_that_fails_is_a_matter_of_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(world.outside.filesystem, "list", fail)
    answer = world.connect().log_in().received
    assert answer.endswith(b"-ERR [SYS/TEMP] the mailbox cannot be opened at present\r\n")
    monkeypatch.undo()
    client = world.connect().log_in()
    monkeypatch.setattr(world.outside.filesystem, "open", fail)
    monkeypatch.setattr(world.outside.filesystem, "read_cached", lambda path: None)
    assert client.say("RETR 1") == "-ERR [SYS/TEMP] the message cannot be read at present\r\n"


def test_no_password_in_clear_text_but_from_loopback(world: World) -> None:
    client = world.connect("192.0.2.1")
    for line in ("USER alice@example.org", "PASS x", "AUTH PLAIN"):
        assert client.say(line) == "-ERR passwords are taken under TLS only, use STLS first\r\n"
    assert "\r\nUSER" not in client.say("CAPA")
    never = World(world.root, "")
    assert never.connect("127.0.0.1").say("USER alice@example.org").startswith("-ERR passwords")


def test_connections_over_the_limit_are_turned_away(world: World) -> None:
    world.doorkeeper.refusal = "too many"
    client = world.connect()
    assert client.received == b"-ERR [SYS/TEMP] too many connections, try again in a minute\r\n"
    assert client.closed
    assert world.ledger == [
        Event(ledger.CONNECTION, client="127.0.0.1", status="4.7.0", reason="too many", rule="limits.connections")
    ]
    world.doorkeeper.refusal = None
    client = world.connect()
    assert world.doorkeeper.inside == ["127.0.0.1"]
    client.vanish()
    assert world.doorkeeper.inside == []


def test_stls_forgets_what_was_said_before(tmp_path: Path) -> None:
    world = World(tmp_path, tls=lambda: "creator")
    client = world.connect()
    assert "STLS" in client.say("CAPA")
    client.say("USER alice@example.org")
    assert client.say("STLS") == "+OK begin TLS\r\n"
    assert client.tls == "creator"
    assert client.say(f"PASS {PASSWORD}").startswith("-ERR")
    assert "STLS" not in client.say("CAPA")
    assert client.say("STLS") == "-ERR TLS is on already\r\n"
    assert client.log_in().received.endswith(b"+OK 0 messages (0 octets)\r\n")


@pytest.mark.parametrize("behind", [b"CAPA\r\n", b"x", b"\n"])
def test_clear_text_behind_stls_ends_the_connection(tmp_path: Path, behind: bytes) -> None:
    world = World(tmp_path, tls=lambda: "creator")
    client = world.connect()
    client.send(b"STLS\r\n" + behind)
    assert client.closed
    assert client.tls is None
    assert client.received == b"+OK mx.example.org POP3 server ready\r\n"


def test_a_failure_of_our_own_cuts_the_connection_and_frees_the_mailbox(world: World) -> None:
    client = world.connect().log_in()
    worker, world.mailboxes._worker = world.mailboxes._worker, None  # type: ignore[assignment]
    world.outside.filesystem.read_cached = None
    client.send(b"DELE 2\r\nRETR 1\r\nQUIT\r\n")
    world.mailboxes._worker = worker
    del world.outside.filesystem.read_cached
    assert client.aborted
    assert not world.factory.connections
    assert len(world.files()) == 2
    assert world.connect().log_in().say("STAT").startswith("+OK 2 ")


UMLAUTS = "Subject: Grüße\nFrom: bücher@example.org\n\nKörper\n".encode()


@pytest.mark.parametrize("octets", [0, 300_000])
@pytest.mark.parametrize("cached", [True, False])
def test_without_utf8_a_header_is_ascii_and_as_long_as_it_was(tmp_path: Path, octets: int, cached: bool) -> None:
    content = UMLAUTS + b"x" * octets + b"\n"
    world = World(tmp_path, cached=cached)
    world.deliver(content)
    client = world.connect().log_in()
    whole = client.say("RETR 1")
    assert whole.startswith(
        f"+OK {len(crlf(content))} octets\r\nSubject: Gr????e\r\nFrom: b??cher@example.org\r\n\r\nKörper"
    )
    assert len(whole.partition("\r\n")[2].encode()) == len(crlf(content)) + len(b".\r\n")
    assert client.say("TOP 1 0").endswith("\r\nSubject: Gr????e\r\nFrom: b??cher@example.org\r\n\r\n.\r\n")
    client.say("QUIT")
    client = world.connect()
    assert client.say("UTF8") == "+OK UTF-8 is on\r\n"
    client.log_in()
    assert client.say("RETR 1").encode() == b"+OK %d octets\r\n%b.\r\n" % (len(crlf(content)), crlf(content))
    assert client.say("TOP 1 0").endswith("Subject: Grüße\r\nFrom: bücher@example.org\r\n\r\n.\r\n")


def test_an_account_may_not_log_in_again_too_soon(tmp_path: Path) -> None:
    world = World(tmp_path, '[auth]\ncleartext = "loopback"\n[limits]\nlogin_delay = "90s"')
    too_soon = b"-ERR [LOGIN-DELAY] the last login was too short a time ago\r\n"
    first = world.connect()
    assert "\r\nLOGIN-DELAY 90\r\n" in first.say("CAPA")
    first.log_in()
    assert "\r\nLOGIN-DELAY 90\r\n" in first.say("CAPA")
    first.say("QUIT")
    world.clock.advance(89.0)
    second = world.connect().log_in()
    assert second.received.endswith(too_soon)
    told = Event(
        ledger.LOGIN,
        address="alice@example.org",
        client="127.0.0.1",
        status="4.7.0",
        reason="the last login was 89 s ago, and 90 s have to pass",
        rule="limits.login_delay",
        detail="POP3",
    )
    assert world.ledger == [told]
    assert world.connect().log_in("bob").received.endswith(b"+OK 0 messages (0 octets)\r\n")
    world.clock.advance(1.0)
    assert second.log_in().received.endswith(b"+OK 0 messages (0 octets)\r\n"), "what was refused does not count"
    wrong = world.connect()
    assert wrong.say("USER alice@example.org") + wrong.say("PASS wrong") == (
        "+OK now the password\r\n-ERR [AUTH] the user name or the password is wrong\r\n"
    )


def test_no_login_delay_by_default(world: World) -> None:
    for _ in range(3):
        client = world.connect().log_in()
        assert "LOGIN-DELAY" not in client.say("CAPA")
        assert client.say("QUIT") == "+OK goodbye\r\n"
