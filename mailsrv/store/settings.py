"""Where the configuration and the accounts in force are found: they change while the server runs."""

from __future__ import annotations

from typing import Protocol

from mailsrv.config import Config
from mailsrv.store.accounts.accounts import Directory


class Settings(Protocol):
    """Read at each use, never kept."""

    @property
    def config(self) -> Config: ...

    @property
    def directory(self) -> Directory: ...
