"""The checks in whole sessions: what is refused and recorded, what only observes, what is written into the message."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from zope.interface import implementer

from mailsrv.checks import interfaces
from mailsrv.checks.first_contact import FirstContact, is_known
from mailsrv.checks.interfaces import Facts, ICheck, Opinion, Stage, Verdict
from mailsrv.checks.ordered import Checks
from mailsrv.cli import story
from mailsrv.mail.address import Address
from mailsrv.mail.header import whole_fields
from mailsrv.store import history, ledger
from mailsrv.store.database import StorageTrouble
from mailsrv.store.spool import KEPT
from tests.smtp.world import CLIENT, STATE, Client, World

ENFORCED = "checks.observe = []"
LETTER = "From: dave@example.net\r\nSubject: hello\r\n\r\nhello\r\n"
PTR = ("7.100.51.198.in-addr.arpa", "PTR")
CONFIRMED: dict[tuple[str, str], Any] = {PTR: ["mail.example.net"], ("mail.example.net", "A"): [CLIENT]}
FIRST_CONTACT = f'{ENFORCED}\nchecks.first_contact = "5m"'


@pytest.fixture
def world() -> Iterator[World]:
    world = World(ENFORCED)
    yield world
    world.end()


def prefixes(world: World) -> list[str]:
    return [prefix.decode() for prefix in world.ask("SELECT prefix FROM content ORDER BY message")]


# Sanity.


TWICE = "From: dave@example.net\r\nFrom: eve@example.net\r\n\r\nx\r\n"


def test_a_message_with_two_authors_fields_is_refused(world: World) -> None:
    client = world.greeted()
    codes = client.transaction("alice@example.org", "bob@example.org", content=TWICE)
    assert codes == [250, 250, 250, 354, 550]
    assert client.received.endswith(b"550 5.6.0 The message has more than one From field\r\n")
    assert world.ledger("refused") == [
        ("DATA", "5.6.0", "alice@example.org", "RFC 5322 3.6"),
        ("DATA", "5.6.0", "bob@example.org", "RFC 5322 3.6"),
    ]
    assert world.spool.memory == 0
    assert client.transaction("alice@example.org", content=LETTER)[-1] == 250
    assert client.transaction("alice@example.org", content="no header at all\r\n")[-1] == 250


def test_our_users_and_trusted_networks_are_not_judged_by_it(world: World) -> None:
    client = world.logged_in()
    assert client.transaction("bob@example.org", sender="alice@example.org", content="Subject: x\r\n\r\n")[-1] == 250
    world.settings.configure(f'{ENFORCED}\ntrusted_networks = ["198.51.100.0/24"]')
    assert world.greeted().transaction("alice@example.org", content="Subject: x\r\n\r\n")[-1] == 250


@pytest.mark.parametrize("who", ["account", "trusted"])
def test_the_hop_limit_is_for_everybody(world: World, who: str) -> None:
    if who == "trusted":
        world.settings.configure(f'{ENFORCED}\ntrusted_networks = ["198.51.100.0/24"]')
    client = world.logged_in() if who == "account" else world.greeted()
    content = "Received: from a by b\r\n" * 51 + "From: alice@example.org\r\n\r\n"
    assert client.transaction("bob@example.org", sender="alice@example.org", content=content)[-1] == 554


# Observing.


def test_what_is_observed_goes_on_and_is_told() -> None:
    world = World(
        'checks.blocklists = ["bl.example.com"]\nchecks.observe = ["sanity", "blocklists"]',
        records={("7.100.51.198.bl.example.com", "A"): ["127.0.0.2"]},
    )
    assert world.greeted().transaction("alice@example.org", content=TWICE) == [250, 250, 354, 250]
    assert world.ledger("observed", "detail, status, address, sender, client, rule") == [
        (
            *("RCPT", "5.7.1", "alice@example.org", "dave@example.net", CLIENT),
            "checks.blocklists: bl.example.com (checks.observe: blocklists)",
        ),
        (
            *("DATA", "5.6.0", "alice@example.org", "dave@example.net", CLIENT),
            "RFC 5322 3.6 (checks.observe: sanity)",
        ),
    ]
    assert world.ledger("refused") == []
    connection = world.machine.databases.look("/var/lib/mailsrv/mailsrv.db")
    told = [story.loose_line(record) for record in history.history(connection, CLIENT).loose]
    connection.close()
    assert len(told) == 2
    assert "observed at RCPT, sender dave@example.net from 198.51.100.7 (5.7.1)" in told[1]
    assert told[1].endswith("The mail went on; this check refuses when its name is out of checks.observe.")
    world.end()


def test_the_ledger_knows_the_kind() -> None:
    assert ledger.OBSERVED in ledger.KINDS


# The name of the client.


def test_a_confirmed_name_is_in_received() -> None:
    world = World(ENFORCED, records=CONFIRMED)
    assert world.greeted().transaction("alice@example.org", content=LETTER)[-1] == 250
    assert "from client.example.net (mail.example.net [198.51.100.7])\r\n" in prefixes(world)[0]
    world.end()


@pytest.mark.parametrize("extra", [ENFORCED, f"{ENFORCED}\nchecks.dns = false"])
def test_a_name_that_is_not_confirmed_is_not(extra: str) -> None:
    world = World(extra, records={PTR: ["mail.example.net"]} if "dns" not in extra else CONFIRMED)
    assert world.greeted().transaction("alice@example.org", content=LETTER)[-1] == 250
    assert "from client.example.net ([198.51.100.7])\r\n" in prefixes(world)[0]
    assert world.dns.asked == [] or "dns" not in extra
    world.end()


def test_nobody_waits_for_a_name() -> None:
    world = World(ENFORCED, records=CONFIRMED)
    world.zone.latency_s = (10.0, 10.0)
    assert world.greeted().transaction("alice@example.org", content=LETTER) == [250, 250, 354, 250]
    world.end()


def test_our_users_and_trusted_networks_are_not_looked_up(world: World) -> None:
    world.logged_in()
    world.settings.configure('trusted_networks = ["198.51.100.0/24"]')
    world.greeted()
    assert world.dns.asked == []


# First contact.


def deliver(world: World, sender: str = "dave@example.net", client: str = CLIENT) -> int:
    return world.greeted(host=client).transaction("alice@example.org", sender=sender, content=LETTER)[-1]


@pytest.fixture
def doubting() -> Iterator[World]:
    """A world in which clients have no names and unknown senders wait."""
    world = World(FIRST_CONTACT)
    yield world
    world.end()


def test_an_unknown_sender_in_doubt_waits_once(doubting: World) -> None:
    client = doubting.greeted()
    assert client.transaction("alice@example.org", content=LETTER)[-1] == 451
    assert b"451 4.7.1 We do not know this sender yet; try again in 5 minutes\r\n" in client.received
    assert doubting.ledger("refused", "detail, status, address, rule, reason") == [
        (
            *("DATA", "4.7.1", "alice@example.org", "checks.first_contact"),
            "nobody here knows the sender, and the client's address has no name in DNS",
        )
    ]
    doubting.run(200)
    assert deliver(doubting) == 451
    doubting.run(100)
    assert deliver(doubting, client="198.51.100.8") == 250  # from wherever: it is the sender who is known
    assert deliver(doubting) == 250


def test_who_was_put_off_is_remembered_by_the_ledger(doubting: World) -> None:
    assert deliver(doubting) == 451
    doubting.run(301)
    forgetful = FirstContact(lambda: 300.0, doubting.database, doubting.outside.wall)
    members = [forgetful if check.name == "first_contact" else check for check in doubting.house.checks._members]
    house = replace(doubting.house, checks=Checks(members, tuple, doubting.house.recorder.record))
    doubting.factories["smtp"].house = house
    assert deliver(doubting) == 250


def test_nobody_waits_until_a_clock_that_was_set_back_has_caught_up(doubting: World) -> None:
    assert deliver(doubting) == 451
    doubting.machine.clock_offset_s -= 86400.0
    assert deliver(doubting) == 451
    doubting.run(301)
    assert deliver(doubting) == 250


def test_without_a_doubt_nobody_waits() -> None:
    world = World(FIRST_CONTACT, records=CONFIRMED)
    assert deliver(world) == 250
    world.end()


@pytest.mark.parametrize("value", ['""', "0"])
def test_off(value: str) -> None:
    world = World(f"{ENFORCED}\nchecks.first_contact = {value}")
    assert deliver(world) == 250
    world.end()


def test_whom_a_user_has_written_to_does_not_wait(doubting: World) -> None:
    letter = LETTER.replace("dave@example.net", "alice@example.org")
    user = doubting.logged_in()
    assert user.transaction("Dave@example.net", sender="alice@example.org", content=letter)[-1] == 250
    assert deliver(doubting, "Dave@example.net") == 250
    assert deliver(doubting, "erin@example.net") == 451


def test_whom_a_user_has_written_to_in_other_letters_does_not_wait(doubting: World) -> None:
    user = doubting.logged_in()
    assert user.transaction("Dave@Example.net", sender="alice@example.org")[-1] == 250
    assert deliver(doubting) == 250


def test_reports_do_not_wait(doubting: World) -> None:
    assert deliver(doubting, "") == 250


def test_the_doubt_of_who_only_observes_does_not_count() -> None:
    world = World('checks.observe = ["reverse_name"]\nchecks.first_contact = "5m"')
    assert deliver(world) == 250
    world.end()


def test_looking_for_a_sender_uses_indexes(doubting: World) -> None:
    connection = doubting.machine.databases.look("/var/lib/mailsrv/mailsrv.db")
    queries: list[str] = []
    connection.set_trace_callback(queries.append)
    assert not is_known(connection, Address("dave", "example.net"))
    connection.set_trace_callback(None)
    plans = [str(row[3]) for query in queries for row in connection.execute(f"EXPLAIN QUERY PLAN {query}")]
    connection.close()
    assert plans
    assert not any(plan.startswith("SCAN") for plan in plans), plans


def test_a_database_that_cannot_be_read_is_local_trouble(doubting: World) -> None:
    client = doubting.greeted()
    client.say("MAIL FROM:<dave@example.net>", "RCPT TO:<alice@example.org>", "DATA")
    doubting.outside.gates["database-reader"].failure = StorageTrouble("no")
    assert client.codes(f"{LETTER}.") == [451]
    doubting.outside.gates["database-reader"].failure = None


# What other members may do.


@implementer(ICheck)
class Told:
    """Does what a test says."""

    name = "any"
    stages = frozenset(Stage)
    everybody = False

    def __init__(self, answer: Callable[[Stage, Facts], Opinion]) -> None:
        self._answer = answer
        self.ended = 0

    def ask(self, stage: Stage, facts: Facts) -> Opinion:
        return self._answer(stage, facts)

    def end(self, facts: Facts) -> None:
        self.ended += 1


def greeted_with(world: World, check: Told) -> Client:
    world.factories["smtp"].house = replace(world.house, checks=Checks([check], tuple, world.house.recorder.record))
    return world.greeted()


async def later(verdict: Verdict | None) -> Verdict | None:
    return verdict


NO = interfaces.reject(550, "5.7.1", "No", reason="it is bad", rule="a rule")


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize(
    ("stage", "codes"),
    [
        (Stage.MAIL, [550, 503, 503]),
        (Stage.RCPT, [250, 550, 554]),
        (Stage.DATA, [250, 250, 354, 550]),
    ],
)
def test_a_refusal_at_any_stage(world: World, stage: Stage, codes: list[int], waits: bool) -> None:
    def answer(asked: Stage, facts: Facts) -> Opinion:
        verdict = NO if asked is stage else None
        return later(verdict) if waits and asked is not Stage.CONNECT else verdict

    assert greeted_with(world, Told(answer)).transaction("alice@example.org") == codes
    assert world.ledger("refused", "detail, sender, client, rule, reason")[0] == (
        *(stage.value, "dave@example.net", CLIENT, "a rule", "it is bad"),
    )
    assert world.messages() == []


def test_a_refusal_before_there_is_a_sender(world: World) -> None:
    client = greeted_with(world, Told(lambda stage, facts: NO if stage is Stage.CONNECT else None))
    assert client.received.startswith(b"550 5.7.1 No\r\n") or client.received.startswith(b"550 No\r\n")
    client = greeted_with(world, Told(lambda stage, facts: NO if stage is Stage.HELLO else None))
    assert b"\r\n550 " in client.received
    rows = world.ledger("refused", "detail, client, rule")
    assert [row[:2] for row in rows if row[2] == "a rule"] == [("connect", CLIENT), ("EHLO", CLIENT)]


def test_fields_of_a_check_stand_above_the_message(world: World) -> None:
    fields = interfaces.headers(b"X-Spam: no\r\n")
    client = greeted_with(world, Told(lambda stage, facts: fields if stage is Stage.DATA else None))
    assert client.transaction("alice@example.org", content=LETTER)[-1] == 250
    assert client.transaction("alice@example.org", content=LETTER)[-1] == 250
    assert [prefix.count("X-Spam: no\r\n") for prefix in prefixes(world)] == [1, 1]
    assert prefixes(world)[0].startswith("X-Spam: no\r\nReceived: ")


@pytest.mark.parametrize("size", [10, 3 * KEPT])
@pytest.mark.parametrize("submitted", [False, True])
def test_what_must_not_be_believed_is_taken_out(world: World, size: int, submitted: bool) -> None:
    forged = "authentication-results : mx.example.org;\r\n\tspf=pass\r\n"
    letter = f"Authentication-Results: mx.example.net; none\r\n{forged}{LETTER}" + "0123456789abcde\r\n" * (size // 17)

    def answer(stage: Stage, facts: Facts) -> Opinion:
        if stage is not Stage.DATA:
            return None
        fields = [field for field in whole_fields(facts.header, "Authentication-Results") if b"mx.example.org" in field]
        return interfaces.headers(b"Authentication-Results: mx.example.org; spf=none\r\n", removed=tuple(fields))

    told = Told(answer)
    told.everybody = True
    for factory in world.factories.values():
        factory.house = replace(world.house, checks=Checks([told], tuple, world.house.recorder.record))
    if submitted:
        client = world.logged_in()
        letter = letter.replace("dave@example.net", "alice@example.org").replace("From:", "Bcc: x@example.net\r\nFrom:")
        assert client.transaction("bob@example.org", sender="alice@example.org", content=letter)[-1] == 250
        letter = letter.replace("Bcc: x@example.net\r\n", "")
    else:
        assert world.greeted().transaction("alice@example.org", content=letter)[-1] == 250
    assert prefixes(world)[0].startswith("Authentication-Results: mx.example.org; spf=none\r\nReceived: ")
    stored = letter.replace(forged, "").encode()
    (content,) = world.messages()
    if content is None:
        (name,) = world.files()
        with closing(world.outside.filesystem.open(f"{STATE}/spool/{name}")) as file:
            content = file.read(len(stored) + 1)
    assert content == stored
    assert world.ask("SELECT size FROM message") == [len(stored)]
    assert world.ask("SELECT lines FROM message") == [stored.count(b"\n")]


@pytest.mark.parametrize("size", [10, KEPT - 1000, KEPT, KEPT + 1, 3 * KEPT])
def test_the_whole_content_can_be_read(world: World, size: int) -> None:
    seen: list[bytes] = []

    async def read(content: AsyncIterator[bytes]) -> None:
        seen.append(b"".join([piece async for piece in content]))

    def answer(stage: Stage, facts: Facts) -> Opinion:
        assert facts.helo == ("client.example.net" if stage is not Stage.CONNECT else "")
        return read(facts.content()) if stage is Stage.DATA else None

    client = greeted_with(world, Told(answer))
    content = LETTER + "0123456789abcde\r\n" * (size // 17)
    assert client.transaction("alice@example.org", content=content)[-1] == 250
    assert seen == [content.encode()]


def test_the_end_of_a_connection_is_told(world: World) -> None:
    def answer(stage: Stage, facts: Facts) -> Opinion:
        facts.kept["any"] = stage
        return None

    check = Told(answer)
    client = greeted_with(world, check)
    assert check.ended == 0
    client.vanish()
    assert check.ended == 1
