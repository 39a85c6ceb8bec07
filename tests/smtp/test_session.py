"""Who may send what to whom: relaying, recipients, senders, logins, blocklists, disk space, and what is recorded."""

from __future__ import annotations

import base64
import errno
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from mailsrv.checks.hop_limit import HOPS
from mailsrv.checks.penalties import FREE
from mailsrv.outside.interfaces import LookupFailed
from mailsrv.store.accounts.passwords import THREADS, WAITING_LIMIT
from mailsrv.store.spool import MEMORY
from tests.smtp.world import CLIENT, PASSWORD, World, plain

LISTED = ("7.100.51.198.bl.example.com", "A")
BLOCKLIST = 'checks.blocklists = ["bl.example.com", "other.example.com"]'


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.end()


# Relaying.


TRICKS = [
    "carol@example.net",
    "carol%example.net@example.org",
    "carol%example.net@example.net",
    '"carol@example.net"@example.org',
    "example.net!carol@example.org",
    '"carol%example.net"@example.org',
    "@example.org:carol@example.net",
    "@example.org,@mx.example.org:carol@example.net",
    "carol@example.org.",
    "carol@example.org@example.net",
    "carol@[192.0.2.1]",
    "carol@[127.0.0.1]",
    "alice@[192.0.2.1]",
    "carol@[IPv6:::1]",
    "alice@example.org.example.net",
    "alice@notexample.org",
    "alice@sub.example.org",
    "alice@localhost",
    "alice@mx.example.org",
    '"alice@example.org carol"@example.net',
    "alice@example.org,carol@example.net",
    "alice@example.org> <carol@example.net",
    "|/bin/sh@example.org",
    "/etc/passwd@example.org",
    "../bob@example.org",
    '"../bob"@example.org',
    '"alice "@example.org',
    "alice\u3000@example.org",
]


@pytest.mark.parametrize("recipient", TRICKS)
def test_nobody_relays_through_us(world: World, recipient: str) -> None:
    client = world.greeted()
    client.say("MAIL FROM:<dave@example.net>")
    answer = client.say(f"RCPT TO:<{recipient}>")
    assert answer[:3] in ("550", "501", "553", "555", "500"), answer
    assert client.codes("DATA") == [554]
    assert world.messages() == []


@pytest.mark.parametrize("sender", ["alice@example.org", "", "postmaster@example.org"])
def test_a_sender_of_our_own_is_no_licence_to_relay(world: World, sender: str) -> None:
    assert world.greeted().transaction("carol@example.net", sender=sender) == [250, 550, 554]


@pytest.mark.parametrize("extra", ["EHLO mx.example.org", "EHLO localhost", "EHLO [127.0.0.1]"])
def test_a_name_of_our_own_is_no_licence_to_relay(world: World, extra: str) -> None:
    client = world.connect()
    client.say(extra)
    assert client.transaction("carol@example.net") == [250, 550, 554]


@pytest.mark.parametrize(
    "recipient",
    [
        "alice@example.org",
        "ALICE@EXAMPLE.ORG",
        '"alice"@example.org',
        "@relay.example.net:alice@example.org",
        "alice+tag@example.org",
        "Alice+Tag@Example.Org",
    ],
)
def test_ways_to_write_an_own_mailbox(world: World, recipient: str) -> None:
    assert world.greeted().transaction(recipient) == [250, 250, 354, 250]
    assert [mailbox for _, mailbox in world.recipients()] == ["alice@example.org"]


def test_a_relay_attempt_is_recorded(world: World) -> None:
    world.greeted().transaction("carol@example.net")
    assert world.ledger("refused", "detail, status, address, sender, client, rule")[0] == (
        *("RCPT", "5.7.1", "carol@example.net", "dave@example.net", CLIENT, "trusted_networks"),
    )


