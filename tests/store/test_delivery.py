"""Delivery into own mailboxes: in batches, durable before visible, each message exactly once, one trouble at a time."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from mailsrv.store import delivery, queue, queue_id
from mailsrv.store.database import StorageTrouble
from mailsrv.store.delivery import BATCH
from mailsrv.store.due import local_waiting
from mailsrv.store.mailbox import mailbox_writer, maildir
from mailsrv.store.message import Acceptance
from mailsrv.store.spool import BLOCK, KEPT
from tests.simulation.disk import SimulatedFilesystem
from tests.worlds.store import LETTER, RETRY_S, SPOOL, STATE, Store, disk_error, stored

ALICE = "alice@example.org"
BOB = "bob@example.org"
MAIL = f"{STATE}/mail/example.org"


@pytest.fixture(params=[0, mailbox_writer.FEW], ids=["one sync for all", "few one by one"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Every behaviour holds for both ways of making copies durable."""
    monkeypatch.setattr(mailbox_writer, "FEW", request.param)
    store = Store().boot()
    yield store
    store.close()


def is_sync(step: str) -> bool:
    return step in ("disk: sync all", "disk: sync folder", "disk: sync file")


def filesystem(store: Store) -> SimulatedFilesystem:
    return SimulatedFilesystem(store.disk)


def only(files: dict[str, bytes]) -> bytes:
    assert len(files) == 1, files
    return next(iter(files.values()))


def empty(store: Store) -> None:
    """Readers have taken everything."""
    for mailbox in ("alice", "bob"):
        for name in store.disk.files(f"{MAIL}/{mailbox}/new"):
            filesystem(store).unlink(f"{MAIL}/{mailbox}/new/{name}")
        filesystem(store).sync_directory(f"{MAIL}/{mailbox}/new")


def come_back(store: Store) -> None:
    """After trouble: the next attempt, and its rest."""
    store.advance(RETRY_S[-1])
    store.look()
    store.settle()


def is_delivered_once(store: Store, mailbox: str = ALICE) -> bool:
    return len(store.mailbox(mailbox)) == 1 and store.kinds().count("delivered") == 1


# -- the usual way


def test_a_message_ends_in_the_mailbox_with_lf_and_its_row_is_settled(store: Store) -> None:
    arrival = store.accept()
    store.settle()
    assert only(store.mailbox()) == stored(arrival)
    assert store.states() == ["delivered"]
    assert store.kinds() == ["accepted", "delivered"]
    assert store.rows("SELECT * FROM content") == []
    assert store.mailbox(folder="tmp") == {}
    assert store.gaps() == []


def test_the_event_names_the_file(store: Store) -> None:
    store.accept()
    store.settle()
    ((detail, address),) = store.rows("SELECT detail, address FROM event WHERE kind = 'delivered'")
    assert [detail] == list(store.mailbox())
    assert address == ALICE


def test_each_recipient_has_a_copy_with_its_own_address(store: Store) -> None:
    arrival = store.accept(to=(ALICE, "bob+list@example.org", "carol@example.net"))
    store.settle()
    assert only(store.mailbox()) == stored(arrival)
    assert only(store.mailbox("bob+list@example.org")) == stored(arrival, to="bob+list@example.org")
    assert store.states() == ["delivered", "delivered", "queued"]
    assert len(store.rows("SELECT * FROM content")) == 1


def test_the_size_in_the_name_is_the_size_of_the_file(store: Store) -> None:
    for content in (LETTER, b"", b"x\r\n" * BLOCK):
        store.accept(content)
    store.settle()
    assert len(store.mailbox()) == 3
    for name, octets in store.mailbox().items():
        assert name.endswith(f",S={len(octets)},W={len(octets) + octets.count(bytes([10]))}")


def test_content_is_synced_before_it_is_visible_and_marked_only_after_the_next_sync(store: Store) -> None:
    store.accept()
    store.steps.trace.clear()
    store.settle()
    steps = [
        step for step in store.steps.trace if step.startswith(("disk: write", "disk: sync", "disk: rename", "data"))
    ]
    names = ["disk: sync folder", "disk: synced folder"] * 2
    everything = ["disk: sync all", "disk: synced all"]
    assert steps == [
        *("disk: write", *everything, "disk: rename", "disk: renamed"),
        *(names if mailbox_writer.FEW else everything),
        *("database: commit", "database: committed"),
    ]


