"""When the next keys begin to sign: once DNS has shown them for a while, and not before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mailsrv.dkim.publication import SEEN_S, Publication
from mailsrv.outside.interfaces import LookupFailed
from mailsrv.store import ledger
from mailsrv.store.key_states import NO_KEYS, Keys
from mailsrv.store.keys import KeyFileError
from mailsrv.store.recorder import Recorder
from tests.worlds.keys import pair
from tests.worlds.queue import QueueSettings
from tests.worlds.resolver import RecordsResolver
from tests.worlds.store import Store

OLD, NEW = pair("example.org"), pair("example.org", "2")
WAITING = Keys({"example.org": OLD}, {"example.org": tuple(key.public for key in NEW)})
EVERY_S = 60.0


class World(Store):
    """``begun`` are the domains whose next keys were let sign, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.boot()
        self.records = RecordsResolver()
        self.settings = QueueSettings()
        self.settings.keys = WAITING
        self.begun: list[tuple[str, str, float]] = []
        self.problem: Exception | None = None
        self.publication = Publication(
            self.settings,
            self.outside,
            self.records,
            Recorder(self.outside, self.database),
            self._activate,
        )

    def _activate(self, state: str, domain: str, now: float) -> None:
        if self.problem is not None:
            raise self.problem
        self.begun.append((state, domain, now))
        self.settings.keys = Keys({domain: NEW}, {})

    def publish(self, *keys: str) -> None:
        """Of the next keys, those of these kinds."""
        for key in NEW:
            self.records.records.pop((key.public.name, "TXT"), None)
            if key.kind in keys:
                self.records.records[key.public.name, "TXT"] = [key.public.record]

    def wait_for(self, seconds: float) -> None:
        for _ in range(int(seconds / EVERY_S)):
            self.publication.look()
            self.advance(EVERY_S)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def test_what_is_not_published_does_not_sign(world: World) -> None:
    world.wait_for(3 * SEEN_S)
    world.publish("rsa")
    world.wait_for(3 * SEEN_S)
    world.records.records[NEW[1].public.name, "TXT"] = ["v=spf1 -all", OLD[1].public.record]
    world.wait_for(3 * SEEN_S)
    assert world.begun == []


def test_what_is_published_signs_after_an_hour(world: World) -> None:
    world.publish("rsa", "ed25519")
    world.wait_for(SEEN_S)
    assert world.begun == []
    world.wait_for(2 * EVERY_S)
    ((state, domain, now),) = world.begun
    assert (state, domain) == ("/state", "example.org")
    assert now == pytest.approx(world.machine.wall(), abs=2 * EVERY_S)
    world.advance(1)
    ((reason, rule),) = world.rows("SELECT reason, rule FROM event WHERE kind = ?", ledger.CONFIG)
    assert (reason, rule) == ("example.org signs with rsa2 and ed255192: DNS shows them", "DKIM")


def test_records_may_be_written_otherwise(world: World) -> None:
    for key in NEW:
        record = key.public.record.replace("; ", " ;  ").replace("p=", "p = ") + ";"
        world.records.records[key.public.name, "TXT"] = [record]
    world.wait_for(SEEN_S + 2 * EVERY_S)
    assert len(world.begun) == 1


def test_a_record_that_goes_away_begins_anew(world: World) -> None:
    world.publish("rsa", "ed25519")
    world.wait_for(SEEN_S - EVERY_S)
    world.publish("rsa")
    world.wait_for(EVERY_S)
    world.publish("rsa", "ed25519")
    world.wait_for(SEEN_S)
    assert world.begun == []
    world.wait_for(2 * EVERY_S)
    assert len(world.begun) == 1


def test_a_name_server_that_does_not_answer_says_nothing(world: World) -> None:
    world.publish("rsa", "ed25519")
    world.wait_for(SEEN_S)
    world.records.records.update({(key.public.name, "TXT"): LookupFailed for key in NEW})
    world.wait_for(2 * SEEN_S)
    assert world.begun == []
    world.publish("rsa", "ed25519")
    world.wait_for(2 * EVERY_S)
    assert len(world.begun) == 1


def test_where_nothing_signs_nobody_waits(world: World) -> None:
    world.settings.keys = Keys({}, WAITING.next)
    world.publish("rsa", "ed25519")
    world.wait_for(EVERY_S)
    assert len(world.begun) == 1


@pytest.mark.parametrize("problem", [PermissionError(13, "Permission denied"), KeyFileError("x: damaged.")])
def test_what_cannot_be_written_is_tried_again(world: World, problem: Exception) -> None:
    world.publish("rsa", "ed25519")
    world.problem = problem
    world.wait_for(SEEN_S + 2 * EVERY_S)
    assert world.begun == []
    world.problem = None
    world.wait_for(EVERY_S)
    assert len(world.begun) == 1


def test_nothing_is_asked_when_nothing_waits(world: World) -> None:
    world.settings.keys = Keys({"example.org": OLD}, {})
    world.wait_for(SEEN_S)
    world.settings.keys = NO_KEYS
    world.wait_for(SEEN_S)
    assert world.records.asked == []