@pytest.mark.parametrize(
    ("networks", "client", "trusted"),
    [
        ('"198.51.100.0/24"', "198.51.100.7", True),
        ('"198.51.100.0/24"', "198.51.101.7", False),
        ('"2001:db8:5::/48"', "2001:db8:5:1::1", True),
        ('"2001:db8:5::/48"', "2001:db8:6::1", False),
        ('"2001:db8:5::/48"', "198.51.100.7", False),
        ('"::/0"', "198.51.100.7", False),
        ('"0.0.0.0/0"', "2001:db8:5:1::1", False),
        ('"127.0.0.0/8"', "127.0.0.1", True),
    ],
)
def test_trusted_networks(networks: str, client: str, trusted: bool) -> None:
    world = World(f"trusted_networks = [{networks}]")
    codes = world.greeted(host=client).transaction("carol@example.net")
    assert codes == ([250, 250, 354, 250] if trusted else [250, 550, 554])
    assert world.recipients() == ([("carol@example.net", "")] if trusted else [])
    world.end()


def test_trust_is_no_own_mailbox(world: World) -> None:
    world.settings.configure('trusted_networks = ["198.51.100.0/24"]')
    assert world.greeted().transaction("nobody@example.org") == [250, 550, 554]


# Recipients.


def test_unknown_recipients_are_refused_one_by_one(world: World) -> None:
    client = world.greeted()
    assert client.transaction("nobody@example.org", "alice@example.org", "x@example.com") == [
        250,
        550,
        250,
        550,
        354,
        250,
    ]
    assert world.recipients() == [("alice@example.org", "alice@example.org")]
    assert world.ledger("refused") == [
        ("RCPT", "5.1.1", "nobody@example.org", "accounts"),
        ("RCPT", "5.1.1", "x@example.com", "accounts"),
    ]


def test_an_alias_goes_to_all_its_targets_here_and_elsewhere(world: World) -> None:
    assert world.greeted().transaction("team@example.org") == [250, 250, 354, 250]
    assert world.recipients() == [
        ("alice@example.org", "alice@example.org"),
        ("bob@example.org", "bob@example.org"),
        ("carol@example.net", ""),
    ]
    assert world.ask("SELECT DISTINCT original FROM recipient") == ["team@example.org"]


def test_a_final_target_gets_a_message_once(world: World) -> None:
    names = ["alice", "both", "ALICE", "team", "sales", "alice", "alice+x"]
    assert world.greeted().transaction(*(f"{name}@example.org" for name in names)) == [250] * 8 + [354, 250]
    assert [address for address, _ in world.recipients()] == [
        "alice@example.org",
        "bob@example.org",
        "carol@example.net",
    ]


def test_a_target_elsewhere_gets_a_message_once() -> None:
    world = World('trusted_networks = ["198.51.100.0/24"]')
    recipients = ["carol@example.net", "carol@EXAMPLE.net", "team@example.org", "Carol@example.net"]
    world.greeted().transaction(*recipients)
    outside = [address for address, mailbox in world.recipients() if not mailbox]
    assert outside == ["carol@example.net", "Carol@example.net"]  # what the case of theirs means is theirs to say
    world.end()


@pytest.mark.parametrize("postmaster", ["postmaster", "Postmaster", "postmaster@example.org", "POSTMASTER@example.com"])
def test_postmaster_is_always_somebody(world: World, postmaster: str) -> None:
    assert world.greeted().transaction(postmaster) == [250, 250, 354, 250]
    assert [mailbox for _, mailbox in world.recipients()] == ["alice@example.org"]


def test_before_there_is_any_account_mail_is_put_off_and_not_refused(world: World) -> None:
    world.settings.serve({})
    client = world.greeted()
    assert client.transaction("alice@example.org", "postmaster") == [250, 450, 450, 554]
    assert client.codes("RSET") == [250]
    world.settings.serve({"alice": PASSWORD})
    assert client.transaction("alice@example.org") == [250, 250, 354, 250]


def test_too_many_recipients(world: World) -> None:
    world.settings.configure("limits.recipients = 2")
    codes = world.greeted().transaction("alice@example.org", "bob@example.org", "sales@example.org")
    assert codes == [250, 250, 250, 452, 354, 250]
    assert len(world.recipients()) == 2


