"""Where a benchmark writes.  Durability costs what the file system makes it cost, so results name it.

On an ext4 without a journal (the root of some virtual machines) creating files becomes many times dearer after mass
deletions: figures from there say little.  As root, a journaled ext4 in an image file is mounted instead.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_IMAGE_SIZE = 8 * 1024**3  # sparse: takes what is written


def file_system(directory: Path) -> tuple[str, str]:
    """Device and type of the file system that holds ``directory``."""
    here = str(directory.resolve())
    best = ("", "", "unknown")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        device, mount_point, kind, *_ = line.split()
        inside = mount_point == "/" or here == mount_point or here.startswith(mount_point + "/")
        if inside and len(mount_point) >= len(best[1]):
            best = (device, mount_point, kind)
    return best[0], best[2]


def journaled(directory: Path) -> bool:
    """Whether the file system has a journal or does without by copying on write."""
    device, kind = file_system(directory)
    if kind == "ext4":
        task = Path("/sys/fs/ext4", os.path.basename(os.path.realpath(device)), "journal_task")
        return not task.exists() or "none" not in task.read_text()
    return kind in ("ext3", "xfs", "btrfs", "zfs", "f2fs", "jfs")


def environment(directory: Path) -> dict[str, str]:
    """What a reader must know to compare figures."""
    device, kind = file_system(directory)
    journal = "journaled" if journaled(directory) else "NO JOURNAL: figures say little"
    loop = " in an image file" if "/loop" in device else ""
    return {
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "file system": f"{kind}{loop}, {journal}",
    }


@contextmanager
def workspace(directory: Path, loop: bool | None) -> Iterator[Path]:
    """A folder to work in under ``directory``, empty, open to all, removed afterwards.

    ``loop`` True mounts an image with a journaled ext4 (root only), False does not, None does when it is needed and
    possible.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if loop is None:
        loop = not journaled(directory) and os.geteuid() == 0 and shutil.which("mkfs.ext4", path=_PATH) is not None
    image, place = directory / "image", directory / "work"
    place.mkdir(exist_ok=True)
    if loop:
        if os.path.ismount(place):  # left over from a run that was killed
            _run("umount", str(place))
        with image.open("wb") as file:
            file.truncate(_IMAGE_SIZE)
        _run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image))
        _run("mount", "-o", "loop", str(image), str(place))
    place.chmod(0o755)
    try:
        yield place
    finally:
        if loop:
            _run("umount", str(place))
            image.unlink()
        shutil.rmtree(place, ignore_errors=True)


_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, "PATH": _PATH})
    if done.returncode:
        raise SystemExit(f"bench: {' '.join(command)}: {done.stderr.strip()}")
