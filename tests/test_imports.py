"""Which part may know which: imports run one way, protocol code is pure, and the world comes in by one door."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mailsrv"

# Each room may import from its own and from those in lines above it.
ORDER: tuple[tuple[str, ...], ...] = (
    ("mail", "wire"),
    ("sasl",),
    ("outside", "tls"),
    ("endpoints", "config_values", "toml_lines", "config"),
    ("store",),
    ("settings", "dkim"),
    ("checks",),
    ("smtp", "pop3"),
    ("relay",),
    ("app",),
    ("tap", "cli"),
)
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
# Rooms in one line that may not import each other.
STRANGERS = {("mail", "wire"), ("wire", "mail"), ("smtp", "pop3"), ("pop3", "smtp"), ("tap", "cli"), ("cli", "tap")}
STRANGERS |= {("settings", "dkim"), ("dkim", "settings")}

PURE_ROOMS = ("mail", "wire", "sasl", "dkim", "smtp", "pop3")
# What in the rooms of the protocols is not: policy, and the shells that move octets.
SHELLS = {
    "mailsrv.dkim.publication",
    "mailsrv.dkim.signer",
    "mailsrv.smtp.protocol",
    "mailsrv.smtp.session",
    "mailsrv.smtp.acceptance",
    "mailsrv.smtp.holding",
    "mailsrv.smtp.house",
    "mailsrv.smtp.login",
    "mailsrv.smtp.refusals",
    "mailsrv.smtp.room",
    "mailsrv.pop3.protocol",
    "mailsrv.pop3.session",
}
BORROWED = {"mailsrv.mail.address": {"idna"}}

# Time, chance, threads and sockets come through ``mailsrv.outside``.
OUTSIDE_ONLY = {
    *("time", "random", "secrets", "uuid", "threading", "_thread", "queue", "asyncio", "concurrent", "multiprocessing"),
    *("select", "selectors", "socket", "subprocess"),
}
OUTSIDE_ONLY_CALLS = {
    *("os.urandom", "os.getrandom", "os.times", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
    *("threads.deferToThread", "threads.deferToThreadPool"),
}
REACTOR = "twisted.internet.reactor"
ALLOWED = {
    ("mailsrv.tap", REACTOR),
    # The operator's tool is another program: it looks at ports and clocks itself.
    ("mailsrv.cli.check", "socket"),
    ("mailsrv.cli.check_route", "socket"),
    ("mailsrv.cli.endpoint", "socket"),
}


@cache
def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted(PACKAGE.rglob("*.py"))
    }


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text())


def imports(module: str) -> Iterator[str]:
    """Every module that is imported, at the top or within a function; ``from a import b`` is a.b when that is one."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{module}: relative imports hide where things come from"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in modules() or whole == REACTOR else node.module


def room(module: str) -> str:
    """The part that a module belongs to, "" for the package itself."""
    return [*module.split("."), ""][1]


def is_own(name: str) -> bool:
    return name == "mailsrv" or name.startswith("mailsrv.")


def is_pure(module: str) -> bool:
    return room(module) in PURE_ROOMS and module not in SHELLS


@pytest.mark.parametrize("module", modules())
def test_imports_run_one_way(module: str) -> None:
    here = room(module)
    if not here:
        assert not any(map(is_own, imports(module)))
        return
    assert here in LEVEL, f"{here} has no place in the order"
    for name in filter(is_own, imports(module)):
        there = room(name)
        if there:
            assert LEVEL[there] <= LEVEL[here], f"{module} imports {name}"
            assert (here, there) not in STRANGERS, f"{module} imports {name}"


@pytest.mark.parametrize("module", [module for module in modules() if is_pure(module)])
def test_protocol_code_and_formats_are_pure(module: str) -> None:
    """The standard library and our own pure modules, nothing else: no Twisted, no disk, no clock."""
    for name in imports(module):
        if is_own(name):
            assert is_pure(name), f"{module} imports {name}"
        else:
            top = name.partition(".")[0]
            assert top in sys.stdlib_module_names or top in BORROWED.get(module, ()), f"{module} imports {name}"
            assert top not in {"os", "io", "pathlib", "tempfile", "shutil", "logging", "ssl"}, (
                f"{module} imports {name}"
            )


@pytest.mark.parametrize("module", [module for module in modules() if room(module) != "outside"])
def test_the_world_comes_in_by_one_door(module: str) -> None:
    for name in imports(module):
        if (module, name) not in ALLOWED:
            assert name.partition(".")[0] not in OUTSIDE_ONLY, f"{module} imports {name}"
            assert name != REACTOR, f"{module} imports the global reactor"
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and room(module) != "cli":
            called = f"{node.value.id}.{node.attr}"
            assert called not in OUTSIDE_ONLY_CALLS, f"{module}:{node.lineno} uses {called}"


def test_the_shells_that_are_named_exist() -> None:
    assert set(modules()) >= SHELLS


def test_the_plugin_imports_only_what_makes_the_service() -> None:
    """``twistd --help`` reads it for every program that is installed."""
    plugin = ast.parse((ROOT / "twisted/plugins/mailsrv_plugin.py").read_text())
    imported = {
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(plugin)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert imported <= {"__future__", "twisted.application.service"}


def test_the_rules_find_what_breaks_them(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {
        "mailsrv.wire.lines": "import twisted.internet.defer",
        "mailsrv.mail.date": "from mailsrv.store import ledger",
        "mailsrv.store.spool": "import time",
        "mailsrv.relay.queue": "from twisted.internet import reactor",
        "mailsrv.store.database": "import os\nos.urandom(8)",
    }
    monkeypatch.setattr(sys.modules[__name__], "tree", lambda module: ast.parse(broken[module]))
    for module in ("mailsrv.wire.lines", "mailsrv.mail.date"):
        with pytest.raises(AssertionError):
            test_protocol_code_and_formats_are_pure(module)
    with pytest.raises(AssertionError):
        test_imports_run_one_way("mailsrv.mail.date")
    for module in ("mailsrv.store.spool", "mailsrv.relay.queue", "mailsrv.store.database"):
        with pytest.raises(AssertionError):
            test_the_world_comes_in_by_one_door(module)


@pytest.mark.parametrize("module", [module for module in modules() if room(module) not in ("cli", "outside")])
def test_nothing_is_loaded_after_root_is_given_up(module: str) -> None:
    """strptime, and text files in another encoding than UTF-8, import a module when they are first used."""
    for node in ast.walk(tree(module)):
        assert not (isinstance(node, ast.Attribute) and node.attr == "strptime"), module
        if isinstance(node, ast.keyword) and node.arg == "encoding":
            assert isinstance(node.value, ast.Constant) and node.value.value == "utf-8", module
