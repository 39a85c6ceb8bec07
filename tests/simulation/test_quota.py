"""Whole worlds in which every account has a quota: whatever happens, in the end ``maildirsize`` says what is there."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest

from mailsrv.store.accounts.accounts import Directory
from mailsrv.store.mailbox import maildirsize
from mailsrv.store.mailbox.quota import NOTHING, Quota
from tests.simulation import scenario
from tests.simulation.disk import SimulatedFilesystem
from tests.simulation.scenario import CALM_FAULTS, Faults
from tests.simulation.test_world import quiet
from tests.simulation.world import World, faulty

__all__ = ["quiet"]

MUCH = Quota(1 << 40)


class LimitedWorld(World):
    """It is at rest only when nobody has anything left to put right."""

    def __init__(self, seed: int, crashes: Collection[int] = (), faults: Faults = CALM_FAULTS) -> None:
        super().__init__(seed, crashes, faults)
        directory = self.settings.directory
        accounts = [replace(account, quota=MUCH) for account in directory.accounts]
        self.settings.directory = Directory(directory.domains, accounts, directory.aliases)

    def _quiet(self) -> bool:
        return super()._quiet() and self.wrong() == []

    def wrong(self) -> list[str]:
        """What the files say that is not so."""
        disk = SimulatedFilesystem(self.machine.disk)
        found = []
        for mailbox in scenario.MAILBOXES:
            local, _, domain = mailbox.partition("@")
            path = f"/var/lib/mailsrv/mail/{domain}/{local}"
            told, counted = maildirsize.read(disk, path), maildirsize.count(disk, path)
            if (NOTHING if told is None else told.usage) != counted:
                found.append(f"{mailbox}: {told} is told, and {counted} is there")
        return found


def complaints(seed: int, crashes: Collection[int] = (), faults: Faults = CALM_FAULTS) -> list[str]:
    world = LimitedWorld(seed, crashes, faults)
    try:
        return [f"seed {seed}, crashes {sorted(crashes)}: {text}" for text in [*world.run(), *world.wrong()]]
    finally:
        world.close()


@pytest.mark.parametrize("seed", range(6))
def test_calm_worlds(seed: int) -> None:
    assert complaints(seed) == []


def test_a_crash_at_many_steps() -> None:
    world = LimitedWorld(1)
    try:
        assert world.run() == []
        last = world.machine.steps.number
    finally:
        world.close()
    for step in range(1, last + 1, 19):
        assert complaints(1, {step}) == []


@pytest.mark.parametrize("seed", range(8))
def test_faulty_worlds(seed: int) -> None:
    assert complaints(seed, faults=faulty(seed)) == []
