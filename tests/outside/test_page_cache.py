"""Reading what is in memory: never a wait, never a wrong answer."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from mailsrv.outside import page_cache
from mailsrv.outside.page_cache import PageCache

MOST = 4096


def here(folder: Path, content: bytes) -> bytes | None:
    """What is to be found: old kernels, and some file systems, cannot say what is in memory."""
    return content if page_cache.works() and can_say(folder) else None


def can_say(folder: Path) -> bool:
    """Whether the file system reads on the condition that nothing has to be waited for."""
    path = folder / "probe"
    path.write_bytes(b"x")
    with path.open("rb") as file:
        try:
            return os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT) == 1
        except OSError:
            return False


@pytest.fixture
def cache() -> PageCache:
    return PageCache(MOST)


@pytest.mark.parametrize("size", [2, 3, MOST - 1, MOST])
def test_a_small_file_that_was_just_written(cache: PageCache, tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size))
    assert cache.read(bytes(path)) == here(tmp_path, path.read_bytes())
    path.write_bytes(b"y" * (size // 2))
    assert cache.read(bytes(path)) == here(tmp_path, b"y" * (size // 2)), "nothing is left of the file before"


def test_all_else_is_not_there(cache: PageCache, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * (MOST + 1))
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "link").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    for name in ("large", "empty", "link", "pipe", "folder", "socket", "missing", "folder/missing", "x" * 300, "nul\0"):
        assert cache.read(bytes(tmp_path / name)) is None
    for device in (b"/dev/zero", b"/dev/null", b"/dev/full", b"/dev/tty"):
        assert cache.read(device) is None


def test_no_descriptor_stays_open(cache: PageCache, tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"x")
    (tmp_path / "large").write_bytes(b"x" * (MOST + 1))
    before = os.listdir("/proc/self/fd")
    for _ in range(100):
        cache.read(bytes(tmp_path / "small"))
        cache.read(bytes(tmp_path / "large"))
        cache.read(bytes(tmp_path))
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_machine_that_cannot_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "freebsd14")
    (tmp_path / "file").write_bytes(b"x")
    assert not page_cache.works()
    assert PageCache(MOST).read(bytes(tmp_path / "file")) is None
