"""The spool: a message is accepted when it is on stable storage, or it is refused and nothing of it stays."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailsrv.store import queue_id, schema, spool
from mailsrv.store.database import StorageTrouble
from mailsrv.store.spool import KEPT, KEPT_WHEN_BUSY, MEMORY
from tests.simulation.disk import SimulatedFilesystem
from tests.worlds.store import LETTER, PREFIX, SPOOL, STATE, Store, disk_error

LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcdef\r\n" * 20_000
assert len(LARGE) > KEPT


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store().boot()
    yield store
    store.close()


def contents(store: Store) -> list[tuple[bytes, bytes | None]]:
    return store.rows("SELECT prefix, data FROM content ORDER BY message")


def spooled(store: Store) -> dict[str, bytes]:
    return store.disk.files(SPOOL)


def held_in_queue(store: Store, content: bytes = LETTER) -> int:
    """Accept a message that nobody takes out of the queue."""
    return store.accept(content, to=("carol@example.net",)).id


# -- where the content is


def test_a_message_up_to_the_limit_is_stored_in_the_database(store: Store) -> None:
    content = LARGE[:KEPT]
    held_in_queue(store, content)
    assert contents(store) == [(PREFIX, content)]
    assert spooled(store) == {}
    assert not any("file" in step for step in store.steps.trace)


def test_a_message_above_the_limit_is_a_file_under_its_queue_id(store: Store) -> None:
    number = held_in_queue(store, LARGE)
    assert contents(store) == [(PREFIX, None)]
    assert spooled(store) == {queue_id.text(number): LARGE}


@pytest.mark.parametrize("piece", [1000, 65536, KEPT, KEPT + 1, len(LARGE)])
def test_a_file_holds_every_octet_however_they_come(store: Store, piece: int) -> None:
    draft = store.spool.draft()
    for start in range(0, len(LARGE), piece):
        writing = draft.append(LARGE[start : start + piece])
        assert (writing is not None) == (start + piece > KEPT)
        if writing is not None:
            store.wait(writing)
    assert draft.size == len(LARGE)
    assert draft.filed
    store.wait(store.spool.accept(draft, store.arrival(draft.id, LARGE, to=("carol@example.net",))))
    assert spooled(store) == {queue_id.text(draft.id): LARGE}


def test_when_memory_is_used_up_smaller_messages_become_files_too(store: Store) -> None:
    drafts = []
    while store.spool.memory < MEMORY:
        draft = store.spool.draft()
        assert draft.append(LARGE[:KEPT]) is None
        drafts.append(draft)
    small, medium = store.spool.draft(), store.spool.draft()
    assert small.append(b"x" * KEPT_WHEN_BUSY) is None
    writing = medium.append(b"x" * (KEPT_WHEN_BUSY + 1))
    assert writing is not None
    store.wait(writing)
    assert medium.filed and not small.filed
    for draft in (*drafts, small, medium):
        draft.discard()
    assert store.spool.memory == 0
    assert store.spool.draft().append(LARGE[:KEPT]) is None


def test_memory_is_given_back_after_acceptance_refusal_and_trouble(store: Store) -> None:
    held_in_queue(store)
    held_in_queue(store, LARGE)
    assert store.spool.memory == 0
    draft = store.spool.draft()
    draft.append(LETTER)
    assert store.spool.memory == len(LETTER)
    draft.discard()
    draft.discard()
    assert store.spool.memory == 0
    store.fail("database: commit", times=2, error=lambda: sqlite3.OperationalError("disk I/O error"))
    with pytest.raises(StorageTrouble):
        held_in_queue(store)
    assert store.spool.memory == 0


def test_the_head_of_a_filed_message_is_still_at_hand(store: Store) -> None:
    draft = store.spool.draft()
    for start in range(0, len(LARGE), 65536):
        writing = draft.append(LARGE[start : start + 65536])
        if writing is not None:
            store.wait(writing)
    head = draft.head()
    assert head == LARGE[: len(head)]
    assert len(head) >= KEPT - 65536
    draft.discard()


# -- when it counts as accepted


def test_a_file_and_its_name_are_synced_before_the_commit(store: Store) -> None:
    store.steps.trace.clear()
    held_in_queue(store, LARGE)
    trace = [step for step in store.steps.trace if step.startswith(("disk: sync", "database"))]
    assert trace.index("disk: synced file") < trace.index("disk: synced folder") < trace.index("database: commit")


def test_acceptance_waits_for_the_commit(store: Store) -> None:
    draft = store.spool.draft()
    draft.append(LETTER)
    seen: list[int] = []
    store.spool.on_accepted = lambda acceptance: seen.append(len(contents(store)))
    store.wait(store.spool.accept(draft, store.arrival(draft.id)))
    assert seen == [1]


def test_after_a_crash_at_any_step_an_accepted_message_is_whole_and_others_leave_nothing() -> None:
    for content in (LETTER, LARGE):
        for step in range(1, 100):
            store = Store().boot()
            store.steps.crashes = {store.steps.number + step}
            accepted = False
            try:
                held_in_queue(store, content)
                accepted = True
            except AssertionError:
                assert not store.machine.life.alive
            store.crash(power=step)
            store.steps.crashes = ()
            store.boot()
            if contents(store):
                assert [data for _, data in contents(store)] + list(spooled(store).values()) in (
                    [content],
                    [None, content],
                )
            else:
                assert not accepted
                assert spooled(store) == {}
            assert store.gaps() == []
            store.close()
            if accepted:
                break
        else:
            raise AssertionError("acceptance takes more steps than this test goes through")


# -- trouble


@pytest.mark.parametrize(
    ("step", "number"),
    [
        ("disk: create", errno.ENOSPC),
        ("disk: create", errno.EMFILE),
        ("disk: write", errno.ENOSPC),
        ("disk: write", errno.EDQUOT),
        ("disk: write", errno.EIO),
        ("disk: sync file", errno.EIO),
        ("disk: sync file", errno.ENOSPC),
        ("disk: sync folder", errno.EIO),
    ],
)
def test_what_the_disk_refuses_is_trouble_and_nothing_stays(store: Store, step: str, number: int) -> None:
    store.fail(step, error=lambda: disk_error(number))
    with pytest.raises(StorageTrouble) as caught:
        held_in_queue(store, LARGE)
    assert caught.value.full == (number in (errno.ENOSPC, errno.EDQUOT))
    store.advance(1)
    assert spooled(store) == {}
    assert contents(store) == []
    # The same client, a moment later: a new name, a new file.
    held_in_queue(store, LARGE)
    assert list(spooled(store).values()) == [LARGE]


def test_a_disk_that_is_really_full(store: Store) -> None:
    store.disk.space = 300_000
    with pytest.raises(StorageTrouble) as caught:
        held_in_queue(store, LARGE)
    assert caught.value.full
    store.advance(1)
    assert spooled(store) == {}
    assert store.disk.space == 300_000


def test_trouble_in_the_middle_does_not_stop_the_client_from_ending_its_message(store: Store) -> None:
    store.fail("disk: write")
    draft = store.spool.draft()
    first = draft.append(LARGE)
    assert first is not None
    store.wait(first)
    assert isinstance(draft.trouble, OSError)
    assert draft.append(b"more") is None
    assert draft.size == len(LARGE) + 4
    with pytest.raises(StorageTrouble):
        store.wait(store.spool.accept(draft, store.arrival(draft.id, LARGE + b"more")))


def test_whatever_goes_wrong_with_a_piece_the_message_is_not_accepted(store: Store) -> None:
    store.fail("disk: write", error=lambda: ValueError("nobody foresaw this"))
    with pytest.raises(StorageTrouble, match="nobody foresaw this"):
        held_in_queue(store, LARGE)
    store.advance(1)
    assert spooled(store) == {}


def test_a_file_is_not_closed_twice(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time its descriptor may be that of a client's connection or of the database."""
    closed: list[int] = []
    create = SimulatedFilesystem.create

    class Counting:
        def __init__(self, output: object) -> None:
            self._output = output

        def __getattr__(self, name: str) -> object:
            if name == "close":
                closed.append(1)
            return getattr(self._output, name)

    monkeypatch.setattr(SimulatedFilesystem, "create", lambda self, path: Counting(create(self, path)))
    store.fail("database: commit", times=2, error=lambda: sqlite3.OperationalError("disk I/O error"))
    with pytest.raises(StorageTrouble):
        held_in_queue(store, LARGE)
    store.healthy()
    held_in_queue(store, LETTER)
    store.advance(1)
    assert closed == [1]
    assert spooled(store) == {}


def test_when_the_commit_fails_nothing_stays(store: Store) -> None:
    for content in (LETTER, LARGE):
        store.fail("database: commit", times=2, error=lambda: sqlite3.OperationalError("database or disk is full"))
        with pytest.raises(StorageTrouble):
            held_in_queue(store, content)
        store.healthy()
        assert contents(store) == []
        assert store.spool.memory == 0
    held_in_queue(store, LETTER)
    store.advance(1)
    assert spooled(store) == {}


def test_a_commit_that_failed_and_comes_back_with_a_crash_finds_its_file(store: Store) -> None:
    """The flush failed after SQLite had written everything: the next life sees the transaction."""
    store.fail("database: committed", times=2, error=lambda: sqlite3.OperationalError("disk I/O error"))
    with pytest.raises(StorageTrouble):
        held_in_queue(store, LARGE)
    store.advance(1)
    store.healthy()
    assert len(contents(store)) == 1
    store.crash()
    store.boot(recover=False)
    assert list(spooled(store).values()) == [LARGE]
    assert store.gaps() == []


def test_files_of_failed_commits_go_even_if_no_message_can_be_accepted(store: Store) -> None:
    """They may be what takes the room that every MAIL asks for."""
    store.fail("database: commit", times=2, error=lambda: sqlite3.OperationalError("disk I/O error"))
    with pytest.raises(StorageTrouble):
        held_in_queue(store, LARGE)
    store.advance(2)
    store.fail("database: commit", times=2, error=lambda: sqlite3.OperationalError("disk I/O error"))
    store.spool.room()
    store.advance(2)
    assert len(spooled(store)) == 1, "still in doubt"
    store.healthy()
    store.spool.room()
    store.advance(2)
    assert spooled(store) == {}
    assert store.gaps() == []


