"""How the house is kept: what every module has, and what none may become."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    path for folder in ("mailsrv", "twisted", "tests", "tools", "bench") for path in (ROOT / folder).rglob("*.py")
)
PROGRAM = [path for path in SOURCES if path.is_relative_to(ROOT / "mailsrv")]
LINES = 500

# Longer than a reader's head, and why all the same.
LONG: dict[str, str] = {}
# Names that say nothing about what is inside.
VAGUE = {"utils", "util", "helpers", "helper", "base", "common", "misc", "manager", "handler", "engine", "core", "lib"}
CLASSES = re.compile(r".*(Utils?|Helpers?|Manager|Handler|Engine|Base)")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@pytest.mark.parametrize("path", PROGRAM, ids=name)
def test_every_module_opens_with_what_it_is_for(path: Path) -> None:
    if path.name == "__init__.py" and not path.read_text().strip():
        return
    said = ast.get_docstring(parsed(path))
    assert said, f"{name(path)} says nothing about itself"


@pytest.mark.parametrize("path", PROGRAM, ids=name)
def test_no_file_is_longer_than_a_readers_head(path: Path) -> None:
    lines = path.read_text().count("\n")
    assert lines <= LINES or name(path) in LONG, f"{name(path)} has {lines} lines"


def test_what_is_excused_for_its_length_is_long() -> None:
    for path in LONG:
        assert (ROOT / path).read_text().count("\n") > LINES, f"{path} needs no excuse any more"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_names_say_what_is_inside(path: Path) -> None:
    assert path.stem not in VAGUE
    if path in PROGRAM:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef):
                assert not CLASSES.fullmatch(node.name), f"{name(path)}: {node.name}"


@pytest.mark.parametrize("path", [path for path in SOURCES if "tests" in path.parts], ids=name)
def test_tests_do_not_sleep(path: Path) -> None:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Attribute) and node.attr == "sleep":
            assert name(path).startswith("tests/peers/"), f"{name(path)}:{node.lineno} sleeps"


def test_each_test_is_where_its_room_is() -> None:
    rooms = {path.name for path in (ROOT / "mailsrv").iterdir() if path.is_dir() and path.name != "__pycache__"}
    others = {"config", "dialogs", "docs", "peers", "simulation", "worlds", "tls"}
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= rooms | others
