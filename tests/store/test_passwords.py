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
from mailsrv.store.accounts.accounts import Account
from mailsrv.store.accounts.password_schemes import UnknownScheme
from mailsrv.store.accounts.passwords import (
    REMEMBERED_LIMIT,
    REMEMBERED_S,
    THREADS,
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
        assert len(worker) == 1
        worker.run()


def test_nobody_costs_what_somebody_costs_and_is_let_in_by_no_password() -> None:
    """Where one account has a slow old hash, a stranger would else tell by the time who exists."""

    class Told(ImmediateWorker):
        def call(self, function: Any, *args: Any, **kwargs: Any) -> Deferred[Any]:
            asked.append(args[0])
            return super().call(function, *args, **kwargs)

    asked: list[list[str]] = []
    checker, _ = passwords(Told())
    accounts = [Account(Address(name, "example.org"), f"{{PLAIN}}{name}") for name in ("alice", "bob", "carol")]
    for n in range(100):
        like = checker.somebody(accounts, f"nobody{n}")
        assert like is not None
        assert like == checker.somebody(accounts, f"nobody{n}")
        # The right password of the one whose work is done, even when it is remembered.
        assert result(checker.verify(like, like.address.local)) is True
        assert result(checker.verify(None, like.address.local, like=like)) is False
        assert result(checker.verify(Account(ALICE, "!"), like.address.local, like=like)) is False
        assert asked[-1] == [like.hash]
    assert {stored[0] for stored in asked} == {account.hash for account in accounts}
    assert checker.somebody([], "nobody") is None


def test_the_dummy_hash_costs_what_a_new_hash_costs() -> None:
    from mailsrv.store.accounts import passwords as module

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


class Crowd:
    """Checks under way in a world whose threads work when they are told to."""

    def __init__(self) -> None:
        self.worker = HeldWorker()
        self.checker, _ = passwords(self.worker)
        self.outcomes: dict[str, str] = {}

    def ask(self, network: str, password: str = "wrong", name: str = "alice", blame: float = 0.0) -> str:
        """Begin a check; what to look for in ``outcomes``."""
        account = Account(Address(name, "example.org"), CHEAP)
        which = f"{network} {password} {len(self.outcomes)}"
        self.outcomes[which] = "waiting"

        def done(found: object) -> None:
            self.outcomes[which] = "busy" if isinstance(found, Failure) and found.check(TooBusy) else "checked"

        Deferred.fromCoroutine(self.checker.verify(account, password, "smtp", network, blame)).addBoth(done)
        return which

    def at_home(self, name: str, network: str) -> None:
        self.checker.homes.add(Account(Address(name, "example.org"), CHEAP), Match("", CHEAP), network)

    def count(self, outcome: str) -> int:
        return list(self.outcomes.values()).count(outcome)

    def run_until(self, which: str) -> int:
        """How many checks are done before this one is."""
        for n in range(1000):
            if self.outcomes[which] != "waiting":
                assert self.outcomes[which] == "checked"
                return n
            self.worker.run(1)
        raise AssertionError("it never came to its turn")


def test_no_more_is_under_way_than_there_are_threads_and_no_more_waits_than_there_are_places() -> None:
    crowd = Crowd()
    for n in range(500):
        crowd.ask("192.0.2.1", f"wrong {n}")
    assert len(crowd.worker) == THREADS
    assert crowd.count("busy") == 500 - THREADS - WAITING_LIMIT
    crowd.run_until(crowd.ask("192.0.2.2"))
    while len(crowd.worker):
        crowd.worker.run(1)
    assert crowd.count("waiting") == 0


def test_one_network_cannot_use_up_the_places() -> None:
    crowd = Crowd()
    for n in range(500):
        crowd.ask("198.51.100.1", f"wrong {n}")
    assert crowd.run_until(crowd.ask("192.0.2.1", "right")) <= THREADS + 2


def test_networks_that_guess_from_everywhere_give_way_to_one_that_gave_no_cause() -> None:
    crowd = Crowd()
    for n in range(500):
        crowd.ask(f"198.51.{n % 250}.1", blame=2.0)
    right = crowd.ask("192.0.2.1", "right")
    assert crowd.outcomes[right] == "waiting"
    # Its turn comes, though it may be after one check for each of the others.
    assert crowd.run_until(right) <= WAITING_LIMIT + THREADS


def test_an_owner_at_home_waits_for_what_is_under_way_and_for_nobody_else() -> None:
    crowd = Crowd()
    crowd.at_home("alice", "192.0.2.1")
    for n in range(500):
        crowd.ask(f"198.51.{n % 250}.{n // 250}")
        crowd.ask("192.0.2.1", name="bob")  # nobody but alice is at home there
    assert crowd.run_until(crowd.ask("192.0.2.1", "right")) <= THREADS + 2


def test_owners_take_turns_with_strangers_and_with_each_other() -> None:
    """A forgotten client with an old password at home holds up neither strangers nor other owners."""
    crowd = Crowd()
    for name in ("alice", "bob"):
        crowd.at_home(name, "192.0.2.1")
    for n in range(500):
        crowd.ask("192.0.2.1", f"wrong {n}")
    bob = crowd.ask("192.0.2.1", "right", name="bob")
    stranger = crowd.ask("203.0.113.1", "right", name="carol")
    assert crowd.run_until(bob) <= THREADS + 4
    assert crowd.run_until(stranger) <= THREADS + 4


def test_generated_passwords_are_readable_and_differ() -> None:
    one, other = generate_password(os.urandom), generate_password(os.urandom)
    assert one != other
    groups = one.split("-")
    assert [len(group) for group in groups] == [4] * 5
    assert not set("".join(groups)) & set("lo01I")


def test_stop_ends_the_threads() -> None:
    crowd = Crowd()
    for n in range(10):
        crowd.ask(f"192.0.2.{n}")
    crowd.checker.stop()
    assert crowd.worker.stopped
    # What was under way comes to its end, and nothing else is begun.
    crowd.worker.run()
    assert len(crowd.worker) == 0
    assert crowd.count("checked") == THREADS


def test_a_hash_is_never_shown() -> None:
    assert "argon2" not in repr(Account(ALICE, STORED))
