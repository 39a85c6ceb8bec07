"""Logging in, whatever the protocol."""

from __future__ import annotations

import os
from collections.abc import Coroutine
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, succeed

from mailsrv import config
from mailsrv.checks.login import Denied, Granted, Login
from mailsrv.mail.address import Address
from mailsrv.sasl.scram import WRONG_PASSWORD, ServerFirst
from mailsrv.store.accounts import scram_keys
from mailsrv.store.accounts.accounts import Account, Directory
from mailsrv.store.accounts.app_passwords import AppPassword
from mailsrv.store.accounts.passwords import THREADS, WAITING_LIMIT, Match
from mailsrv.store.ledger import Event
from mailsrv.store.settings import Settings
from tests.store.test_app_passwords import cheap
from tests.store.test_passwords import passwords
from tests.worlds.worker import HeldWorker, ImmediateWorker

CLIENT = "192.0.2.1"
STORED = cheap("right")
FIELD = cast(str, scram_keys.make("right", STORED, os.urandom))
KEYS = scram_keys.read(FIELD, STORED)


def account(name: str, stored: str = STORED, **more: Any) -> Account:
    return Account(Address(name, "example.org"), stored, **more)


ALICE = account("alice", scram=KEYS)
BOB = account("bob", apps=(AppPassword("phone", cheap("app")), AppPassword("printer", cheap("ink"), ("smtp",))))
CAROL = account("carol", "!", scram=KEYS)
DAVE = account("dave", scram=KEYS, apps=BOB.apps)


class World:
    """One connection's logins, all that they told and all that they waited."""

    def __init__(self, service: str = "smtp", worker: Any = None) -> None:
        self.config = config.parse('hostname = "mx.example.org"\ndomains = ["example.org"]\n', "/c/mailsrv.toml")
        self.serve(ALICE, BOB, CAROL, DAVE)
        self.delay = 0.0
        self.patient = True
        self.told: list[tuple[str, str]] = []
        self.ledger: list[Event] = []
        self.used: list[tuple[str, str, str, str]] = []
        self.passwords, _ = passwords(ImmediateWorker() if worker is None else worker)
        self.passwords.on_used = lambda account, match, client, service: self.used.append(
            (account.key, match.name, client, service)
        )
        settings = cast(Settings, self)
        self.login = Login(settings, self.passwords, self, self.ledger.append, self.wait, service, CLIENT)

    def serve(self, *accounts: Account) -> None:
        self.directory = Directory(("example.org",), accounts, {})

    def wait(self, seconds: float) -> Deferred[bool]:
        self.told.append(("waited", f"{seconds:g}"))
        return succeed(self.patient)

    def delay_s(self, peer_ip: str, account: str, /) -> float:
        assert peer_ip == CLIENT
        return self.delay

    def failed(self, peer_ip: str, account: str, /) -> None:
        self.told.append(("failed", account))

    def succeeded(self, peer_ip: str, account: str, /) -> None:
        self.told.append(("succeeded", account))

    def password(self, username: str, password: str) -> Granted | Denied:
        return cast(Granted | Denied, result(self.login.with_password("PLAIN", username, password)))

    def first(self, username: str) -> ServerFirst | Denied:
        return cast(ServerFirst | Denied, result(self.login.server_first(username)))

    def proof(self, username: str, fault: str = "") -> Granted | Denied:
        return self.login.with_proof("SCRAM-SHA-256", username, fault)

    @property
    def reasons(self) -> list[str]:
        return [event.reason for event in self.ledger]


def result(coroutine: Coroutine[Any, Any, Any]) -> Any:
    found: list[Any] = []
    Deferred.fromCoroutine(coroutine).addBoth(found.append)
    return found[0]


@pytest.fixture
def world() -> World:
    return World()


def test_a_right_password(world: World) -> None:
    assert world.password("Alice@EXAMPLE.org", "right") == Granted(ALICE, Match("", STORED))
    assert world.told == [("succeeded", "alice@example.org")]
    assert world.used == [("alice@example.org", "", CLIENT, "smtp")]
    assert world.ledger == []


def test_an_app_password_for_its_services() -> None:
    world = World("pop3")
    assert world.password("bob@example.org", "app") == Granted(BOB, Match("phone", BOB.apps[0].hash))
    assert world.used == [("bob@example.org", "phone", CLIENT, "pop3")]
    assert world.password("bob@example.org", "ink") is Denied.WRONG
    assert isinstance(World("smtp").password("bob@example.org", "ink"), Granted)


