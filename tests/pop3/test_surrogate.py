"""What a client gets of an internationalized message without having said UTF8."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mailsrv.pop3.surrogate import Surrogate, surrogate

lines = st.lists(st.sampled_from(["Subject: x", "Subject: ü", "", "ü", "\U0001f600", ".", " folded é"]), max_size=8)


@given(lines, st.lists(st.integers(0, 100), max_size=6))
def test_the_header_becomes_ascii_and_nothing_moves(text: list[str], cuts: list[int]) -> None:
    message = "".join(f"{line}\r\n" for line in text).encode()
    edges = sorted({0, len(message), *(cut for cut in cuts if cut < len(message))})
    cutting = Surrogate()
    out = b"".join(cutting.feed(message[start:end]) for start, end in pairwise(edges))
    assert out == surrogate(message)
    assert len(out) == len(message)
    header, blank, body = (b"\r\n" + message).partition(b"\r\n\r\n")
    assert out[max(len(header + blank) - 2, 0) :] == body
    assert out[: len(out) - len(body)].isascii()
    assert all(a == b or b == ord("?") for a, b in zip(message, out, strict=True))
    assert surrogate(out) == out
