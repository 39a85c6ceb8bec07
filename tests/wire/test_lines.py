"""The bounded line buffer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailsrv.wire.lines import LineBuffer, LineTooLong


def drain(buffer: LineBuffer) -> list[bytes | None]:
    """All lines that can be had now; None stands for one that was too long."""
    found: list[bytes | None] = []
    while True:
        try:
            line = buffer.next_line()
        except LineTooLong:
            found.append(None)
            continue
        if line is None:
            return found
        found.append(line)


def test_only_crlf_ends_a_line() -> None:
    buffer = LineBuffer(100)
    buffer.feed(b"a\nb\rc\r\r\nd\n\r\n")
    assert drain(buffer) == [b"a\nb\rc\r", b"d\n"]


def test_a_line_of_the_limit_is_whole_and_one_octet_more_is_too_long() -> None:
    buffer = LineBuffer(5)
    buffer.feed(b"12345\r\n123456\r\n1\r\n")
    assert drain(buffer) == [b"12345", None, b"1"]


def test_an_endless_line_costs_constant_memory_and_the_next_line_is_read() -> None:
    buffer = LineBuffer(512)
    for _ in range(1000):
        buffer.feed(b"x" * 4096)
        assert drain(buffer) == []
        assert len(buffer) <= 512
    buffer.feed(b"\r")
    assert drain(buffer) == []
    buffer.feed(b"\nNOOP\r\n")
    assert drain(buffer) == [None, b"NOOP"]


def test_octets_behind_a_line_are_taken_raw() -> None:
    buffer = LineBuffer(100)
    buffer.feed(b"BDAT 4\r\n")
    assert buffer.next_line() == b"BDAT 4"
    assert buffer.take(4) == b""
    buffer.feed(b"\r\n")
    buffer.feed(b"ab\r\nNOOP\r\n")
    assert buffer.take(4) == b"\r\nab"
    assert drain(buffer) == [b"", b"NOOP"]


def test_a_decoder_reads_in_place() -> None:
    buffer = LineBuffer(100)
    buffer.feed(b"DATA\r\nabc")
    buffer.feed(b"def\r\nNOOP\r\n")
    assert buffer.next_line() == b"DATA"
    data, start = buffer.peek()
    assert data[start:] == b"abcdef\r\nNOOP\r\n"
    buffer.skip_to(start + 8)
    assert buffer.next_line() == b"NOOP"


def test_clear_forgets_an_overlong_line_too() -> None:
    buffer = LineBuffer(3)
    buffer.feed(b"too long")
    assert drain(buffer) == []
    buffer.clear()
    assert len(buffer) == 0
    buffer.feed(b"ok\r\n")
    assert drain(buffer) == [b"ok"]


@pytest.mark.parametrize("paused", [False, True])
def test_single_octets_are_cheap(paused: bool) -> None:
    buffer = LineBuffer(12_286)
    for octet in b"NOOP 0123456789\r\n" * 4000:
        buffer.feed(bytes([octet]))
        if not paused:
            buffer.next_line()
    if paused:
        assert len(drain(buffer)) == 4000
    assert len(buffer) == 0


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", b"word", b"\r\n\r\n"])), st.data())
def test_chunks_do_not_matter(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts)
    whole = LineBuffer(6)
    whole.feed(stream)
    expected = drain(whole)
    cut = LineBuffer(6)
    found = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        cut.feed(stream[:size])
        stream = stream[size:]
        if data.draw(st.booleans()):
            found += drain(cut)
    assert found + drain(cut) == expected
    assert [line for line in expected if line is not None and len(line) > 6] == []
