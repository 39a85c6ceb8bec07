"""SCRAM from the server's side, against the vectors of RFC 7677 and a client of our own."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailsrv.sasl.exchange import Challenge, NeedKeys, Proof, Refused
from mailsrv.sasl.scram import (
    ITERATIONS,
    SALT_OCTETS,
    WRONG_PASSWORD,
    Scram,
    ServerFirst,
    StoredKeys,
    derive_keys,
    from_text,
    saslprep,
    stand_in,
    to_text,
)
from tests.worlds.scram import final_message

EXPORTER = bytes(range(32))
NONCE = "3rfcNHYJY1ZVvWVs7j"
KEYS = derive_keys("pencil", b"0123456789abcdef", 4096)
FIRST = ServerFirst(KEYS, NONCE)


def scram(initial: bytes | None, *, plus: bool = False, exporter: bytes | None = None) -> Scram:
    return Scram(initial, plus=plus, exporter=exporter)


def client_final(
    password: str, header: str, first_bare: str, challenge: Challenge, exporter: bytes = b"", extra: str = ""
) -> bytes:
    return final_message(password, header, first_bare, challenge.data.decode(), exporter, extra)


def refused(answer: object) -> bool:
    """The exchange is over, and nobody is logged in."""
    return isinstance(answer, Refused) or (isinstance(answer, Proof) and bool(answer.fault))


def log_in(
    header: str = "n,,",
    bare: str = "n=alice,r=abc",
    password: str = "pencil",
    *,
    plus: bool = False,
    exporter: bytes | None = None,
    bound: bytes = b"",
    keys: StoredKeys = KEYS,
) -> object:
    """The end of a whole exchange."""
    exchange = scram((header + bare).encode(), plus=plus, exporter=exporter)
    answer = exchange.step()
    if not isinstance(answer, NeedKeys):
        return answer
    answer = exchange.step(client_final(password, header, bare, exchange.keys(ServerFirst(keys, NONCE)), bound))
    return exchange.step(b"") if isinstance(answer, Challenge) else answer


def test_vectors_of_rfc_7677() -> None:
    keys = derive_keys("pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)
    exchange = scram(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
    assert exchange.step() == NeedKeys("user")
    assert exchange.keys(ServerFirst(keys, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")) == Challenge(
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    assert exchange.step(
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    ) == Challenge(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
    assert exchange.step(b"") == Proof("user")


def test_without_initial_response() -> None:
    exchange = scram(None)
    assert exchange.step() == Challenge(b"")
    assert exchange.step(b"n,,n=alice,r=abc") == NeedKeys("alice")


def test_right_and_wrong_passwords() -> None:
    assert log_in() == Proof("alice")
    assert log_in(password="pencil2") == Proof("alice", WRONG_PASSWORD)
    assert log_in(keys=stand_in(b"s", "alice")) == Proof("alice", WRONG_PASSWORD)


def test_names() -> None:
    assert log_in(bare="n=a=2Cb=3Dc,r=abc") == Proof("a,b=c")
    assert log_in(bare="n=jörg@example.org,r=abc") == Proof("jörg@example.org")
    assert log_in(header="n,a=alice,") == Proof("alice")
    assert refused(log_in(header="n,a=bob,"))


def test_channel_binding() -> None:
    assert log_in("p=tls-exporter,,", plus=True, exporter=EXPORTER, bound=EXPORTER) == Proof("alice")
    # Another channel: somebody sits in the middle.
    other = log_in("p=tls-exporter,,", plus=True, exporter=EXPORTER, bound=b"x" * 32)
    assert other == Proof("alice", "the channel binding does not match: somebody may sit in between")
    assert refused(log_in("p=tls-exporter,,", plus=True, exporter=EXPORTER))
    assert refused(log_in("p=tls-unique,,", plus=True, exporter=EXPORTER, bound=EXPORTER))
    assert refused(log_in("n,,", plus=True, exporter=EXPORTER))
    assert refused(log_in("p=tls-exporter,,", exporter=EXPORTER, bound=EXPORTER))


def test_downgrades_are_seen() -> None:
    fault = "the client was kept from seeing that channel binding is offered"
    assert log_in("y,,", exporter=EXPORTER) == Proof("alice", fault)
    assert log_in("n,,", exporter=EXPORTER) == Proof("alice")
    assert log_in("y,,") == Proof("alice")


def test_a_flag_that_was_changed_on_the_way_is_seen() -> None:
    exchange = scram(b"n,,n=alice,r=abc")
    exchange.step()
    # The client said y, somebody made it n: what it signs is what it said.
    assert refused(exchange.step(client_final("pencil", "y,,", "n=alice,r=abc", exchange.keys(FIRST))))


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"n=alice,r=abc",
        b"n,n=alice,r=abc",
        b"x,,n=alice,r=abc",
        b"n,,n=,r=abc",
        b"n,,n=alice,r=",
        b"n,,n=alice",
        b"n,,r=abc,n=alice",
        b"n,,m=x,n=alice,r=abc",
        b"n,,n=alice,r=abc,m=x",
        b"n,,n=al=ice,r=abc",
        b"n,,n=alice=2c,r=abc",
        b"n,,n=alice=,r=abc",
        b"n,,n=al\x00ice,r=abc",
        b"n,,n=al\nice,r=abc",
        b"n,,n=\xc2\xad,r=abc",  # nothing is left of a soft hyphen
        b"n,,n=alice,r=a c",
        b"n,,n=alice,r=abc\n",
        b"n,,n=alice,r=" + b"a" * 129,
        b"n,,n=" + b"a" * 256 + b",r=abc",
        b"n,,n=\xff,r=abc",
    ],
)
def test_first_messages_that_are_refused(first: bytes) -> None:
    assert refused(scram(first).step())


def final(**changes: str) -> object:
    exchange = scram(b"n,,n=alice,r=abc")
    exchange.step()
    good = client_final("pencil", "n,,", "n=alice,r=abc", exchange.keys(FIRST)).decode()
    for old, new in changes.items():
        good = good.replace(f"{old}=", new, 1)
    return exchange.step(good.encode())


def test_final_messages_that_are_refused() -> None:
    assert isinstance(final(), Challenge)
    for changes in [{"c": "c=e"}, {"r": "r=x"}, {"p": "p=A"}, {"p": "p==="}, {"p": "q="}, {"c": "b="}, {"p": "m=x,p="}]:
        assert refused(final(**changes))
    exchange = scram(b"n,,n=alice,r=abc")
    exchange.step()
    exchange.keys(FIRST)
    assert refused(exchange.step(None))


def test_optional_extensions_are_passed_over() -> None:
    bare = "n=alice,r=abc,x=y"
    exchange = scram(f"n,,{bare}".encode())
    assert exchange.step() == NeedKeys("alice")
    assert isinstance(exchange.step(client_final("pencil", "n,,", bare, exchange.keys(FIRST), extra=",z=1")), Challenge)


def test_nothing_may_follow_the_end() -> None:
    exchange = scram(b"n,,n=alice,r=abc")
    exchange.step()
    assert isinstance(exchange.step(client_final("pencil", "n,,", "n=alice,r=abc", exchange.keys(FIRST))), Challenge)
    assert refused(exchange.step(b"more"))
    with pytest.raises(RuntimeError):
        exchange.step(b"")


def test_unknown_users_look_like_others() -> None:
    def challenge(keys: StoredKeys) -> bytes:
        exchange = scram(b"n,,n=x,r=abc")
        exchange.step()
        return exchange.keys(ServerFirst(keys, NONCE)).data

    assert stand_in(b"1", "x") == stand_in(b"1", "x")
    assert len({stand_in(b"1", "x").salt, stand_in(b"1", "y").salt, stand_in(b"2", "x").salt}) == 3
    real = derive_keys("pencil", b"x" * SALT_OCTETS)
    assert len(challenge(stand_in(b"1", "x"))) == len(challenge(real))
    assert stand_in(b"1", "x").iterations == real.iterations == ITERATIONS


def test_iterations_that_every_client_takes() -> None:
    assert 4096 <= ITERATIONS < 0x10000  # RFC 7677 4; Cyrus SASL refuses more


def test_misuse() -> None:
    for nonce in ("short", "with,comma,xxxxxxxxxxxxxxx"):
        exchange = scram(b"n,,n=alice,r=abc")
        exchange.step()
        with pytest.raises(ValueError):
            exchange.keys(ServerFirst(KEYS, nonce))
    with pytest.raises(ValueError):
        scram(None, plus=True)
    with pytest.raises(RuntimeError):
        scram(None).keys(FIRST)


def test_keys_as_text() -> None:
    text = to_text(KEYS)
    assert text.startswith("4096,MDEyMzQ1Njc4OWFiY2RlZg==,")
    assert not set(text) & set(" :\t")
    assert from_text(text) == KEYS


def test_keys_that_dovecot_made() -> None:
    # doveadm pw -s SCRAM-SHA-256 -p pencil
    keys = from_text(
        "4096,2OGjRo3RRxvgynksQFxNfA==,X5G7IGXEsbzFzXvxFDTCjs9STRh7yvEeSwnP8ogZbC8=,"
        "t869GMuj5Yy0O5r5CCSrzcGNKzlnXTSi/3ZCU+IcADI="
    )
    assert keys == derive_keys("pencil", keys.salt, 4096)


@pytest.mark.parametrize(
    "text",
    ["", "4096", "4096,,,", "4095,{0}", "99999999,{0}", "4096,{0},x", "4096,{0}\n", "x,{0}", "-1,{0}", "4096,!{0}"],
)
def test_keys_that_are_not_well_formed(text: str) -> None:
    with pytest.raises(ValueError):
        from_text(text.format(to_text(KEYS).partition(",")[2]))


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        # RFC 4013 3
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
    ],
)
def test_saslprep(text: str, prepared: str) -> None:
    assert saslprep(text) == prepared


@pytest.mark.parametrize("text", ["\u0007", "\u06271", "a\x7f", "\ue000", "\u0221", "\ud800"])
def test_saslprep_prohibits(text: str) -> None:
    with pytest.raises(ValueError):
        saslprep(text)


def test_keys_do_not_show() -> None:
    assert "stored_key" not in repr(KEYS)
    assert KEYS.stored_key != KEYS.server_key


@given(st.lists(st.binary(max_size=40) | st.text("ncrp=,aby", max_size=20).map(str.encode), min_size=1, max_size=3))
@settings(deadline=None)
def test_strangers_do_not_get_in(responses: list[bytes]) -> None:
    exchange = scram(None)
    exchange.step()
    for response in responses:
        answer = exchange.step(response)
        if isinstance(answer, NeedKeys):
            answer = exchange.keys(FIRST)
        assert answer != Proof("alice")
        if isinstance(answer, Refused | Proof):
            assert refused(answer)
            break