def test_a_recipient_never_leaks_into_the_next_transaction(world: World) -> None:
    client = world.greeted()
    client.say("MAIL FROM:<dave@example.net>", "RCPT TO:<bob@example.org>", "RSET")
    client.transaction("alice@example.org")
    client.say("MAIL FROM:<dave@example.net>", "RCPT TO:<bob@example.org>", "EHLO again.example.net")
    client.transaction("alice@example.org")
    assert {address for address, _ in world.recipients()} == {"alice@example.org"}


# Who has logged in.


@pytest.mark.parametrize(
    ("sender", "allowed"),
    [
        ("alice@example.org", True),
        ("ALICE@Example.ORG", True),
        ('"alice"@example.org', True),
        ("alice+news@example.org", True),
        ("sales@example.org", True),  # an alias
        ("sales+x@example.org", True),
        ("team@example.org", True),  # one of several targets
        ("", True),
        ("bob@example.org", False),
        ("nobody@example.org", False),
        ("alice@example.net", False),
        ("carol@example.net", False),
        ("alice@example.com", False),
        ('"alice@example.org"@example.net', False),
    ],
)
def test_who_has_logged_in_sends_as_itself(world: World, sender: str, allowed: bool) -> None:
    codes = world.logged_in("alice@example.org").transaction("carol@example.net", sender=sender)
    assert codes == ([250, 250, 354, 250] if allowed else [550, 503, 503])
    if not allowed:
        assert world.ledger("refused", "detail, status, sender, rule")[0][:2] == ("MAIL", "5.7.1")
        assert world.ledger("refused", "rule")[0] == "a sender owns its address"


def test_submission_wants_a_login(world: World) -> None:
    client = world.greeted(587)
    assert client.codes("MAIL FROM:<alice@example.org>") == [530]
    client.start_tls()
    client.say("EHLO client.example.net")
    assert client.codes("MAIL FROM:<alice@example.org>") == [530]
    assert client.codes(plain("alice@example.org")) == [235]
    assert client.transaction("carol@example.net", sender="alice@example.org") == [250, 250, 354, 250]
    (prefix,) = world.ask("SELECT prefix FROM content")
    assert CLIENT.encode() not in prefix
    assert b"client.example.net" not in prefix


def test_no_password_in_clear(world: World) -> None:
    client = world.greeted(587)
    assert "AUTH" not in client.say("EHLO client.example.net")
    assert client.codes(plain("alice@example.org")) == [538]
    assert client.codes("AUTH LOGIN") == [538]


@pytest.mark.parametrize(("host", "offered"), [("127.0.0.1", True), ("198.51.100.7", False), ("::1", True)])
def test_passwords_in_clear_from_this_machine(host: str, offered: bool) -> None:
    world = World('auth.cleartext = "loopback"')
    if host == "::1":
        client = world.connect(587, "2001:db8::7")
        assert "AUTH" not in client.say("EHLO client.example.net")
    else:
        client = world.connect(587, host)
        assert ("AUTH" in client.say("EHLO client.example.net")) is offered
        assert client.codes(plain("alice@example.org")) == [235 if offered else 538]
    world.end()


def test_no_logins_where_strangers_send(world: World) -> None:
    client = world.greeted().start_tls()
    assert "AUTH" not in client.say("EHLO client.example.net")
    assert client.codes(plain("alice@example.org"))[0] >= 500