def test_what_ends_the_doubt_is_written_though_it_changes_nothing(tmp_path: Path) -> None:
    """SQLite leaves out a commit without changed pages, and what a crash would bring back stayed where it was."""
    connection = sqlite3.connect(tmp_path / "mailsrv.db", isolation_level=None)
    schema.prepare(connection, "mailsrv.db", may_upgrade=lambda: True)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    wal = tmp_path / "mailsrv.db-wal"
    assert wal.stat().st_size == 0
    connection.execute("BEGIN IMMEDIATE")
    spool._something(connection)
    connection.execute("COMMIT")
    assert wal.stat().st_size > 0
    assert connection.execute("SELECT * FROM secret").fetchall() == []
    connection.close()


def test_a_discarded_message_leaves_no_file(store: Store) -> None:
    draft = store.spool.draft()
    writing = draft.append(LARGE)
    assert writing is not None
    store.wait(writing)
    assert len(spooled(store)) == 1
    draft.discard()
    store.advance(1)
    assert spooled(store) == {}


def test_a_message_discarded_while_it_is_written_leaves_no_file(store: Store) -> None:
    draft = store.spool.draft()
    writing = draft.append(LARGE)
    assert writing is not None and not writing.called
    draft.discard()
    store.advance(1)
    assert spooled(store) == {}


