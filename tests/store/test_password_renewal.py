"""Passwords of old schemes are replaced when they were right."""

from __future__ import annotations

import os
import stat
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailsrv import config
from mailsrv.outside.interfaces import Outside, Worker
from mailsrv.sasl import scram
from mailsrv.sasl.scram import derive_keys
from mailsrv.store.accounts import passwords
from mailsrv.store.accounts.accounts import Account, load_directory
from mailsrv.store.accounts.password_renewal import WAITING_LIMIT, PasswordRenewal
from mailsrv.store.accounts.passwords import Match, Passwords, hash_password, verify_stored
from tests.worlds.worker import HeldWorker, ImmediateWorker

MD5 = "{MD5-CRYPT}$1$tj5GAQ5y$MFSeUOMxRd0vyuodG9P0Q1"
DES = "{DES-CRYPT}Y5W2V.7jaJq5Q"
RIGHT = "tulip and thyme"


class World:
    """Passwords and their renewal over a real accounts file."""

    def __init__(self, folder: Path, renewing: Worker) -> None:
        self.reactor = Clock()
        self._renewing = renewing
        self.config = config.parse(
            'hostname = "mx.example.org"\ndomains = ["example.org"]\n', str(folder / "mailsrv.toml")
        )
        self.file = folder / "accounts"
        outside = cast(Outside, self)
        self.passwords = Passwords(outside)
        self.renewal = PasswordRenewal(outside, lambda: self.config)
        self.passwords.on_outdated = self.renewal.take
        self.renewal.on_renewed = self.passwords.renewed

    def worker(self, name: str, threads: int = 1) -> Worker:
        return self._renewing if name == "password-renewal" else ImmediateWorker()

    def random(self, octets: int) -> bytes:
        return bytes(range(octets))

    def account(self, name: str) -> Account:
        return next(account for account in load_directory(self.config).accounts if account.address.local == name)

    def log_in(self, account: Account, password: str = RIGHT) -> bool:
        return bool(result(self.passwords.verify(account, password)))


def result(coroutine: Coroutine[Any, Any, Match | None]) -> Any:
    found: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(found.append)
    return found[0]


def finish(worker: HeldWorker) -> None:
    """One renewal: hashing, and then writing."""
    worker.run()
    worker.run()


@pytest.fixture
def worker() -> HeldWorker:
    return HeldWorker()


@pytest.fixture
def world(tmp_path: Path, worker: HeldWorker) -> World:
    made = World(tmp_path, worker)
    made.file.write_text(
        f"# people\nalice@example.org:{MD5}:1000:1000::/home/alice::quota=5G\n\nbob@example.org:{DES}::::::\n"
    )
    made.file.chmod(0o640)
    return made


def test_the_next_login_replaces_an_old_hash_and_nothing_else(world: World, worker: HeldWorker) -> None:
    alice = world.account("alice")
    assert world.log_in(alice)
    finish(worker)
    text = world.file.read_text()
    assert text.startswith("# people\nalice@example.org:{ARGON2ID}$argon2id$")
    assert ":1000:1000::/home/alice::quota=5G scram-sha-256=60000," in text
    assert text.endswith(f"\n\nbob@example.org:{DES}::::::\n")
    assert stat.S_IMODE(world.file.stat().st_mode) == 0o640
    assert verify_stored(world.account("alice").hash, RIGHT)
    # From here on it is a password like any other.
    assert world.log_in(world.account("alice"))
    assert len(worker) == 0


def test_scram_keys_are_made_with_the_new_hash(world: World, worker: HeldWorker) -> None:
    world.log_in(world.account("alice"))
    finish(worker)
    keys = world.account("alice").scram
    assert keys is not None
    assert keys == derive_keys(RIGHT, keys.salt)


def test_scram_keys_are_added_to_a_hash_that_is_good(world: World, worker: HeldWorker) -> None:
    stored = hash_password(RIGHT, os.urandom)
    world.file.write_text(f"alice@example.org:{stored}\n")
    assert world.log_in(world.account("alice"))
    finish(worker)
    alice = world.account("alice")
    assert alice.hash == stored
    assert alice.scram is not None
    world.reactor.advance(301)
    assert world.log_in(alice)
    assert len(worker) == 0