def test_every_failed_login_looks_the_same(world: World) -> None:
    world.settings.serve({"alice": PASSWORD})
    client = world.greeted(587).start_tls()
    client.say("EHLO client.example.net")
    answers = set()
    for username, password in [
        ("alice@example.org", "wrong"),
        ("alice@example.org", ""),
        ("alice@example.org", PASSWORD + " "),
        ("alice@example.org", PASSWORD.upper()),
        ("alice", PASSWORD),
        ("alice+tag@example.org", PASSWORD),
        ("sales@example.org", PASSWORD),
        ("nobody@example.org", PASSWORD),
        ("not an address", PASSWORD),
        ("x" * 5000, PASSWORD),
    ]:
        before = len(client.received)
        client.say(plain(username, password))
        world.run(40)
        answers.add(client.received[before:])
    assert answers == {b"535 5.7.8 Authentication failed\r\n"}
    login = "AUTH LOGIN " + base64.b64encode(b"alice@example.org").decode()
    assert client.codes(login, base64.b64encode(b"wrong").decode()) == [334]
    world.run(40)
    assert client.received.endswith(b"535 5.7.8 Authentication failed\r\n")
    rows = world.ledger("login", "address, client, reason, detail")
    assert rows[0] == ("alice@example.org", CLIENT, "wrong password", "SMTP AUTH PLAIN")
    assert ("nobody@example.org", CLIENT, "there is no such account", "SMTP AUTH PLAIN") in rows
    assert rows[-1][3] == "SMTP AUTH LOGIN"
    assert len(rows) == 9  # an empty password and an endless name are not even looked at
    assert max(len(row[0]) for row in rows) <= 254
    assert not any(secret in str(rows) for secret in (PASSWORD, PASSWORD.upper()))


def test_an_account_that_is_no_more_sends_no_more(world: World) -> None:
    for change in ({"bob": PASSWORD}, {"alice": "another password", "bob": PASSWORD}):
        world.settings.serve({"alice": PASSWORD, "bob": PASSWORD})
        client = world.logged_in("alice@example.org")
        world.settings.serve({"bob": PASSWORD, "alice": PASSWORD})
        assert client.transaction("bob@example.org", sender="alice@example.org")[-1] == 250
        world.settings.serve(change)
        assert client.codes("MAIL FROM:<alice@example.org>") == [421]
        assert client.gone


def test_too_many_logins_at_once_are_put_off(world: World) -> None:
    gate = world.gate("passwords")
    clients = []
    for n in range(THREADS + WAITING_LIMIT + 1):
        client = world.connect(465, f"198.51.100.{n}", tls=True)
        client.say("EHLO client.example.net")
        client.say(plain("alice@example.org", str(n)))
        clients.append(client)
    assert clients[-1].received.endswith(b"454 4.7.0 Too many logins at once; try again\r\n")
    gate.release()
    world.run()
    assert clients[0].received.endswith(b"535 5.7.8 Authentication failed\r\n")
    clients[-1].say(plain("alice@example.org"))
    world.run(6)
    assert clients[-1].received.endswith(b"235 2.7.0 Authentication succeeded\r\n")


def test_owners_log_in_while_strangers_guess_from_everywhere(world: World) -> None:
    for name in ("alice", "bob"):
        assert waits_s(world, "203.0.113.5", f"{name}@example.org") < 0.2
    world.house.passwords._right.clear()  # as after five minutes
    gate = world.gate("passwords")
    strangers = []
    for n in range(THREADS + WAITING_LIMIT + 20):
        client = world.connect(465, f"198.51.{n % 250}.1", tls=True)
        client.say("EHLO client.example.net")
        client.say(plain("alice@example.org", str(n)))
        strangers.append(client)
    owners = []
    for name, address in (("alice", "203.0.113.5"), ("bob", "203.0.113.5")):
        client = world.connect(465, address, tls=True)
        client.say("EHLO client.example.net")
        client.say(plain(f"{name}@example.org"))
        owners.append(client)
    for _ in range(THREADS + 4):
        gate.run(1)
        world.run()
    assert [owner.received.endswith(b"235 2.7.0 Authentication succeeded\r\n") for owner in owners] == [True] * 2
    assert strangers[50].received.endswith(b"AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN\r\n")
    gate.release()
    world.run()


# Penalties.


def guess(world: World, host: str, times: int, username: str = "alice@example.org") -> None:
    """Guess in vain, with all the patience it takes."""
    for _ in range(times):
        client = world.connect(465, host, tls=True)
        client.say("EHLO client.example.net")
        client.say(plain(username, "wrong"))
        world.run(40)
        assert client.received.endswith(b"535 5.7.8 Authentication failed\r\n")
        client.say("QUIT")


def waits_s(world: World, host: str, username: str = "alice@example.org", password: str = PASSWORD) -> float:
    """How long the answer to a login takes."""
    client = world.connect(465, host, tls=True)
    client.say("EHLO client.example.net")
    before, begun = len(client.received), world.timeline.now
    client.wire.write(f"{plain(username, password)}\r\n".encode())
    while len(client.received) == before:
        world.run(0.05)
    taken = world.timeline.now - begun
    client.say("QUIT")
    return taken


def test_who_guesses_waits_longer_and_longer_and_before_the_password_is_looked_at(world: World) -> None:
    guess(world, CLIENT, FREE)
    assert 0.4 < waits_s(world, CLIENT, password="wrong") < 0.7
    assert 0.9 < waits_s(world, CLIENT, password="wrong") < 1.2
    guess(world, CLIENT, 8)
    client = world.connect(465, CLIENT, tls=True)
    client.say("EHLO client.example.net")
    gate = world.gate("passwords")
    client.say(plain("alice@example.org", "wrong"))
    world.run(25)
    assert len(gate) == 0
    world.run(10)
    assert len(gate) == 1
    gate.release()
    world.run()
    assert client.received.endswith(b"535 5.7.8 Authentication failed\r\n")


def test_who_hangs_up_and_guesses_again_leaves_nothing_behind(world: World) -> None:
    guess(world, CLIENT, 8)
    begun = len(world.outside.reactor.getDelayedCalls())
    for _ in range(30):
        client = world.connect(465, CLIENT, tls=True)
        client.say("EHLO client.example.net", plain("alice@example.org", "wrong"))
        client.vanish()
    assert len(world.outside.reactor.getDelayedCalls()) == begun
    assert world.failures == []


def test_strangers_cannot_slow_the_owner_down(world: World) -> None:
    assert waits_s(world, "203.0.113.5") < 0.2
    for n in range(10):
        guess(world, f"198.51.100.{n}", 3)
    assert waits_s(world, "203.0.113.5") < 0.2
    assert 0.5 < waits_s(world, "203.0.113.6") < 5.2  # but somebody who never was here


def test_penalties_can_be_turned_off() -> None:
    world = World("limits.penalties = false")
    guess(world, CLIENT, 12)
    assert waits_s(world, CLIENT) < 0.2
    world.end()


# Blocklists.


def test_a_listed_client_is_refused_at_rcpt_and_not_before() -> None:
    world = World(BLOCKLIST, records={LISTED: ["127.0.0.2"]})
    client = world.connect()
    assert client.received.startswith(b"220 ")
    client.say("EHLO client.example.net")
    codes = client.transaction("alice@example.org", "bob@example.org", "carol@example.net")
    assert codes == [250, 554, 554, 554, 554]
    rows = world.ledger("refused", "detail, status, address, rule, reason")
    assert rows[0] == (
        *("RCPT", "5.7.1", "alice@example.org", "checks.blocklists: bl.example.com"),
        "the client is listed by bl.example.com with code 127.0.0.2",
    )
    assert world.greeted(host="198.51.100.8").transaction("alice@example.org")[-1] == 250
    world.end()


def test_the_greeting_does_not_wait_for_the_dns() -> None:
    world = World(BLOCKLIST, records={LISTED: ["127.0.0.2"]})
    world.zone.latency_s = (10.0, 10.0)
    client = world.greeted()
    assert client.codes("MAIL FROM:<dave@example.net>") == [250]
    assert world.dns.asked == []  # the answers are still on their way
    assert client.codes("RCPT TO:<alice@example.org>") == []
    world.run(21)  # the listing, and behind it the list's own two test points
    assert client.received.endswith(b"554 5.7.1 Your address is on a blocklist that we use\r\n")
    world.end()


@pytest.mark.parametrize("answer", [["127.255.255.254"], ["127.0.0.1"], ["192.0.2.99"], LookupFailed, []])
def test_what_is_no_listing_keeps_no_mail_out(answer: Any) -> None:
    world = World(BLOCKLIST, records={LISTED: answer})
    assert world.greeted().transaction("alice@example.org") == [250, 250, 354, 250]
    world.end()


@pytest.mark.parametrize(
    "extra", ["", f"checks.dns = false\n{BLOCKLIST}", f'trusted_networks = ["198.51.100.0/24"]\n{BLOCKLIST}']
)
def test_when_nothing_is_looked_up(extra: str) -> None:
    world = World(extra, records={LISTED: ["127.0.0.2"]})
    assert world.greeted().transaction("alice@example.org")[-1] == 250
    assert world.asked() == []
    world.end()


def test_our_own_users_may_be_listed() -> None:
    world = World(BLOCKLIST, records={LISTED: ["127.0.0.2"]})
    client = world.logged_in("alice@example.org")
    assert client.transaction("carol@example.net", sender="alice@example.org")[-1] == 250
    assert world.dns.asked == []
    world.end()


def test_a_client_gone_before_the_dns_has_answered() -> None:
    world = World(BLOCKLIST, records={LISTED: ["127.0.0.2"]})
    world.zone.latency_s = (10.0, 10.0)
    for line in ("NOOP", "MAIL FROM:<dave@example.net>\r\nRCPT TO:<alice@example.org>"):
        client = world.greeted()
        client.say(line)
        client.vanish()
        world.run(20)
    assert world.failures == []
    assert world.ledger("refused") == []
    world.end()


# The content, and the disk.


def test_what_is_stored_beside_the_content(world: World) -> None:
    content = "Message-ID: <one@example.net>\r\nSubject: hello\r\n\r\n..dots\r\n"
    world.greeted().transaction("alice@example.org", content=content)
    assert world.messages() == [b"Message-ID: <one@example.net>\r\nSubject: hello\r\n\r\n.dots\r\n"]
    assert world.ask("SELECT message_id, sender, client, helo, protocol, size, lines, account FROM message") == [
        ("one@example.net", "dave@example.net", CLIENT, "client.example.net", "ESMTP", len(content) - 1, 4, "")
    ]
    (prefix,) = world.ask("SELECT prefix FROM content")
    assert b"from client.example.net ([198.51.100.7])\r\n" in prefix
    assert b"for <alice@example.org>" in prefix


def test_recipients_do_not_learn_of_each_other(world: World) -> None:
    world.greeted().transaction("alice@example.org", "bob@example.org")
    (prefix,) = world.ask("SELECT prefix FROM content")
    assert b"alice" not in prefix + b"bob"
    assert b"bob@" not in prefix


@pytest.mark.parametrize("helo", ["x\ty", "x\x00", "a b", "x\r", "é", "<x>", "(x)", "x;y", "x" * 256, ""])
def test_no_header_is_made_of_a_name_in_ehlo(world: World, helo: str) -> None:
    client = world.connect()
    assert client.codes(f"EHLO {helo}")[0] >= 500


def test_a_message_that_goes_round_in_circles(world: World) -> None:
    client = world.greeted()
    received = "Received: from a by b\r\n\tfor c;\r\n"
    assert client.transaction("alice@example.org", content=received * HOPS + "\r\n")[-1] == 250
    assert client.transaction("alice@example.org", content=received * (HOPS + 1) + "\r\n")[-1] == 554
    assert world.spool.memory == 0
    assert world.ledger("refused") == [("DATA", "5.4.6", "alice@example.org", "RFC 5321 6.3")]


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"a\nb\r\n", "5.6.0"), (b"a\rb\r\n", "5.6.0"), (b"a\x00b\r\n", "5.6.0"), (b"x" * 1100 + b"\r\n", "5.3.4")],
)
def test_content_that_is_refused_is_recorded_for_each_recipient_and_forgotten(content: bytes, status: str) -> None:
    world = World("limits.message_size = 1000")
    client = world.greeted()
    client.say("MAIL FROM:<dave@example.net>", "RCPT TO:<alice@example.org>", "RCPT TO:<bob@example.org>", "DATA")
    client.send(content + b".\r\n")
    assert status.encode() in client.received.splitlines()[-1]
    assert world.spool.memory == 0
    assert world.messages() == []
    assert [row[:3] for row in world.ledger("refused")] == [
        ("DATA", status, "alice@example.org"),
        ("DATA", status, "bob@example.org"),
    ]
    assert client.transaction("alice@example.org")[-1] == 250
    world.end()


