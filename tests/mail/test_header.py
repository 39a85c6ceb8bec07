"""Reading header sections of any kind, and writing fields that hold together."""

from __future__ import annotations

import email
import email.header
import email.policy
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailsrv.mail import header

MESSAGE = (
    b"Received: from a by b; Mon, 23 Nov 2026 18:04:00 +0000\r\n"
    b"received: from c\r\n\tby d; Mon, 23 Nov 2026 18:04:00 +0000\r\n"
    b"Subject:  a long\r\n  subject \r\n"
    b"MESSAGE-Id:\r\n <one.two@example.org>\r\n"
    b"X-Received: no\r\n"
    b"Empty:\r\n"
    b"Message-ID: <second@example.org>\r\n"
    b"\r\n"
    b"Received: in the body\r\n"
    b"\r\n"
    b"To: nobody\r\n"
)


def test_split() -> None:
    head, body = header.split(MESSAGE)
    assert head.endswith(b"<second@example.org>\r\n")
    assert body == b"Received: in the body\r\n\r\nTo: nobody\r\n"
    assert header.split(b"\r\nbody") == (b"", b"body")
    assert header.split(b"A: b\r\n") == (b"A: b\r\n", b"")
    assert header.split(b"") == (b"", b"")
    assert header.split(b"A: b\r\n\r\n") == (b"A: b\r\n", b"")


def test_split_is_bounded() -> None:
    assert header.split(b"A: b\r\n" * 10 + b"\r\nbody", limit=12) == (b"A: b\r\n" * 2, b"A: b\r\n" * 8 + b"\r\nbody")


def test_field() -> None:
    assert header.field(MESSAGE, "subject") == b"a long  subject"
    assert header.field(MESSAGE, "Message-ID") == b"<one.two@example.org>"
    assert header.field(MESSAGE, "Empty") == b""
    assert header.field(MESSAGE, "To") is None
    assert header.field(MESSAGE, "X") is None
    assert header.field(b"Subject : spaced\r\n\r\n", "Subject") == b"spaced"
    assert header.field(b"A: one\n two\nB: three\n", "A") == b"one two"
    assert header.field(b"A: no line end", "A") == b"no line end"


def test_count() -> None:
    assert header.count(MESSAGE, "Received") == 2
    assert header.count(MESSAGE, "Message-ID") == 2
    assert header.count(MESSAGE, "To") == 0


def test_fields() -> None:
    assert list(header.fields(b"A: 1\r\n 2\r\nno field\r\nB:\r\n: none\r\nC : 3\r\n")) == [
        (b"A", b"1 2"),
        (b"B", b""),
        (b"C", b"3"),
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"<a@b>", "a@b"),
        (b"  <a@b> (comment)", "a@b"),
        (b"a@b", "a@b"),
        (b"a b", ""),
        (b"", ""),
        (b"<>", ""),
        (b"<a b>", ""),
        (b"<a\xff@b>", ""),
        (b"<a\x00@b>", ""),
        (b"<" + b"a" * 300 + b">", "a" * 250),
        (b"b" * 300, "b" * 250),
    ],
)
def test_message_id(value: bytes, expected: str) -> None:
    content = b"From: x\r\nMessage-ID:" + value + b"\r\n\r\n"
    assert header.message_id(content) == expected
    assert header.scan(content).message_id == expected


def test_scan() -> None:
    found = header.scan(MESSAGE)
    assert found == header.Scan("one.two@example.org", 2, MESSAGE.index(b"\r\n\r\n") + 4)
    assert header.scan(b"") == header.Scan("", 0, -1)
    assert header.scan(b"\r\nMessage-ID: <a@b>\r\n\r\n") == header.Scan("", 0, 2)
    assert header.scan(b"Message-ID: <a@b>\r\nReceived: x") == header.Scan("a@b", 1, -1)
    assert header.scan(b"Received: x\r\n\r\nReceived: y\r\n") == header.Scan("", 1, 15)


lines = st.lists(
    st.sampled_from(
        [b"Received: x", b"received:", b"\treceived: y", b"Message-ID: <a@b>", b" <c@d>", b"To: z", b"x", b""]
    ),
    max_size=12,
)


@given(lines)
def test_scan_agrees_with_the_single_questions(parts: list[bytes]) -> None:
    content = b"\r\n".join(parts)
    found = header.scan(content)
    assert found.message_id == header.message_id(content)
    assert found.received == header.count(content, "Received")
    _, body = header.split(content)
    if found.size >= 0:
        assert content[found.size :] == body


@given(st.binary(max_size=60) | st.text("ab:\r\n \t<>@=?", max_size=60).map(str.encode))
def test_reading_never_fails(content: bytes) -> None:
    header.scan(content)
    header.count(content, "a")
    found = header.field(content, "a")
    assert found is None or b"\n" not in found
    assert all(b"\n" not in value for _, value in header.fields(content))
    assert header.decoded(content).isprintable() or max(header.decoded(content)) >= "\u00a0"


