"""mbox files as programs write them, and our own."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.mail import mbox
from mailsrv.mail.mbox import MboxMessage, NotMbox

NEW_YEAR = 1704103445  # Mon Jan  1 10:04:05 2024 UTC


def read(data: bytes) -> list[MboxMessage]:
    return list(mbox.read(io.BytesIO(data)))


def contents(data: bytes) -> list[bytes | None]:
    return [message.content for message in read(data)]


FROM = b"From alice@example.org Mon Jan  1 10:04:05 2024\n"


def test_messages_and_where_they_are() -> None:
    data = FROM + b"Subject: one\n\nfirst\n\n" + FROM + b"Subject: two\n\nsecond\n\nlast line\n\n"
    one, two = read(data)
    assert one.content == b"Subject: one\n\nfirst\n"
    assert two.content == b"Subject: two\n\nsecond\n\nlast line\n"
    assert (one.offset, one.end, two.end) == (0, two.offset, len(data))
    assert one.from_line == FROM.rstrip()
    assert one.seconds == NEW_YEAR
    assert one.new
    assert one.flags == ""


def test_mboxrd_takes_one_mark_away() -> None:
    data = FROM + b"A: b\n\n>From here\n>>From there\n> From\n>from\nx >From\n\n"
    assert contents(data) == [b"A: b\n\nFrom here\n>From there\n> From\n>from\nx >From\n"]


def test_a_sentence_that_begins_with_from_ends_no_message() -> None:
    data = FROM + b"A: b\n\nFrom time to time\n\nFrom Monday 10:00 to 12:00\nFrom Mon Jan 1\n\n" + FROM + b"C: d\n\n"
    assert contents(data) == [
        b"A: b\n\nFrom time to time\n\nFrom Monday 10:00 to 12:00\nFrom Mon Jan 1\n",
        b"C: d\n\n",
    ]


def test_mboxcl2_is_cut_by_its_lengths_and_nothing_is_unquoted() -> None:
    body = b"From bob@example.net Mon Jan  1 10:04:05 2024\n>From x\n\nend\n"
    one = FROM + b"A: b\nContent-Length: %d\n\n%b\n" % (len(body), body)
    assert contents(one + one) == [b"A: b\n\n" + body] * 2
    crlf = one.replace(b"\n", b"\r\n").replace(b"%d" % len(body), b"%d" % len(body.replace(b"\n", b"\r\n")))
    assert contents(crlf + crlf) == [b"A: b\n\n" + body] * 2


@pytest.mark.parametrize("length", [b"0", b"3", b"5", b"99999999", b"-1", b"1e3", b"", b"9" * 30])
def test_a_length_that_is_wrong_is_not_believed(length: bytes) -> None:
    data = FROM + b"A: b\nContent-Length: %b\n\nfirst\n>From x\n\n" % length + FROM + b"C: d\n\nsecond\n"
    assert contents(data) == [b"A: b\n\nfirst\nFrom x\n", b"C: d\n\nsecond\n"]


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        (b"From a Mon Jan 01 10:04:05 2024", NEW_YEAR),
        (b"From a  Mon Jan  1 10:04 2024", NEW_YEAR - 5),
        (b"From - Mon Jan 01 10:04:05 2024", NEW_YEAR),
        (b"From 123@xxx Mon Jan 01 10:04:05 +0000 2024", NEW_YEAR),
        (b"From a Mon Jan  1 10:04:05 2024 +0200", NEW_YEAR - 7200),
        (b"From a Mon Jan  1 10:04:05 -0130 2024", NEW_YEAR + 5400),
        (b"From a Mon Jan  1 10:04:05 UTC 2024", NEW_YEAR),
        (b"From a Mon, 01 Jan 2024 10:04:05 +0000", NEW_YEAR),
        (b'From "a b"@example.org Mon Jan  1 10:04:05 2024', NEW_YEAR),
        (b"From a Mon Jan  1 10:04:60 2024", NEW_YEAR + 54),
        (b"From a Mon Jan  1 10:04:05 2024 remote from b", NEW_YEAR),
        (b"From a Mon Jan 41 10:04:05 2024", None),
        (b"From a Mon Jan  1 10:04:05 1904", None),
        (b"From a", None),
    ],
)
def test_dates_of_from_lines(line: bytes, seconds: int | None) -> None:
    assert mbox.date_of(line) == seconds


def test_the_first_from_line_may_be_of_any_form() -> None:
    (message,) = read(b"\n\nFrom nobody\nA: b\n\nx\n")
    assert (message.seconds, message.content) == (None, b"A: b\n\nx\n")


@pytest.mark.parametrize(
    ("notes", "flags", "new"),
    [
        (b"", "", True),
        (b"Status: O\n", "", False),
        (b"Status: RO\nX-Status: AF\n", "FRS", False),
        (b"status: R\nX-Status: DT\n", "DST", False),
        (b"X-Status: \n", "", True),
        (b"X-Mozilla-Status: 0000\nX-Mozilla-Status2: 00000000\nX-Mozilla-Keys:  \n", "", False),
        (b"X-Mozilla-Status: 1007\n", "FPRS", False),
        (b"X-UID: 5\nX-IMAPbase: 1700000000 5\n\tNonJunk\nX-Keywords: a\n", "", True),
    ],
)
def test_notes_of_programs_become_flags(notes: bytes, flags: str, new: bool) -> None:
    (message,) = read(FROM + b"A: b\n" + notes + b"C: d\n\nStatus: in the body\n\n")
    assert message.content == b"A: b\nC: d\n\nStatus: in the body\n"
    assert (message.flags, message.new) == (flags, new)


def test_what_is_deleted_or_the_programs_own_is_left_out() -> None:
    own = FROM + b"Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\nX-IMAP: 1 2\nStatus: RO\n\ntext\n\n"
    expunged = FROM + b"X-Mozilla-Status: 0009\nA: b\n\nx\n\n"
    assert contents(own + expunged + FROM + b"C: d\n\n") == [b"C: d\n\n"]
    # Anybody may write such a subject.
    assert len(read(own.replace(b"X-IMAP: 1 2\n", b""))) == 1


def test_odd_files() -> None:
    assert read(b"") == []
    assert read(b"\n\n") == []
    assert contents(FROM) == [b""]
    assert contents(FROM + FROM + b"A: b\n" + FROM) == [b"", b"A: b\n", b""]
    assert contents(FROM + b"A: b") == [b"A: b"]
    assert contents(FROM + b"\nbody\n") == [b"\nbody\n"]
    for data in (b"Subject: x\n\nx\n", b"\x1f\x8b\x08", b"from a Mon Jan  1 10:04:05 2024\n", b"x" * 200_000):
        with pytest.raises(NotMbox):
            read(data)


def test_a_long_line_is_not_cut_into_from_lines() -> None:
    line = b"x" * (1 << 16) + FROM
    assert contents(FROM + b"A: b\n\n" + line) == [b"A: b\n\n" + line]


def test_a_message_that_is_too_large_is_told_and_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mbox, "MESSAGE_LIMIT", 1000)
    data = FROM + b"A: b\n\n" + b"x\n" * 501 + FROM + b"Content-Length: 1002\n\n" + b"x\n" * 501 + FROM + b"C: d\n\n"
    assert contents(data) == [None, None, b"C: d\n\n"]


def test_what_we_write() -> None:
    content = b"Return-Path: <bob@example.net>\nA: b\nStatus: RO\nContent-Length: 3\n\nFrom me\n>From you\n"
    assert mbox.entry(content, NEW_YEAR + 0.5, "FS", False) == (
        b"From bob@example.net Mon Jan  1 10:04:05 2024\nReturn-Path: <bob@example.net>\nA: b\n"
        b"Status: RO\nX-Status: F\n\n>From me\n>>From you\n\n"
    )
    assert mbox.entry(b"A: b\n\nx", 0, "", True) == b"From MAILER-DAEMON Thu Jan  1 00:00:00 1970\nA: b\n\nx\n\n"


LINES = st.lists(
    st.sampled_from(
        [b"", b"x", b"From ", FROM.rstrip(), b">" + FROM.rstrip(), b">>From x", b"Status: RO", b"\r", b"a\rb"]
    )
)


@given(st.lists(st.tuples(LINES, st.sampled_from(["", "S", "FS", "DRT"]), st.booleans()), max_size=4))
def test_what_we_write_is_read_back(letters: list[tuple[list[bytes], str, bool]]) -> None:
    bodies = [b"".join(line + b"\n" for line in lines).replace(b"\r\n", b"\n") for lines, _, _ in letters]
    data = b"".join(
        mbox.entry(b"A: b\n\n" + body, NEW_YEAR, flags, new and not flags)
        for body, (_, flags, new) in zip(bodies, letters, strict=True)
    )
    found = read(data)
    assert [message.content for message in found] == [b"A: b\n\n" + body for body in bodies]
    assert [(message.flags, message.new) for message in found] == [
        (flags, new and not flags) for _, flags, new in letters
    ]


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_nothing_makes_reading_fail(header: bytes, body: bytes) -> None:
    assert 1 <= len(read(FROM + header + b"\n\n" + body)) <= 2