def test_commands_that_the_core_refuses_are_recorded(world: World) -> None:
    client = world.greeted()
    client.say("DATA", "MAIL FROM:<alice@@example.net>", "nonsense")
    assert [row[:2] for row in world.ledger("refused")] == [("DATA", "5.5.1"), ("MAIL", "5.1.7"), ("?", "5.5.1")]
    assert set(world.ledger("refused", "client")) == {CLIENT}


def test_little_room_on_the_disk_is_452_before_anything_is_accepted() -> None:
    world = World('limits.message_size = "1 MiB"')
    client = world.greeted()
    world.machine.disk.space = 2 * 1024 * 1024 - 1
    client.say("MAIL FROM:<dave@example.net>", "RSET")  # looks, and hears it in time for the next
    world.run(2)
    client.say("MAIL FROM:<dave@example.net>", "RSET")
    assert client.codes("MAIL FROM:<dave@example.net>") == [452]
    assert world.ledger("refused", "detail, status, sender, rule")[-1] == (
        *("MAIL", "4.3.1", "dave@example.net", "limits.message_size"),
    )
    world.machine.disk.space = 2 * 1024 * 1024
    world.run(2)
    client.say("MAIL FROM:<dave@example.net>", "RSET")
    assert client.transaction("alice@example.org")[-1] == 250
    world.end()


def _fail_at_commits(world: World, error: Exception) -> None:
    def fail(step: str) -> None:
        if step == "database: commit":
            raise error

    world.machine.steps.failures.append(fail)


@pytest.mark.parametrize(("full", "code"), [(False, 451), (True, 452)])
def test_a_database_that_cannot_store_is_a_reason_to_come_back(world: World, full: bool, code: int) -> None:
    error = sqlite3.OperationalError("database or disk is full" if full else "disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL if full else sqlite3.SQLITE_IOERR
    client = world.greeted()
    _fail_at_commits(world, error)
    assert client.transaction("alice@example.org", "bob@example.org") == [250, 250, 250, 354, code]
    assert world.spool.memory == 0
    world.machine.steps.failures.clear()
    assert client.transaction("alice@example.org") == [250, 250, 354, 250]
    assert len(world.messages()) == 1
    assert [row[:3] for row in world.ledger("refused")] == [
        ("DATA", "4.3.1" if full else "4.3.0", "alice@example.org"),
        ("DATA", "4.3.1" if full else "4.3.0", "bob@example.org"),
    ]


@pytest.mark.parametrize("step", ["create", "write", "sync"])
def test_a_spool_file_that_cannot_be_written_is_a_reason_to_come_back(world: World, step: str) -> None:
    def fail(what: str) -> None:
        if what.startswith("disk") and step in what:
            raise OSError(errno.ENOSPC, "No space left on device")

    client = world.greeted()
    world.machine.steps.failures.append(fail)
    line = "x" * 78 + "\r\n"
    assert client.transaction("alice@example.org", content=line * 10_000) == [250, 250, 354, 452]
    assert world.spool.memory == 0
    world.machine.steps.failures.clear()
    assert client.transaction("alice@example.org", content=line * 10_000) == [250, 250, 354, 250]
    assert len(world.files()) == 1


def test_headers_are_looked_at_even_while_memory_is_short(world: World) -> None:
    world.spool.memory += MEMORY
    body = ("x" * 78 + "\r\n") * 2000
    content = f"Message-ID: <one@example.net>\r\nFrom: alice@example.org\r\n\r\n{body}"
    client = world.logged_in("alice@example.org")
    assert client.transaction("bob@example.org", sender="alice@example.org", content=content)[-1] == 250
    assert world.ask("SELECT message_id FROM message") == ["one@example.net"]
    assert len(world.files()) == 1
    looping = "Received: from a by b\r\n" * (HOPS + 1) + "\r\n" + body
    assert world.greeted().transaction("bob@example.org", content=looping)[-1] == 554
    world.spool.memory -= MEMORY
