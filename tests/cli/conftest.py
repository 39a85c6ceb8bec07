"""A fresh configuration for each test of the tool, and a way to run a verb as a person would."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mailsrv.cli.main import main


@dataclass(frozen=True, slots=True)
class Ran:
    status: int
    out: str
    err: str


Tool = Callable[..., Ran]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Holds ``mailsrv.toml`` for example.org and example.net; MAILSRV_CONFIG points to it."""
    (tmp_path / "mailsrv.toml").write_text(
        'hostname = "mx.example.org"\ndomains = ["example.org", "example.net"]\nstate = "state"\n'
    )
    monkeypatch.setenv("MAILSRV_CONFIG", str(tmp_path / "mailsrv.toml"))
    return tmp_path


@pytest.fixture
def tool(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Tool:
    """``tool("account", "list")``, with ``stdin`` as octets."""

    def run(*arguments: str, stdin: bytes = b"") -> Ran:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            status = main(arguments)
        except SystemExit as ended:
            status = int(ended.code or 0)
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return Ran(status, out, err)

    return run
