"""SCRAM from the server's side, against the vectors of RFC 7677 and a client of our own."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailsrv.sasl.mechanisms import Challenge, Refused
from mailsrv.sasl.scram import Authenticated, NeedKeys, Scram, StoredKeys, derive_keys, saslprep

EXPORTER = bytes(range(32))
NONCE = "3rfcNHYJY1ZVvWVs7j"
KEYS = derive_keys("pencil", b"0123456789abcdef", 4096)


def scram(
    initial: bytes | None,
    *,
    plus: bool = False,
    exporter: bytes | None = None,
    nonce: str = NONCE,
    secret: bytes = b"s",
) -> Scram:
    return Scram(initial, plus=plus, nonce=nonce, exporter=exporter, secret=secret)


def client_final(
    password: str, header: str, first_bare: str, challenge: Challenge, exporter: bytes = b"", extra: str = ""
) -> bytes:
    server_first = challenge.data.decode()
    values = dict(item.split("=", 1) for item in server_first.split(","))
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(values["s"]), int(values["i"]))
    key = hmac.digest(salted, b"Client Key", "sha256")
    without = f"c={base64.b64encode(header.encode() + exporter).decode()},r={values['r']}{extra}"
    said = f"{first_bare},{server_first},{without}".encode()
    signature = hmac.digest(hashlib.sha256(key).digest(), said, "sha256")
    proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
    return f"{without},p={base64.b64encode(proof).decode()}".encode()


def log_in(
    header: str = "n,,",
    bare: str = "n=alice,r=abc",
    password: str = "pencil",
    *,
    plus: bool = False,
    exporter: bytes | None = None,
    bound: bytes = b"",
    keys: StoredKeys | None = KEYS,
) -> object:
    """The end of a whole exchange."""
    exchange = scram((header + bare).encode(), plus=plus, exporter=exporter)
    answer = exchange.step()
    if not isinstance(answer, NeedKeys):
        return answer
    answer = exchange.step(client_final(password, header, bare, exchange.keys(keys), bound))
    return exchange.step(b"") if isinstance(answer, Challenge) else answer


def test_vectors_of_rfc_7677() -> None:
    keys = derive_keys("pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)
    exchange = scram(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", nonce="%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    assert exchange.step() == NeedKeys("user")
    assert exchange.keys(keys) == Challenge(
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    assert exchange.step(
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    ) == Challenge(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
    assert exchange.step(b"") == Authenticated("user")


def test_without_initial_response() -> None:
    exchange = scram(None)
    assert exchange.step() == Challenge(b"")
    assert exchange.step(b"n,,n=alice,r=abc") == NeedKeys("alice")


def test_right_and_wrong_passwords() -> None:
    assert log_in() == Authenticated("alice")
    assert isinstance(log_in(password="pencil2"), Refused)
    assert isinstance(log_in(keys=None), Refused)


def test_names() -> None:
    assert log_in(bare="n=a=2Cb=3Dc,r=abc") == Authenticated("a,b=c")
    assert log_in(bare="n=jörg@example.org,r=abc") == Authenticated("jörg@example.org")
    assert log_in(header="n,a=alice,") == Authenticated("alice")
    assert isinstance(log_in(header="n,a=bob,"), Refused)


def test_channel_binding() -> None:
    assert log_in("p=tls-exporter,,", plus=True, exporter=EXPORTER, bound=EXPORTER) == Authenticated("alice")
    # Another channel: somebody sits in the middle.
    assert isinstance(log_in("p=tls-exporter,,", plus=True, exporter=EXPORTER, bound=b"x" * 32), Refused)
    assert isinstance(log_in("p=tls-exporter,,", plus=True, exporter=EXPORTER), Refused)
    assert isinstance(log_in("p=tls-unique,,", plus=True, exporter=EXPORTER, bound=EXPORTER), Refused)
    assert isinstance(log_in("n,,", plus=True, exporter=EXPORTER), Refused)
    assert isinstance(log_in("p=tls-exporter,,", exporter=EXPORTER, bound=EXPORTER), Refused)


def test_downgrades_are_seen() -> None:
    assert isinstance(log_in("y,,", exporter=EXPORTER), Refused)
    assert log_in("n,,", exporter=EXPORTER) == Authenticated("alice")
    assert log_in("y,,") == Authenticated("alice")


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
    assert isinstance(scram(first).step(), Refused)


def final(**changes: str) -> object:
    exchange = scram(b"n,,n=alice,r=abc")
    exchange.step()
    good = client_final("pencil", "n,,", "n=alice,r=abc", exchange.keys(KEYS)).decode()
    for old, new in changes.items():
        good = good.replace(f"{old}=", new, 1)
    return exchange.step(good.encode())


def test_final_messages_that_are_refused() -> None:
    assert isinstance(final(), Challenge)
    for changes in [{"c": "c=e"}, {"r": "r=x"}, {"p": "p=A"}, {"p": "p==="}, {"p": "q="}, {"c": "b="}, {"p": "m=x,p="}]:
        assert isinstance(final(**changes), Refused)
    exchange = scram(b"n,,n=alice,r=abc")
    exchange.step()
    exchange.keys(KEYS)
    assert isinstance(exchange.step(None), Refused)


def test_optional_extensions_are_passed_over() -> None:
    bare = "n=alice,r=abc,x=y"
    exchange = scram(f"n,,{bare}".encode())
    assert exchange.step() == NeedKeys("alice")
    assert isinstance(exchange.step(client_final("pencil", "n,,", bare, exchange.keys(KEYS), extra=",z=1")), Challenge)


def test_nothing_may_follow_the_end() -> None:
    exchange = scram(b"n,,n=alice,r=abc")
    exchange.step()
    assert isinstance(exchange.step(client_final("pencil", "n,,", "n=alice,r=abc", exchange.keys(KEYS))), Challenge)
    assert isinstance(exchange.step(b"more"), Refused)
    with pytest.raises(RuntimeError):
        exchange.step(b"")


def test_unknown_users_look_like_others() -> None:
    def challenge(name: bytes, secret: bytes) -> bytes:
        exchange = scram(b"n,,n=" + name + b",r=abc", secret=secret)
        exchange.step()
        return exchange.keys(None).data

    assert challenge(b"x", b"1") == challenge(b"x", b"1")
    assert challenge(b"x", b"1") != challenge(b"y", b"1")
    assert challenge(b"x", b"1") != challenge(b"x", b"2")
    known = scram(b"n,,n=x,r=abc")
    known.step()
    assert len(challenge(b"x", b"1")) == len(known.keys(KEYS).data)


def test_misuse() -> None:
    with pytest.raises(ValueError):
        scram(None, nonce="short")
    with pytest.raises(ValueError):
        scram(None, nonce="with,comma,xxxxxxxxxxxxxxx")
    with pytest.raises(ValueError):
        scram(None, plus=True)
    with pytest.raises(RuntimeError):
        scram(None).keys(KEYS)


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
            answer = exchange.keys(KEYS)
        assert not isinstance(answer, Authenticated)
        if isinstance(answer, Refused):
            break
