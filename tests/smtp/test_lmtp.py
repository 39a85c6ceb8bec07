"""LMTP (RFC 2033): a reply for each recipient, own mailboxes only, no logins, no TLS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mailsrv.store.database import StorageTrouble
from mailsrv.store.key_states import Keys
from tests.smtp.world import Client, World, plain
from tests.worlds.keys import pair

LMTP = 24


class LmtpWorld(World):
    def __init__(self, extra: str = "") -> None:
        super().__init__(extra)
        self.factories["lmtp"] = self._listen(LMTP, "lmtp")

    def greeted(self, port: int = LMTP, host: str = "127.0.0.1") -> Client:
        client = self.connect(port, host)
        client.say("LHLO mail.example.net")
        return client


@pytest.fixture
def world() -> Iterator[LmtpWorld]:
    world = LmtpWorld()
    yield world
    world.end()


def received(world: World) -> str:
    """The Received field of the only message."""
    (field,) = world.ask("SELECT prefix FROM content")
    return str(field.decode())


def test_a_whole_conversation(world: LmtpWorld) -> None:
    client = world.connect(LMTP)
    assert client.received == b"220 mx.example.org LMTP mailsrv\r\n"
    offered = client.say("LHLO mail.example.net")
    assert "PIPELINING" in offered
    assert "STARTTLS" not in offered
    assert "AUTH" not in offered
    assert client.transaction("alice@example.org", "nobody@example.org", "bob@example.org") == [
        *(250, 250, 550, 250, 354),
        *(250, 250),  # RFC 2033 4.2: for those whose RCPT was accepted, in their order
    ]
    assert client.codes("QUIT") == [221]
    assert world.messages() == [b"hello\r\n"]
    assert world.recipients() == [("alice@example.org", "alice@example.org"), ("bob@example.org", "bob@example.org")]


def test_replies_come_after_the_commit_and_all_at_once(world: LmtpWorld) -> None:
    client = world.greeted()
    gate = world.gate("database-writer")
    assert client.transaction("alice@example.org", "bob@example.org") == [250, 250, 250, 354]
    assert world.messages() == []
    before = len(client.received)
    gate.release()
    world.run()
    told = client.received[before:].splitlines()
    assert len(told) == 2
    assert told[0] == told[1]
    assert told[0].startswith(b"250 2.0.0 Accepted as ")


def test_nothing_of_it_is_signed(world: LmtpWorld) -> None:
    """Who hands mail over by LMTP has it from strangers."""
    world.settings.keys = Keys({"example.org": pair()}, {})
    content = "From: bob@example.org\r\n\r\nhello\r\n"
    assert world.greeted().transaction("alice@example.org", sender="bob@example.org", content=content)[-1] == 250
    assert "DKIM-Signature" not in received(world)


@pytest.mark.parametrize("second", ["alice@example.org", "ALICE@example.org", "alice+tag@example.org"])
def test_a_recipient_named_twice_has_two_replies_and_one_message(world: LmtpWorld, second: str) -> None:
    assert world.greeted().transaction("alice@example.org", second) == [250, 250, 250, 354, 250, 250]
    assert [mailbox for _, mailbox in world.recipients()] == ["alice@example.org"]


def test_bdat(world: LmtpWorld) -> None:
    client = world.greeted()
    client.say("MAIL FROM:<dave@example.net>", "RCPT TO:<alice@example.org>", "RCPT TO:<bob@example.org>")
    assert client.codes("BDAT 5") == []
    assert client.codes("hel") == [250]
    assert client.codes("BDAT 2 LAST") == []
    assert client.codes("") == [250, 250]


def test_aliases_may_lead_elsewhere(world: LmtpWorld) -> None:
    assert world.greeted().transaction("team@example.org") == [250, 250, 354, 250]
    assert ("carol@example.net", "") in world.recipients()


@pytest.mark.parametrize("recipient", ["carol@example.net", "carol%example.net@example.org", "@example.org:c@x.net"])
def test_nobody_relays_through_us(recipient: str) -> None:
    """Not even from a trusted network, which the machine itself often is."""
    world = LmtpWorld('trusted_networks = ["127.0.0.0/8", "198.51.100.0/24"]')
    assert world.greeted(25).codes("EHLO x", "MAIL FROM:<>", "RCPT TO:<carol@example.net>") == [250, 250, 250]
    assert world.greeted().transaction(recipient) == [250, 550, 554]
    world.end()


def test_neither_logins_nor_tls(world: LmtpWorld) -> None:
    world.settings.configure('auth.cleartext = "loopback"')
    client = world.greeted()
    assert client.codes("STARTTLS", plain("alice@example.org"), "EHLO x", "HELO x") == [502, 502, 500, 500]


def test_the_received_field(world: LmtpWorld) -> None:
    world.greeted().transaction("alice@example.org")
    assert received(world).startswith(
        "Received: from mail.example.net ([127.0.0.1])\r\n\tby mx.example.org with LMTP id "
    )


def test_the_received_field_of_international_mail(world: LmtpWorld) -> None:
    client = world.greeted()
    codes = client.codes("MAIL FROM:<gr\u00fc\u00df@example.net> SMTPUTF8", "RCPT TO:<alice@example.org>", "DATA")
    assert codes == [250, 250, 354]
    assert client.codes("hello", ".") == [250]
    assert " with UTF8LMTP id " in received(world)


def test_what_cannot_be_stored_is_to_be_tried_again_by_all(world: LmtpWorld) -> None:
    client = world.greeted()
    world.outside.gates["database-writer"].failure = StorageTrouble("no room", full=True)
    codes = client.transaction("alice@example.org", "bob@example.org")
    assert codes == [250, 250, 250, 354, 452, 452]


def test_refused_content_is_refused_for_each(world: LmtpWorld) -> None:
    client = world.greeted()
    assert client.transaction("alice@example.org", "bob@example.org", content="a\nb\r\n") == [
        *(250, 250, 250, 354),
        *(554, 554),
    ]
    assert client.transaction("alice@example.org") == [250, 250, 354, 250]


def test_blocklists_are_not_for_what_is_on_this_machine() -> None:
    world = LmtpWorld('checks.blocklists = ["bl.example.com"]')
    client = world.greeted(host="198.51.100.7")
    assert client.transaction("alice@example.org") == [250, 250, 354, 250]
    assert world.dns.asked == []
    world.end()


def test_unknown_recipients_are_no_fault_of_the_server_in_front(world: LmtpWorld) -> None:
    """It may ask for as many as strangers make up, and gets its answers at once."""
    client = world.greeted()
    client.say("MAIL FROM:<>")
    assert client.codes(*["RCPT TO:<nobody@example.org>"] * 100) == [550] * 100
    assert client.transaction("alice@example.org") == [503, 250, 354, 250]


def test_a_refused_relay_is_recorded(world: LmtpWorld) -> None:
    world.greeted().transaction("carol@example.net")
    assert world.ledger("refused")[0] == ("RCPT", "5.7.1", "carol@example.net", "listen.lmtp")
