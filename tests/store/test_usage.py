"""What mailboxes hold: the file says what a count of the folders says, whoever changes what, and after every crash."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.defer import Deferred

from mailsrv.store.database import StorageTrouble
from mailsrv.store.mailbox import maildir, maildirsize
from mailsrv.store.mailbox.mailboxes import MailStore
from mailsrv.store.mailbox.quota import NOTHING, Quota, Usage
from mailsrv.store.mailbox.usage import AUDIT_EVERY_S, Room
from tests.simulation.disk import SimulatedFilesystem
from tests.simulation.timeline import SimulatedCrash
from tests.worlds.store import LETTER, STATE, Store

ALICE = "alice@example.org"
BOX = f"{STATE}/mail/example.org/alice"
QUOTA = Quota(1 << 20, 1000)


class Mailbox(Store):
    """The mailbox of alice, who has a quota, and what other programs do in it."""

    def __init__(self, quota: Quota = QUOTA) -> None:
        super().__init__()
        self.accounts.limit({"alice": quota})
        self.elsewhere = SimulatedFilesystem(self.disk)  # the disk as another program has it
        self.numbers = 0

    def boot(self, *, recover: bool = True) -> Mailbox:
        super().boot(recover=recover)
        self.mailboxes = MailStore(self.outside, f"{STATE}/mail", self.local.settled)
        self.mailboxes.on_removing = self.usage.removing
        self.mailboxes.on_removed = self.usage.removed
        return self

    # What is there.

    def counted(self, quota: Quota = QUOTA) -> Usage:
        return maildirsize.count(self.elsewhere, BOX, quota.ignored)

    def file(self) -> bytes | None:
        return self.disk.files(BOX).get(maildirsize.FILE)

    def told(self) -> Usage | None:
        found = maildirsize.read(self.elsewhere, BOX)
        return None if found is None else found.usage

    def is_exact(self) -> bool:
        return self.told() == self.counted()

    def look(self) -> None:
        super().look()

    def audit(self) -> None:
        """Let everything come to rest, with an audit at the end."""
        self.settle()
        self.wait(self.usage.audit(ALICE))
        self.advance(10.0)

    def room(self, octets: int = 1) -> Room:
        self.wait(self.usage.look({ALICE: octets}))
        return self.usage.room(ALICE, octets)

    def pop3_removes(self, number: int) -> None:
        session = self.wait(self.mailboxes.open(ALICE))
        self.wait(session.remove([number]))
        session.release()

    # What others do.

    def put(self, octets: int, folder: str = "", *, told: bool = True) -> str:
        """Another program delivers; whether it keeps ``maildirsize`` up to date."""
        self.numbers += 1
        box = f"{BOX}/{folder}" if folder else BOX
        maildir.ensure(self.elsewhere, box)
        name = f"1.M{self.numbers}.host,S={octets}"
        output = self.elsewhere.create(f"{box}/new/{name}")
        output.write(b"x" * octets)
        output.close()
        if told:
            maildirsize.append(self.elsewhere, BOX, Usage(octets, 1))
        return f"{box}/new/{name}"

    def take(self, path: str, *, told: bool = True) -> None:
        octets = maildirsize.size_told(path) or 0
        self.elsewhere.unlink(path)
        if told:
            maildirsize.append(self.elsewhere, BOX, Usage(-octets, -1))

    def recalculate(self) -> None:
        """As Dovecot does."""
        maildirsize.write(self.elsewhere, BOX, QUOTA, self.counted(), "dovecot")


@pytest.fixture
def box() -> Iterator[Mailbox]:
    mailbox = Mailbox().boot()
    yield mailbox
    mailbox.close()


def test_the_first_delivery_makes_the_file(box: Mailbox) -> None:
    box.accept()
    box.audit()
    assert box.file() == b"1048576S,1000C\n%d 1\n" % box.counted().octets
    assert box.counted().octets == len(next(iter(box.mailbox().values())))


def test_each_batch_adds_a_line(box: Mailbox) -> None:
    box.accept()
    box.audit()
    box.accept()
    box.accept()
    box.settle()
    octets = box.counted().octets // 3
    assert box.file() == b"1048576S,1000C\n%d 1\n%d 1\n%d 1\n" % (octets, octets, octets)


def test_without_a_quota_there_is_no_file_and_no_count(box: Mailbox) -> None:
    box.accounts.limit({})
    box.accept()
    box.settle()
    before = box.steps.number
    box.accept()
    box.settle()
    assert box.file() is None
    assert box.steps.trace[before:].count("disk: append") == 1
    assert "disk: list" not in box.steps.trace[before:]
    assert not box.usage.limited(ALICE)
    assert box.room(10**9) is Room.FITS


def test_a_file_of_another_program_is_kept_up_to_date_without_a_quota(box: Mailbox) -> None:
    box.accounts.limit({})
    maildir.ensure(box.elsewhere, BOX)
    maildirsize.write(box.elsewhere, BOX, Quota(5000), NOTHING, "dovecot")
    box.accept()
    box.settle()
    assert box.is_exact()
    assert box.file() == b"5000S\n0 0\n%d 1\n" % box.counted().octets
    box.pop3_removes(0)
    box.settle()
    assert box.is_exact()
    assert box.counted() == NOTHING


def test_deletions_by_pop3_are_told(box: Mailbox) -> None:
    for _ in range(3):
        box.accept()
    box.audit()
    box.pop3_removes(1)
    box.settle()
    assert box.is_exact()
    assert box.counted().messages == 2


def test_a_deletion_of_a_file_without_size_is_counted_anew(box: Mailbox) -> None:
    box.accept()
    box.audit()
    output = box.elsewhere.create(f"{BOX}/cur/1.foreign.host:2,S")
    output.write(b"hello\n")
    output.close()
    maildirsize.append(box.elsewhere, BOX, Usage(6, 1))
    box.pop3_removes(0)
    box.advance(10.0)
    assert box.counted().messages == 1
    assert box.is_exact()


def test_fits_over_and_full() -> None:
    box = Mailbox(Quota(1000, 3)).boot()
    assert box.room(1000) is Room.FITS
    assert box.room(1001) is Room.OVER
    box.put(900, told=False)
    box.advance(20.0)
    assert box.room(100) is Room.FITS
    assert box.room(101) is Room.OVER
    box.put(100)
    box.advance(20.0)
    assert box.room(1) is Room.FULL
    box.close()


def test_the_number_of_messages_is_a_limit_too() -> None:
    box = Mailbox(Quota(0, 2)).boot()
    box.accept()
    box.settle()
    assert box.room(10**9) is Room.FITS
    box.accept()
    box.settle()
    assert box.room() is Room.FULL
    box.close()


def test_what_is_reserved_and_what_is_on_its_way_is_taken() -> None:
    box = Mailbox(Quota(1000)).boot()
    assert box.room(600) is Room.FITS
    release = box.usage.reserve({ALICE: 600, "bob@example.org": 10**9})
    assert box.room(600) is Room.OVER
    release()
    release()
    assert box.room(600) is Room.FITS
    box.usage.expected(ALICE, "1.Q1.host,S=600,W=610")
    box.usage.expected(ALICE, "1.Q1.host,S=600,W=610")
    assert box.room(400) is Room.FITS
    assert box.room(401) is Room.OVER
    box.usage.dropped(ALICE, "1.Q1.host,S=600,W=610")
    assert box.room(1000) is Room.FITS
    box.close()


def test_nobody_sees_more_room_than_there_is_while_mail_comes(box: Mailbox) -> None:
    """From acceptance until the file tells of it, a message is counted at every moment."""
    box.accept()
    box.audit()
    start = box.told()
    assert start is not None
    size = start.octets
    seen = set()
    for n in range(1, 30):
        box.accept()
        for _ in range(10):
            box.advance(0.003)
            taken = box.usage._mailboxes[ALICE].taken()
            assert taken == Usage((n + 1) * size, n + 1)
            seen.add(box.told())
    assert len(seen) > 5


def test_what_another_program_deletes_and_tells_makes_room_within_a_second() -> None:
    box = Mailbox(Quota(1000)).boot()
    path = box.put(900, told=False)
    box.advance(20.0)
    assert box.room(200) is Room.OVER
    box.audit()
    box.take(path)
    box.advance(1.0)
    assert box.room(200) is Room.FITS
    box.close()


def test_what_another_program_deletes_and_does_not_tell_is_found_before_a_refusal() -> None:
    """mutt and mbsync know nothing of ``maildirsize``."""
    box = Mailbox(Quota(1000)).boot()
    path = box.put(900, told=False)
    box.audit()
    box.take(path, told=False)
    box.advance(11.0)
    assert box.told() == Usage(900, 1)
    assert box.room(200) is Room.FITS
    box.advance(10.0)
    assert box.is_exact()
    box.close()


def test_what_another_program_adds_and_does_not_tell_is_found_in_a_quarter_of_an_hour(box: Mailbox) -> None:
    box.accept()
    box.audit()
    box.put(1 << 20, ".Sent", told=False)
    assert box.room() is Room.FITS
    box.advance(AUDIT_EVERY_S)
    box.room()
    box.advance(10.0)
    assert box.is_exact()
    assert box.room() is Room.FULL


def test_a_delivery_that_is_visible_and_not_told_yet_is_no_difference(box: Mailbox) -> None:
    box.accept()
    box.audit()
    before = box.file()
    box.put(500, told=False)
    box.wait(box.usage.audit(ALICE))  # between the rename and the line of the other program
    maildirsize.append(box.elsewhere, BOX, Usage(500, 1))
    box.advance(30.0)
    assert box.file() == (before or b"") + b"500 1\n"
    assert box.is_exact()


def test_a_file_that_another_program_made_between_our_rename_and_our_line_is_put_right(box: Mailbox) -> None:
    box.accept()
    box.audit()
    box.fail("disk: append", times=1)  # as if it came too late
    box.accept()
    box.settle()
    box.recalculate()
    maildirsize.append(box.elsewhere, BOX, Usage(box.counted().octets // 2, 1))
    assert not box.is_exact()
    box.room()
    box.advance(30.0)
    assert box.is_exact()
    assert box.counted().messages == 2


def test_a_line_that_comes_after_our_own_count_is_put_right(box: Mailbox) -> None:
    """Another program has delivered, we make the file anew and count that, then its line comes."""
    box.accept()
    box.audit()
    box.elsewhere.unlink(f"{BOX}/maildirsize")
    box.put(500, told=False)
    box.wait(box.usage.audit(ALICE))
    maildirsize.append(box.elsewhere, BOX, Usage(500, 1))
    assert not box.is_exact()
    box.advance(10.0)
    assert box.is_exact()


def test_a_long_file_is_made_anew(box: Mailbox) -> None:
    box.accept()
    box.audit()
    for _ in range(400):
        box.take(box.put(123))
    assert len(box.file() or b"") > maildirsize.LONGEST
    box.room()
    box.advance(10.0)
    assert box.file() == b"1048576S,1000C\n%d 1\n" % box.counted().octets


def test_another_quota_is_another_first_line(box: Mailbox) -> None:
    box.accept()
    box.audit()
    box.accounts.limit({"alice": Quota(2000)})
    assert box.room(1999) is Room.OVER
    assert box.file() == b"2000S\n%d 1\n" % box.counted().octets


def test_an_account_that_has_no_quota_any_more_is_left_alone(box: Mailbox) -> None:
    box.accept()
    box.audit()
    heard: list[Usage] = []
    box.usage.on_usage = lambda mailbox, quota, usage: heard.append(usage)
    box.put(500, told=False)
    box.wait(box.usage.audit(ALICE))  # a difference, to be looked at again
    heard.clear()
    box.accounts.limit({})
    before = box.file() or b""
    box.accept()
    box.advance(30.0)
    assert box.file() == before + b"%d 1\n" % (box.counted().octets // 2 - 250)
    assert heard == []
    assert box.room(10**9) is Room.FITS


def test_who_makes_the_file_anew_has_counted(box: Mailbox) -> None:
    box.accept()
    box.audit()
    box.accept()
    box.settle()
    path = box.put(500, told=False)
    box.wait(box.usage.audit(ALICE))  # 500 more than is told
    box.take(path, told=False)
    box.recalculate()
    box.advance(0.3)
    box.room()
    assert box.usage._mailboxes[ALICE].usage() == box.counted()


def test_a_program_with_another_quota_does_not_make_us_write_all_the_time(box: Mailbox) -> None:
    box.accept()
    box.audit()
    made = 0
    for _ in range(600):
        text = box.file() or b""
        if text.startswith(b"1048576S"):
            made += 1
            maildirsize.write(box.elsewhere, BOX, Quota(5000), box.counted(), "dovecot")
        box.room()
        box.advance(3.0)
    assert 2 <= made <= 3
    assert box.is_exact()


def test_folders_that_are_ignored_take_no_room() -> None:
    quota = Quota(1000, 0, frozenset({".Trash"}))
    box = Mailbox(quota).boot()
    maildir.ensure(box.elsewhere, BOX)
    box.put(900, ".Trash", told=False)
    box.put(100, ".Sent", told=False)
    box.audit()
    assert box.told() == Usage(100, 1)
    assert box.room(900) is Room.FITS
    box.close()


def test_a_file_that_cannot_be_used_is_no_reason_to_refuse_or_to_lose(box: Mailbox) -> None:
    maildir.ensure(box.elsewhere, BOX)
    box.disk.link(f"{BOX}/maildirsize", "/etc/passwd")
    assert box.room(100) is Room.FITS
    box.accept()
    box.settle()
    assert len(box.mailbox()) == 1
    assert box.states() == ["delivered"]
    assert box.room(10**9) is Room.FITS  # nothing is known


def test_a_line_that_a_full_disk_has_cut_off_is_put_right(box: Mailbox) -> None:
    box.accept()
    box.audit()
    space = box.disk.space

    def fill(step: str) -> None:
        if step == "disk: append":
            box.disk.space = 2
        elif step == "disk: replace":
            box.disk.space = space

    box.steps.failures.append(fill)
    box.accept()
    box.settle()
    box.healthy()
    assert box.told() is None  # "14"
    box.disk.space = space
    box.accept()
    box.audit()
    assert box.is_exact()
    assert box.counted().messages == 3


def test_a_copy_that_could_not_be_stored_takes_no_room_until_it_is_tried_again(box: Mailbox) -> None:
    box.fail("disk: create", times=1)
    box.accept()
    box.advance(1.0)
    assert box.usage._mailboxes[ALICE].on_its_way == NOTHING
    box.advance(60.0)
    box.look()
    box.audit()
    assert box.counted().messages == 1
    assert box.is_exact()


def test_an_audit_during_a_removal_is_not_believed(box: Mailbox) -> None:
    box.accept()
    box.accept()
    box.audit()
    session = box.wait(box.mailboxes.open(ALICE))
    removal = Deferred.fromCoroutine(session.remove([0]))
    for _ in range(200):
        box.wait(box.usage.audit(ALICE))
    box.wait(removal)
    box.advance(10.0)
    assert box.is_exact()
    assert box.usage._mailboxes[ALICE].usage() == box.counted()


@pytest.mark.parametrize("power", [None, 1, 2, 3])
def test_a_crash_at_any_step_leaves_nothing_wrong_for_ever(power: int | None) -> None:
    """Two messages come and one goes; the machine stops at each step in turn; the next life finds out."""

    def work(box: Mailbox) -> None:
        box.accept()
        box.accept()
        box.settle()
        box.pop3_removes(0)
        box.settle()

    step, crashes = 0, 0
    while True:
        box = Mailbox().boot()
        box.accept()
        box.audit()
        box.advance(20.0)
        box.steps.crashes = {box.steps.number + step + 1}
        try:
            work(box)
        except (SimulatedCrash, StorageTrouble, AssertionError):
            pass
        box.steps.crashes = ()
        crashed = not box.machine.life.alive
        if crashed:
            crashes += 1
            box.crash(power)
            box.boot()
        box.settle()
        box.audit()
        assert box.is_exact(), f"crash at step {step + 1}"
        assert box.usage._mailboxes[ALICE].taken() == box.counted()
        box.close()
        if not crashed:
            break
        step += 3
    assert crashes > 10


class Sharing(RuleBasedStateMachine):
    """mailsrv delivers and removes, others do so, too, tell of it or not, and count anew; at rest the file is exact."""

    def __init__(self) -> None:
        super().__init__()
        self.box = Mailbox().boot()
        self.box.accept()
        self.box.audit()
        self.foreign: list[str] = []

    @rule(messages=st.integers(1, 4))
    def mail_comes(self, messages: int) -> None:
        for _ in range(messages):
            self.box.accept(LETTER * messages)

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.3, 1.0, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.box.advance(seconds)

    @rule(octets=st.integers(1, 5000), folder=st.sampled_from(["", ".Sent"]), told=st.booleans())
    def another_delivers(self, octets: int, folder: str, told: bool) -> None:
        self.foreign.append(self.box.put(octets, folder, told=told))

    @precondition(lambda self: self.foreign)
    @rule(told=st.booleans())
    def another_deletes(self, told: bool) -> None:
        path = self.foreign.pop()
        folder, _, name = path.rpartition("/")
        if name in self.box.disk.files(folder):  # POP3 or a crash may have been faster
            self.box.take(path, told=told)

    @rule()
    def another_counts_anew(self) -> None:
        self.box.recalculate()

    @rule()
    def pop3_removes(self) -> None:
        session = self.box.wait(self.box.mailboxes.open(ALICE))
        if session.messages:
            self.box.wait(session.remove([0]))
        session.release()

    @rule()
    def somebody_asks(self) -> None:
        self.box.room()

    @rule(power=st.sampled_from([None, 1, 2, 3]))
    def the_machine_stops(self, power: int | None) -> None:
        self.box.crash(power)
        self.box.boot()

    @invariant()
    def what_is_accepted_is_taken(self) -> None:
        mailbox = self.box.usage._mailboxes.get(ALICE)
        if mailbox is not None:
            assert mailbox.on_its_way == Usage(sum(mailbox.expected.values()), len(mailbox.expected))
            assert mailbox.reserved == NOTHING

    def teardown(self) -> None:
        try:
            self.box.audit()
            self.box.advance(30.0)
            assert self.box.is_exact(), (self.box.file(), self.box.counted())
            mailbox = self.box.usage._mailboxes[ALICE]
            assert mailbox.taken() == self.box.counted()
            assert not mailbox.untold
        finally:
            self.box.close()


TestSharing = Sharing.TestCase
TestSharing.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
