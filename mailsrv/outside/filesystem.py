"""The real disk.  What each call promises stands at ``IFilesystem``."""

from __future__ import annotations

import ctypes
import errno
import os
import stat as stat_module
from collections.abc import Collection

from zope.interface import implementer

from mailsrv.outside.interfaces import CACHED_LIMIT, FileStatus, IFilesystem, Input, Output
from mailsrv.outside.page_cache import PageCache

_AT_FDCWD = -100  # linux/fcntl.h: paths are those of this process
_RENAME_NOREPLACE = 1  # linux/fs.h
_CANNOT = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)  # say old systems, file systems and sandboxes


class _Output:
    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


class _Input:
    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, size: int) -> bytes:
        return os.read(self._descriptor, size)

    def seek(self, offset: int) -> int:
        return os.lseek(self._descriptor, offset, os.SEEK_SET)

    def close(self) -> None:
        os.close(self._descriptor)


@implementer(IFilesystem)
class Filesystem:
    """The real disk."""

    def __init__(self) -> None:
        # The os module has no syncfs; without a C library that has it, sync() does more but no less.
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._renameat2 = getattr(self._libc, "renameat2", None)
        self._cache = PageCache(CACHED_LIMIT)

    def create(self, path: str) -> Output:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return _Output(os.open(path, flags, 0o600))

    def open(self, path: str) -> Input:
        # O_NONBLOCK keeps a FIFO put there by somebody else from blocking the worker.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat_module.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "not a regular file", path)
        return _Input(descriptor)

    def append(self, path: str, data: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat_module.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        finally:
            os.close(descriptor)

    def read_cached(self, path: bytes) -> bytes | None:
        return self._cache.read(path)

    def rename(self, source: str, target: str) -> None:
        if self._rename_anew(source, target):
            return
        os.lstat(source)
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
        os.rename(source, target)

    def _rename_anew(self, source: str, target: str) -> bool:
        """In one step with the look whether ``target`` is there; False where system or file system cannot do that."""
        renameat2 = self._renameat2
        if renameat2 is None or "\0" in source or "\0" in target:  # C would see the end of the path there
            return False
        if renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE) == 0:
            return True
        number = ctypes.get_errno()
        if number in _CANNOT:
            return False
        raise OSError(number, os.strerror(number), target if number == errno.EEXIST else source)

    def replace(self, source: str, target: str) -> None:
        os.replace(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def list(self, path: str) -> list[str]:
        return os.listdir(path)

    def status(self, path: str) -> FileStatus:
        found = os.lstat(path)
        if stat_module.S_ISREG(found.st_mode):
            kind = "file"
        elif stat_module.S_ISDIR(found.st_mode):
            kind = "directory"
        elif stat_module.S_ISLNK(found.st_mode):
            kind = "link"
        else:
            kind = "other"
        return FileStatus(kind, found.st_size, found.st_mtime, found.st_ctime)

    def make_directory(self, path: str) -> None:
        os.mkdir(path, 0o700)

    def sync_directory(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_all(self, folders: Collection[str]) -> None:
        devices: set[int] = set()
        for folder in folders:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                device = os.fstat(descriptor).st_dev
                if device not in devices:
                    self._sync_device(descriptor, folder)
                    devices.add(device)
            finally:
                os.close(descriptor)

    def _sync_device(self, descriptor: int, folder: str) -> None:
        syncfs = getattr(self._libc, "syncfs", None)
        if syncfs is None:
            os.sync()
        elif syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), folder)

    def free(self, path: str) -> int:
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize
