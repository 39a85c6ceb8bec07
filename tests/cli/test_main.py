import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mailsrv.cli.command import table


def test_no_verb_and_unknown_verbs_are_wrong_usage(tool: Any) -> None:
    assert tool().status == 2
    assert tool("frobnicate").status == 2
    assert tool("account").status == 2
    assert tool("account", "add").status == 2
    assert tool("account", "list", "--frobnicate").status == 2


def test_help_names_every_verb(tool: Any) -> None:
    ran = tool("--help")
    assert ran.status == 0
    for verb in ("init", "account", "alias", "dns", "check", "queue", "why", "ledger"):
        assert f"    {verb} " in ran.out


def test_version(tool: Any) -> None:
    assert tool("--version").out.startswith("mailsrv ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--config", "FILE", "alias", "add", "a@example.org", "x@example.com", "y@example.com"),
        ("alias", "--config", "FILE", "add", "a@example.org", "x@example.com", "y@example.com"),
        ("alias", "add", "--config=FILE", "a@example.org", "x@example.com", "y@example.com"),
        ("alias", "add", "a@example.org", "--config", "FILE", "x@example.com", "y@example.com"),
        ("alias", "add", "a@example.org", "x@example.com", "--config", "FILE", "y@example.com"),
        ("alias", "add", "a@example.org", "x@example.com", "y@example.com", "--config=FILE"),
    ],
)
def test_config_may_stand_anywhere(
    tool: Any, folder: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILSRV_CONFIG", "/nowhere")
    ran = tool(*(word.replace("FILE", str(folder / "mailsrv.toml")) for word in arguments))
    assert (ran.status, ran.err) == (0, "")
    assert (folder / "aliases").read_text() == "a@example.org: x@example.com, y@example.com\n"


def test_a_wrong_configuration_is_one_sentence(tool: Any, folder: Path) -> None:
    (folder / "mailsrv.toml").write_text("hostname = 5\n")
    ran = tool("account", "list")
    assert ran.status == 1
    assert ran.out == ""
    assert ran.err == f"mailsrv: {folder}/mailsrv.toml:1: hostname: expected a string.\n"


def test_a_missing_configuration_is_one_sentence(tool: Any, folder: Path) -> None:
    ran = tool("account", "list", "--config", str(folder / "other.toml"))
    assert ran.status == 1
    assert ran.err == f"mailsrv: {folder}/other.toml: cannot be read: No such file or directory.\n"


def test_config_without_its_file_is_wrong_usage(tool: Any) -> None:
    assert tool("account", "list", "--config").status == 2


def test_a_reader_that_goes_away_is_no_traceback(folder: Path) -> None:
    command = f"{sys.executable} -m mailsrv.cli.main dns | true"
    ran = subprocess.run(
        command, shell=True, cwd=Path(__file__).parents[2], capture_output=True, check=False, text=True
    )
    assert ran.stderr == ""


def test_table() -> None:
    assert table([("a", 1), ("long", 22)], ("name", "n")) == "name  n\na     1\nlong  22"
