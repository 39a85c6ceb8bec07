"""The file ``maildirsize`` as Maildir++ has it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mailsrv.outside.filesystem import Filesystem
from mailsrv.store.mailbox import maildir, maildirsize
from mailsrv.store.mailbox.maildirsize import Told
from mailsrv.store.mailbox.quota import Quota, Usage

DISK = Filesystem()
ROOT = Path(__file__).parents[2]


@pytest.fixture
def mailbox(tmp_path: Path) -> Path:
    maildir.ensure(DISK, str(tmp_path))
    return tmp_path


def told(mailbox: Path) -> Told | None:
    return maildirsize.read(DISK, str(mailbox))


@pytest.mark.parametrize(
    ("text", "usage"),
    [
        ("10485760S,1000C\n1000 3\n", Usage(1000, 3)),
        ("10485760S,1000C\n1000 3\n200 1\n-1000 -1\n", Usage(200, 3)),
        ("1000C\n         500           2\n", Usage(500, 2)),  # Courier pads
    ],
)
def test_lines_are_added_up(mailbox: Path, text: str, usage: Usage) -> None:
    (mailbox / "maildirsize").write_text(text)
    found = told(mailbox)
    assert found is not None
    assert found.usage == usage
    assert found.quota_line().decode() == text.split("\n")[0]
    assert found.length == len(text)


@pytest.mark.parametrize("text", ["", "1000S", "1000S\n", "1000S\n10 1", "1000S\n10 1\n5", "1000S\n10\n", "S\nten 1\n"])
def test_a_damaged_file_tells_nothing(mailbox: Path, text: str) -> None:
    (mailbox / "maildirsize").write_text(text)
    assert told(mailbox) is None


def test_no_file_tells_nothing_and_takes_no_line(mailbox: Path) -> None:
    assert told(mailbox) is None
    assert not maildirsize.append(DISK, str(mailbox), Usage(1, 1))
    assert not (mailbox / "maildirsize").exists()


def test_a_link_is_not_followed(mailbox: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("1000S\n10 1\n")
    (mailbox / "maildirsize").symlink_to(other)
    with pytest.raises(OSError):
        told(mailbox)
    with pytest.raises(OSError):
        maildirsize.append(DISK, str(mailbox), Usage(1, 1))
    assert other.read_text() == "1000S\n10 1\n"


def test_a_new_file_takes_the_place_of_the_old_one(mailbox: Path) -> None:
    made = maildirsize.write(DISK, str(mailbox), Quota(2048, 10), Usage(700, 3), "mark")
    assert (mailbox / "maildirsize").read_bytes() == b"2048S,10C\n700 3\n"
    assert told(mailbox) == made
    assert maildirsize.append(DISK, str(mailbox), Usage(-200, -1))
    assert (mailbox / "maildirsize").read_bytes() == b"2048S,10C\n700 3\n-200 -1\n"
    maildirsize.write(DISK, str(mailbox), Quota(messages=10), Usage(0, 0), "mark")
    assert (mailbox / "maildirsize").read_bytes() == b"10C\n0 0\n"
    assert list((mailbox / "tmp").iterdir()) == []


def test_two_programs_lose_no_line_of_each_other(mailbox: Path) -> None:
    maildirsize.write(DISK, str(mailbox), Quota(2048), Usage(0, 0), "mark")
    program = (
        "import sys; from mailsrv.outside.filesystem import Filesystem; from mailsrv.store.mailbox import maildirsize;"
        "from mailsrv.store.mailbox.quota import Usage; disk = Filesystem();"
        "print(all(maildirsize.append(disk, sys.argv[1], Usage(1000, 1)) for _ in range(3000)))"
    )
    others = [
        subprocess.Popen([sys.executable, "-c", program, str(mailbox)], stdout=subprocess.PIPE, cwd=ROOT)
        for _ in range(2)
    ]
    for _ in range(3000):
        maildirsize.append(DISK, str(mailbox), Usage(-1000, -1))
    assert [other.communicate(timeout=60)[0] for other in others] == [b"True\n", b"True\n"]
    found = told(mailbox)
    assert found is not None
    assert found.usage == Usage(3_000_000, 3000)


def test_all_folders_count_by_what_their_names_tell_or_the_disk(mailbox: Path) -> None:
    for folder in (".Sent", ".Trash", ".Lists.python"):
        maildir.ensure(DISK, str(mailbox / folder))
    (mailbox / "new/1.a.host,S=100,W=103").write_bytes(b"x" * 7)
    (mailbox / "cur/2.b.host,S=20:2,ST").write_bytes(b"x")
    (mailbox / "cur/3.c.host:2,S").write_bytes(b"x" * 5)  # by mutt
    (mailbox / ".Sent/cur/4.d.host,S=3000:2,").touch()
    (mailbox / ".Lists.python/new/5.e.host,U=7").write_bytes(b"x" * 11)
    (mailbox / ".Trash/cur/6.f.host,S=40000:2,T").touch()
    (mailbox / "tmp/7.g.host,S=500000").touch()
    assert maildirsize.count(DISK, str(mailbox)) == Usage(100 + 20 + 5 + 3000 + 11 + 40000, 6)
    assert maildirsize.count(DISK, str(mailbox), {".Trash"}) == Usage(100 + 20 + 5 + 3000 + 11, 5)
    assert maildirsize.count(DISK, str(mailbox), (), {"1.a.host"}).messages == 5


def test_what_is_no_message_is_passed_over(mailbox: Path) -> None:
    (mailbox / "new/1.a.host").mkdir()
    (mailbox / "new/2.b.host").symlink_to("/etc/passwd")
    (mailbox / "new/.hidden").write_bytes(b"x")
    (mailbox / ".link").symlink_to(mailbox)
    (mailbox / ".file").write_bytes(b"x")
    (mailbox / ".empty").mkdir()
    (mailbox / "dovecot-uidlist").write_bytes(b"x")
    assert maildirsize.count(DISK, str(mailbox)) == Usage(0, 0)


def test_a_message_on_its_way_from_new_to_cur_counts_once(mailbox: Path) -> None:
    (mailbox / "new/1.a.host,S=100").touch()
    (mailbox / "cur/1.a.host,S=100:2,S").touch()
    assert maildirsize.count(DISK, str(mailbox)) == Usage(100, 1)


def test_no_mailbox_holds_nothing(tmp_path: Path) -> None:
    assert maildirsize.count(DISK, str(tmp_path / "none")) == Usage(0, 0)
