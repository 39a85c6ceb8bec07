"""Reading replies: bounded, lenient where it is harmless, cleaned for the log."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailsrv.smtp.client_events import Extensions, RemoteReply
from mailsrv.smtp.client_replies import LINE_LIMIT, LINES_LIMIT, ReplyError, ReplyReader, clean


def read(*chunks: bytes) -> list[RemoteReply]:
    reader = ReplyReader()
    replies = []
    for chunk in chunks:
        reader.receive(chunk)
        while (reply := reader.next_reply()) is not None:
            replies.append(reply)
    return replies


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        (b"250 ok\r\n", RemoteReply(250, "2.0.0", ("ok",))),
        (b"250\r\n", RemoteReply(250, "2.0.0", ("",))),
        (b"250 ok\n", RemoteReply(250, "2.0.0", ("ok",))),
        (b"250-one\r\n250 two\r\n", RemoteReply(250, "2.0.0", ("one", "two"))),
        (b"550 5.1.1 no such user\r\n", RemoteReply(550, "5.1.1", ("5.1.1 no such user",))),
        (b"550-5.7.26 a\r\n550 5.7.26 b\r\n", RemoteReply(550, "5.7.26", ("5.7.26 a", "5.7.26 b"))),
        (b"550 4.1.1 classes differ\r\n", RemoteReply(550, "5.0.0", ("4.1.1 classes differ",))),
        (b"550 5.1.1.1 not one\r\n", RemoteReply(550, "5.0.0", ("5.1.1.1 not one",))),
        (b"452 full\r\n", RemoteReply(452, "4.3.1", ("full",))),
        (b"556 no\r\n", RemoteReply(556, "5.1.10", ("no",))),
        (b"250-a\r\n550 b\r\n", RemoteReply(550, "5.0.0", ("a", "b"))),
    ],
)
def test_replies(wire: bytes, expected: RemoteReply) -> None:
    assert read(wire) == [expected]
    assert read(*(wire[n : n + 1] for n in range(len(wire)))) == [expected]


@pytest.mark.parametrize(
    ("wire", "text"),
    [
        (b"550-5.7.25 no PTR\r\n550-5.7.25 record\r\n550 5.7.25  see there\r\n", "550 5.7.25 no PTR record see there"),
        (b"550-5.7.25 no PTR\r\n550-5.7.1 record\r\n550 5.7.25\r\n", "550 5.7.25 no PTR 5.7.1 record 5.7.25"),
        (b"550-blocked\r\n550 5.7.1 by us\r\n", "550 blocked 5.7.1 by us"),
        (b"550 5.7.1 5.7.1 twice\r\n", "550 5.7.1 5.7.1 twice"),
        (b"250\r\n", "250"),
    ],
)
def test_the_text_has_the_status_once(wire: bytes, text: str) -> None:
    """RFC 2034 4: it is in front of each line."""
    assert read(wire)[0].text == text


@pytest.mark.parametrize(
    "wire",
    [b"HTTP/1.1 400 Bad Request\r\n", b"\r\n", b"25 ok\r\n", b"150 x\r\n", b"650 x\r\n", b"250_x\r\n", b"\xd9\xa2\r\n"],
)
def test_what_is_no_reply(wire: bytes) -> None:
    with pytest.raises(ReplyError):
        read(wire)


def test_limits() -> None:
    longest = b"250 " + b"x" * (LINE_LIMIT - 6) + b"\r\n"
    assert len(longest) == LINE_LIMIT
    assert len(read(longest)) == 1
    with pytest.raises(ReplyError):
        read(b"250 " + b"x" * LINE_LIMIT)
    with pytest.raises(ReplyError):
        read(b"250-x\r\n" * (LINES_LIMIT + 1))
    with pytest.raises(ReplyError):
        read((b"250-" + b"x" * 2000 + b"\r\n") * 9)
    assert len(read(*[b"250-x\r\n250 y\r\n"] * 200)) == 200


def test_text_is_harmless() -> None:
    assert clean(b"a\x00\x1b[31m\r\xc2\x85\xe2\x80\xae\xff\tb") == "a??[31m???\ufffd b"
    assert clean("Grüße".encode()) == "Grüße"
    (reply,) = read(b"550-" + b"y" * 1500 + b"\r\n550 z\r\n")
    assert len(reply.text) == 1000


def test_extensions() -> None:
    lines = ("mx.example.net", "size 10", "auth PLAIN", "AUTH=LOGIN", "8BITMIME ", "Dsn", "")
    extensions = Extensions.parse(lines)
    assert extensions.size == 10
    assert extensions.mechanisms == {"PLAIN", "LOGIN"}
    assert "8BITMIME" in extensions and "DSN" in extensions and "SMTPUTF8" not in extensions


@pytest.mark.parametrize("parameter", ["", "0", "+5", "1_0", "x", "٣", "9" * 21])
def test_a_size_that_says_nothing(parameter: str) -> None:
    assert Extensions.parse(("mx", f"SIZE {parameter}")).size is None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 200))
def test_any_octets_in_any_chunks(data: bytes, cut: int) -> None:
    def outcome(*chunks: bytes) -> object:
        try:
            return read(*chunks)
        except ReplyError as error:
            return str(error)

    assert outcome(data) == outcome(data[:cut], data[cut:])