def test_keys_of_another_strength_are_made_anew(
    world: World, worker: HeldWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.log_in(world.account("alice"))
    finish(worker)
    monkeypatch.setattr(scram, "ITERATIONS", 65_000)
    assert world.log_in(world.account("alice"))
    assert len(worker) == 1


def test_a_password_that_scram_cannot_have_is_left_in_peace(world: World, worker: HeldWorker) -> None:
    stored = hash_password("pass\u0221word", os.urandom)
    world.file.write_text(f"alice@example.org:{stored}\n")
    assert world.log_in(world.account("alice"), "pass\u0221word")
    assert len(worker) == 0
    world.file.write_text("alice@example.org:{PLAIN}pass\u0221word\n")
    assert world.log_in(world.account("alice"), "pass\u0221word")
    finish(worker)
    assert world.account("alice").scram is None
    assert world.account("alice").hash.startswith("{ARGON2ID}")


def test_who_has_logged_in_stays_logged_in(world: World, worker: HeldWorker) -> None:
    before = world.account("alice")
    match = result(world.passwords.verify(before, RIGHT))
    worker.run()
    assert world.passwords.holds(world.account("alice"), match)
    worker.run()
    after = world.account("alice")
    assert after.hash != before.hash
    assert world.passwords.holds(after, match)
    assert not world.passwords.holds(replace(after, hash="{PLAIN}another"), match)


def test_app_passwords_lend_their_salt(world: World, worker: HeldWorker) -> None:
    app = hash_password("app password", os.urandom)
    world.file.write_text(f"alice@example.org:{MD5}::::::app-phone={app}\n")
    assert result(world.passwords.verify(world.account("alice"), "app password")).name == "phone"
    assert len(worker) == 0
    assert world.log_in(world.account("alice"))
    finish(worker)
    alice = world.account("alice")
    assert alice.hash.split("$")[4] == app.split("$")[4]
    assert alice.apps[0].hash == app


def test_a_wrong_password_replaces_nothing(world: World, worker: HeldWorker) -> None:
    assert not world.log_in(world.account("alice"), "wrong")
    assert len(worker) == 0


def test_a_wrong_password_of_a_cheap_scheme_costs_a_hash_like_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []

    def verify_stored(stored: str, password: str) -> bool:
        compared.append(stored)
        return False

    monkeypatch.setattr(passwords, "verify_stored", verify_stored)
    assert not world.log_in(world.account("alice"), "wrong")
    assert compared == [MD5, passwords._DUMMY]


def test_logins_during_a_writing_share_the_next_one(world: World, worker: HeldWorker) -> None:
    with world.file.open("a") as file:
        file.write(f"carol@example.org:{{PLAIN}}{RIGHT}\n")
    for name in ("alice", "bob", "carol"):
        world.log_in(world.account(name))
    assert len(worker) == 1
    finish(worker)
    assert world.file.read_text().count("{ARGON2ID}") == 1
    assert len(worker) == 1
    finish(worker)
    assert world.file.read_text().count("{ARGON2ID}") == 3
    assert len(worker) == 0


def test_a_password_changed_meanwhile_stays(world: World, worker: HeldWorker) -> None:
    alice = world.account("alice")
    world.log_in(alice)
    changed = world.file.read_text().replace(f"alice@example.org:{MD5}", "alice@example.org:{PLAIN}another")
    world.file.write_text(changed)
    finish(worker)
    assert world.file.read_text() == changed


def test_a_file_that_cannot_be_written_changes_nothing_and_the_next_login_tries_again(
    world: World, worker: HeldWorker
) -> None:
    alice = world.account("alice")
    good = world.file.read_text()
    world.file.write_text("nonsense\n")
    world.log_in(alice)
    finish(worker)
    assert world.file.read_text() == "nonsense\n"
    world.file.write_text(good)
    world.reactor.advance(301)
    world.log_in(alice)
    finish(worker)
    assert world.file.read_text().count("{ARGON2ID}") == 1


def test_what_waits_is_bounded(world: World, worker: HeldWorker) -> None:
    alice = world.account("alice")
    world.renewal.take(alice, RIGHT)
    for n in range(WAITING_LIMIT + 10):
        world.renewal.take(replace(alice, address=replace(alice.address, local=f"u{n}")), RIGHT)
    assert len(world.renewal._waiting) == WAITING_LIMIT
    world.renewal.stop()
    assert worker.stopped
    text = world.file.read_text()
    finish(worker)
    assert world.file.read_text() == text
