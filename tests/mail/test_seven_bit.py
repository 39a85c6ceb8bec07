"""Conversion to 7 bits, against Python's own parser of MIME: what a reader decodes is what was sent."""

from __future__ import annotations

import base64
import binascii
import email
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.mail.seven_bit import DEPTH, Unconvertible, changes
from mailsrv.mail.transfer_encoding import LONGEST, Rewriting

TEXT = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"


def seven_bit(content: bytes, *cuts: int) -> bytes:
    """``content`` as it leaves when it comes cut at ``cuts``."""
    rewriting = Rewriting(changes(content))
    edges = [0, *sorted(cuts), len(content)]
    pieces = [rewriting.feed(content[start:end]) for start, end in pairwise(edges)]
    return b"".join(pieces) + rewriting.end()


def decoded(content: bytes) -> list[tuple[str, bytes]]:
    """Type and decoded content of every leaf."""
    leaves = []
    for part in email.message_from_bytes(content).walk():
        if not part.is_multipart():
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            leaves.append((part.get_content_type(), payload))
    return leaves


def check(content: bytes) -> bytes:
    converted = seven_bit(content)
    assert converted.isascii()
    assert b"\n" not in converted.replace(b"\r\n", b"")
    assert decoded(converted) == decoded(content)
    return converted


def test_what_is_seven_bit_stays_byte_for_byte() -> None:
    content = b"Nonsense\r\nContent-Type: multipart/mixed\r\n\r\nx" + b"y" * 2000
    assert seven_bit(content) == content


def test_text_becomes_quoted_printable_and_nothing_else_changes() -> None:
    content = (
        b"Received: from x\r\n by y\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding:\r\n 8bit\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\nSubject: a  b\r\n\r\nGr\xc3\xbc\xc3\x9fe =\t\r\n.\r\nFrom x\r\n"
    )
    assert check(content) == (
        b"Received: from x\r\n by y\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\nSubject: a  b\r\n\r\nGr=C3=BC=C3=9Fe =3D=09\r\n=2E\r\nFrom x\r\n"
    )


@pytest.mark.parametrize("line_end", ["\r\n", ""])
def test_large_text_is_encoded_in_pieces_as_if_it_were_one(monkeypatch: pytest.MonkeyPatch, line_end: str) -> None:
    """No other thread runs while a piece is encoded."""
    lines = ["grüße", "", ".", "From x", "blank \t", "=", "x" * 75, "ä" * 50, "tab\t"] * 3000
    text = ("\r\n".join(lines) + line_end).encode()
    whole = binascii.b2a_qp(text + b"\r\n", istext=True)[:-2]
    octets: list[int] = []
    encode = binascii.b2a_qp

    def counted(data: bytes, **options: bool) -> bytes:
        octets.append(len(data))
        return encode(data, **options)

    monkeypatch.setattr(binascii, "b2a_qp", counted)
    assert seven_bit(TEXT + b"\r\n" + text).endswith(b"\r\n\r\n" + whole)
    assert len(octets) > 5
    assert max(octets) <= LONGEST + 2


@pytest.mark.parametrize("around", [0, *range(LONGEST - 4, LONGEST + 4), 3 * LONGEST])
@pytest.mark.parametrize("octet", ["x", "ä", "ä=", "x ", "."])
def test_a_line_without_end_is_cut_where_it_is_long(octet: str, around: int) -> None:
    """And always there, however it comes: the size and the signature are those of what leaves."""
    text = f"grüße\r\n{(octet * around)[:around]}\r\n.\r\n{(octet * around)[:around]}".encode()
    content = TEXT + b"\r\n" + text
    converted = check(content)
    assert max(map(len, converted.split(b"\r\n"))) <= 76
    for step in (997, LONGEST - 1, LONGEST, LONGEST + 1):
        assert seven_bit(content, *range(step, len(content), step)) == converted


def test_without_mime_nobody_knows_the_character_set() -> None:
    # RFC 1428 3
    converted = seven_bit(b"Subject: x\r\n\r\nGr\xfc\xdfe\r\n")
    assert converted == (
        b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=unknown-8bit\r\n"
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=FC=DFe\r\n"
    )
    assert seven_bit(b"\r\n\xfc").endswith(b"\r\n\r\n=FC")


