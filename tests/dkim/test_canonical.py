"""The relaxed canonical forms: the examples of RFC 6376, odd bodies, any cutting, linear time, bounded memory."""

from __future__ import annotations

import hashlib
import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailsrv.dkim.canonical import Field, RelaxedBody, fields, relaxed_field


def relaxed(*chunks: bytes) -> bytes:
    written: list[bytes] = []
    body = RelaxedBody(written.append)
    for chunk in chunks:
        body.feed(chunk)
    body.end()
    return b"".join(written)


def by_the_book(body: bytes) -> bytes:
    """RFC 6376 3.4.4, in its own order and words."""
    body = re.sub(rb"[ \t]+(?=\r\n|\Z)", b"", body)
    body = re.sub(rb"[ \t]+", b" ", body)
    body = re.sub(rb"(?:\r\n)*\Z", b"", body)
    return body + b"\r\n" if body else b""


# -- header fields


def test_the_example_of_the_rfc() -> None:
    found = fields(b"A: X\r\nB : Y\t\r\n\tZ  \r\n")
    assert found == [Field(b"a", b"A: X"), Field(b"b", b"B : Y\t\r\n\tZ  ")]
    assert [relaxed_field(field.raw) for field in found] == [b"a:X", b"b:Y Z"]


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        (b"Subject:", b"subject:"),
        (b"Subject: \t \r\n \t", b"subject:"),
        (b"SUBJECT \t:a", b"subject:a"),
        (b"Subject: a: b  : c", b"subject:a: b : c"),
        (b"Subject:\r\n a\r\n  b\r\n\tc", b"subject:a b c"),
        (b"Subject: gr\xc3\xbc\xc3\x9fe \x0b", b"subject:gr\xc3\xbc\xc3\x9fe \x0b"),
    ],
)
def test_fields_in_their_relaxed_form(raw: bytes, canonical: bytes) -> None:
    assert relaxed_field(raw) == canonical
    assert fields(raw + b"\r\nX: y\r\n") == [Field(canonical.partition(b":")[0], raw), Field(b"x", b"X: y")]


def test_what_is_no_field_is_passed_over() -> None:
    header = b" folded\r\nFrom a program\r\n\tand more\r\nTo: b\r\n: x\r\n\r\nCc: c"
    assert [field.raw for field in fields(header)] == [b"To: b", b"Cc: c"]


@pytest.mark.parametrize(
    "header", [b"X: " + b" " * 1_000_000, b"x" * 1_000_000, b"X:\r\n" + b" \r\n" * 300_000, b"To:\r\n" * 200_000]
)
def test_large_header_sections_take_linear_time(header: bytes) -> None:
    """A quadratic one would take hours."""
    assert all(relaxed_field(field.raw) in (b"x:", b"to:") for field in fields(header))


# -- bodies


@pytest.mark.parametrize(
    ("body", "canonical"),
    [
        (b"", b""),
        (b"\r\n", b""),
        (b" \t\r\n\r\n \r\n", b""),
        (b" ", b""),
        (b" C \r\nD \t E\r\n\r\n\r\n", b" C\r\nD E\r\n"),  # RFC 6376 3.4.5
        (b"no end", b"no end\r\n"),
        (b"no end \t", b"no end\r\n"),
        (b"a\r\n\r\n \r\nb", b"a\r\n\r\n\r\nb\r\n"),
        (b"\r\na", b"\r\na\r\n"),
        (b"a\r\n ", b"a\r\n"),
        (b"a \r", b"a \r\r\n"),
        (b"a\r\n\n\r\n", b"a\r\n\n\r\n"),
    ],
)
def test_bodies_in_their_relaxed_form(body: bytes, canonical: bytes) -> None:
    assert relaxed(body) == canonical
    assert relaxed(*(body[n : n + 1] for n in range(len(body)))) == canonical


PIECES = st.lists(st.sampled_from([b" ", b"\t", b"\r\n", b"a", b"bc", b"\r", b"\n", b"\r\n\r\n", b"  "]), max_size=30)


@given(PIECES, st.lists(st.integers(0, 40), max_size=6))
@example([b"a", b" ", b"\r\n"], [2])
@example([b"a", b"\r\n", b"\r\n"], [2, 3])
def test_any_cutting_gives_what_the_rfc_says(pieces: list[bytes], cuts: list[int]) -> None:
    body = b"".join(pieces)
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    chunks = [body[begin:end] for begin, end in itertools.pairwise(places)]
    assert relaxed(*chunks) == by_the_book(body)


@pytest.mark.parametrize("piece", [b" ", b"\r\n", b" \r\n", b"\r", b"\n", b"\n\r\n"])
def test_large_bodies_take_linear_time_and_little_memory(piece: bytes) -> None:
    chunk = piece * (1 << 18)
    digest = hashlib.sha256()
    largest = 0

    def write(data: bytes) -> None:
        nonlocal largest
        largest = max(largest, len(data))
        digest.update(data)

    body = RelaxedBody(write)
    for _ in range(8):
        body.feed(chunk)
    body.feed(b"end")
    body.end()
    assert largest <= len(chunk) + 4
    assert digest.digest() == hashlib.sha256(by_the_book_at_once(piece, 8 << 18)).digest()


def by_the_book_at_once(piece: bytes, times: int) -> bytes:
    """The same without regular expressions that look back over a megabyte."""
    if piece == b" ":
        return b" end\r\n"
    return piece.replace(b" ", b"") * times + b"end\r\n"
