"""Delivery status notifications (RFC 3461), from RCPT to the report in the sender's hands, and mail held for later."""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterator
from email.message import EmailMessage

import pytest

from mailsrv.outside.interfaces import LookupFailed
from mailsrv.store import ledger
from mailsrv.tls import ServerCertificate
from tests.test_app import CONFIG, World, certificate

__all__ = ["certificate"]

# Whoever is on the client's machine may send anywhere, so that reports can be asked for on the way out as well.
TRUSTING = CONFIG.replace("checks.dns", 'trusted_networks = ["198.51.100.1"]\nchecks.dns')


@pytest.fixture
def world(certificate: ServerCertificate) -> Iterator[World]:
    world = World(certificate)
    world.records.records["example.net", "MX"] = LookupFailed("so that reports stay in the queue")
    world.start(TRUSTING)
    yield world
    world.close()


def send(world: World, sender: str, recipient: str, mail_words: str = "", rcpt_words: str = "") -> None:
    client = world.connect()
    commands = ("EHLO client.example.net", f"MAIL FROM:<{sender}> {mail_words}", f"RCPT TO:<{recipient}> {rcpt_words}")
    for command in commands:
        assert world.say(client, command.strip().encode()).startswith(b"250"), command
    assert world.say(client, b"DATA").startswith(b"354")
    assert world.say(client, b"Subject: tell me\r\nMessage-ID: <1@example.net>\r\n\r\nbody\r\n.").startswith(b"250")
    client.close()
    world.advance(5)


def parsed(content: bytes) -> EmailMessage:
    found = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    return found


def fields(report: EmailMessage) -> dict[str, str]:
    """The fields of the one recipient in the part for programs, and those of the message."""
    (status,) = [part for part in report.walk() if part.get_content_type() == "message/delivery-status"]
    return {name: str(value) for block in status.iter_parts() for name, value in block.items()}


def reports_to(world: World, address: str) -> list[EmailMessage]:
    """Reports in the queue for an address elsewhere."""
    rows = world.rows(
        "SELECT content.data FROM content JOIN recipient ON recipient.message = content.message WHERE address = ?",
        address,
    )
    return [parsed(row[0]) for row in rows]


def test_success_in_an_own_mailbox_is_told_to_who_asked(world: World) -> None:
    send(
        world,
        "bob@example.net",
        "alice@example.org",
        "RET=HDRS ENVID=q+2B1",
        "NOTIFY=SUCCESS ORCPT=rfc822;al@x.example",
    )
    assert len(world.mailbox()) == 1
    (report,) = reports_to(world, "bob@example.net")
    told = fields(report)
    assert told["Action"] == "delivered"
    assert told["Status"].startswith("2.")
    assert told["Original-Envelope-Id"] == "q+1"
    assert told["Original-Recipient"] == "rfc822; al@x.example"
    assert told["Final-Recipient"] == "rfc822; alice@example.org"
    assert report["Auto-Submitted"] == "auto-replied"
    assert world.rows("SELECT sender FROM message ORDER BY id DESC LIMIT 1") == [("",)]


@pytest.mark.parametrize("words", ["", "NOTIFY=NEVER", "NOTIFY=FAILURE,DELAY"])
def test_who_did_not_ask_is_not_told(world: World, words: str) -> None:
    send(world, "bob@example.net", "alice@example.org", rcpt_words=words)
    assert len(world.mailbox()) == 1
    assert reports_to(world, "bob@example.net") == []


def test_nothing_is_told_about_a_report(world: World) -> None:
    send(world, "", "alice@example.org", rcpt_words="NOTIFY=SUCCESS")
    assert len(world.mailbox()) == 1
    assert world.rows("SELECT count(*) FROM message") == [(1,)]


def test_success_is_told_once_even_after_a_crash_at_the_mark(world: World) -> None:
    """The report is accepted in the transaction that marks the copy, so there is neither none nor a second one."""
    client = world.connect()
    for command in (b"EHLO c.example", b"MAIL FROM:<bob@example.net>", b"RCPT TO:<alice@example.org> NOTIFY=SUCCESS"):
        world.say(client, command)
    world.say(client, b"DATA")

    def at_the_mark(step: str) -> None:
        if step == "database: commit" and world.rows("SELECT 1 FROM message") and world.mailbox():
            world.machine.life.end()

    world.machine.steps.failures.append(at_the_mark)
    client.send(b"Subject: x\r\n\r\n.\r\n")
    world.advance(5)
    assert not world.machine.life.alive
    assert world.rows("SELECT count(*) FROM message") == [(1,)]
    world.machine.steps.failures.clear()
    world.start(TRUSTING)
    world.advance(5)
    assert len(world.mailbox()) == 1
    assert len(reports_to(world, "bob@example.net")) == 1


def test_the_ledger_balances_with_reports(world: World) -> None:
    send(world, "bob@example.net", "alice@example.org", rcpt_words="NOTIFY=SUCCESS")
    send(world, "alice@example.org", "carol@nowhere.example", rcpt_words="NOTIFY=FAILURE")
    world.advance(30)
    connection = world.machine.databases.look("/state/mailsrv.db")
    balance = ledger.verify(connection, set())
    connection.close()
    assert balance.gaps == []
    assert balance.bounced == 1
    (report,) = [parsed(octets) for octets in world.mailbox() if b"carol@nowhere.example" in octets]
    assert fields(report)["Action"] == "failed"


def test_failure_is_not_told_to_who_forbids_it(world: World) -> None:
    send(world, "alice@example.org", "carol@nowhere.example", rcpt_words="NOTIFY=NEVER")
    world.advance(30)
    assert world.mailbox() == []
    assert world.rows("SELECT state FROM recipient") == [("dropped",)]
    (rule,) = world.rows("SELECT rule FROM event WHERE kind = 'dropped'")
    assert "NOTIFY" in rule[0]