def test_other_types_become_base64() -> None:
    content = b"MIME-Version: 1.0\r\nContent-Type: application/json\r\n\r\n" + '{"a": "ü"}'.encode() * 20 + b"\r\n"
    converted = check(content)
    assert b"Content-Transfer-Encoding: base64\r\n" in converted
    assert max(map(len, converted.split(b"\r\n"))) <= 76


def test_parts_that_need_nothing_stay_byte_for_byte() -> None:
    plain = b"Content-Type: text/plain\r\nX-Odd:   spaces \r\n\r\nplain  text \r\n"
    content = (
        b'MIME-Version: 1.0\r\nContent-Type: MULTIPART/Mixed;\r\n boundary="a b"\r\n'
        b"Content-Transfer-Encoding: 8bit\r\n\r\npreamble\r\n--a b\r\n"
        + plain
        + b"\r\n--a b  \r\nContent-Type: text/html\r\n\r\n\xe4\r\n--a bc is text\r\n--a b--\r\nepilogue\r\n"
    )
    converted = check(content)
    assert b"Content-Transfer-Encoding: 7bit\r\n\r\npreamble\r\n--a b\r\n" + plain + b"\r\n--a b  \r\n" in converted
    assert converted.endswith(b"\r\n\r\n=E4\r\n--a bc is text\r\n--a b--\r\nepilogue\r\n")


def test_a_message_within_a_message() -> None:
    inner = b"Subject: inner\r\n\r\n\xe4\r\n"
    content = (
        b"MIME-Version: 1.0\r\nContent-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\n"
        + inner
        + b"--b\r\nContent-Type: message/rfc822\r\n\r\n"
        + inner
        + b"--b--\r\n"
    )
    converted = seven_bit(content)
    assert converted.isascii()
    assert [payload for _, payload in decoded(converted)] == [b"\xe4", b"\xe4"]
    assert converted.count(b"Content-Transfer-Encoding: 7bit\r\n") == 3


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"Subject: \xc3\xa4\r\n\r\nx\r\n", "a header has octets"),
        (TEXT + b"Subject: x\r\nno field\r\n\r\n\xe4", "no field"),
        (b"\xe4", "does not end"),
        (TEXT + b"Content-Transfer-Encoding: base64\r\n\r\n\xe4", "'base64'"),
        (TEXT + b"Content-Transfer-Encoding: x-own\r\n\r\n\xe4", "'x-own'"),
        (TEXT + b"Content-Transfer-Encoding: 8bit\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\xe4", "two fields"),
        (b"Content-Type: text\r\n\r\n\xe4", "of type 'text'"),
        (b"Content-Type: text/plain; a=b; a=c\r\n\r\n\xe4", "of type"),
        (b"Content-Type: text/plain; =\r\n\r\n\xe4", "of type"),
        (b"Content-Type: multipart/mixed\r\n\r\n--b\r\n\r\n\xe4\r\n--b--\r\n", "no boundary"),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n\xe4\r\n", "no parts"),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n\xe4\r\n--b\r\n\r\nx\r\n--b--\r\n", "outside"),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n\xe4", "outside"),
        (b"Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n\xe4\r\n--b--\r\n", "signed"),
        (b"Content-Type: message/partial\r\n\r\n\xe4", "message/partial"),
        (
            b"Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: base64\r\n\r\n--b\r\n\r\n\xe4",
            "'base64'",
        ),
    ],
)
def test_what_cannot_be_converted_is_told(content: bytes, why: str) -> None:
    with pytest.raises(Unconvertible, match=why) as raised:
        seven_bit(content)
    assert str(raised.value).isascii()


def test_depth_is_bounded() -> None:
    def nested(levels: int) -> bytes:
        return b"Content-Type: message/rfc822\r\n\r\n" * levels + b"\r\n\xe4"

    assert seven_bit(nested(DEPTH)).isascii()
    with pytest.raises(Unconvertible, match="levels"):
        seven_bit(nested(DEPTH + 1))
    with pytest.raises(Unconvertible, match="levels"):
        seven_bit(nested(100_000))


