"""The disk forgets what it may forget, and nothing else."""

from __future__ import annotations

import errno
import random
from collections import Counter

import pytest

from tests.simulation.disk import Disk, SimulatedFilesystem
from tests.simulation.timeline import Life, SimulatedCrash, Steps

SEEDS = range(200)


def written(disk: Disk, path: str, data: bytes, sync: bool) -> None:
    output = SimulatedFilesystem(disk).create(path)
    output.write(data)
    if sync:
        output.sync()
    output.close()


def fresh() -> tuple[Disk, SimulatedFilesystem]:
    disk = Disk()
    disk.make_folders("/mail/tmp")
    disk.make_folders("/mail/new")
    return disk, SimulatedFilesystem(disk)


def after_power_failures(prepare: object) -> Counter[object]:
    """What ``prepare`` leaves behind, over many seeds."""
    assert callable(prepare)
    found: Counter[object] = Counter()
    for seed in SEEDS:
        disk, filesystem = fresh()
        prepare(disk, filesystem)
        disk.lose_power(random.Random(seed))
        found[tuple(sorted((disk.files("/mail/tmp") | disk.files("/mail/new")).items()))] += 1
    return found


def test_file_and_name_synced_stay() -> None:
    def prepare(disk: Disk, filesystem: SimulatedFilesystem) -> None:
        written(disk, "/mail/tmp/a", b"octets", sync=True)
        filesystem.sync_directory("/mail/tmp")

    assert set(after_power_failures(prepare)) == {(("a", b"octets"),)}


def test_sync_all_is_as_good() -> None:
    def prepare(disk: Disk, filesystem: SimulatedFilesystem) -> None:
        written(disk, "/mail/tmp/a", b"octets", sync=False)
        filesystem.rename("/mail/tmp/a", "/mail/new/a")
        filesystem.sync_all(["/mail/new"])

    assert set(after_power_failures(prepare)) == {(("a", b"octets"),)}


def test_a_name_that_was_not_synced_may_go() -> None:
    def prepare(disk: Disk, filesystem: SimulatedFilesystem) -> None:
        written(disk, "/mail/tmp/a", b"octets", sync=True)

    assert set(after_power_failures(prepare)) == {(), (("a", b"octets"),)}


def test_octets_that_were_not_synced_may_be_torn() -> None:
    def prepare(disk: Disk, filesystem: SimulatedFilesystem) -> None:
        written(disk, "/mail/tmp/a", b"octets", sync=False)
        filesystem.sync_directory("/mail/tmp")

    found = {dict(files)["a"] for files in after_power_failures(prepare)}  # type: ignore[call-overload]
    assert {b"", b"octets", bytes(6), b"oct", b"oct\0\0\0"} <= found


def test_what_was_synced_of_a_file_is_never_torn() -> None:
    def prepare(disk: Disk, filesystem: SimulatedFilesystem) -> None:
        output = filesystem.create("/mail/tmp/a")
        output.write(b"one ")
        output.sync()
        filesystem.sync_directory("/mail/tmp")
        output.write(b"two")

    found = {dict(files)["a"] for files in after_power_failures(prepare)}  # type: ignore[call-overload]
    assert b"one two" in found and b"one " in found
    assert all(octets.startswith(b"one ") for octets in found)


def test_a_rename_is_whole_or_not_at_all() -> None:
    def prepare(disk: Disk, filesystem: SimulatedFilesystem) -> None:
        written(disk, "/mail/tmp/a", b"octets", sync=True)
        filesystem.sync_directory("/mail/tmp")
        filesystem.rename("/mail/tmp/a", "/mail/new/b")

    assert set(after_power_failures(prepare)) == {(("a", b"octets"),), (("b", b"octets"),)}


def test_syncing_the_target_makes_a_rename_last_with_all_it_rests_on() -> None:
    def prepare(disk: Disk, filesystem: SimulatedFilesystem) -> None:
        written(disk, "/mail/tmp/a", b"octets", sync=True)
        filesystem.rename("/mail/tmp/a", "/mail/new/b")
        filesystem.sync_directory("/mail/new")

    assert set(after_power_failures(prepare)) == {(("b", b"octets"),)}


