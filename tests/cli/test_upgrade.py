"""A database of an older version under the tool: brought up to date without a server, left alone beside one."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailsrv.cli import check_queue
from mailsrv.config import load
from mailsrv.store import schema, state_lock
from tests.worlds.tool import Tool

VERSION_1 = Path(__file__).parent.parent / "store" / "data" / "version-1.sql"
VERBS = [("account", "list"), ("queue", "list"), ("why", "alice@example.org"), ("ledger", "--verify")]


@pytest.fixture
def tool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Tool]:
    tool = Tool(tmp_path, capsys)
    (tmp_path / "accounts").write_text("alice@example.org:!\n")
    connection = sqlite3.connect(tool.state / "mailsrv.db")
    connection.executescript(VERSION_1.read_text())
    connection.close()
    yield tool
    tool.close()


def content(tool: Tool) -> tuple[int, list[str]]:
    connection = sqlite3.connect(tool.state / "mailsrv.db")
    try:
        return connection.execute("PRAGMA user_version").fetchone()[0], list(connection.iterdump())
    finally:
        connection.close()


@pytest.mark.parametrize("verb", VERBS)
def test_without_a_server_every_verb_works_at_once(tool: Tool, verb: tuple[str, ...]) -> None:
    tool.run(*verb)
    assert tool.err == ""
    assert tool.out
    assert content(tool)[0] == schema.VERSION


@pytest.mark.parametrize("verb", VERBS)
def test_beside_a_server_it_says_what_to_do_and_changes_nothing(tool: Tool, verb: tuple[str, ...]) -> None:
    """The server may be the old program, which would find its tables changed."""
    before = content(tool)
    lock = state_lock.take(str(tool.state))
    assert lock is not None
    assert tool.run(*verb) == 1
    os.close(lock)
    assert tool.err.startswith(f"mailsrv: {tool.state}/mailsrv.db: written by an older mailsrv (version 1,")
    assert tool.err.endswith("; restart the server, which brings it up to date.\n")
    assert content(tool) == before


def test_a_server_that_starts_meanwhile_comes_after_the_change(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is looked at when nobody else can write any more."""
    is_taken = state_lock.is_taken

    def looked_at(state: str) -> bool:
        other = sqlite3.connect(tool.state / "mailsrv.db", timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.close()
        return is_taken(state)

    monkeypatch.setattr(state_lock, "is_taken", looked_at)
    assert tool.run("queue", "list") == 0
    assert content(tool)[0] == schema.VERSION


def test_check_changes_nothing(tool: Tool) -> None:
    before = content(tool)
    (finding,) = check_queue.findings(load(str(tool.state.parent / "mailsrv.toml")), 0.0)
    assert (finding.verdict, finding.remedy) == ("warning", "restart the server, which brings it up to date")
    assert content(tool) == before


def test_a_second_server_does_not_get_the_lock(tmp_path: Path) -> None:
    state = str(tmp_path)
    assert not state_lock.is_taken(state)
    lock = state_lock.take(state)
    assert lock is not None
    assert state_lock.take(state) is None
    assert state_lock.is_taken(state)
    os.close(lock)
    assert not state_lock.is_taken(state)
    assert state_lock.is_taken(str(tmp_path / "missing"))  # nobody can tell
