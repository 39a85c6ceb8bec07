from __future__ import annotations

import os
from collections.abc import Coroutine
from typing import Any, cast

import argon2
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mailsrv.mail.address import Address
from mailsrv.outside.interfaces import Outside, Worker
from mailsrv.store.accounts import Account
from mailsrv.store.password_schemes import UnknownScheme
from mailsrv.store.passwords import (
    REMEMBERED_LIMIT,
    REMEMBERED_S,
    WAITING_LIMIT,
    Match,
    Passwords,
    TooBusy,
    check_stored,
    generate_password,
    hash_password,
    verify_stored,
)
from tests.worlds.worker import HeldWorker, ImmediateWorker

ALICE = Address("alice", "example.org")
STORED = hash_password("right", os.urandom)
# The same cheaper, where many are needed.
CHEAP = "{ARGON2ID}" + argon2.PasswordHasher(1, 8, 1).hash("right")


class World:
    """Just what ``Passwords`` asks of an ``Outside``."""

    def __init__(self, worker: Worker) -> None:
        self.reactor = Clock()
        self._worker = worker

    def worker(self, name: str, threads: int = 1) -> Worker:
        return self._worker

    def random(self, octets: int) -> bytes:
        return bytes(range(octets))


def passwords(worker: Worker) -> tuple[Passwords, Clock]:
    world = World(worker)
    return Passwords(cast(Outside, world)), world.reactor


def result(coroutine: Coroutine[Any, Any, Match | None]) -> bool:
    """Whether a check that does not have to wait found the password right."""
    found: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(found.append)
    if isinstance(found[0], Failure):
        found[0].raiseException()
    return found[0] is not None


def test_a_hash_is_argon2id_of_the_agreed_cost() -> None:
    assert STORED.startswith("{ARGON2ID}$argon2id$v=19$m=19456,t=2,p=1$")
    check_stored(STORED)
    assert hash_password("right", os.urandom) != STORED
    assert verify_stored(STORED, "right")
    assert not verify_stored(STORED, "Right")


@pytest.mark.parametrize("password", ["a b", ":{}$,=#", "\\\"'", "пароль 密码 🔑", "e\u0301", "x" * 2000, " lead"])
def test_any_characters(password: str) -> None:
    stored = hash_password(password, os.urandom)
    assert ":" not in stored
    assert verify_stored(stored, password)
    assert not verify_stored(stored, password + " ")


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ("right", r"does not begin with a \{SCHEME\}"),
        ("{MD4}abc", "scheme MD4 is not known; known are ARGON2ID, "),
        ("{ARGON2ID}abc", "not a well-formed ARGON2ID hash"),
        ("{ARGON2ID}" + CHEAP.removeprefix("{ARGON2ID}").replace("argon2id", "argon2i"), "not a well-formed"),
    ],
)
def test_what_cannot_be_compared_is_refused(stored: str, message: str) -> None:
    with pytest.raises(UnknownScheme, match=message):
        check_stored(stored)
    assert not verify_stored(stored, "right")


def test_right_wrong_unknown_and_locked() -> None:
    checker, _ = passwords(ImmediateWorker())
    assert result(checker.verify(Account(ALICE, STORED), "right")) is True
    assert result(checker.verify(Account(ALICE, STORED), "wrong")) is False
    assert result(checker.verify(None, "right")) is False
    assert result(checker.verify(Account(ALICE, ""), "")) is False
    assert result(checker.verify(Account(ALICE, "!"), "!")) is False


def test_unknown_and_locked_cost_a_hash_like_others() -> None:
    worker = HeldWorker()
    checker, _ = passwords(worker)
    for account in (None, Account(ALICE, "!"), Account(ALICE, STORED)):
        Deferred.fromCoroutine(checker.verify(account, "wrong"))
    assert len(worker) == 3


def test_the_dummy_hash_costs_what_a_new_hash_costs() -> None:
    from mailsrv.store import passwords as module

    dummy = argon2.extract_parameters(module._DUMMY.removeprefix("{ARGON2ID}"))
    assert dummy == argon2.extract_parameters(STORED.removeprefix("{ARGON2ID}"))


def test_what_was_right_is_remembered_for_five_minutes() -> None:
    worker = HeldWorker()
    checker, clock = passwords(worker)
    account = Account(ALICE, CHEAP)

    def ask(password: str, account: Account = account) -> bool:
        """Whether the answer came without a hash."""
        asked = Deferred.fromCoroutine(checker.verify(account, password))
        known = asked.called
        worker.run()
        return known

    assert not ask("right")
    assert ask("right")
    clock.advance(REMEMBERED_S - 1)
    assert ask("right")
    assert not ask("wrong")
    assert not ask("wrong")
    clock.advance(1)
    assert not ask("right")
    assert ask("right")
    # A new password ends what was known of the old one.
    assert not ask("right", Account(ALICE, "{ARGON2ID}" + argon2.PasswordHasher(1, 8, 1).hash("new")))


def test_what_is_remembered_is_bounded() -> None:
    checker, clock = passwords(ImmediateWorker())
    for number in range(REMEMBERED_LIMIT + 10):
        checker._remember(str(number).encode(), Match("", ""))
    assert len(checker._right) == REMEMBERED_LIMIT
    clock.advance(REMEMBERED_S)
    checker._remember(b"one more", Match("", ""))
    assert list(checker._right) == [b"one more"]


def test_more_than_a_hundred_waiting_are_turned_away() -> None:
    worker = HeldWorker()
    checker, _ = passwords(worker)
    account = Account(ALICE, CHEAP)
    waiting = [Deferred.fromCoroutine(checker.verify(account, f"wrong {n}")) for n in range(WAITING_LIMIT)]
    with pytest.raises(TooBusy):
        result(checker.verify(account, "right"))
    assert len(worker) == WAITING_LIMIT
    worker.run(1)
    one_more = Deferred.fromCoroutine(checker.verify(account, "right"))
    worker.run()
    assert all(one.called for one in waiting)
    answers: list[Match | None] = []
    one_more.addCallback(answers.append)
    assert answers == [Match("", CHEAP)]


def test_generated_passwords_are_readable_and_differ() -> None:
    one, other = generate_password(os.urandom), generate_password(os.urandom)
    assert one != other
    groups = one.split("-")
    assert [len(group) for group in groups] == [4] * 5
    assert not set("".join(groups)) & set("lo01I")


def test_stop_ends_the_threads() -> None:
    worker = HeldWorker()
    passwords(worker)[0].stop()
    assert worker.stopped


def test_a_hash_is_never_shown() -> None:
    assert "argon2" not in repr(Account(ALICE, STORED))