def test_few_copies_are_synced_one_by_one_once_their_mailbox_is_known_to_last(store: Store) -> None:
    """One sync is of the whole disk, on which others may have much to write."""
    store.accept()
    store.settle()
    store.steps.trace.clear()
    store.accept()
    store.settle()
    steps = [step for step in store.steps.trace if step.startswith("disk: sync") or step == "disk: rename"]
    if mailbox_writer.FEW:
        assert steps[: steps.index("disk: rename")].count("disk: synced file") == 1
        assert "disk: sync all" not in steps
    else:
        assert set(steps) == {"disk: sync all", "disk: synced all", "disk: rename"}


def test_a_mailbox_that_was_made_before_a_crash_is_made_to_last_before_it_is_relied_on(store: Store) -> None:
    """Its folder is there, but nobody knows whether its name is on the disk."""
    for part in ("tmp", "new", "cur"):
        maildir.make(filesystem(store), f"{MAIL}/alice/{part}")
    arrival = store.accept()
    store.settle()
    assert store.states() == ["delivered"]
    store.crash(power=0)
    assert only(store.mailbox()) == stored(arrival)


def test_many_messages_share_their_syncs_and_commits(store: Store) -> None:
    store.steps.trace.clear()
    for n in range(200):
        store.accept(to=(f"user{n % 7}@example.org",))
    store.settle()
    assert store.states() == ["delivered"] * 200
    delivered = store.steps.trace.count("disk: sync all")
    assert delivered < 100
    store.steps.trace.clear()
    store.accept(to=tuple(f"user{n}@example.org" for n in range(BATCH)))
    store.settle()
    assert store.steps.trace.count("disk: sync all") == 2


def test_a_second_file_system_behind_a_link_is_synced_too(store: Store) -> None:
    store.disk.mount("/other")
    store.disk.make_folders(MAIL)
    store.disk.link(f"{MAIL}/alice", "/other")
    store.accept(to=(ALICE, BOB))
    store.settle()
    assert store.states() == ["delivered", "delivered"]
    store.crash(power=0)
    assert len(store.disk.files("/other/new")) == 1
    assert len(store.mailbox(BOB)) == 1


def test_nothing_inside_a_mailbox_that_is_a_link_is_followed(store: Store) -> None:
    for name in ("tmp", "new"):
        store.disk.make_folders(f"{MAIL}/{name}-user")
        for part in {"tmp", "new", "cur"} - {name}:
            store.disk.make_folders(f"{MAIL}/{name}-user/{part}")
        store.disk.make_folders(f"/elsewhere/{name}")
        store.disk.link(f"{MAIL}/{name}-user/{name}", f"/elsewhere/{name}")
        store.accept(to=(f"{name}-user@example.org",))
    store.settle()
    assert store.disk.files("/elsewhere/tmp") == store.disk.files("/elsewhere/new") == {}
    assert store.states() == ["queued", "queued"]
    assert "not a folder" in store.rows("SELECT answer FROM recipient")[0][0]


