"""Reading stored messages: CRLF whatever was filed, sizes exact, TOP cut right, wherever chunks are cut."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mailsrv.store.mailbox import reading
from mailsrv.store.mailbox.reading import Reading, ToCrlf, Top, measure, to_crlf

messages = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b".", b"word", b"\0", b"\xff"]), max_size=24).map(
    b"".join
)
cuts = st.lists(st.integers(0, 60), max_size=6)


class Source:
    """A file in memory, read in pieces of at most ``chunk`` octets at the given edges."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.closed = False

    def read(self, size: int) -> bytes:
        piece, self._data = self._data[:size], self._data[size:]
        return piece

    def seek(self, offset: int) -> int:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True


def pieces(data: bytes, at: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut for cut in at if cut < len(data))})
    return [data[start:end] for start, end in pairwise(edges)]


def as_sent(data: bytes) -> bytes:
    converted = re.sub(rb"\r?\n", b"\r\n", data)
    return converted if not converted or converted.endswith(b"\r\n") else converted + b"\r\n"


def converted(data: bytes, at: list[int]) -> tuple[bytes, int]:
    converter = ToCrlf()
    out = b"".join([converter.convert(piece) for piece in pieces(data, at)]) + converter.finish()
    return out, converter.size


@given(messages, cuts)
def test_conversion(data: bytes, at: list[int]) -> None:
    out, size = converted(data, at)
    assert out == as_sent(data)
    assert size == len(out)
    assert to_crlf(data) == out


@given(messages, st.integers(0, 80))
def test_a_wrong_idea_of_the_size_changes_nothing(data: bytes, expected: int) -> None:
    source = Source(data)
    whole = Reading(source, expected=expected)
    out = b""
    while not whole.done:
        out += whole.next_chunk()
    assert out == as_sent(data)


@given(messages, st.integers(0, 5), cuts)
def test_top(data: bytes, lines: int, at: list[int]) -> None:
    data = as_sent(data)
    header, blank, body = (b"\r\n" + data).partition(b"\r\n\r\n")
    body_lines = body.split(b"\r\n")[:-1]
    expected = (header + blank + b"".join(line + b"\r\n" for line in body_lines[:lines]))[2:]
    top = Top(lines)
    assert b"".join(top.cut(piece) for piece in pieces(data, at)) == expected


def test_top_stops_reading_where_it_ends() -> None:
    source = Source(b"Subject: x\n\n" + b"line\n" * reading.CHUNK)
    part = Reading(source, lines=1)
    assert part.next_chunk() == b"Subject: x\r\n\r\nline\r\n"
    assert part.done


def test_a_message_of_whole_chunks_is_read_to_its_end() -> None:
    content = b"x" * (reading.CHUNK - 1) + b"\n"
    whole = Reading(Source(content * 2))
    out = b""
    while not whole.done:
        out += whole.next_chunk()
    assert out == as_sent(content * 2)
    assert whole.size == len(out) == measure(Source(content * 2))


def test_a_cr_at_the_edge_of_a_chunk() -> None:
    content = b"x" * (reading.CHUNK - 1) + b"\r\ny\n"
    assert measure(Source(content)) == len(content) + 1
