"""Unique-ids given to imported messages, as POP3 shows them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mailsrv.outside.filesystem import Filesystem
from mailsrv.store.mailbox import listing, maildir, uidls

DISK = Filesystem()
ONE = "1700000000.000000I0123456789ABCDEFGHJK.mx.example.org"
TWO = "1700000001.000000IZ123456789ABCDEFGHJK.mx.example.org"


@pytest.fixture
def box(tmp_path: Path) -> Path:
    maildir.ensure(DISK, str(tmp_path))
    return tmp_path


def put(box: Path, unique: str, at: str = "cur") -> None:
    (box / at / f"{unique},S=6,W=8{':2,S' if at == 'cur' else ''}").write_bytes(b"a: b\n\n")


def shown(box: Path) -> list[str]:
    return [message.uidl for message in listing.scan(DISK, str(box)).messages]


def test_a_given_unique_id_is_shown_wherever_the_message_is(box: Path) -> None:
    put(box, ONE)
    put(box, TWO, "new")
    assert shown(box) == [ONE, TWO]
    uidls.add(str(box), {ONE: "000000016553f100"})
    uidls.add(str(box), {TWO: "UID2-1700000000", "gone": "x"})
    assert shown(box) == ["000000016553f100", "UID2-1700000000"]
    os.rename(box / f"cur/{ONE},S=6,W=8:2,S", box / f"cur/{ONE},S=6,W=8:2,FS")
    assert shown(box) == ["000000016553f100", "UID2-1700000000"]


def test_the_size_in_the_name_of_an_imported_message_is_believed(box: Path) -> None:
    (box / f"cur/{ONE},S=6,W=8:2,").write_bytes(b"not six octets\n")
    snapshot = listing.scan(DISK, str(box))
    assert snapshot.messages[0].size == 8
    assert snapshot.measured_sizes() == {}


def test_unique_ids_stay_unique_whatever_the_file_says(box: Path) -> None:
    put(box, ONE)
    put(box, TWO)
    (box / uidls.FILE).write_text(f"{ONE} same\n{TWO} same\n")
    first, second = shown(box)
    assert first == "same"
    assert uidls.UIDL.fullmatch(second)
    assert second != first
    assert shown(box) == [first, second]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n\n",
        ONE.encode(),
        ONE.encode() + b" ",
        ONE.encode() + b" torn",
        ONE.encode() + b" " + b"x" * 71 + b"\n",
        ONE.encode() + b" a\tb\n",
        ONE.encode() + b" caf\xc3\xa9\n",
        b"\xff\xfe\0" * 100_000,
    ],
)
def test_what_is_no_line_is_passed_over(box: Path, text: bytes) -> None:
    put(box, ONE)
    (box / uidls.FILE).write_bytes(text)
    assert shown(box) == [ONE]


def test_a_large_file_and_the_last_line_for_a_message(box: Path) -> None:
    lines = [f"{n}.mx.example.org {n:08x}" for n in range(20_000)]
    (box / uidls.FILE).write_text("\n".join([*lines, "5.mx.example.org again", "6 7.mx.example.org x"]) + "\n")
    given = uidls.read(DISK, str(box))
    assert len(given) == 20_001
    assert given["19999.mx.example.org"] == "00004e1f"
    assert given["5.mx.example.org"] == "again"
    assert given["6 7.mx.example.org"] == "x"


def test_a_torn_line_goes_before_the_next_is_added(box: Path) -> None:
    uidls.add(str(box), {ONE: "one"})
    with (box / uidls.FILE).open("ab") as file:
        file.write(f"{TWO} tw".encode())
    uidls.add(str(box), {TWO: "two"})
    assert (box / uidls.FILE).read_text() == f"{ONE} one\n{TWO} two\n"
    (box / uidls.FILE).write_bytes(b"x" * 10_000)
    uidls.add(str(box), {TWO: "two"})
    assert (box / uidls.FILE).read_text() == f"{TWO} two\n"


@pytest.mark.parametrize("uidl", ["", "x" * 71, "a b", "é", "a\n"])
def test_what_pop3_could_not_show_is_not_added(box: Path, uidl: str) -> None:
    with pytest.raises(ValueError, match="unique-id"):
        uidls.add(str(box), {ONE: uidl})
    assert not (box / uidls.FILE).exists()


def test_a_link_is_not_followed(box: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other") / "file"
    other.write_text(f"{ONE} other\n")
    put(box, ONE)
    (box / uidls.FILE).symlink_to(other)
    # Not passed over: other unique-ids than yesterday would make every client fetch everything again.
    with pytest.raises(OSError, match="link"):
        listing.scan(DISK, str(box))
    with pytest.raises(OSError, match="link"):
        uidls.add(str(box), {ONE: "one"})
    assert other.read_text() == f"{ONE} other\n"
