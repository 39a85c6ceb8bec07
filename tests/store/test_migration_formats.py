"""The files that Dovecot and Courier leave in a Maildir, by their documentation and as they really look."""

from __future__ import annotations

import bz2
import gzip
import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.store.migration import compressed, courier, dovecot
from mailsrv.store.migration.compressed import CannotUndo, undone
from mailsrv.store.migration.dovecot import UidlFormat

UIDLIST = b"""\
3 V1275660208 N25023 G3085f01b7f11094c501100008c4a11c1
25006 :1276528487.M364837P9451.kurkku,S=1355,W=1394:2,
25017 W2481 :1276533073.M242911P3632.kurkku:2,F
25019 W10 P00000001-old Gabcdef :1276533080.M1P1.kurkku
25020 Pa:b :1276533081.M1P1.kurkku
no line
25021 1276533082.M1P1.kurkku
"""


def test_unique_ids_of_a_dovecot() -> None:
    # %08Xu%08Xv: UID 25006 is 61ae, UIDVALIDITY 1275660208 is 4c0907b0; small letters, as Dovecot shows them.
    assert dovecot.uidls(UIDLIST, UidlFormat()) == {
        "1276528487.M364837P9451.kurkku,S=1355,W=1394": "000061ae4c0907b0",
        "1276533073.M242911P3632.kurkku": "000061b94c0907b0",
        "1276533080.M1P1.kurkku": "00000001-old",
        "1276533081.M1P1.kurkku": "a:b",
    }


@pytest.mark.parametrize(
    ("form", "uidl"),
    [
        ("%08Xu%08Xv", "0000000a0000000f"),
        ("%Xu.%Xv", "a.f"),
        ("UID%u-%v", "UID10-15"),
        ("%v.%u", "15.10"),
        ("%5u", "   10"),
        ("%f", "1.host"),
        ("%%%u", "%10"),
    ],
)
def test_formats_of_unique_ids(form: str, uidl: str) -> None:
    assert UidlFormat(form).uidl(10, 15, "1.host") == uidl


@pytest.mark.parametrize("form", ["", "x", "%g", "%m", "%08Xu%", "%u%x", "%{uid}"])
def test_formats_that_are_not_understood(form: str) -> None:
    with pytest.raises(ValueError, match="pop3_uidl_format"):
        UidlFormat(form)


def test_a_list_of_dovecot_1_0() -> None:
    found = dovecot.uidls(b"1 1275660208 25018\n25006 127.M3.kurkku,S=1:2,S\n", UidlFormat("%v-%u"))
    assert found == {"127.M3.kurkku,S=1": "1275660208-25006"}


@pytest.mark.parametrize("text", [b"", b"\n", b"2 V1\n", b"3 N5\n", b"3 Vx N5\n", b"garbage"])
def test_what_is_no_uidlist(text: bytes) -> None:
    with pytest.raises(ValueError, match="dovecot-uidlist"):
        dovecot.uidls(text, UidlFormat())


def test_our_uidlist_is_read_back() -> None:
    given = [("1.a,S=1,W=2", "000061ae4c0907b0"), ("2.b", "x:y")]
    text = dovecot.uidlist(1275660208, "0123456789abcdef" * 2, given)
    assert text.startswith(b"3 V1275660208 N3 G0123456789abcdef0123456789abcdef\n1 P000061ae4c0907b0 :1.a,S=1,W=2\n")
    assert dovecot.uidls(text, UidlFormat()) == dict(given)


def test_keywords() -> None:
    assert dovecot.keywords(b"0 $Junk\n1 NonJunk\n25 z\n26 none\nx y\n") == {"a": "$Junk", "b": "NonJunk", "z": "z"}
    assert dovecot.keywords_file({"b": "NonJunk", "a": "$Junk"}) == b"0 $Junk\n1 NonJunk\n"


@pytest.mark.parametrize(
    ("line", "name", "uidl"),
    [
        (b"1700000000.M1P1.host,S=3:2,S 1234 5:1699999999", "1700000000.M1P1.host,S=3", "UID5-1699999999"),
        (b"1700000000.M1P1.host 1234 5:1699999999:1", "1700000000.M1P1.host", "UID5-1699999999"),
        (b"1700000000.M1P1.host 1234 5:0", "1700000000.M1P1.host", "UID5"),
        (b"1700000000.M1P1.host,S=3:2, 1234 0:0:0", "1700000000.M1P1.host,S=3", "1700000000.M1P1.host,S=3"),
        (b"a+b \"'\xe9:2,S 1 0:0:0", "a+b \"'\udce9", "a+2Bb+20+22+27+E9"),
    ],
)
def test_unique_ids_of_a_courier(line: bytes, name: str, uidl: str) -> None:
    for header in (b"/2 77 1699999999", b"/3 77 1699999999", b"/1 77"):
        assert courier.uidls(header + b"\n" + line + b"\nno line\n") == {name: uidl}


@pytest.mark.parametrize("text", [b"", b"x 1 2:3\n", b"/9 1 2\n", b"/2\n"])
def test_what_is_no_list_of_courier(text: bytes) -> None:
    with pytest.raises(ValueError, match="courierpop3dsizelist"):
        courier.uidls(text)


@given(st.binary(max_size=200))
def test_no_list_makes_reading_fail_in_another_way(text: bytes) -> None:
    for start in (b"3 V1 N1\n", b"1 1 1\n"):
        dovecot.uidls(start + text, UidlFormat())
    courier.uidls(b"/3 1 1\n" + text)
    dovecot.keywords(text)


LETTER = b"Subject: x\n\nbody\n" * 1000


def test_compressed_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert undone(LETTER) == LETTER
    packed = [gzip.compress(LETTER), bz2.compress(LETTER), lzma.compress(LETTER)]
    for data in packed:
        assert undone(data) == LETTER
        for damaged in (data[:-20], data[:20], data[:10] + b"xxxx" + data[14:]):
            with pytest.raises(CannotUndo, match="compressed and damaged"):
                undone(damaged)
    monkeypatch.setattr(compressed, "LIMIT", 1000)
    for data in packed:
        with pytest.raises(CannotUndo, match="too large"):
            undone(data)


@pytest.mark.parametrize(
    ("start", "what"),
    [(b"\x28\xb5\x2f\xfd", "zstd"), (b"Dovecot-LZ4\r*\x9b\xc5", "LZ4"), (b"CRYPTED\x03\x07", "encrypted")],
)
def test_what_cannot_be_undone_is_named(start: bytes, what: str) -> None:
    with pytest.raises(CannotUndo, match=what):
        undone(start + b"x" * 100)
