import json
from pathlib import Path
from typing import Any


def aliases(tool: Any) -> dict[str, list[str]]:
    return {entry["address"]: entry["targets"] for entry in json.loads(tool("alias", "list", "--json").out)}


def test_targets_here_elsewhere_and_to_come(tool: Any, folder: Path) -> None:
    ran = tool("alias", "add", "Sales@example.org", "alice@example.org", "bob@Example.COM")
    assert ran.status == 0
    assert "alice@example.org is nobody yet" in ran.out
    assert tool("alias", "add", "sales@example.org", "bob@example.com,carol@example.com").status == 0
    assert aliases(tool) == {"sales@example.org": ["alice@example.org", "bob@example.com", "carol@example.com"]}
    assert "carol@example.com" in tool("alias", "list").out
    assert aliases(tool) == {
        entry["address"]: entry["targets"]
        for entry in json.loads(tool("alias", "list", "SALES@example.org", "--json").out)
    }


def test_remove_some_targets_or_all(tool: Any, folder: Path) -> None:
    tool("alias", "add", "sales@example.org", "a@example.com", "b@example.com", "c@example.com")
    assert tool("alias", "remove", "sales@example.org", "a@example.com", "c@example.com").status == 0
    assert aliases(tool) == {"sales@example.org": ["b@example.com"]}
    ran = tool("alias", "remove", "sales@example.org", "x@example.com")
    assert ran.status == 1
    assert "does not stand for x@example.com" in ran.err
    assert tool("alias", "remove", "sales@example.org", "b@example.com").status == 0
    assert aliases(tool) == {}
    tool("alias", "add", "sales@example.org", "a@example.com", "b@example.com")
    assert tool("alias", "remove", "sales@example.org").out == "Removed sales@example.org.\n"
    assert tool("alias", "remove", "sales@example.org").status == 1
    assert tool("alias", "list", "sales@example.org").status == 1
    assert "There are no aliases" in tool("alias", "list").out


def test_bare_postmaster(tool: Any, folder: Path) -> None:
    assert tool("alias", "add", "postmaster", "a@example.com").status == 0
    assert (folder / "aliases").read_text() == "postmaster: a@example.com\n"
    assert aliases(tool) == {"postmaster": ["a@example.com"]}


def test_what_is_refused(tool: Any, folder: Path) -> None:
    tool("account", "add", "alice@example.org", "--password-stdin", stdin=b"x\n")
    assert "is an account" in tool("alias", "add", "alice@example.org", "a@example.com").err
    assert "not one of those" in tool("alias", "add", "a@example.com", "b@example.com").err
    assert "is not an address" in tool("alias", "add", "a@example.org", "alice").err
    assert "there is no target" in tool("alias", "add", "a@example.org", ",").err
    assert tool("alias", "add", "a@example.org").status == 2
    tool("alias", "add", "a@example.org", "b@example.org")
    ran = tool("alias", "add", "b@example.org", "a@example.org")
    assert ran.status == 1
    assert "a@example.org -> b@example.org -> a@example.org" in ran.err
    assert aliases(tool) == {"a@example.org": ["b@example.org"]}