def test_time_is_linear() -> None:
    header = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    for hostile in (
        header + b"--b\r\n" * 200_000 + b"\xe4",
        header + b"\r\n--bx" * 200_000 + b"\r\n--b\r\n\r\n\xe4",
        b"Content-Type: text/plain" + b"; " * 60_000 + b"\r\n\r\n\xe4",
        b"Content-Type: text/plain; a=" + b'"' * 60_000 + b"\r\n\r\n\xe4",
        b"X: y\r\n" + b" \r\n" * 60_000 + b"\r\n\r\n\xe4",
        b"\r\n" + b"\xe4 " * 500_000,
    ):
        before = time.process_time()
        try:
            seven_bit(hostile)
        except Unconvertible:
            pass
        assert time.process_time() - before < 2.0


LINES = st.lists(st.binary(max_size=90).map(lambda line: line.translate(None, b"\r\n\0")), max_size=5).map(b"\r\n".join)
KINDS = st.sampled_from([b"text/plain; charset=latin1", b'TEXT/html; x="a; \\"b"', b"application/x", b"image/png"])
ENCODINGS = st.sampled_from(
    [b"", b"Content-Transfer-Encoding: 8Bit\r\n", b"content-transfer-encoding:\r\n\tbinary\r\n"]
)
BOUNDARIES = st.text("abcXYZ019'+_./:=?", min_size=1, max_size=8).map(str.encode)


@st.composite
def leaves(draw: st.DrawFn) -> bytes:
    encoding = draw(ENCODINGS)
    text = draw(LINES)
    if draw(st.integers(0, 4)) == 0:
        encoding, text = b"Content-Transfer-Encoding: base64\r\n", base64.b64encode(text)
    head = b"Content-Type: " + draw(KINDS) + b"\r\n"
    return draw(st.sampled_from([head + encoding, encoding + b"X-A:\r\n b\r\n" + head])) + b"\r\n" + text


@st.composite
def around(draw: st.DrawFn, parts: st.SearchStrategy[bytes]) -> bytes:
    encoding = draw(ENCODINGS)
    if draw(st.integers(0, 3)) == 0:
        return b"Content-Type: message/rfc822\r\n" + encoding + b"\r\nMIME-Version: 1.0\r\n" + draw(parts)
    children = draw(st.lists(parts, min_size=1, max_size=3))
    boundary = draw(BOUNDARIES.filter(lambda boundary: not any(b"--" + boundary in child for child in children)))
    delimiter = b"\r\n--" + boundary + draw(st.sampled_from([b"", b" \t"])) + b"\r\n"
    end = draw(st.sampled_from([b"\r\n--" + boundary + b"--\r\nepilogue\r\n", b"\r\n--" + boundary + b"--"]))
    head = b'Content-Type: multipart/x; boundary="' + boundary + b'"\r\n' + encoding
    return head + draw(st.sampled_from([b"", b"\r\npreamble"])) + delimiter + delimiter.join(children) + end


@given(st.recursive(leaves(), around, max_leaves=6), st.data())
def test_any_message_says_the_same_afterwards(entity: bytes, data: st.DataObject) -> None:
    content = b"Subject: x\r\nMIME-Version: 1.0\r\n" + entity
    converted = seven_bit(content)
    assert converted.isascii()
    assert b"\n" not in converted.replace(b"\r\n", b"")
    assert decoded(converted) == decoded(content)
    cuts = data.draw(st.lists(st.integers(0, len(content)), max_size=9))
    assert seven_bit(content, *cuts) == converted
    assert seven_bit(content, *range(1, len(content))) == converted
    if content.isascii():
        assert converted == content


@given(
    st.binary(max_size=300)
    | st.lists(
        st.sampled_from(
            [
                b"\r\n",
                b"--b",
                b"--",
                b"\xe4",
                b" ",
                b"Content-Type: multipart/x; boundary=b\r\n",
                b"Content-Type:",
                b"text/plain",
                b"message/rfc822",
                b"Content-Transfer-Encoding: 8bit\r\n",
                b"a: b\r\n",
                b'"',
                b";",
                b"x=y",
            ]
        ),
        max_size=30,
    ).map(b"".join)
)
def test_whatever_comes_is_seven_bit_or_refused(content: bytes) -> None:
    try:
        assert seven_bit(content).isascii()
    except Unconvertible:
        pass
