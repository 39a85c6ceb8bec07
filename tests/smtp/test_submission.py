"""What a submission server owes its users and the world (RFC 6409): own addresses, whole headers, caps, held mail."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from twisted.internet.defer import Deferred

from mailsrv.checks.caps import DAY_S, HOUR_S, Caps
from mailsrv.store.spool import KEPT
from tests.smtp.world import Client, World

BOB = "bob@example.org"


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.end()


def submit(client: Client, content: str, sender: str = "alice@example.org") -> list[int]:
    return client.transaction(BOB, sender=sender, content=content)


@pytest.mark.parametrize(
    "author",
    [
        "alice@example.org",
        "Alice <alice+shop@example.org>",
        "sales@example.org",
        '"bob@example.org" <ALICE@example.org>',
    ],
)
def test_own_addresses_may_stand_in_from(world: World, author: str) -> None:
    assert submit(world.logged_in(), f"From: {author}\r\n\r\nhello\r\n")[-1] == 250


@pytest.mark.parametrize(
    "header",
    [
        "From: bob@example.org\r\n",
        "From: Alice <alice@example.org>, Bob <bob@example.org>\r\n",
        "From: alice@example.net\r\n",
        "From: alice@example.org <bob@example.org>\r\n",
        "From: alice@example.org\r\nFrom: bob@example.org\r\n",
        "From: alice@example.org\r\nFROM : bob@example.org\r\n",
        "From:\r\n",
        "From: friends:;\r\n",
    ],
)
def test_nobody_writes_in_the_name_of_others(world: World, header: str) -> None:
    client = world.logged_in()
    assert submit(client, f"{header}\r\nhello\r\n")[-1] == 550
    assert world.messages() == []
    assert world.ledger("refused") == [("DATA", "5.7.1", BOB, "a sender owns its address")]


def test_what_comes_from_outside_may_name_anybody(world: World) -> None:
    assert world.greeted().transaction(BOB, content="From: alice@example.org\r\n\r\nhi\r\n")[-1] == 250


def test_what_is_missing_is_added_in_front_and_the_rest_stays(world: World) -> None:
    content = "Subject: hello\r\n\r\nbody\r\n"
    submit(world.logged_in(), content)
    assert world.messages() == [content.encode()]
    prefix = world.ask("SELECT prefix FROM content")[0].decode()
    fields = [line.partition(":")[0] for line in prefix.splitlines() if not line.startswith("\t")]
    assert fields == ["Received", "From", "Date", "Message-ID"]
    identifier = world.ask("SELECT message_id FROM message")[0]
    assert f"Message-ID: <{identifier}>\r\n" in prefix
    assert identifier.endswith("@mx.example.org")


def test_where_our_users_are_is_nobodys_business(world: World) -> None:
    submit(world.logged_in(), "From: alice@example.org\r\n\r\nhi\r\n")
    prefix = world.ask("SELECT prefix FROM content")[0]
    assert b"198.51.100.7" not in prefix
    assert b"client.example.net" not in prefix


@pytest.mark.parametrize("padding", [0, 2 * KEPT])
def test_bcc_is_taken_out_of_small_and_large_messages(world: World, padding: int) -> None:
    head = "From: alice@example.org\r\n"
    rest = "Date: Mon, 23 Nov 2026 18:04:00 +0000\r\nMessage-ID: <1@example.org>\r\n\r\n" + "x" * 76 + "\r\n"
    rest += ("y" * 62 + "\r\n") * (padding // 64)
    assert submit(world.logged_in(), f"{head}Bcc: carol@example.net,\r\n dave@example.net\r\n{rest}")[-1] == 250
    _, size, lines = world.ask("SELECT id, size, lines FROM message")[0]
    stored = world.messages()[0]
    if padding:
        assert stored is None
        (name,) = world.files()
        file = world.outside.filesystem.open(f"/var/lib/mailsrv/spool/{name}")
        stored = file.read(size + 1)
    assert stored == (head + rest).encode()
    assert (size, lines) == (len(stored), stored.count(b"\n"))


def test_a_header_that_never_ends_is_not_looked_through(world: World) -> None:
    assert submit(world.logged_in(), "X: y\r\n" * (KEPT // 6 + 10))[-1] == 552


def test_a_cap_holds_over_connections_and_is_told_with_its_time() -> None:
    world = World("limits.recipients_per_hour = 3")
    client = world.logged_in()
    assert client.transaction("a@example.net", "b@example.net", sender="alice@example.org") == [250, 250, 250, 354, 250]
    # Reserved by a transaction that is not over yet:
    client.codes("MAIL FROM:<alice@example.org>", "RCPT TO:<c@example.net>")
    other = world.logged_in()
    answers = other.say("MAIL FROM:<alice@example.org>", "RCPT TO:<d@example.net>").splitlines()
    assert answers[1].startswith("452 4.7.1 More than 3 recipients in an hour; the next one in about ")
    # ... and free again when that comes to nothing.
    client.codes("RSET")
    assert other.codes("RCPT TO:<d@example.net>") == [250]
    other.codes("RSET")
    assert world.logged_in("bob@example.org").transaction("e@example.net", sender=BOB)[-1] == 250
    (refusal,) = world.ledger("refused", "address, rule, reason")
    assert refusal[0] == "d@example.net"
    assert "recipients_per_hour" in refusal[1]
    assert "alice@example.org" in refusal[2]
    world.end()


def test_a_cap_is_over_when_its_time_is() -> None:
    world = World("limits.recipients_per_hour = 1\nlimits.recipients_per_day = 2")
    sent = []
    for seconds in (0.0, 60.0, HOUR_S + 60.0, HOUR_S + 60.0, DAY_S):
        world.run(seconds)
        client = world.logged_in()
        sent.append(client.transaction("a@example.net", sender="alice@example.org")[1])
        client.say("QUIT")
    assert sent == [250, 452, 250, 452, 250]
    world.end()


def test_a_restart_forgets_nothing() -> None:
    world = World("limits.recipients_per_hour = 2")
    client = world.logged_in()
    client.transaction("a@example.net", "b@example.net", sender="alice@example.org")
    assert restarted(world).reserve("alice@example.org") is not None
    world.end()


def restarted(world: World) -> Caps:
    """Caps that know no more than the database."""
    seconds = world.outside.reactor.seconds
    caps = Caps(lambda: world.settings.config.limits, world.database, world.outside.wall, seconds)
    done = Deferred.fromCoroutine(caps.prepare("alice@example.org"))
    world.run()
    assert done.called
    return caps


@pytest.mark.parametrize("jump", [-86400.0, 86400.0])
def test_a_jump_of_the_clock_neither_lengthens_a_cap_nor_lifts_it(jump: float) -> None:
    world = World("limits.recipients_per_hour = 1")
    sent = []
    for seconds in (0.0, 60.0, HOUR_S):
        world.run(seconds)
        client = world.logged_in()
        sent.append(client.transaction("a@example.net", sender="alice@example.org")[1])
        client.say("QUIT")
        if not seconds:
            world.machine.clock_offset_s += jump
    assert sent == [250, 452, 250]
    world.end()


def test_after_the_clock_was_set_back_a_restart_counts_what_was_sent_since() -> None:
    """And not what comes from the future, though queue ids of both do."""
    world = World("limits.recipients_per_hour = 2")
    world.logged_in().transaction("a@example.net", "b@example.net", sender="alice@example.org")
    world.machine.clock_offset_s -= 86400.0
    assert restarted(world).reserve("alice@example.org") is None
    world.run(HOUR_S + 60.0)
    world.logged_in().transaction("c@example.net", "d@example.net", sender="alice@example.org")
    assert restarted(world).reserve("alice@example.org") is not None
    world.end()


def test_refused_content_gives_its_recipients_back() -> None:
    world = World("limits.recipients_per_hour = 1")
    client = world.logged_in()
    assert submit(client, "From: bob@example.org\r\n\r\n")[-1] == 550
    assert submit(client, "From: alice@example.org\r\n\r\n")[-1] == 250
    world.end()


@pytest.mark.parametrize("parameter", ["HOLDFOR=3600", "HOLDUNTIL={until}"])
def test_a_message_is_held_as_long_as_its_author_says(world: World, parameter: str) -> None:
    client = world.logged_in()
    now = world.outside.wall()
    if "{" in parameter:
        parameter = parameter.format(until=datetime.fromtimestamp(now + 3600, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    assert client.codes(f"MAIL FROM:<alice@example.org> {parameter}", f"RCPT TO:<{BOB}>", "DATA") == [250, 250, 354]
    assert client.codes("From: alice@example.org", "", "later", ".") == [250]
    (next_attempt,) = world.ask("SELECT next_attempt FROM recipient")
    assert now + 3598 <= next_attempt <= now + 3602


def test_holding_has_a_limit_and_is_for_users_only(world: World) -> None:
    assert "FUTURERELEASE 2592000 " in world.logged_in().say("EHLO client.example.net")
    assert world.logged_in().codes("MAIL FROM:<alice@example.org> HOLDFOR=2592001") == [501]
    assert world.greeted().codes("MAIL FROM:<dave@example.net> HOLDFOR=60") == [555]


# Bare LFs.


def test_bare_line_feeds_of_users_are_mended_where_the_operator_wants_it() -> None:
    world = World("submission.mend_lines = true")
    client = world.logged_in()
    assert submit(client, "From: alice@example.org\nSubject: x\n\none\n.\ntwo\r\n..dots\r\n")[-1] == 250
    letter = b"From: alice@example.org\nSubject: y\n\nlast\n"
    client.codes("MAIL FROM:<alice@example.org>", f"RCPT TO:<{BOB}>")
    client.send(f"BDAT {len(letter)} LAST\r\n".encode() + letter)
    assert b"\r\n250 2.0.0 Accepted" in client.received
    assert world.messages() == [
        b"From: alice@example.org\r\nSubject: x\r\n\r\none\r\n.\r\ntwo\r\n.dots\r\n",
        b"From: alice@example.org\r\nSubject: y\r\n\r\nlast\r\n",
    ]
    assert world.ask("SELECT size FROM message") == [len(content) for content in world.messages()]
    # A bare CR cannot be mended, for nobody knows what it means; and strangers' bare LFs are not.
    assert submit(client, "From: alice@example.org\n\na\rb\n\r\n")[-1] == 554
    assert world.greeted().transaction(BOB, content="a\nb\r\n")[-1] == 554
    world.end()


def test_they_are_refused_otherwise(world: World) -> None:
    assert submit(world.logged_in(), "From: alice@example.org\n\nx\r\n")[-1] == 554
