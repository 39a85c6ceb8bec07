"""The operator's tool on a folder of its own, with a database that a server might have left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mailsrv.cli.main import main
from tests.worlds.rows import Rows


class Tool:
    """``run`` a verb; ``out`` and ``err`` are what it printed."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.state = folder / "state"
        (self.state / "spool").mkdir(parents=True)
        self._config = folder / "mailsrv.toml"
        self._config.write_text(f'hostname = "mx.example.org"\ndomains = ["example.org"]\nstate = "{self.state}"\n')
        self._capsys = capsys
        self._rows: Rows | None = None
        self.out = self.err = ""

    @property
    def rows(self) -> Rows:
        """The database, created when it is first asked for."""
        if self._rows is None:
            self._rows = Rows(str(self.state / "mailsrv.db"))
        return self._rows

    def run(self, *arguments: str) -> int:
        """The exit status."""
        try:
            status = main([*arguments, "--config", str(self._config)])
        except SystemExit as error:  # argparse, on wrong usage
            status = int(error.code or 0)
        self.out, self.err = self._capsys.readouterr()
        return status

    def json(self, *arguments: str) -> Any:
        """What a verb prints with ``--json``."""
        self.run(*arguments, "--json")
        return json.loads(self.out)

    def close(self) -> None:
        if self._rows is not None:
            self._rows.connection.close()
