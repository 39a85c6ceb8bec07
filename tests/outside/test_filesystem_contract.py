"""One suite for every provider of ``IFilesystem``: the real disk and the simulated one behave the same."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zope.interface.verify import verifyObject

from mailsrv.outside.filesystem import Filesystem
from mailsrv.outside.interfaces import CACHED_LIMIT, IFilesystem
from tests.simulation.disk import Disk, SimulatedFilesystem


class Place:
    """A provider with an empty folder to work in, and what somebody else may do there."""

    def __init__(self, filesystem: Any, root: str, link: Callable[[str, str], None]) -> None:
        self.filesystem = filesystem
        self.root = root
        self._link = link

    def at(self, name: str) -> str:
        return os.path.join(self.root, name)

    def write(self, name: str, data: bytes = b"") -> None:
        output = self.filesystem.create(self.at(name))
        output.write(data)
        output.sync()
        output.close()

    def read(self, name: str) -> bytes:
        file = self.filesystem.open(self.at(name))
        try:
            return bytes(file.read(1 << 20))
        finally:
            file.close()

    def link(self, name: str, target: str) -> None:
        self._link(self.at(name), self.at(target))


def real_place(root: str) -> Place:
    return Place(Filesystem(), root, lambda path, target: os.symlink(target, path))


def older_place(root: str) -> Place:
    """Where the system or the file system cannot rename and look in one step."""
    place = real_place(root)
    place.filesystem._renameat2 = None
    return place


def simulated_place() -> Place:
    disk = Disk()
    disk.make_folders("/world")
    return Place(SimulatedFilesystem(disk), "/world", disk.link)


@pytest.fixture(params=["real", "older", "simulated"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    real = {"real": real_place, "older": older_place}.get(request.param)
    yield simulated_place() if real is None else real(str(tmp_path))


def refusal(function: Callable[..., object], *args: object) -> int:
    with pytest.raises(OSError) as caught:
        function(*args)
    assert caught.value.errno is not None
    return caught.value.errno


def test_provides_the_interface(place: Place) -> None:
    assert verifyObject(IFilesystem, place.filesystem)


def test_what_is_written_can_be_read(place: Place) -> None:
    output = place.filesystem.create(place.at("a"))
    output.write(b"one ")
    output.write(b"two")
    output.sync()
    output.close()
    file = place.filesystem.open(place.at("a"))
    assert file.read(5) == b"one t"
    assert file.read(100) == b"wo"
    assert file.read(100) == b""
    assert file.seek(4) == 4
    assert file.read(3) == b"two"
    file.close()
    assert refusal(file.read, 1) == errno.EBADF


def test_an_open_file_outlives_its_name(place: Place) -> None:
    place.write("a", b"octets")
    file = place.filesystem.open(place.at("a"))
    place.filesystem.unlink(place.at("a"))
    assert file.read(10) == b"octets"
    file.close()


def test_create_replaces_nothing_and_follows_no_link(place: Place) -> None:
    place.write("a", b"kept")
    place.filesystem.make_directory(place.at("d"))
    place.link("l", "nowhere")
    for name in ("a", "d", "l"):
        assert refusal(place.filesystem.create, place.at(name)) == errno.EEXIST
    assert place.read("a") == b"kept"
    assert refusal(place.filesystem.status, place.at("nowhere")) == errno.ENOENT


def test_open_reads_regular_files_only(place: Place) -> None:
    place.write("a")
    place.filesystem.make_directory(place.at("d"))
    place.link("l", "a")
    assert refusal(place.filesystem.open, place.at("none")) == errno.ENOENT
    assert refusal(place.filesystem.open, place.at("d")) == errno.EINVAL
    assert refusal(place.filesystem.open, place.at("l")) == errno.ELOOP
    assert refusal(place.filesystem.open, place.at("a/b")) == errno.ENOTDIR


def test_rename_moves_and_replaces_nothing(place: Place) -> None:
    place.filesystem.make_directory(place.at("d"))
    place.write("a", b"octets")
    place.write("b")
    assert refusal(place.filesystem.rename, place.at("a"), place.at("b")) == errno.EEXIST
    assert refusal(place.filesystem.rename, place.at("none"), place.at("c")) == errno.ENOENT
    assert refusal(place.filesystem.rename, place.at("d"), place.at("d/e")) == errno.EINVAL
    place.filesystem.rename(place.at("a"), place.at("d/a"))
    assert place.read("d/a") == b"octets"
    assert refusal(place.filesystem.status, place.at("a")) == errno.ENOENT
    place.filesystem.rename(place.at("d"), place.at("e"))
    assert place.read("e/a") == b"octets"


def test_append_adds_to_a_file_that_is_there(place: Place) -> None:
    place.write("a", b"one ")
    place.filesystem.append(place.at("a"), b"two")
    assert place.read("a") == b"one two"
    place.filesystem.make_directory(place.at("d"))
    place.link("l", "a")
    assert refusal(place.filesystem.append, place.at("none"), b"x") == errno.ENOENT
    assert refusal(place.filesystem.append, place.at("d"), b"x") == errno.EISDIR
    assert refusal(place.filesystem.append, place.at("l"), b"x") == errno.ELOOP
    assert place.read("a") == b"one two"


def test_replace_takes_the_place_of_a_file_or_a_link(place: Place) -> None:
    place.filesystem.make_directory(place.at("d"))
    place.write("d/new", b"new")
    place.write("a", b"old")
    place.filesystem.replace(place.at("d/new"), place.at("a"))
    assert place.read("a") == b"new"
    assert place.filesystem.list(place.at("d")) == []
    place.link("l", "d")
    place.filesystem.replace(place.at("a"), place.at("l"))
    assert place.filesystem.status(place.at("l")).kind == "file"
    assert refusal(place.filesystem.replace, place.at("none"), place.at("l")) == errno.ENOENT
    assert refusal(place.filesystem.replace, place.at("l"), place.at("d")) == errno.EISDIR


def test_status_tells_what_is_there_and_follows_no_link(place: Place) -> None:
    place.write("a", b"12345")
    place.filesystem.make_directory(place.at("d"))
    place.link("l", "d")
    file = place.filesystem.status(place.at("a"))
    assert (file.kind, file.size) == ("file", 5)
    assert place.filesystem.status(place.at("d")).kind == "directory"
    assert place.filesystem.status(place.at("l")).kind == "link"
    assert refusal(place.filesystem.status, place.at("none")) == errno.ENOENT


def test_list_gives_the_names_of_a_folder_even_behind_a_link(place: Place) -> None:
    place.filesystem.make_directory(place.at("d"))
    place.write("d/a")
    place.filesystem.make_directory(place.at("d/b"))
    place.link("l", "d")
    assert sorted(place.filesystem.list(place.at("d"))) == ["a", "b"]
    assert sorted(place.filesystem.list(place.at("l"))) == ["a", "b"]
    assert refusal(place.filesystem.list, place.at("none")) == errno.ENOENT
    assert refusal(place.filesystem.list, place.at("d/a")) == errno.ENOTDIR


def test_links_on_the_way_are_followed(place: Place) -> None:
    place.filesystem.make_directory(place.at("d"))
    place.link("l", "d")
    place.write("l/a", b"octets")
    assert place.read("d/a") == b"octets"
    place.filesystem.sync_directory(place.at("l"))


def test_unlink_removes_files_and_links_but_no_folders(place: Place) -> None:
    place.write("a")
    place.filesystem.make_directory(place.at("d"))
    place.link("l", "d")
    place.filesystem.unlink(place.at("a"))
    place.filesystem.unlink(place.at("l"))
    assert place.filesystem.list(place.root) == ["d"]
    assert refusal(place.filesystem.unlink, place.at("a")) == errno.ENOENT
    assert refusal(place.filesystem.unlink, place.at("d")) in (errno.EISDIR, errno.EPERM)


def test_make_directory_makes_one_folder_where_nothing_is(place: Place) -> None:
    place.filesystem.make_directory(place.at("d"))
    assert refusal(place.filesystem.make_directory, place.at("d")) == errno.EEXIST
    assert refusal(place.filesystem.make_directory, place.at("none/e")) == errno.ENOENT


def test_syncs_need_something_to_sync(place: Place) -> None:
    place.filesystem.make_directory(place.at("d"))
    place.write("a")
    place.filesystem.sync_directory(place.at("d"))
    place.filesystem.sync_all([place.root, place.at("d")])
    place.filesystem.sync_all([])
    assert refusal(place.filesystem.sync_directory, place.at("none")) == errno.ENOENT
    assert refusal(place.filesystem.sync_directory, place.at("a")) == errno.ENOTDIR
    assert refusal(place.filesystem.sync_all, [place.at("none")]) == errno.ENOENT


def test_free_is_a_number_of_octets(place: Place) -> None:
    assert place.filesystem.free(place.root) > 0
    assert refusal(place.filesystem.free, place.at("none")) == errno.ENOENT


def test_names_are_bounded(place: Place) -> None:
    place.write("n" * 255)
    assert refusal(place.filesystem.create, place.at("n" * 256)) == errno.ENAMETOOLONG


_NAMES = st.sampled_from(["a", "b", "d", "d/a", "d/b", "d/e", "a/x", "d/e/a", "l", "l/a"])
_CALLS = st.one_of(
    st.tuples(st.just("create"), _NAMES),
    st.tuples(st.just("open"), _NAMES),
    st.tuples(st.just("rename"), _NAMES, _NAMES),
    st.tuples(st.just("unlink"), _NAMES),
    st.tuples(st.just("list"), _NAMES),
    st.tuples(st.just("status"), _NAMES),
    st.tuples(st.just("make_directory"), _NAMES),
    st.tuples(st.just("sync_directory"), _NAMES),
    st.tuples(st.just("link"), st.sampled_from(["l", "d/l"]), _NAMES),
)


def _outcome(place: Place, call: tuple[str, ...]) -> object:
    """What a call leads to, in words that both providers share."""
    name, *arguments = call
    try:
        if name == "link":
            place.link(*arguments)
            return None
        found = getattr(place.filesystem, name)(*(place.at(argument) for argument in arguments))
    except OSError as error:
        return error.errno
    if name == "create":
        found.write(arguments[0].encode())
        found.close()
        return None
    if name == "open":
        data = found.read(100)
        found.close()
        return data
    if name == "list":
        return sorted(found)
    if name == "status":
        return (found.kind, found.size if found.kind == "file" else 0)
    return None


@settings(max_examples=150, deadline=None)
@given(calls=st.lists(_CALLS, max_size=20))
def test_any_calls_lead_to_the_same_on_both(calls: list[tuple[str, ...]]) -> None:
    root = tempfile.mkdtemp()
    try:
        real, simulated = real_place(root), simulated_place()
        for call in calls:
            assert (call, _outcome(real, call)) == (call, _outcome(simulated, call))
    finally:
        shutil.rmtree(root)


def test_what_is_in_memory_is_given_at_once_or_not_at_all(place: Place) -> None:
    for n in range(20):
        content = b"line\n" * n * 100
        place.write(f"file{n}", content)
        assert place.filesystem.read_cached(os.fsencode(place.at(f"file{n}"))) in (content, None)


def test_what_is_no_small_file_is_never_given_at_once(place: Place) -> None:
    for n in range(8):  # half of the names are in the memory of the simulated disk
        place.write(f"large{n}", b"x" * (CACHED_LIMIT + 1))
        place.write(f"target{n}", b"x")
        place.link(f"link{n}", f"target{n}")
        place.filesystem.make_directory(place.at(f"folder{n}"))
        for name in ("large", "link", "folder", "missing"):
            assert place.filesystem.read_cached(os.fsencode(place.at(f"{name}{n}"))) is None


def test_every_change_of_a_folder_moves_its_time(place: Place) -> None:
    place.filesystem.make_directory(place.at("folder"))
    before = place.filesystem.status(place.at("folder"))
    place.write("folder/a")
    after = place.filesystem.status(place.at("folder"))
    assert after.changed >= before.changed
    assert after.changed >= after.modified
