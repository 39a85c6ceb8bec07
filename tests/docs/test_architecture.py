"""The package is built as its architecture page says: imports go one way, cores are pure, there is one door."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(module: Path) -> set[str]:
    """What a module imports, by full names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


# Modules at the top of the package that belong to a row of the table with another name.
ROW_OF = {
    "config_values": "config",
    "endpoints": "config",
    "toml_lines": "config",
    "settings": "tap",
}


def room_of(name: str) -> str:
    """The row of the table that ``mailsrv.X...`` belongs to."""
    room = name.split(".")[1].removesuffix(".py")
    return ROW_OF.get(room, room)


def test_imports_go_one_way() -> None:
    page = (ROOT / "docs/developer/architecture.rst").read_text()
    order = [name.removesuffix(".py") for name in re.findall(r"(?m)^``([a-z0-9_.]+)``  ", page)]
    modules = list((ROOT / "mailsrv").rglob("*.py"))
    assert set(order) == {room_of("mailsrv." + of(module).split("/")[1]) for module in modules} - {"__init__"}
    for module in modules:
        room = room_of("mailsrv." + of(module).split("/")[1])
        for name in imported(module):
            if name.startswith("mailsrv.") and room != "__init__" and room_of(name) != "__version__":
                assert order.index(room_of(name)) <= order.index(room), f"{of(module)} imports {name}"


SHELLS = {
    *(f"mailsrv/dkim/{name}.py" for name in ("publication", "signer")),
    *(f"mailsrv/pop3/{name}.py" for name in ("protocol", "session")),
    *(
        f"mailsrv/smtp/{name}.py"
        for name in ("protocol", "session", "acceptance", "login", "room", "refusals", "house")
    ),
}


PURE_IN_RELAY = ("family", "limit", "memory", "schedule", "window")


def test_what_is_said_to_be_pure_is() -> None:
    allowed = {*sys.stdlib_module_names, "mailsrv", "idna"} - {"time", "random", "secrets", "socket", "threading"}
    rooms = [ROOT / "mailsrv" / room for room in ("mail", "wire", "sasl", "dkim", "smtp", "pop3")]
    modules = [module for room in rooms for module in room.glob("*.py")]
    modules += [ROOT / "mailsrv" / "relay" / f"{name}.py" for name in PURE_IN_RELAY]
    modules += (ROOT / "mailsrv" / "relay" / "remedies").glob("*.py")
    for module in modules:
        if of(module) not in SHELLS:
            assert {name.split(".")[0] for name in imported(module)} <= allowed, of(module)


def test_there_is_one_door() -> None:
    for module in (ROOT / "mailsrv").rglob("*.py"):
        if module.parent.name not in ("outside", "cli"):
            named = {name.split(".")[0] for name in imported(module)}
            assert not named & {"time", "random", "secrets", "socket", "threading", "asyncio"}, of(module)
            assert "twisted.internet.reactor" not in imported(module) or module.name == "tap.py", of(module)
