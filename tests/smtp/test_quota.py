"""Mailboxes with a quota: 452 4.2.2 at RCPT and at the end of the content."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mailsrv.smtp.room import judge
from mailsrv.store.database import StorageTrouble
from mailsrv.store.mailbox import maildir
from mailsrv.store.mailbox.usage import Room
from mailsrv.store.message import Acceptance
from tests.smtp.test_lmtp import LmtpWorld
from tests.smtp.world import CLIENT, PASSWORD, STATE, Client, World, plain

FITS, OVER, FULL = Room.FITS, Room.OVER, Room.FULL
KIB = "x" * 62 + "\r\n"
MAIL = "MAIL FROM:<dave@example.net>"
ALICE, BOB = "alice@example.org", "bob@example.org"


class QuotaWorld(LmtpWorld):
    """Alice has 10 KiB, bob as much as he likes; what is accepted is on its way and stays so."""

    def __init__(self) -> None:
        super().__init__()
        self.limit(alice="*:storage=10")

        def accepted(acceptance: Acceptance) -> None:
            for final, name in zip(acceptance.arrival.recipients, acceptance.names, strict=True):
                if final.mailbox:
                    self.usage.expected(final.mailbox, name)

        self.spool.on_accepted = accepted

    def limit(self, **quotas: str) -> None:
        self.settings.serve(dict.fromkeys(("alice", "bob"), PASSWORD), quotas)

    def fill(self, octets: int, name: str = "alice") -> None:
        """A message of so many octets is there."""
        disk, box = self.outside.filesystem, f"{STATE}/mail/example.org/{name}"
        maildir.ensure(disk, box)
        disk.create(f"{box}/new/1.M1.host,S={octets}").close()


@pytest.fixture
def world() -> Iterator[QuotaWorld]:
    world = QuotaWorld()
    yield world
    world.usage.stop()
    world.end()


def smtp(world: World, port: int = 25, host: str = CLIENT) -> Client:
    """A client that has said EHLO; the world's own says LHLO."""
    return World.greeted(world, port, host)


def kib(n: int) -> str:
    """A content of about so many KiB."""
    return KIB * 16 * n


def test_what_fits_is_taken(world: QuotaWorld) -> None:
    assert smtp(world).transaction(ALICE, content=kib(9)) == [250, 250, 354, 250]


def test_a_full_mailbox_is_refused_at_rcpt_and_no_other(world: QuotaWorld) -> None:
    world.fill(10240)
    client = smtp(world)
    assert client.transaction(ALICE, BOB, content=kib(1)) == [250, 452, 250, 354, 250]
    assert "452 4.2.2 The mailbox is full\r\n" in client.received.decode()
    assert world.recipients() == [(BOB, BOB)]
    assert world.ledger("refused") == [("RCPT", "4.2.2", ALICE, "quota")]
    assert world.ledger("refused", "reason") == [f"there is no room in the mailbox of {ALICE}"]


def test_the_size_that_mail_announces_counts(world: QuotaWorld) -> None:
    client = smtp(world)
    assert client.codes(f"{MAIL} SIZE=20000", f"RCPT TO:<{ALICE}>") == [250, 452]
    assert client.codes("RSET", f"{MAIL} SIZE=9000", f"RCPT TO:<{ALICE}>") == [250, 250, 250]


def test_what_turns_out_too_large_is_refused_at_its_end(world: QuotaWorld) -> None:
    client = smtp(world)
    assert client.transaction(ALICE, content=kib(11)) == [250, 250, 354, 452]
    assert world.messages() == []
    assert world.ledger("refused") == [("DATA", "4.2.2", ALICE, "quota")]
    assert client.transaction(ALICE, content=kib(1)) == [250, 250, 354, 250]