@pytest.mark.parametrize(
    ("username", "name", "reason"),
    [
        ("alice@example.org", "alice@example.org", "wrong password"),
        ("nobody@example.org", "nobody@example.org", "there is no such account"),
        ("alice+tag@example.org", "alice+tag@example.org", "there is no such account"),
        ("ALICE", "alice", "there is no such account"),
        ("x" * 300, "x" * 254, "there is no such account"),
        ("carol@example.org", "carol@example.org", "the account is locked"),
    ],
)
def test_what_the_ledger_is_told_of_a_failed_login(world: World, username: str, name: str, reason: str) -> None:
    assert world.password(username, "wrong") is Denied.WRONG
    assert world.told == [("failed", name)]
    event = Event(
        "login",
        address=name,
        client=CLIENT,
        status="5.7.8",
        reason=reason,
        rule="accounts",
        detail="SMTP AUTH PLAIN",
    )
    assert world.ledger == [event]
    assert world.used == []


def test_the_delay_comes_before_anything_is_looked_at(world: World) -> None:
    world.delay = 2.5
    assert isinstance(world.password("alice@example.org", "right"), Granted)
    assert world.told == [("waited", "2.5"), ("succeeded", "alice@example.org")]
    world.patient = False
    world.told.clear()
    assert world.password("alice@example.org", "right") is Denied.BUSY
    assert world.first("alice@example.org") is Denied.BUSY
    assert world.told == [("waited", "2.5")] * 2


def test_too_many_at_once_are_put_off() -> None:
    worker = HeldWorker()
    world = World(worker=worker)
    for n in range(THREADS + WAITING_LIMIT):
        Deferred.fromCoroutine(world.login.with_password("PLAIN", "alice@example.org", str(n)))
    assert world.password("alice@example.org", "right") is Denied.BUSY
    assert world.told == []
    worker.run()


def test_scram(world: World) -> None:
    first = world.first("ALICE@example.org")
    assert isinstance(first, ServerFirst)
    assert first.keys == KEYS
    assert world.proof("ALICE@example.org") == Granted(ALICE, Match("", STORED))
    assert world.told == [("succeeded", "alice@example.org")]
    assert world.used == [("alice@example.org", "", CLIENT, "smtp")]


def test_scram_for_who_has_no_keys_looks_the_same(world: World) -> None:
    salts = set()
    for name in (
        "nobody@example.org",
        "NOBODY@Example.org",
        "bob@example.org",
        "carol@example.org",
        "nobody",
        "NOBODY",
    ):
        first = world.first(name)
        assert isinstance(first, ServerFirst)
        assert first.keys != KEYS
        salts.add(first.keys.salt)
        assert world.proof(name, WRONG_PASSWORD) is Denied.WRONG
    assert len(salts) == 4  # the case of an address makes no other user
    assert [told for told, _ in world.told] == ["failed"] * 6
    assert world.reasons[0] == "there is no such account"
    assert world.reasons[2].startswith("the account has no SCRAM keys yet; a login by PLAIN makes them")
    assert world.reasons[3] == "the account is locked"
    assert world.used == []


def test_scram_is_for_the_main_password(world: World) -> None:
    world.first("dave@example.org")
    assert world.proof("dave@example.org", WRONG_PASSWORD) is Denied.WRONG
    assert world.reasons == ["wrong password, or an app password: these are not for SCRAM"]


def test_another_fault_is_told_as_it_is(world: World) -> None:
    assert world.proof("alice@example.org", "the channel binding does not match") is Denied.WRONG
    assert world.reasons == ["the channel binding does not match"]
    assert world.ledger[0].detail == "SMTP AUTH SCRAM-SHA-256"


@pytest.mark.parametrize(
    "now", [account("alice", "!", scram=KEYS), account("alice", cheap("new")), account("bob"), account("alice")]
)
def test_a_proof_of_a_password_that_was_changed_meanwhile_opens_nothing(world: World, now: Account) -> None:
    world.first("alice@example.org")
    world.serve(now)
    assert world.proof("alice@example.org") is Denied.WRONG


def test_a_proof_without_keys_opens_nothing(world: World) -> None:
    assert world.proof("alice@example.org") is Denied.WRONG
    assert world.proof("bob@example.org") is Denied.WRONG
    # Nor does one with the keys of an earlier exchange.
    world.first("alice@example.org")
    assert isinstance(world.proof("alice@example.org"), Granted)
    assert world.proof("alice@example.org") is Denied.WRONG


def test_it_holds_as_long_as_the_password(world: World) -> None:
    granted = world.password("dave@example.org", "app")
    assert isinstance(granted, Granted)
    assert world.login.holds(granted)
    world.serve(account("dave", cheap("new"), apps=BOB.apps))
    assert world.login.holds(granted)
    world.serve(account("dave", apps=BOB.apps[1:]))
    assert not world.login.holds(granted)
    world.serve()
    assert not world.login.holds(granted)