# -- large messages


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"x" * (BLOCK - 1), b"xy", b"\r\r\n"]), min_size=3, max_size=8))
def test_a_filed_message_has_its_line_ends_converted_across_the_edges_of_blocks(parts: list[bytes]) -> None:
    content = b"".join(parts)
    content += b"\r\n" * (KEPT // 2) if len(content) <= KEPT else b""
    store = Store().boot()
    arrival = store.accept(content)
    store.settle()
    assert only(store.mailbox()) == stored(arrival, content)
    assert store.disk.files(SPOOL) == {}
    store.close()


def test_a_filed_message_that_was_damaged_is_kept_and_not_delivered(store: Store) -> None:
    store.fail("disk: create", times=2)
    content = b"x\r\n" * KEPT
    draft = store.spool.draft()
    store.healthy()
    writing = draft.append(content)
    assert writing is not None
    store.wait(writing)
    store.fail("disk: sync all", times=1)
    store.wait(store.spool.accept(draft, store.arrival(draft.id, content)))
    store.settle()
    node = store.disk.node(f"{SPOOL}/{queue_id.text(draft.id)}")
    del node.octets[-10:]  # type: ignore[union-attr]
    come_back(store)
    assert store.mailbox() == {}
    assert store.states() == ["queued"]
    assert "octets instead of" in store.rows("SELECT answer FROM recipient")[0][0]
    assert len(store.disk.files(SPOOL)) == 1


def test_more_than_memory_holds_is_read_again_when_its_turn_comes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "BACKLOG", 1000)
    contents = [b"Subject: %d\r\n\r\n" % n + b"line\r\n" * 100 for n in range(20)]
    acceptances = []
    for content in contents:
        draft = store.spool.draft()
        draft.append(content)
        acceptances.append(Deferred.fromCoroutine(store.spool.accept(draft, store.arrival(draft.id, content))))
    kept: list[int] = []

    def accepted(acceptance: Acceptance) -> None:
        store.local.accepted(acceptance.arrival, acceptance.names, acceptance.content)
        kept.append(sum(copy.content is not None for copy in store.local._waiting))

    store.spool.on_accepted = accepted
    for acceptance in acceptances:
        store.wait(acceptance)
    store.settle()
    assert max(kept) <= 2
    assert sorted(octets[octets.index(b"Subject") :] for octets in store.mailbox().values()) == sorted(
        content.replace(b"\r\n", b"\n") for content in contents
    )


# -- crashes


