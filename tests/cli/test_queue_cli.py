"""``mailsrv queue``: on what a server has left or is using."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mailsrv.cli import wording
from mailsrv.store import queue_id
from mailsrv.store.message import Hold
from tests.worlds.rows import ALICE, BOB, CAROL, START, Rows
from tests.worlds.tool import Tool


@pytest.fixture
def tool(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Tool]:
    monkeypatch.setattr("mailsrv.cli.queue.now", lambda: START + 60)
    tool = Tool(tmp_path, capsys)
    yield tool
    tool.close()


def deferred(rows: Rows) -> tuple[int, str]:
    """A message to two, one done and one to be tried again in four minutes."""
    id = rows.accept([BOB, CAROL], message_id="a.1@example.org")
    rows.settle(id, 0, "delivered")
    rows.settle(id, 1, "deferred", next_attempt=START + 300, status="4.4.1", answer="450 busy")
    return id, queue_id.text(id)


def state(tool: Tool) -> list[str]:
    return [row[0] for row in tool.rows.connection.execute("SELECT state FROM recipient ORDER BY message, n")]


def test_before_the_first_start_the_queue_is_empty(tool: Tool) -> None:
    assert tool.run("queue", "list") == 0
    assert tool.out == "The queue is empty.\n"
    assert tool.json("queue", "list") == []
    assert tool.run("queue", "list", "--held") == 0
    assert tool.out == "No message is held.\n"
    assert tool.run("queue", "retry", "--all") == 0
    assert tool.out == "Nothing is queued.\n"
    assert not (tool.state / "mailsrv.db").exists()


def test_list_as_json(tool: Tool) -> None:
    _, name = deferred(tool.rows)
    (entry,) = tool.json("queue", "list")
    recipients = entry.pop("recipients")
    assert entry == {
        "id": name,
        "sender": ALICE,
        "message_id": "a.1@example.org",
        "size": 24,
        "account": "",
        "held": None,
        "accepted": START,
    }
    assert [(each["address"], each["state"]) for each in recipients] == [(BOB, "delivered"), (CAROL, "queued")]
    assert recipients[0]["next_attempt"] is None
    assert recipients[1] == {
        "address": CAROL,
        "original": CAROL,
        "mailbox": "",
        "state": "queued",
        "attempts": 1,
        "next_attempt": START + 300,
        "status": "4.4.1",
        "answer": "450 busy",
    }


def test_list_for_people(tool: Tool) -> None:
    _, name = deferred(tool.rows)
    assert tool.run("queue", "list") == 0
    assert tool.out.splitlines() == [
        f"{name}  {wording.moment(START)}  from alice@example.org, 24 octets",
        "    to carol@example.net: next attempt in 4 minutes, 1 attempt so far: 4.4.1 450 busy",
        "    1 other recipient done",
        "1 message, 1 recipient waiting.",
    ]


def test_mail_that_waits_for_an_own_mailbox_is_listed(tool: Tool) -> None:
    id = tool.rows.accept(["carl@example.org"])
    tool.rows.settle(id, 0, "deferred", next_attempt=START + 300, status="4.3.1", reason="the disk is full")
    tool.run("queue", "list")
    assert "to carl@example.org: next attempt in 4 minutes, 1 attempt so far: 4.3.1 the disk is full" in tool.out


def test_retry_hold_release_remove(tool: Tool) -> None:
    _, name = deferred(tool.rows)
    assert tool.run("queue", "retry", name.lower()) == 0
    assert tool.out == f"{name}: 1 recipient will be tried now.\n"
    assert tool.rows.value("SELECT next_attempt FROM recipient WHERE n = 1") == START + 60
    assert tool.run("queue", "hold", name) == 0
    assert tool.out == f"{name}: 1 recipient held until it is released.\n"
    assert [entry["id"] for entry in tool.json("queue", "list", "--held")] == [name]
    assert tool.run("queue", "retry", name) == 1
    assert tool.err == f"mailsrv: {name} is not queued but held: release it first.\n"
    assert tool.run("queue", "hold", name) == 1
    assert tool.err == f"mailsrv: {name} is held already.\n"
    assert tool.run("queue", "release", name) == 0
    assert tool.run("queue", "release", name) == 1
    assert tool.err == f"mailsrv: {name} is not held.\n"
    assert tool.run("queue", "remove", name) == 0
    assert tool.out == f"{name}: 1 recipient removed.\n"
    assert state(tool) == ["delivered", "removed"]
    assert tool.json("queue", "list") == []
    assert tool.run("queue", "remove", name) == 1
    assert tool.err == f"mailsrv: {name} is not in the queue any more; `mailsrv why {name}` tells what became of it.\n"


def test_retry_all(tool: Tool) -> None:
    deferred(tool.rows)
    deferred(tool.rows)
    assert tool.run("queue", "retry", "--all") == 0
    assert tool.out == "2 messages will be tried now.\n"
    assert tool.rows.value("SELECT count(*) FROM recipient WHERE next_attempt = ?", START + 60) == 2


def test_several_at_once_and_each_wrong_one_is_named(tool: Tool) -> None:
    names = [queue_id.text(tool.rows.accept()) for _ in range(2)]
    assert tool.run("queue", "remove", names[0], "00000000007", "gone", names[1]) == 1
    assert state(tool) == ["removed", "removed"]
    assert tool.err.splitlines() == [
        "mailsrv: no message 00000000007 is known; `mailsrv queue list` shows what waits.",
        "mailsrv: gone is not a queue id, which has 11 letters and digits.",
    ]


def test_remove_unlinks_the_content_that_is_a_file(tool: Tool) -> None:
    names = [queue_id.text(tool.rows.accept(content=None)) for _ in range(3)]
    for name in names[:2]:
        (tool.state / "spool" / name).write_bytes(b"content")
    assert tool.run("queue", "remove", names[0], names[2]) == 0
    assert [path.name for path in (tool.state / "spool").iterdir()] == [names[1]]


def test_show(tool: Tool) -> None:
    _, name = deferred(tool.rows)
    assert tool.run("queue", "show", name.lower()) == 0
    assert tool.out.startswith(f"Message {name} from alice@example.org\n")
    assert "is queued, after 1 attempt; next attempt in 4 minutes" in tool.out
    assert tool.out.endswith("\nHeaders:\n  Received: from client.example.net\n  Subject: hello\n")
    shown = tool.json("queue", "show", name)
    assert shown["header"] == ["Received: from client.example.net", "Subject: hello"]
    assert [event["kind"] for event in shown["events"]] == ["accepted", "delivered", "deferred"]


def test_show_reads_the_headers_of_a_file(tool: Tool) -> None:
    name = queue_id.text(tool.rows.accept(content=None))
    tool.run("queue", "show", name)  # delivered in this moment: the row is read, the file has gone
    assert tool.out.endswith("\nHeaders:\n  Received: from client.example.net\n")
    (tool.state / "spool" / name).write_bytes(b"Subject: long\r\n\r\nbody")
    assert tool.json("queue", "show", name)["header"][1:] == ["Subject: long"]


def test_show_of_a_message_that_is_done(tool: Tool) -> None:
    id = tool.rows.accept()
    tool.rows.finish(id)
    assert tool.run("queue", "show", queue_id.text(id)) == 0
    assert tool.out.endswith("\nThe content is gone, as nobody waits for the message any more.\n")


@pytest.mark.parametrize("id", ["00000000007", "nonsense"])
def test_show_of_an_unknown_message(tool: Tool, id: str) -> None:
    assert tool.run("queue", "show", id) == 1
    assert tool.err.startswith("mailsrv: ")
    assert id in tool.err


@pytest.mark.parametrize(
    "arguments",
    [[], ["retry"], ["retry", "--all", "1J4B50P4G00"], ["remove"], ["show"], ["forget", "1J4B50P4G00"]],
)
def test_wrong_usage(tool: Tool, arguments: list[str]) -> None:
    assert tool.run("queue", *arguments) == 2


def test_nothing_that_a_stranger_sent_commands_the_terminal(tool: Tool) -> None:
    evil = "\x1b]0;x\x07\x9b2J\u202e\n"
    id = tool.rows.accept(message_id=evil, helo=evil, content=f"Subject: {evil}\r\nA:\tb\r\n\r\n".encode())
    tool.rows.settle(id, 0, "deferred", status=evil, answer=evil, reason=evil, remote=evil, rule=evil)
    for verb in (["list"], ["list", "--json"], ["show", queue_id.text(id)], ["show", queue_id.text(id), "--json"]):
        assert tool.run("queue", *verb) == 0
        assert not set("\x1b\x07\x9b\u202e").intersection(tool.out)
        assert not any(line.startswith("\r") or "\r" in line for line in tool.out.split("\n"))


def test_a_broken_database_is_one_sentence(tool: Tool) -> None:
    (tool.state / "mailsrv.db").write_bytes(b"no database at all, this" * 200)
    assert tool.run("queue", "list") == 1
    assert tool.err.count("\n") == 1
    assert str(tool.state / "mailsrv.db") in tool.err


HOLD = Hold("alice@example.org has not sent from there before", "limits.first_time_recipients")


def test_what_is_held_is_listed_with_its_reason(tool: Tool) -> None:
    name = queue_id.text(tool.rows.accept(account=ALICE, hold=HOLD))
    deferred(tool.rows)
    assert tool.run("queue", "list", "--held") == 0
    assert f"{name}  " in tool.out
    assert "    held, sent as alice@example.org: alice@example.org has not sent from there before\n" in tool.out
    assert f"    to {BOB}: held, 0 attempts so far\n" in tool.out
    assert "1 message, 1 recipient waiting." in tool.out
    (entry,) = tool.json("queue", "list", "--held")
    assert (entry["account"], entry["held"]) == (ALICE, HOLD.reason)
    assert tool.run("why", name) == 0
    assert f"held: {HOLD.reason}. Decided by: limits.first_time_recipients." in tool.out


def test_trying_all_releases_nothing(tool: Tool) -> None:
    tool.rows.accept(account=ALICE, hold=HOLD)
    assert tool.run("queue", "retry", "--all") == 0
    assert tool.out == "Nothing is queued.\n"
    assert state(tool) == ["held"]


def test_all_that_an_account_has_held_is_released_or_removed_at_once(tool: Tool) -> None:
    for account in (ALICE, ALICE, "bob@example.org"):
        tool.rows.accept([BOB, CAROL], account=account, hold=HOLD)
    tool.rows.accept(account=ALICE)
    assert tool.run("queue", "release", "--account", "Alice@Example.ORG") == 0
    assert tool.out == "2 messages of Alice@Example.ORG, 4 recipients released and will be tried now.\n"
    assert state(tool) == ["queued"] * 4 + ["held"] * 2 + ["queued"]
    assert tool.run("queue", "release", "--account", ALICE) == 1
    assert tool.err == "mailsrv: nothing of alice@example.org is held.\n"
    assert tool.run("queue", "remove", "--account", "bob@example.org") == 0
    assert state(tool) == ["queued"] * 4 + ["removed"] * 2 + ["queued"]
    assert tool.run("queue", "release", "--all") == 1
    assert tool.err == "mailsrv: nothing is held.\n"
    assert tool.run("queue", "release", "--account", "nobody@") == 1


def test_everything_held_is_released_at_once(tool: Tool) -> None:
    for account in (ALICE, "bob@example.org"):
        tool.rows.accept(account=account, hold=HOLD)
    assert tool.run("queue", "release", "--all") == 0
    assert tool.out == "2 messages, 2 recipients released and will be tried now.\n"
    assert state(tool) == ["queued", "queued"]


def test_remove_by_account_takes_only_what_is_held(tool: Tool) -> None:
    tool.rows.accept(account=ALICE)
    assert tool.run("queue", "remove", "--account", ALICE) == 1
    assert state(tool) == ["queued"]
