"""Strict base64: one text for one value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.sasl import base64


@given(st.binary(max_size=200))
def test_round_trip(data: bytes) -> None:
    assert base64.decode(base64.encode(data)) == data


def test_no_line_ends_however_long() -> None:
    assert b"\n" not in base64.encode(b"x" * 10_000)


@pytest.mark.parametrize(
    "text",
    [
        b"=",
        b"YQ",  # no padding
        b"YQ=",
        b"YQ===",
        b"YQ==YQ==",
        b"YR==",  # bits behind the last octet
        b"YWJ=",
        b" YQ==",
        b"YQ==\r\n",
        b"Y Q==",
        b"YQ=\n=",
        b"Y*==",
        b"____",  # the alphabet for URLs
        b"----",
        b"*",
        "ＹＱ==".encode(),
        b"A",
        b"AAAAA",
    ],
)
def test_refuses_what_encode_would_not_write(text: bytes) -> None:
    with pytest.raises(ValueError):
        base64.decode(text)


@given(st.binary(max_size=24))
def test_what_is_accepted_is_canonical(text: bytes) -> None:
    try:
        data = base64.decode(text)
    except ValueError:
        return
    assert base64.encode(data) == text


def test_initial_response() -> None:
    assert base64.decode_initial(b"=") == b""
    assert base64.decode_initial(b"YQ==") == b"a"
    for text in [b"", b"==", b"YQ", b"*"]:
        with pytest.raises(ValueError):
            base64.decode_initial(text)