def test_an_unlink_may_be_forgotten() -> None:
    def prepare(disk: Disk, filesystem: SimulatedFilesystem) -> None:
        written(disk, "/mail/tmp/a", b"octets", sync=True)
        filesystem.sync_directory("/mail/tmp")
        filesystem.unlink("/mail/tmp/a")

    assert set(after_power_failures(prepare)) == {(), (("a", b"octets"),)}


def test_a_file_in_a_folder_that_was_not_synced_goes_with_it() -> None:
    found = set()
    for seed in SEEDS:
        disk, filesystem = fresh()
        filesystem.make_directory("/mail/cur")
        written(disk, "/mail/cur/a", b"octets", sync=True)
        filesystem.sync_directory("/mail/cur")
        disk.lose_power(random.Random(seed))
        found.add((tuple(disk.folders("/mail")), tuple(disk.files("/mail/cur"))))
    assert found == {(("tmp", "new"), ()), (("tmp", "new", "cur"), ("a",))}


def test_a_kill_forgets_nothing() -> None:
    disk, _ = fresh()
    written(disk, "/mail/tmp/a", b"octets", sync=False)
    disk.stop_program()
    assert disk.files("/mail/tmp") == {"a": b"octets"}


def test_another_file_system_is_synced_on_its_own() -> None:
    found = set()
    for seed in SEEDS:
        disk, filesystem = fresh()
        disk.mount("/other")
        written(disk, "/other/a", b"octets", sync=False)
        filesystem.sync_all(["/mail"])
        disk.lose_power(random.Random(seed))
        found.add(tuple(disk.files("/other")))
    assert found == {(), ("a",)}
    with pytest.raises(OSError) as caught:
        disk, filesystem = fresh()
        disk.mount("/other")
        written(disk, "/other/a", b"", sync=False)
        filesystem.rename("/other/a", "/mail/a")
    assert caught.value.errno == errno.EXDEV


def failing(what: str, number: int) -> tuple[Disk, SimulatedFilesystem]:
    disk, _ = fresh()
    steps = Steps()

    def fail(step: str) -> None:
        if step == what:
            steps.failures.clear()
            raise OSError(number, "fault of the simulation")

    steps.failures.append(fail)
    return disk, SimulatedFilesystem(disk, Life("program", steps))


def test_a_second_sync_after_a_failed_one_succeeds_and_stores_nothing() -> None:
    found = set()
    for seed in SEEDS:
        disk, filesystem = failing("disk: sync file", errno.EIO)
        output = filesystem.create("/mail/tmp/a")
        output.write(b"octets")
        with pytest.raises(OSError):
            output.sync()
        output.sync()
        filesystem.sync_directory("/mail/tmp")
        disk.lose_power(random.Random(seed))
        found.add(disk.files("/mail/tmp")["a"])
    assert b"" in found


def test_a_failed_sync_of_everything_spoils_every_file() -> None:
    found = set()
    for seed in SEEDS:
        disk, filesystem = failing("disk: sync all", errno.EIO)
        written(disk, "/mail/tmp/a", b"octets", sync=False)
        with pytest.raises(OSError):
            filesystem.sync_all(["/mail/tmp"])
        filesystem.sync_all(["/mail/tmp"])
        disk.lose_power(random.Random(seed))
        found.add(disk.files("/mail/tmp")["a"])
    assert b"" in found


def test_a_full_disk_takes_what_fits() -> None:
    disk, filesystem = fresh()
    disk.space = 4
    output = filesystem.create("/mail/tmp/a")
    with pytest.raises(OSError) as caught:
        output.write(b"octets")
    assert caught.value.errno == errno.ENOSPC
    assert filesystem.free("/mail") == 0
    filesystem.unlink("/mail/tmp/a")
    assert filesystem.free("/mail") == 4


def test_a_crash_may_fall_before_and_after_each_change() -> None:
    found = []
    for step in range(1, 4):
        disk, _ = fresh()
        life = Life("program", Steps([step]))
        filesystem = SimulatedFilesystem(disk, life)
        with pytest.raises(SimulatedCrash):
            filesystem.create("/mail/tmp/a").write(b"octets")
        found.append(disk.files("/mail/tmp"))
        with pytest.raises(SimulatedCrash):
            filesystem.unlink("/mail/tmp/a")
    assert found == [{}, {"a": b""}, {"a": b""}]