@pytest.mark.parametrize("few", [0, 10])
@pytest.mark.parametrize("power", [None, 1, 2])
def test_a_crash_at_any_step_loses_nothing_and_delivers_nothing_twice(
    power: int | None, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a power failure and without; the next life finishes what this one began."""
    monkeypatch.setattr(mailbox_writer, "FEW", few)
    for known in (False, True):
        for step in range(1, 200):
            store = Store().boot()
            if known:
                store.accept(to=(ALICE, BOB))
                store.settle()
                empty(store)
            first, second = store.accept(to=(ALICE, BOB)), store.accept(b"Subject: second\r\n\r\n" + b"x" * KEPT)
            store.steps.crashes = {store.steps.number + step}
            store.settle()
            finished = store.machine.life.alive
            store.crash(power)
            # What is visible is whole, at every moment.
            for octets in store.mailbox().values():
                assert octets in (stored(first), stored(second, b"Subject: second\r\n\r\n" + b"x" * KEPT))
            store.steps.crashes = ()
            store.boot()
            store.settle()
            assert set(store.states()) == {"delivered"}
            assert (len(store.mailbox()), len(store.mailbox(BOB))) == (2, 1)
            assert store.mailbox(folder="tmp") == {}
            assert store.gaps() == []
            assert store.disk.files(SPOOL) == {}
            store.close()
            if finished:
                break
        else:
            raise AssertionError("delivery takes more steps than this test goes through")


def crash_between_rename_and_mark(store: Store) -> None:
    store.accept()

    def second_sync(step: str) -> None:
        if is_sync(step) and store.steps.trace.count("disk: renamed"):
            store.machine.life.end()

    store.steps.trace.clear()
    store.steps.failures.append(second_sync)
    store.settle()
    store.crash()
    store.healthy()
    assert store.states() == ["queued"]
    assert len(store.mailbox()) == 1


def test_a_message_that_a_reader_has_moved_and_marked_is_not_delivered_again(store: Store) -> None:
    crash_between_rename_and_mark(store)
    (name,) = store.mailbox()
    filesystem(store).rename(f"{MAIL}/alice/new/{name}", f"{MAIL}/alice/cur/{name}:2,FRS")
    store.boot()
    store.settle()
    assert store.mailbox() == {}
    assert list(store.mailbox(folder="cur")) == [f"{name}:2,FRS"]
    assert store.states() == ["delivered"]


def test_after_a_crash_a_mailbox_is_settled_only_when_what_was_left_is_marked(store: Store) -> None:
    """Else a message that is visible and unmarked could be deleted, and would then be delivered again."""
    crash_between_rename_and_mark(store)
    store.boot(recover=False)
    settled = store.local.settled(ALICE)
    assert settled is not None
    store.advance(10)
    assert not settled.called
    store.look()
    store.wait(settled)
    assert store.states() == ["delivered"]
    assert store.local.settled(ALICE) is None


def test_a_start_with_nothing_left_over_keeps_nobody_waiting(store: Store) -> None:
    assert store.local.settled(ALICE) is None


def test_recovery_in_several_windows_is_over_with_the_last(store: Store) -> None:
    crash_between_rename_and_mark(store)
    store.boot(recover=False)
    store.local.waiting(store.wait(store.database.read(local_waiting, store.machine.wall(), 1)), False)
    settled = store.local.settled(ALICE)
    assert settled is not None
    store.settle()
    assert not settled.called
    store.local.waiting([], True)
    store.wait(settled)


def test_what_was_found_and_accepted_at_the_same_time_is_delivered_once(store: Store) -> None:
    """A look at the database may see a message before its acceptance is told."""
    late: list[Acceptance] = []
    store.spool.on_accepted = late.append
    store.accept()
    store.look()
    store.local.accepted(late[0].arrival, late[0].names, late[0].content)
    store.settle()
    assert is_delivered_once(store)
    assert store.kinds() == ["accepted", "delivered"]


def test_what_the_operator_took_out_meanwhile_is_not_delivered(store: Store) -> None:
    store.fail("disk: sync all")
    arrival = store.accept()
    store.settle()
    connection = store.machine.databases.look(f"{STATE}/mailsrv.db")
    queue.remove(connection, store.machine.wall(), arrival.id)
    connection.close()
    come_back(store)
    assert store.mailbox() == {}
    assert store.states() == ["removed"]


# -- one broken mailbox


def broken_mailbox(store: Store, trouble: str) -> None:
    disk = filesystem(store)
    if trouble == "a file instead of the mailbox":
        store.disk.make_folders(MAIL)
        disk.create(f"{MAIL}/alice").close()
    elif trouble == "a file instead of tmp":
        store.disk.make_folders(f"{MAIL}/alice/new")
        disk.create(f"{MAIL}/alice/tmp").close()
    elif trouble == "a file instead of new":
        store.disk.make_folders(f"{MAIL}/alice/tmp")
        disk.create(f"{MAIL}/alice/new").close()
    elif trouble == "a dangling link":
        store.disk.make_folders(MAIL)
        store.disk.link(f"{MAIL}/alice", "/nowhere")


@pytest.mark.parametrize(
    "trouble",
    ["a file instead of the mailbox", "a file instead of tmp", "a file instead of new", "a dangling link"],
)
def test_one_broken_mailbox_defers_only_its_copy(store: Store, trouble: str) -> None:
    broken_mailbox(store, trouble)
    store.accept(to=(ALICE, BOB))
    store.settle()
    assert store.states() == ["queued", "delivered"]
    assert len(store.mailbox(BOB)) == 1
    assert store.kinds() == ["accepted", "deferred", "delivered"]
    (reason,) = store.rows("SELECT reason FROM event WHERE kind = 'deferred'")[0]
    assert any(word in reason for word in ("Not a directory", "not a folder", "No such file")), reason
    assert store.gaps() == []
    # The next attempt comes by the schedule, and nobody is told: local trouble never bounces.
    ((attempts, next_attempt),) = store.rows("SELECT attempts, next_attempt FROM recipient WHERE state = 'queued'")
    assert attempts == 1
    assert store.deferred == [next_attempt]


def test_a_mended_mailbox_gets_its_mail(store: Store) -> None:
    broken_mailbox(store, "a file instead of the mailbox")
    arrival = store.accept()
    store.settle()
    filesystem(store).unlink(f"{MAIL}/alice")
    come_back(store)
    assert only(store.mailbox()) == stored(arrival)
    assert store.states() == ["delivered"]


@pytest.mark.parametrize("missing", ["tmp", "new", "cur"])
def test_missing_folders_are_made(store: Store, missing: str) -> None:
    store.accept()
    store.settle()
    for name in store.mailbox():
        filesystem(store).unlink(f"{MAIL}/alice/new/{name}")
    folder = store.disk.folder(f"{MAIL}/alice")
    store.disk.change((folder, missing, None))
    arrival = store.accept()
    store.settle()
    if missing != "cur":
        assert only(store.mailbox()) == stored(arrival)
    assert store.states() == ["delivered", "delivered"]


@pytest.mark.parametrize("step", ["disk: create", "disk: write", "disk: rename", "disk: make folder"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC, errno.EMFILE, errno.EIO])
def test_a_step_that_fails_defers_one_copy_and_the_next_attempt_delivers_it(
    store: Store, step: str, number: int
) -> None:
    store.fail(step, error=lambda: disk_error(number))
    arrival = store.accept(to=(ALICE, BOB))
    store.settle()
    assert sorted(store.states()) == ["delivered", "queued"]
    come_back(store)
    assert store.states() == ["delivered", "delivered"]
    assert only(store.mailbox()) == stored(arrival)
    assert only(store.mailbox(BOB)) == stored(arrival, to=BOB)
    assert store.mailbox(folder="tmp") == store.mailbox(BOB, folder="tmp") == {}
    assert store.gaps() == []


def test_a_name_that_the_system_cannot_write_defers_only_its_copy(store: Store) -> None:
    store.fail("disk: create", error=lambda: UnicodeEncodeError("ascii", "ü", 0, 1, "ordinal not in range"))
    store.accept(to=(ALICE, BOB))
    store.settle()
    assert store.states() == ["queued", "delivered"]


def test_a_mailbox_that_vanishes_while_its_mail_is_on_the_way_does_not_hold_others_up(store: Store) -> None:
    def vanish(step: str) -> None:
        if step == "disk: rename" and "alice" in store.disk.folder(MAIL).names:
            folder = store.disk.folder(MAIL)
            store.disk.change((folder, "alice", None))

    store.steps.failures.append(vanish)
    store.accept(to=(BOB, ALICE))
    store.settle()
    store.healthy()
    assert store.states() == ["delivered", "queued"]
    come_back(store)
    assert store.states() == ["delivered", "delivered"]
    assert (len(store.mailbox(BOB)), len(store.mailbox(ALICE))) == (1, 1)


def test_a_mailbox_that_vanishes_before_its_names_are_synced_does_not_hold_others_up(store: Store) -> None:
    store.accept(to=(ALICE, BOB))
    store.settle()
    empty(store)

    def vanish(step: str) -> None:
        if step == "disk: renamed" and store.mailbox() and store.mailbox(BOB):
            folder = store.disk.folder(MAIL)
            store.disk.change((folder, "alice", None))

    store.steps.failures.append(vanish)
    store.accept(to=(BOB, ALICE))
    store.settle()
    store.healthy()
    assert "alice" not in store.disk.folders(MAIL)
    assert store.states()[2:] == ["delivered", "queued"]
    # It was in the mailbox, and whoever removed that has removed it.
    come_back(store)
    assert store.states()[2:] == ["delivered", "delivered"]


# -- a sync that fails


def test_a_failed_sync_defers_the_batch_and_it_is_written_anew(store: Store) -> None:
    store.fail("disk: sync all")
    arrival = store.accept(to=(ALICE, BOB))
    store.settle()
    assert store.states() == ["queued", "queued"]
    assert store.mailbox() == store.mailbox(BOB) == {}
    store.steps.trace.clear()
    come_back(store)
    # What a failed sync left is not trusted: the simulated disk has forgotten it, as Linux does.
    assert store.steps.trace.count("disk: created") == 2
    store.crash(power=5)
    assert only(store.mailbox()) == stored(arrival)
    assert only(store.mailbox(BOB)) == stored(arrival, to=BOB)


def test_a_failed_sync_of_the_renames_is_not_taken_for_delivery(store: Store) -> None:
    def second_sync(step: str) -> None:
        if is_sync(step) and "disk: renamed" in store.steps.trace:
            raise disk_error()

    store.steps.trace.clear()
    store.steps.failures.append(second_sync)
    store.accept()
    store.settle()
    assert store.states() == ["queued"]
    assert len(store.mailbox()) == 1
    store.healthy()
    come_back(store)
    assert is_delivered_once(store)
    assert store.states() == ["delivered"]


def test_trouble_nobody_foresaw_defers_and_does_not_end_delivery(store: Store) -> None:
    store.fail("disk: sync all", error=lambda: RuntimeError("nobody foresaw this"))
    store.accept()
    store.settle()
    assert store.states() == ["queued"]
    arrival = store.accept(to=(BOB,))
    store.settle()
    assert only(store.mailbox(BOB)) == stored(arrival, to=BOB)
    come_back(store)
    assert store.states() == ["delivered", "delivered"]


# -- a database that fails


def fail_marks(store: Store) -> None:
    """Commits fail from now on."""
    store.fail("database: commit", times=1000, error=lambda: sqlite3.OperationalError("disk I/O error"))


def test_a_mark_that_fails_is_made_later_and_nothing_is_delivered_twice(store: Store) -> None:
    store.accept()
    fail_marks(store)
    store.settle()
    assert store.states() == ["queued"]
    assert len(store.mailbox()) == 1
    store.healthy()
    come_back(store)
    assert store.states() == ["delivered"]
    assert is_delivered_once(store)


def test_a_message_deleted_before_its_mark_could_be_made_does_not_come_back(store: Store) -> None:
    store.accept()
    fail_marks(store)
    store.settle()
    (name,) = store.mailbox()
    filesystem(store).unlink(f"{MAIL}/alice/new/{name}")
    store.healthy()
    come_back(store)
    assert store.states() == ["delivered"]
    assert store.mailbox() == {}


def test_content_that_cannot_be_read_yet_waits_and_nothing_gets_stuck(store: Store) -> None:
    store.fail("disk: sync all")
    store.accept()
    store.settle()
    load = store.spool.load

    async def failing(number: int) -> tuple[bytes, bytes | None] | None:
        raise StorageTrouble("disk I/O error")

    store.spool.load = failing  # type: ignore[method-assign]
    store.advance(RETRY_S[-1])
    store.accept(to=(BOB,))
    store.look()
    store.advance(0.5)
    assert store.states() == ["queued", "delivered"]
    assert store.local.settled(ALICE) is None
    store.spool.load = load  # type: ignore[method-assign]
    come_back(store)
    assert store.states() == ["delivered", "delivered"]


def test_a_deferral_that_cannot_be_recorded_is_tried_again_all_the_same(store: Store) -> None:
    store.fail("disk: create", error=disk_error)
    store.accept()
    fail_marks(store)
    store.settle()
    assert store.deferred != []
    store.healthy()
    come_back(store)
    assert is_delivered_once(store)


# -- settled


def test_settled_waits_until_what_is_visible_is_marked(store: Store) -> None:
    store.accept(to=(ALICE, BOB))
    while not store.mailbox():
        store.advance(0.001)
    settled, other = store.local.settled(ALICE), store.local.settled("carol@example.org")
    assert settled is not None and not settled.called
    assert other is None
    assert store.states() == ["queued", "queued"]
    store.wait(settled)
    assert store.states() == ["delivered", "delivered"]
    assert store.local.settled(ALICE) is None


def test_settled_waits_for_an_earlier_batch_when_a_later_one_fails(store: Store) -> None:
    store.accept()
    while not store.mailbox():
        store.advance(0.001)
    store.fail("disk: create")
    second = store.accept()
    marked: list[list[str]] = []
    while not marked:
        waiting = store.local.settled(ALICE)
        assert waiting is not None
        waiting.addCallback(lambda result: marked.append(store.states()))
        store.advance(0.001)
        store.timeline.run(store.timeline.now + 0.005)
    assert second.id
    assert all(states[0] == "delivered" for states in marked)


# -- the end


def test_stopping_finishes_what_is_under_way_and_begins_nothing(store: Store) -> None:
    for _ in range(3 * BATCH):
        draft = store.spool.draft()
        draft.append(LETTER)
        store.wait(store.spool.accept(draft, store.arrival(draft.id)))
    store.wait(store.local.stop())
    states = store.states()
    assert len(store.mailbox()) == states.count("delivered")
    assert store.mailbox(folder="tmp") == {}
    store.crash()
    store.boot()
    store.settle()
    assert len(store.mailbox()) == 3 * BATCH
    assert store.states() == ["delivered"] * 3 * BATCH


def test_stopping_with_nothing_to_do_takes_no_time(store: Store) -> None:
    before = store.timeline.now
    store.wait(store.local.stop())
    assert store.timeline.now == before
