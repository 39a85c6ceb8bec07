"""``mailsrv ledger``: the balance in a few lines, and each gap."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mailsrv.store import ledger, queue_id
from mailsrv.store.ledger import Balance, Event
from tests.worlds.rows import START
from tests.worlds.tool import Tool


@pytest.fixture
def tool(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Tool]:
    monkeypatch.setattr("mailsrv.cli.ledger.now", lambda: START + 86400)
    tool = Tool(tmp_path, capsys)
    yield tool
    tool.close()


def test_a_balance(tool: Tool) -> None:
    tool.rows.finish(tool.rows.accept())
    name = queue_id.text(tool.rows.accept(content=None))
    (tool.state / "spool" / name).write_bytes(b"content")
    assert tool.run("ledger", "--verify") == 0
    assert tool.out.splitlines() == [
        "Recipients of messages in the ledger:",
        "  accepted             2",
        "  delivered            1",
        "  queued               1",
        "  held                 0",
        "  bounced              0",
        "  dropped              0",
        "  removed              0",
        "The ledger balances: accepted = delivered + queued + held + bounced + dropped + removed.",
    ]
    assert tool.err == ""
    assert tool.json("ledger", "--verify") == {
        "accepted": 2,
        "delivered": 1,
        "queued": 1,
        "held": 0,
        "bounced": 0,
        "dropped": 0,
        "removed": 0,
        "gaps": [],
    }


def test_before_the_first_start_it_balances(tool: Tool) -> None:
    assert tool.run("ledger", "--verify") == 0
    assert list(tool.state.iterdir()) == [tool.state / "spool"]


def test_each_gap_is_named(tool: Tool) -> None:
    names = [queue_id.text(tool.rows.accept(content=None)) for _ in range(2)]
    assert tool.run("ledger", "--verify") == 1
    assert tool.out.splitlines()[8:] == [
        "2 gaps:",
        *(f"  {name}: the file spool/{name} with its content is gone" for name in names),
        "`mailsrv why ID` tells what is known of a message.",
    ]
    assert len(tool.json("ledger", "--verify")["gaps"]) == 2


def test_a_state_folder_without_spool_has_no_files(tool: Tool) -> None:
    tool.rows.accept(content=None)
    (tool.state / "spool").rmdir()
    assert tool.run("ledger", "--verify") == 1


def test_what_a_running_server_changes_meanwhile_is_no_gap(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was not there yet when the files were listed: the second look finds it."""
    name = queue_id.text(tool.rows.accept(content=None))
    looks: list[Balance] = []

    def verify(*arguments: object) -> Balance:
        looks.append(ledger_verify(*arguments))  # type: ignore[arg-type]
        (tool.state / "spool" / name).write_bytes(b"content")
        return looks[-1]

    ledger_verify = ledger.verify
    monkeypatch.setattr(ledger, "verify", verify)
    assert tool.run("ledger", "--verify") == 0
    assert [len(look.gaps) for look in looks] == [1, 0]


def test_the_last_day(tool: Tool) -> None:
    assert tool.run("ledger") == 0
    assert tool.out == "Nothing happened in the last 24 hours.\n"
    tool.rows.write(START - 1, Event("login"))
    tool.rows.accept(at=START)
    tool.rows.write(START + 1, Event("refused"), Event("refused"))
    assert tool.run("ledger") == 0
    assert tool.out.splitlines() == [
        "In the last 24 hours:",
        "  accepted               1",
        "  refused                2",
    ]
    assert tool.json("ledger") == {"accepted": 1, "refused": 2}
    tool.rows.write(START + 2, Event("login"))
    assert tool.run("ledger") == 0
    assert tool.out.splitlines()[-1] == "  login failed           1", "others are no events"
