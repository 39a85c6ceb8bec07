"""Reports are from a domain of ours, and signed by it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from mailsrv.mail.address import Address
from mailsrv.store.key_states import Keys
from mailsrv.store.message import FinalRecipient
from tests.worlds.keys import pair
from tests.worlds.queue import CONFIG, FAILED, QueueWorld
from tests.worlds.verifier import verified

BOB = "bob@example.net"
TWO = CONFIG.replace('["example.org"]', '["example.org", "example.com"]')


@pytest.fixture
def world() -> Iterator[QueueWorld]:
    world = QueueWorld()
    world.settings.change(TWO)
    world.settings.keys = Keys({domain: pair(domain) for domain in ("example.org", "example.com")}, {})
    world.boot()
    world.advance(1)
    world.agent.answers[BOB] = FAILED
    yield world
    assert world.gaps() == []
    world.close()


def report(world: QueueWorld) -> bytes:
    """The report as it leaves for another server."""
    (sent,) = [content for content in world.agent.contents.values() if b"multipart/report" in content]
    return sent


def fail_for(world: QueueWorld, sender: str, original: str) -> None:
    """A message for ``original`` that has to go on to bob, who does not exist."""
    draft = world.spool.draft()
    draft.append(b"Subject: hello\r\n\r\nhi\r\n")
    arrival = world.arrival(draft.id, draft.head(), (BOB,), sender)
    recipient = FinalRecipient(Address.parse(BOB), Address.parse(original), "")
    world.wait(world.spool.accept(draft, replace(arrival, recipients=(recipient,))))
    world.advance(2)


def test_a_report_to_our_own_user(world: QueueWorld) -> None:
    world.submit(BOB)
    world.advance(2)
    (stored,) = world.reports_in()
    message = stored[stored.index(b"DKIM-Signature: ") :].replace(b"\n", b"\r\n")
    assert b"\r\nFrom: Mail Delivery System <MAILER-DAEMON@example.org>\r\n" in message
    assert verified(message, pair()) == [True, True]


@pytest.mark.parametrize("domain", ["example.org", "example.com"])
def test_a_report_to_a_stranger_is_from_the_domain_that_was_written_to(world: QueueWorld, domain: str) -> None:
    fail_for(world, "dave@example.net", f"team@{domain}")
    message = report(world)
    assert message.startswith(b"DKIM-Signature: v=1; a=rsa-sha256;")
    assert f"\r\nFrom: Mail Delivery System <MAILER-DAEMON@{domain}>\r\n".encode() in message
    assert verified(message, pair(domain)) == [True, True]


def test_a_report_about_what_was_for_no_domain_of_ours_is_from_the_first(world: QueueWorld) -> None:
    fail_for(world, "dave@example.net", BOB)
    assert b"MAILER-DAEMON@example.org>\r\n" in report(world)
    assert verified(report(world), pair()) == [True, True]


def test_a_report_of_a_domain_without_keys_is_not_signed(world: QueueWorld) -> None:
    world.settings.keys = Keys({"example.com": pair("example.com")}, {})
    fail_for(world, "dave@example.net", "team@example.org")
    assert report(world).startswith(b"Date: ")
