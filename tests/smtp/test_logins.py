"""SCRAM and app passwords on the submission ports, over real TLS on simulated sockets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from OpenSSL import SSL
from twisted.internet.ssl import CertificateOptions, TLSVersion

from mailsrv import tls
from mailsrv.store.accounts import scram_keys
from mailsrv.store.accounts.accounts import parse_directory
from tests.smtp.world import CLIENT, PASSWORD, Client, World, plain, stored
from tests.worlds.scram import ScramClient

ALICE = "alice@example.org"
APP = "k7mq-app"
FAILED = "535 5.7.8 Authentication failed\r\n"
KEYS = cast(str, scram_keys.make(PASSWORD, stored(PASSWORD), bytes))


def serve(world: World, lines: str) -> None:
    world.settings.directory = parse_directory(world.settings.config, lines, "")


@pytest.fixture
def world() -> Iterator[World]:
    world = World("limits.penalties = false")
    serve(
        world,
        f"{ALICE}:{stored(PASSWORD)}::::::scram-sha-256={KEYS} app-phone={stored(APP)} app-pop=pop3:{stored('pop')}\n"
        f"bob@example.org:{stored(PASSWORD)}\n"
        f"carol@example.org:!::::::scram-sha-256={KEYS}\n",
    )
    yield world
    world.end()


def secured(world: World, version: TLSVersion = TLSVersion.TLSv1_3) -> Client:
    """A client of the submission port under that version of TLS, before its EHLO."""
    client = world.greeted(587)
    assert client.say("STARTTLS").startswith("220 ")
    client.wire.startTLS(CertificateOptions(lowerMaximumSecurityTo=version, insecurelyLowerMinimumTo=version))
    world.run()
    return client


def exporter(client: Client) -> bytes:
    connection: SSL.Connection = client.wire.getHandle()
    return connection.export_keying_material(b"EXPORTER-Channel-Binding", 32)


def scram(client: Client, login: ScramClient, mechanism: str = "SCRAM-SHA-256") -> str:
    """A whole exchange; the last answer."""
    answer = client.say(f"AUTH {mechanism} {login.first()}")
    if not answer.startswith("334 "):
        return answer
    answer = client.say(login.final(answer[4:].strip()))
    return client.say("") if answer.startswith("334 ") else answer


def mechanisms(client: Client) -> str:
    answer = client.say("EHLO client.example.net")
    return next(line[8:].strip() for line in answer.split("\r\n") if line[4:].startswith("AUTH"))


def test_what_is_offered(world: World) -> None:
    assert mechanisms(secured(world)) == "SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN"
    assert mechanisms(secured(world, TLSVersion.TLSv1_2)) == "SCRAM-SHA-256 PLAIN LOGIN"
    assert mechanisms(world.connect(465, tls=True)) == "SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN"
    assert "AUTH" not in world.greeted(25).start_tls().say("EHLO client.example.net")


def test_scram(world: World) -> None:
    client = secured(world)
    client.say("EHLO client.example.net")
    assert scram(client, ScramClient(ALICE, PASSWORD)) == "235 2.7.0 Authentication succeeded\r\n"
    assert client.transaction("bob@example.org", sender=ALICE, content=f"From: {ALICE}\r\n\r\nx\r\n")[-1] == 250


def test_scram_bound_to_the_channel(world: World) -> None:
    for client in (secured(world), world.connect(465, tls=True)):
        client.say("EHLO client.example.net")
        answer = scram(client, ScramClient(ALICE, PASSWORD, exporter(client)), "SCRAM-SHA-256-PLUS")
        assert answer == "235 2.7.0 Authentication succeeded\r\n"


def test_somebody_in_between_is_seen(world: World) -> None:
    client, other = secured(world), secured(world)
    client.say("EHLO client.example.net")
    assert scram(client, ScramClient(ALICE, PASSWORD, exporter(other)), "SCRAM-SHA-256-PLUS") == FAILED
    # Who hides the PLUS variant from a client that knows it is betrayed by that client's flag.
    assert scram(client, ScramClient(ALICE, PASSWORD, flag="y")) == FAILED
    assert scram(client, ScramClient(ALICE, PASSWORD, flag="n")).startswith("235 ")
    assert world.ledger("login", "address, reason, detail") == [
        (ALICE, "the channel binding does not match: somebody may sit in between", "SMTP AUTH SCRAM-SHA-256-PLUS"),
        (ALICE, "the client was kept from seeing that channel binding is offered", "SMTP AUTH SCRAM-SHA-256"),
    ]


def test_no_channel_binding_before_tls_1_3(world: World) -> None:
    client = secured(world, TLSVersion.TLSv1_2)
    client.say("EHLO client.example.net")
    bound = ScramClient(ALICE, PASSWORD, exporter(client))
    assert scram(client, bound, "SCRAM-SHA-256-PLUS").startswith("504 ")
    assert scram(client, ScramClient(ALICE, PASSWORD, flag="y")).startswith("235 ")


def test_what_was_bound_to_is_forgotten_with_everything_before_tls(world: World) -> None:
    client = secured(world)
    connection = next(iter(world.factories["submission"].connections))
    assert connection._core.exporter == exporter(client)
    assert world.connect(25).say("EHLO client.example.net")
    assert all(each._core.exporter is None for each in world.factories["smtp"].connections)


def test_the_exporter_is_of_tls_1_3_only(world: World) -> None:
    handle: Any = secured(world).wire.getHandle()
    assert len(tls.exporter(handle) or b"") == 32
    handle = secured(world, TLSVersion.TLSv1_2).wire.getHandle()
    assert tls.exporter(handle) is None


def test_who_does_not_exist_looks_like_who_does(world: World) -> None:
    names = (ALICE, "nobody@example.org", "bob@example.org", "carol@example.org", "no address")
    seen = set()
    for name in names:
        salts = set()
        for _ in range(2):
            client = secured(world)
            client.say("EHLO client.example.net")
            login = ScramClient(name, "wrong")
            answer = client.say(f"AUTH SCRAM-SHA-256 {login.first()}")
            said = login.salt(answer[4:].strip())
            salts.add(said)
            seen.add((answer[:4], len(answer) - len(name), said.partition(",i=")[2], len(said)))
            assert client.say(login.final(answer[4:].strip())) == FAILED
        assert len(salts) == 1
    assert len({(code, iterations, length) for code, _, iterations, length in seen}) == 1
    assert [row[1] for row in world.ledger("login", "address, reason")[::2]] == [
        "wrong password, or an app password: these are not for SCRAM",
        "there is no such account",
        "the account has no SCRAM keys yet; a login by PLAIN makes them, as does `mailsrv account passwd`",
        "the account is locked",
        "there is no such account",
    ]


def test_failed_proofs_are_punished_like_failed_passwords(world: World) -> None:
    world.settings.configure("")
    client = secured(world)
    client.say("EHLO client.example.net")
    for _ in range(3):
        assert scram(client, ScramClient(ALICE, "wrong")) == FAILED
    login = ScramClient(ALICE, PASSWORD)
    assert client.say(f"AUTH SCRAM-SHA-256 {login.first()}") == ""
    world.run(0.5)
    answer = client.received.decode().splitlines()[-1]
    assert answer.startswith("334 ")
    client.say(login.final(answer[4:]))
    assert client.codes("") == [235]
    assert len(world.ledger("login")) == 3


def test_a_client_that_gives_up_in_between(world: World) -> None:
    client = secured(world)
    client.say("EHLO client.example.net")
    login = ScramClient(ALICE, PASSWORD)
    answer = client.say(f"AUTH SCRAM-SHA-256 {login.first()}")
    assert client.say(login.final(answer[4:].strip())).startswith("334 ")
    assert client.codes("*") == [501]
    assert client.codes(f"MAIL FROM:<{ALICE}>") == [530]
    assert world.ledger("login") == []


def test_app_passwords(world: World) -> None:
    client = secured(world)
    client.say("EHLO client.example.net")
    assert client.codes(plain(ALICE, "pop")) == [535]
    assert scram(client, ScramClient(ALICE, APP)) == FAILED
    assert client.codes(plain(ALICE, APP)) == [235]
    assert client.codes(f"MAIL FROM:<{ALICE}>", "RSET") == [250, 250]
    # A new main password, or another program's, leaves this one logged in.
    serve(world, f"{ALICE}:{stored('new')}::::::app-phone={stored(APP)}\nbob@example.org:!\n")
    assert client.codes(f"MAIL FROM:<{ALICE}>", "RSET") == [250, 250]
    serve(world, f"{ALICE}:{stored(PASSWORD)}\nbob@example.org:!\n")
    assert client.codes(f"MAIL FROM:<{ALICE}>") == [421]


def test_keys_that_were_added_meanwhile_throw_nobody_out(world: World) -> None:
    client = secured(world)
    client.say("EHLO client.example.net")
    assert client.codes(plain("bob@example.org")) == [235]
    serve(world, f"bob@example.org:{stored(PASSWORD)}::::::scram-sha-256={KEYS}\n")
    assert client.codes("MAIL FROM:<bob@example.org>") == [250]


def test_the_use_of_a_password_is_told(world: World) -> None:
    used: list[tuple[str, str, str, str]] = []
    world.house.passwords.on_used = lambda account, match, client, service: used.append(
        (account.key, match.name, client, service)
    )
    for login in (plain(ALICE), plain(ALICE, APP)):
        client = secured(world)
        client.say("EHLO client.example.net")
        assert client.codes(login) == [235]
    client = secured(world)
    client.say("EHLO client.example.net")
    scram(client, ScramClient(ALICE, PASSWORD))
    assert used == [(ALICE, "", CLIENT, "smtp"), (ALICE, "phone", CLIENT, "smtp"), (ALICE, "", CLIENT, "smtp")]