# -- the start


def test_files_without_a_message_are_swept_at_the_start_and_others_are_not(store: Store) -> None:
    number = held_in_queue(store, LARGE)
    filesystem = SimulatedFilesystem(store.disk)
    for name in (queue_id.text(number + 1), "notes.txt", ".hidden"):
        filesystem.create(f"{SPOOL}/{name}").close()
    store.wait(store.spool.accept(draft := store.spool.draft(), store.arrival(draft.id, b"")))
    store.crash()
    store.boot()
    assert set(spooled(store)) == {queue_id.text(number), "notes.txt", ".hidden"}


def test_the_file_goes_with_the_message(store: Store) -> None:
    number = held_in_queue(store, LARGE)
    store.spool.dropped([number + 1])
    store.advance(1)
    assert len(spooled(store)) == 1
    store.spool.dropped([number])
    store.advance(1)
    assert spooled(store) == {}


def test_queue_ids_ascend_over_restarts_whatever_the_clock_says(store: Store) -> None:
    numbers = [held_in_queue(store) for _ in range(3)]
    assert numbers == sorted(set(numbers))
    store.crash()
    store.machine.clock_offset_s -= 86400
    store.boot()
    assert held_in_queue(store) > numbers[-1]


# -- names


def test_the_name_of_a_copy_tells_its_exact_size_in_the_file_and_on_the_wire(store: Store) -> None:
    to = ("alice@example.org", "carol@example.net", "bob+list@example.org")
    for sender in ("bob@example.net", ""):
        for content in (LETTER, b"", LARGE):
            arrival = store.arrival(store.spool.next_id(), content, to, sender)
            alice, carol, bob = store.spool.names(arrival)
            assert carol == ""
            for name, address in ((alice, "alice@example.org"), (bob, "bob+list@example.org")):
                wire = f"Return-Path: <{sender}>\r\nDelivered-To: {address}\r\n".encode() + PREFIX + content
                seconds = arrival.id // 1_000_000
                unique = f"{seconds}.Q{queue_id.text(arrival.id)}N{to.index(address)}.mx.example.org"
                octets = len(wire.replace(b"\r\n", b"\n"))
                assert name == f"{unique},S={octets},W={len(wire)}"


# -- giving out


def test_content_comes_out_as_it_went_in(store: Store) -> None:
    small, large = held_in_queue(store), held_in_queue(store, LARGE)
    assert store.wait(store.spool.load(small)) == (PREFIX, LETTER)
    assert store.wait(store.spool.load(large)) == (PREFIX, None)
    assert store.wait(store.spool.load(large + 1)) is None
    blocks = []
    offset = 0
    while block := store.wait(store.spool.read_file(large, offset)):
        assert len(block) <= spool.BLOCK
        blocks.append(block)
        offset += len(block)
    assert b"".join(blocks) == LARGE
    with pytest.raises(FileNotFoundError):
        store.wait(store.spool.read_file(large + 1, 0))


# -- room


def test_room_is_looked_up_beside_the_work_and_at_most_a_second_old(store: Store) -> None:
    store.disk.space = 1000
    before = store.spool.room()
    assert before > 1000
    store.advance(1.5)
    assert store.spool.room() == before  # nobody waits
    store.advance(0.5)
    assert store.spool.room() == 1000


def test_room_that_cannot_be_found_out_is_none(store: Store) -> None:
    store.fail("disk: free")
    store.advance(1.5)
    store.spool.room()
    store.advance(0.5)
    assert store.spool.room() == 0
    store.advance(1.5)
    store.spool.room()
    store.advance(0.5)
    assert store.spool.room() > 0


def test_a_spool_that_cannot_be_made_is_an_error_at_the_start() -> None:
    store = Store()
    SimulatedFilesystem(store.disk).create(f"{STATE}/spool").close()
    with pytest.raises(OSError, match="Not a directory"):
        store.boot()
    store.close()
