"""PLAIN and LOGIN from the server's side."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.sasl import mechanisms
from mailsrv.sasl.exchange import Challenge, Credentials, NeedKeys, Refused, Step


def plain(response: bytes) -> Step:
    return mechanisms.exchange("PLAIN", response).step()


def test_names() -> None:
    assert mechanisms.NAMES == ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN")
    with pytest.raises(KeyError):
        mechanisms.exchange("CRAM-MD5", None)
    with pytest.raises(KeyError):
        mechanisms.exchange("plain", None)


def test_channel_binding_needs_a_channel_to_bind_to() -> None:
    assert mechanisms.usable(mechanisms.NAMES, bound=True) == mechanisms.NAMES
    assert mechanisms.usable(mechanisms.NAMES, bound=False) == ("SCRAM-SHA-256", "PLAIN", "LOGIN")
    with pytest.raises(ValueError):
        mechanisms.exchange("SCRAM-SHA-256-PLUS", None)


def test_scram_is_told_what_the_channel_is() -> None:
    first = b"p=tls-exporter,,n=alice,r=abc"
    assert mechanisms.exchange("SCRAM-SHA-256-PLUS", first, bytes(32)).step() == NeedKeys("alice")
    assert mechanisms.exchange("SCRAM-SHA-256", b"y,,n=alice,r=abc", None).step() == NeedKeys("alice")
    assert mechanisms.exchange("SCRAM-SHA-256", b"y,,n=alice,r=abc", bytes(32)).step() != NeedKeys("alice")


def test_plain_with_and_without_initial_response() -> None:
    alice = Credentials("alice@example.org", "tim tanstaaftanstaaf")
    response = b"\0alice@example.org\0tim tanstaaftanstaaf"
    assert plain(response) == alice
    exchange = mechanisms.exchange("PLAIN", None)
    assert exchange.step() == Challenge(b"")
    assert exchange.step(response) == alice


def test_plain_authorization_identity_is_empty_or_the_same() -> None:
    assert plain(b"alice\0alice\0secret") == Credentials("alice", "secret")
    for authorized in [b"bob", b"Alice", b"alice ", b"alic"]:
        assert isinstance(plain(authorized + b"\0alice\0secret"), Refused)


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"\0",
        b"\0\0",
        b"alice",
        b"\0alice",
        b"\0alice\0",
        b"\0\0secret",
        b"alice\0\0secret",
        b"\0alice\0secret\0",
        b"\0alice\0sec\0ret",
        b"\0\0alice\0secret",
        b"\0al\nice\0secret",
        b"\0al\tice\0secret",
        b"\0al\x7fice\0secret",
        b"\0al\xc2\x85ice\0secret",
        b"\0al\xe2\x80\xa8ice\0secret",
        b"\0alice\0sec\rret",
        b"\0alice\0sec\nret",
        b"\0alice\0\xff",
        b"\0\xff\0secret",
        b"\0\xed\xa0\x80\0secret",
        b"\0\xc0\xae\0secret",
        b"\0" + b"a" * 256 + b"\0secret",
    ],
)
def test_plain_refuses(response: bytes) -> None:
    assert isinstance(plain(response), Refused)


def test_unicode() -> None:
    assert plain("\0jörg@bücher.example\0пароль".encode()) == Credentials("jörg@bücher.example", "пароль")


def test_passwords_may_hold_any_character_of_a_line() -> None:
    password = "".join(map(chr, range(1, 0x180))).replace("\r", "").replace("\n", "")
    assert plain(f"\0alice\0{password}".encode()) == Credentials("alice", password)


def test_login() -> None:
    exchange = mechanisms.exchange("LOGIN", None)
    assert exchange.step() == Challenge(b"Username:")
    assert exchange.step(b"alice@example.org") == Challenge(b"Password:")
    assert exchange.step(b"secret") == Credentials("alice@example.org", "secret")


def test_login_initial_response_is_the_user_name() -> None:
    exchange = mechanisms.exchange("LOGIN", b"alice@example.org")
    assert exchange.step() == Challenge(b"Password:")
    assert exchange.step(b"secret") == Credentials("alice@example.org", "secret")


@pytest.mark.parametrize(
    ("username", "password"),
    [(b"", b"x"), (b"a", b""), (b"a\0b", b"x"), (b"a", b"x\0y"), (b"\xff", b"x"), (b"a\n", b"x")],
)
def test_login_refuses(username: bytes, password: bytes) -> None:
    exchange = mechanisms.exchange("LOGIN", None)
    exchange.step()
    assert exchange.step(username) == Challenge(b"Password:")
    assert isinstance(exchange.step(password), Refused)


@given(name=st.sampled_from(mechanisms.NAMES), initial=st.none() | st.binary(), responses=st.lists(st.binary()))
def test_any_responses_end_in_an_answer(name: str, initial: bytes | None, responses: list[bytes]) -> None:
    exchange = mechanisms.exchange(name, initial, bytes(32))
    answer = exchange.step()
    for response in responses:
        if not isinstance(answer, Challenge):
            break
        answer = exchange.step(response)
    if isinstance(answer, Credentials | NeedKeys):
        assert not any(ord(character) < 0x20 for character in answer.username)
    if isinstance(answer, Credentials):
        assert answer.password


def test_the_password_does_not_show() -> None:
    assert "secret" not in repr(plain(b"\0alice\0secret"))
