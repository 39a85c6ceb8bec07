"""The configuration, the accounts, the certificates and the keys in force, and how changes to their files are taken up.

``look``, called twice a second, compares the files with what they were; one that changed is read, and what does not
parse is reported once and leaves the old in force.  So a verb of the tool is in force within a second, and so is an
edit by hand.  ``changed`` is called after each reading that succeeded; connections are never dropped.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

import msgspec
from twisted.logger import Logger

from mailsrv.config import Config, ConfigError, load
from mailsrv.store import key_states
from mailsrv.store.accounts.accounts import AccountsError, Directory, load_directory
from mailsrv.store.key_states import Keys
from mailsrv.store.keys import KeyFileError
from mailsrv.tls import CertificateError, ServerCertificate

log = Logger()

Mark = tuple[int, int, int] | None


class FileSettings:
    """Settings read from the files that an operator edits."""

    def __init__(self, path: str) -> None:
        """Read everything (ConfigError, AccountsError, CertificateError, KeyFileError: one sentence)."""
        self.path = path
        self._marks: dict[str, Mark] = {}
        self.config: Config
        self.directory: Directory
        self.certificate: ServerCertificate
        self.keys: Keys
        self.changed: Callable[[], None] = lambda: None
        self.refused: Callable[[str], None] = lambda problem: None
        self._read(first=True)

    def look(self) -> None:
        """Read again when a file has changed since the last look."""
        if any(_mark(file) != mark for file, mark in self._marks.items()):
            self.reload()

    def reload(self) -> None:
        """Read everything again, in force as a whole or not at all."""
        try:
            self._read()
        except (ConfigError, AccountsError, CertificateError, KeyFileError) as error:
            log.error("{error} What was in force before stays in force.", error=str(error))
            self.refused(str(error))
        else:
            self.changed()

    def _read(self, first: bool = False) -> None:
        # A mark is taken before its file is read, so no change falls between the two.
        own = self._marks[self.path] = _mark(self.path)
        config = load(self.path)
        if not first and config.state != self.config.state:
            # Mail and queue are open there, and the keys of the new folder would not be those of the mail.
            log.warn("A restart takes up state, {state}; nothing else waits for it.", state=config.state)
            config = msgspec.structs.replace(config, state=self.config.state)
        tls = config.tls
        files = [config.accounts, config.aliases, tls.certificate, tls.key]
        files += [file for pair in tls.names.values() for file in (pair.certificate, pair.key)]
        files += key_states.files(config)
        self._marks = {self.path: own} | {file: _mark(file) for file in files}
        directory = load_directory(config)
        keys = key_states.load(config)
        if first:
            self.certificate = ServerCertificate(tls.certificate, tls.key, tls.names)
        else:
            self.certificate.replace(tls.certificate, tls.key, tls.names)
        self.config = config
        self.directory = directory
        self.keys = keys


def _mark(path: str) -> Mark:
    try:
        found = os.stat(path)
        names = os.listdir(path) if stat.S_ISDIR(found.st_mode) else None
    except OSError:
        return None
    # Two files that come to a folder within one tick of the disk's clock leave the same time.
    size = hash(frozenset(names)) if names is not None else found.st_size
    return found.st_mtime_ns, found.st_ino, size
