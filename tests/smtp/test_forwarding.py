"""Mail that leads out of our domains again: another sender, a way back for reports, a catch-all, and no loops."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mailsrv.mail.address import Address
from mailsrv.mail.srs import restore
from tests.smtp.world import World

ALIASES = """
out@example.org: carol@example.net, alice@example.org
@example.com: bob@example.org
real@example.com: alice@example.org
"""


@pytest.fixture
def world() -> Iterator[World]:
    world = World(aliases=ALIASES)
    yield world
    world.end()


def senders(world: World) -> list[tuple[str, str]]:
    return world.ask("SELECT address, sender FROM recipient ORDER BY message, n")


def test_forwarded_mail_leaves_under_a_sender_of_ours(world: World) -> None:
    assert world.greeted().transaction("out@example.org")[-1] == 250
    (out, rewritten), (home, kept) = senders(world)
    assert (out, home, kept) == ("carol@example.net", "alice@example.org", "")
    address = Address.parse(rewritten)
    assert address.domain == "example.org"
    assert restore(address, world.spool.secret, world.outside.wall()) == Address("dave", "example.net")


@pytest.mark.parametrize("sender", ["", "bob@example.org"])
def test_reports_and_mail_of_our_own_keep_their_sender(world: World, sender: str) -> None:
    assert world.greeted().transaction("out@example.org", sender=sender)[-1] == 250
    assert senders(world)[0] == ("carol@example.net", "")


def test_a_report_finds_its_way_back(world: World) -> None:
    client = world.greeted()
    client.transaction("out@example.org")
    rewritten = senders(world)[0][1]
    assert client.transaction(rewritten, sender="")[-1] == 250
    assert world.ask("SELECT address, original FROM recipient ORDER BY message DESC LIMIT 1") == [
        ("dave@example.net", rewritten)
    ]


def test_the_way_back_is_no_way_through(world: World) -> None:
    client = world.greeted()
    client.transaction("out@example.org")
    rewritten = senders(world)[0][1]
    forged = rewritten.replace("dave", "erin")
    assert client.transaction(forged, sender="")[:2] == [250, 550]
    client.say("RSET")
    assert client.transaction(rewritten, sender="mallory@example.net")[:2] == [250, 550]
    assert [rule for _, _, _, rule in world.ledger("refused") if rule == "SRS"] == ["SRS", "SRS"]


def test_a_catch_all_takes_what_nobody_has(world: World) -> None:
    client = world.greeted()
    names = ("whoever@example.com", "real@example.com", "who+tag@example.com", "postmaster@example.com")
    assert client.transaction(*names)[-1] == 250
    assert sorted({mailbox for _, mailbox in world.recipients()}) == ["alice@example.org", "bob@example.org"]
    client.say("RSET")
    assert client.transaction("whoever@example.org")[:2] == [250, 550]
