"""Dot transparency, both directions, by chunks."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailsrv.wire.dots import LineCheck, LineMender, Stuffer, Unstuffer, stuffed

PIECES = [b"\r\n", b".", b"\r", b"\n", b"a", b"\r\n.", b"..", b"\r\n.\r", b".\r\n", b"text"]
STREAMS = st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join)
CUTS = st.lists(st.integers(0, 60), max_size=8)


def cut(stream: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(position for position in at if position <= len(stream)), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


def unstuff(chunks: list[bytes]) -> tuple[bytes, bytes | None]:
    """The content, and what came behind the end; None when there was no end."""
    decoder, content, rest = Unstuffer(), b"", None
    for chunk in chunks:
        if rest is not None:
            rest += chunk
            continue
        piece, stop = decoder.feed(chunk)
        content += piece
        if stop >= 0:
            rest = chunk[stop:]
    return content, rest


def unstuff_by_lines(stream: bytes) -> tuple[bytes, bytes] | None:
    """RFC 5321 4.5.2 by the letter: lines end in CRLF; a dot alone ends, another first dot goes."""
    content = b""
    while True:
        line, end, stream = stream.partition(b"\r\n")
        if not end:
            return None
        if line == b".":
            return content, stream
        content += line.removeprefix(b".") + end


@settings(deadline=None)
@given(STREAMS, CUTS)
def test_unstuffing_follows_the_rfc_however_it_is_cut(stream: bytes, at: list[int]) -> None:
    expected = unstuff_by_lines(stream)
    content, rest = unstuff(cut(stream, at))
    if expected is None:
        assert rest is None
        assert content == unstuff([stream])[0]
    else:
        assert (content, rest) == expected


@settings(deadline=None)
@given(STREAMS, CUTS)
def test_what_is_stuffed_comes_back(message: bytes, at: list[int]) -> None:
    stuffer = Stuffer()
    wire = b"".join(stuffer.feed(chunk) for chunk in cut(message, at)) + stuffer.finish()
    canonical = message.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    if canonical and not canonical.endswith(b"\r\n"):
        canonical += b"\r\n"
    assert unstuff([wire]) == (canonical, b"")
    assert wire.count(b"\n") == wire.count(b"\r\n")


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (b"", b".\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b".\r\n", b"..\r\n.\r\n"),
        (b"a\r\n.b\r\n", b"a\r\n..b\r\n.\r\n"),
        (b"a\n.b\n", b"a\r\n..b\r\n.\r\n"),
        (b"a\r\n.\r\nMAIL FROM:<>\r\n", b"a\r\n..\r\nMAIL FROM:<>\r\n.\r\n"),
        (b"a\n.\nb", b"a\r\n..\r\nb\r\n.\r\n"),
        (b"no end", b"no end\r\n.\r\n"),
        (b"a\rb\r\n", b"a\rb\r\n.\r\n"),
    ],
)
def test_stuffing_octet_by_octet_and_whole(message: bytes, wire: bytes) -> None:
    for chunks in ([message], [bytes([octet]) for octet in message]):
        stuffer = Stuffer()
        assert b"".join(map(stuffer.feed, chunks)) + stuffer.finish() == wire


@pytest.mark.parametrize("position", range(65_530, 65_542))
def test_a_dot_at_a_chunk_edge_goes_out_stuffed(position: int) -> None:
    message = b"x" * (position - 2) + b"\r\n.\r\nRCPT TO:<bob@example.org>\r\n"
    stuffer = Stuffer()
    wire = stuffer.feed(message[:65_536]) + stuffer.feed(message[65_536:]) + stuffer.finish()
    assert wire == b"x" * (position - 2) + b"\r\n..\r\nRCPT TO:<bob@example.org>\r\n.\r\n"


@pytest.mark.parametrize(
    ("content", "flaws"),
    [
        (b"", set()),
        (b"a\r\nb\r\n", set()),
        (b"a\nb\r\n", {"lf"}),
        (b"a\rb\r\n", {"cr"}),
        (b"\n", {"lf"}),
        (b"a\r\r\n", {"cr"}),
        (b"a\n\r", {"lf", "cr"}),
        (b"a\0b\r\n", {"nul"}),
        (b"\r\n\r", {"cr"}),
        (b"\r\0\n", {"cr", "nul", "lf"}),
    ],
)
def test_flaws_are_found_however_they_are_cut(content: bytes, flaws: set[str]) -> None:
    for at in range(len(content) + 1):
        for chunks in ([content[:at], content[at:]], [bytes([octet]) for octet in content]):
            check = LineCheck()
            for chunk in chunks:
                check.feed(chunk)
            check.finish()
            found = {"lf": check.bare_lf, "cr": check.bare_cr, "nul": check.nul}
            assert {name for name, known in found.items() if known} == flaws
            assert check.flawed == bool(flaws)
            assert check.size == len(content)
            assert check.lines == content.count(b"\r\n")


@given(STREAMS, CUTS)
def test_what_is_no_crlf_is_found_whatever_comes(stream: bytes, at: list[int]) -> None:
    check = LineCheck()
    for piece in cut(stream, at):
        check.feed(piece)
    check.finish()
    assert (check.size, check.lines) == (len(stream), stream.count(b"\r\n"))
    assert check.bare_lf == bool(re.search(rb"(?<!\r)\n", stream))
    assert check.bare_cr == bool(re.search(rb"\r(?!\n)", stream))
    assert check.flawed == (check.bare_lf or check.bare_cr)


def test_a_cr_at_the_edge_of_a_piece_is_no_flaw_yet() -> None:
    check = LineCheck()
    check.feed(b"a\r")
    assert not check.flawed
    assert not check.complete
    check.feed(b"\n")
    assert not check.flawed
    assert check.complete
    check.feed(b"b\r")
    check.feed(b"c")
    assert check.flawed


@given(STREAMS, CUTS)
def test_mending_adds_a_cr_before_each_bare_lf_and_nothing_else(stream: bytes, at: list[int]) -> None:
    mender = LineMender()
    mended = b"".join(map(mender.feed, cut(stream, at)))
    assert mended == re.sub(rb"(?<!\r)\n", b"\r\n", stream)


@given(st.lists(st.sampled_from([b".", b"..", b"a", b"\r", b"\r\n", b"\r\n."]), max_size=30).map(b"".join), CUTS)
def test_lines_known_to_end_in_crlf_are_stuffed_as_others_are(content: bytes, at: list[int]) -> None:
    pieces = cut(content, at)
    careful, quick = Stuffer(), Stuffer(crlf=True)
    assert [quick.feed(piece) for piece in pieces] == [careful.feed(piece) for piece in pieces]
    assert quick.finish() == careful.finish()


@given(st.lists(st.sampled_from([b".", b"..", b"a", b"\r", b"\r\n", b".\r\n"]), max_size=20).map(b"".join))
def test_a_whole_message_is_stuffed_as_its_pieces_are(content: bytes) -> None:
    content = content and content + b"\r\n"
    stuffer = Stuffer()
    whole = stuffer.feed(content) + stuffer.finish()
    assert stuffed(content) == whole
    assert stuffed(content, b"+OK\r\n") == b"+OK\r\n" + whole