def test_what_counts_is_the_file_to_the_octet(world: QuotaWorld) -> None:
    client = smtp(world)
    assert client.transaction(BOB, content=kib(1)) == [250, 250, 354, 250]
    (name,) = world.ask("SELECT name FROM recipient")
    size = int(name.partition(",S=")[2].partition(",")[0])
    world.limit(bob=f"*:storage={size}B")
    world.usage._mailboxes.clear()
    assert client.transaction(BOB, content=kib(1)) == [250, 250, 354, 250]
    world.limit(bob=f"*:storage={size - 1}B")
    world.usage._mailboxes.clear()
    assert client.transaction(BOB, content=kib(1)) == [250, 250, 354, 452]


def test_fifty_at_once_do_not_all_pass(world: QuotaWorld) -> None:
    """All have passed RCPT before the first content ends; ten octets over would be too many."""
    clients = [smtp(world, host=f"198.51.100.{n}") for n in range(50)]
    for client in clients:
        assert client.codes(MAIL, f"RCPT TO:<{ALICE}>", "DATA") == [250, 250, 354]
    gate = world.gate("database-writer")
    for client in clients:
        client.send(f"{kib(3)}.\r\n".encode())
    gate.release()
    world.run()
    answers = [client.received.decode().splitlines()[-1][:3] for client in clients]
    assert answers.count("250") == 3
    assert answers.count("452") == 47
    assert world.usage._mailboxes[ALICE].taken().messages == 3
    assert world.usage._mailboxes[ALICE].taken().octets <= 10240


def test_what_is_reserved_is_free_again_when_it_cannot_be_stored(world: QuotaWorld) -> None:
    client = smtp(world)
    world.outside.gates["database-writer"].failure = StorageTrouble("no room", full=True)
    assert client.transaction(ALICE, content=kib(9)) == [250, 250, 354, 452]
    world.outside.gates["database-writer"].failure = None
    assert client.transaction(ALICE, content=kib(9)) == [250, 250, 354, 250]


def test_one_who_is_over_by_this_message_does_not_keep_it_from_the_others(world: QuotaWorld) -> None:
    client = smtp(world)
    assert client.transaction(ALICE, BOB, content=kib(11)) == [250, 250, 250, 354, 250]
    assert client.transaction(ALICE, BOB, content=kib(1)) == [250, 452, 250, 354, 250]


def test_one_who_became_full_meanwhile_is_to_be_refused_at_the_next_rcpt(world: QuotaWorld) -> None:
    first, second = smtp(world), smtp(world)
    for client in (first, second):
        assert client.codes(MAIL, f"RCPT TO:<{ALICE}>", f"RCPT TO:<{BOB}>", "DATA") == [250, 250, 250, 354]
    assert first.codes(f"{kib(11)}.") == [250]
    assert second.codes(f"{kib(1)}.") == [452]
    assert second.transaction(ALICE, BOB, content=kib(1)) == [250, 452, 250, 354, 250]


def test_lmtp_answers_for_each(world: QuotaWorld) -> None:
    client = world.greeted()
    assert client.transaction(ALICE, BOB, "alice+x@example.org", content=kib(11)) == [
        *(250, 250, 250, 250, 354),
        *(452, 250, 452),
    ]
    assert world.recipients() == [(BOB, BOB)]
    assert world.ledger("refused") == [
        ("DATA", "4.2.2", ALICE, "quota"),
        ("DATA", "4.2.2", "alice+x@example.org", "quota"),
    ]
    assert client.transaction(ALICE, content=kib(11)) == [250, 250, 354, 452]


def test_who_gets_it_by_an_alias_is_not_to_get_it_again(world: QuotaWorld) -> None:
    """A 452 for Alice would bring it a second time once she has room."""
    client = world.greeted()
    assert client.transaction(ALICE, "team@example.org", content=kib(11))[-2:] == [250, 250]
    assert sorted(address for address, _ in world.recipients()) == [ALICE, BOB, "carol@example.net"]
    assert world.ledger("refused") == []