@pytest.mark.parametrize(
    "content",
    [
        b"Received:\r\n" * 90_000,
        b"Received" * 130_000,
        b"Received:" + b"\r\n " * 340_000,
        b"Received" + b" " * 1_000_000,
        b"Received :\r\n\t" * 80_000,
        b"<" * 1_000_000,
        b"Message-ID:" + b"<" * 1_000_000,
        b"Subject:" + b"=?" * 500_000,
        b"\r\n" * 500_000,
    ],
)
def test_reading_is_linear(content: bytes) -> None:
    begin = time.process_time()
    header.scan(content)
    header.message_id(content)
    header.count(content, "Received")
    header.decoded(header.field(content, "Subject") or b"")
    for _ in header.fields(content):
        pass
    assert time.process_time() - begin < 2  # quadratic would be minutes


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"plain words", "plain words"),
        (b"=?utf-8?q?caf=C3=A9_au_lait?=", "café au lait"),
        (b"=?UTF-8?B?Y2Fmw6k=?= =?iso-8859-1?Q?_=E9t=E9?= end", "café été end"),
        (b"=?utf-8*fr?q?caf=C3=A9?=", "café"),
        ("café".encode(), "café"),
        (b"caf\xe9", "caf\ufffd"),
        (b"=?no-such-charset?q?a?=", "=?no-such-charset?q?a?="),
        (b"=?unicode_escape?q?=5Cd?=", "=?unicode_escape?q?=5Cd?="),
        (b"=?utf-8?b?A?=", "=?utf-8?b?A?="),
        (b"=?utf-8?q?a=0D=0ABcc:_b?=", "a  Bcc: b"),
        (b"x" * 300, "x" * 199 + "…"),
    ],
)
def test_decoded(value: bytes, expected: str) -> None:
    assert header.decoded(value) == expected


def test_build() -> None:
    assert header.build("Subject", "hello") == b"Subject: hello\r\n"
    assert header.build("X", "") == b"X: \r\n"
    long = header.build("Subject", "word " * 40)
    assert max(map(len, long.split(b"\r\n"))) <= 76
    assert long.replace(b"\r\n", b"") == b"Subject: " + (b"word " * 40).strip()
    assert header.build("X", "y" * 200) == b"X: " + b"y" * 200 + b"\r\n"


@pytest.mark.parametrize(
    "value", ["a\r\nBcc: b", "a\nb", "a\rb", "a\0b", "a\tb", "a\x85b", "a\u2028b", "x" * 999, "\ud800"]
)
def test_build_refuses(value: str) -> None:
    with pytest.raises(ValueError):
        header.build("Subject", value)


@pytest.mark.parametrize("name", ["", "Sub ject", "Subject:", "Subject\r\n", "Ö", "a\0", "x" * 71])
def test_build_refuses_names(name: str) -> None:
    with pytest.raises(ValueError):
        header.build(name, "x")


@pytest.mark.parametrize("function", [header.phrase, header.unstructured])
def test_no_control_characters(function: object) -> None:
    for text in ["a\nb", "ö\r\n", "\0"]:
        with pytest.raises(ValueError):
            function(text)  # type: ignore[operator]


def test_phrase() -> None:
    assert header.phrase("Mail Delivery System") == "Mail Delivery System"
    assert header.phrase('Dr. "Bob" \\') == '"Dr. \\"Bob\\" \\\\"'
    assert header.phrase("") == '""'
    assert header.phrase("Jörg") == "=?utf-8?B?SsO2cmc=?="


@given(st.text(st.characters(categories=("L", "N", "P", "S"), include_characters=" "), max_size=120))
@settings(deadline=None)
def test_python_reads_what_we_write(text: str) -> None:
    text = " ".join(text.split())
    written = header.build("Subject", header.unstructured(text))
    assert written.isascii()
    if not text.isascii():
        assert max(map(len, written.split(b"\r\n"))) <= 76
    unfolded = written.replace(b"\r\n", b"").decode()[9:]
    assert str(email.header.make_header(email.header.decode_header(unfolded))) == text
    assert header.decoded(unfolded.encode(), 1000) == text


def test_whole_fields_can_be_found_and_taken_out() -> None:
    section = (
        b"Received: a\r\n\tb\r\nauthentication-results : x\r\n y\r\nX-Authentication-Results: z\r\n"
        b"no field\r\nAuthentication-Results: last\r\n\r\n"
    )
    found = header.whole_fields(section, "Authentication-Results")
    assert found == [b"authentication-results : x\r\n y\r\n", b"Authentication-Results: last\r\n"]
    assert header.without(section, found) == (b"Received: a\r\n\tb\r\nX-Authentication-Results: z\r\nno field\r\n\r\n")
    assert header.without(section, ()) == section


@given(st.binary(max_size=300).map(lambda octets: octets.replace(b"\x01", b"\r\n").replace(b"\x02", b"\nFrom: ")))
def test_what_is_not_taken_out_stays_octet_for_octet(section: bytes) -> None:
    found = header.whole_fields(section, "From")
    left = header.without(section, found)
    assert len(left) == len(section) - sum(map(len, found))
    assert header.whole_fields(left, "From") == []