def test_an_alias_with_others_behind_it_goes_on(world: QuotaWorld) -> None:
    world.fill(10240)
    client = smtp(world)
    assert client.transaction("team@example.org") == [250, 250, 354, 250]
    assert client.transaction("sales@example.org")[:2] == [250, 452]
    world.limit(alice="*:storage=10", bob="*:messages=1")
    world.fill(1, "bob")
    client.say("RSET")
    assert client.codes(MAIL, "RCPT TO:<team@example.org>") == [250, 250]  # carol is elsewhere


def test_users_of_our_own_are_told_the_same(world: QuotaWorld) -> None:
    world.fill(10240)
    client = smtp(world, 587).start_tls()
    client.say("EHLO client.example.net")
    assert client.codes(plain(BOB)) == [235]
    assert client.codes(f"MAIL FROM:<{BOB}>", f"RCPT TO:<{ALICE}>") == [250, 452]
    client.say("RSET")
    assert client.transaction("carol@example.net", sender=BOB) == [250, 250, 354, 250]


def test_pipelined_commands_are_answered_in_order(world: QuotaWorld) -> None:
    world.fill(10240)
    gate = world.gate("usage")
    client = smtp(world)
    assert client.codes(MAIL, f"RCPT TO:<{ALICE}>", f"RCPT TO:<{BOB}>", "DATA") == [250]
    gate.release()
    world.run()
    assert [line[:3] for line in client.received.decode().splitlines()[-3:]] == ["452", "250", "354"]


def test_who_hangs_up_while_we_look_leaves_nothing_behind(world: QuotaWorld) -> None:
    gate = world.gate("usage")
    client = world.connect()
    client.say("EHLO client.example.net", MAIL, f"RCPT TO:<{ALICE}>")
    client.vanish()
    gate.release()
    world.run()
    assert world.failures == []


@pytest.mark.parametrize(
    ("rooms", "each", "refused", "whole"),
    [
        ([FITS], False, [], False),
        ([FITS, FITS], False, [], False),
        ([OVER], False, [0], True),
        ([OVER, FULL], False, [0, 1], True),
        ([FITS, OVER], False, [], False),
        ([FITS, FULL], False, [1], True),
        ([FITS, OVER, FULL], False, [2], True),
        ([FITS, OVER, FULL], True, [1, 2], False),
        ([OVER, FULL], True, [0, 1], True),
    ],
)
def test_one_answer_for_all_or_one_for_each(rooms: list[Room], each: bool, refused: list[int], whole: bool) -> None:
    recipients = [[f"box{n}"] for n in range(len(rooms))]
    assert judge(recipients, {f"box{n}": room for n, room in enumerate(rooms)}, each) == (refused, whole)


def test_the_best_of_what_is_behind_an_alias_counts() -> None:
    rooms = {"a": FULL, "b": OVER, "c": FITS}
    assert judge([["a", "b"]], rooms, each=False) == ([0], True)
    assert judge([["a", "b", "c"]], rooms, each=False) == ([], False)
    assert judge([["a", ""]], rooms, each=False) == ([], False)
    assert judge([["a", "b"], ["c"]], rooms, each=False) == ([], False)


def test_lmtp_refuses_nobody_who_is_reached_on_another_way() -> None:
    rooms = dict.fromkeys("abcd", Room.FULL)
    assert judge([["a"], ["a", "x"]], rooms, each=True) == ([], False)
    # What leads to one of those goes to all that it leads to, and so on.
    assert judge([["c", "b"], ["b", "a"], ["a", "x"], ["d"]], rooms, each=True) == ([3], False)
    assert judge([["a"], ["b", "x"]], rooms, each=True) == ([0], False)


def test_without_a_quota_nothing_is_looked_at() -> None:
    world = World()
    world.connect().codes("EHLO x", MAIL, f"RCPT TO:<{ALICE}>")
    assert len(world.outside.gates["usage"]) == 0
    assert world.usage._mailboxes == {}
    world.end()
