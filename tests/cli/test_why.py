"""``mailsrv why``: sentences that a person can act on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mailsrv.cli.wording import moment
from mailsrv.smtp.replies import BARE_LF_IN_CONTENT
from mailsrv.store import queue, queue_id
from mailsrv.store.ledger import Event
from tests.worlds.rows import BOB, CAROL, START, Rows
from tests.worlds.tool import Tool

CARL = "carl@example.org"


@pytest.fixture
def tool(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Tool]:
    monkeypatch.setattr("mailsrv.cli.why.now", lambda: START + 60)
    tool = Tool(tmp_path, capsys)
    yield tool
    tool.close()


@pytest.fixture
def rows(tool: Tool) -> Rows:
    return tool.rows


def test_the_whole_story_of_a_message(tool: Tool, rows: Rows) -> None:
    id = rows.accept([BOB], message_id="a.1@example.org", account="alice@example.org", protocol="ESMTPSA")
    rows.settle(
        *(id, 0, "deferred"),
        at=START + 5,
        next_attempt=START + 300,
        status="4.2.0",
        reason="the mailbox is locked",
        answer="450 4.2.0 try later",
        remote="mx.example.net [192.0.2.9]:25",
        rule="RFC 5321 4.2.1",
    )
    name = queue_id.text(id)
    assert tool.run("why", "<a.1@example.org>") == 0
    assert tool.out.splitlines() == [
        f"Message {name} from alice@example.org",
        "  Message-ID <a.1@example.org>, 24 octets",
        f"  {moment(START)}  accepted from 192.0.2.7 (client.example.net) by ESMTPSA, logged in as alice@example.org:"
        " the message is stored.",
        f"  {moment(START + 5)}  bob@example.net: deferred (4.2.0): the mailbox is locked."
        ' mx.example.net [192.0.2.9]:25 said: "450 4.2.0 try later". Decided by: RFC 5321 4.2.1.',
        "  bob@example.net is queued, after 1 attempt; next attempt in 4 minutes;"
        f" `mailsrv queue retry {name}` tries now.",
        "",
    ]


def test_what_was_fetched_and_deleted(tool: Tool, rows: Rows) -> None:
    id = rows.accept([CARL], original="sales@example.org")
    rows.finish(id)
    detail = str(rows.value("SELECT name FROM recipient")).partition(",")[0]
    rows.write(START + 9, Event("deleted", address=CARL, client="192.0.2.8", detail=detail))
    assert tool.run("why", queue_id.text(id).lower()) == 0
    assert f"  {moment(START + 9)}  carl@example.org: fetched and deleted by POP3 from 192.0.2.8.\n" in tool.out
    assert "carl@example.org (addressed to sales@example.org) has the message; it was fetched and deleted" in tool.out


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("delivered", "bob@example.net is done: the other server took the message"),
        ("bounced", "bob@example.net did not get the message, and the sender was told; nothing is left to do."),
        ("dropped", "bob@example.net did not get the message, and nobody was told; nothing is left to do."),
    ],
)
def test_how_a_recipient_ended(tool: Tool, rows: Rows, kind: str, sentence: str) -> None:
    rows.settle(rows.accept(), 0, kind)
    assert tool.run("why", BOB) == 0
    assert sentence in tool.out


def test_what_lies_in_a_mailbox(tool: Tool, rows: Rows) -> None:
    rows.finish(rows.accept([CARL]))
    tool.run("why", CARL)
    assert "carl@example.org has the message: it was put into the mailbox carl@example.org" in tool.out


def test_the_operators_own_hand(tool: Tool, rows: Rows) -> None:
    held, removed = rows.accept([BOB]), rows.accept([CAROL])
    queue.hold(rows.connection, START, held)
    queue.remove(rows.connection, START, removed)
    name = queue_id.text(held)
    tool.run("why", BOB)
    assert f"{moment(START)}  held: the operator stopped the attempts.\n" in tool.out
    assert f"is held, not tried yet; `mailsrv queue release {name}` lets it go on" in tool.out
    tool.run("why", CAROL)
    assert "carol@example.net was taken out of the queue by the operator; nothing is left to do." in tool.out
    assert "Decided by: mailsrv queue remove." in tool.out


@pytest.mark.parametrize(
    ("due", "sentence"),
    [(59, "an attempt is due now;"), (-540, "an attempt was due 10 minutes ago (is the server running?);")],
)
def test_what_should_have_been_tried(tool: Tool, rows: Rows, due: float, sentence: str) -> None:
    rows.settle(rows.accept(), 0, "deferred", next_attempt=START + due)
    tool.run("why", BOB)
    assert sentence in tool.out


def test_a_bounce_and_its_report_name_each_other(tool: Tool, rows: Rows) -> None:
    id = rows.accept(sender=CARL)
    name = queue_id.text(id)
    report = queue_id.text(rows.accept([CARL], sender="", client="", protocol="report", about=name))
    rows.settle(id, 0, "bounced", detail=report)
    tool.run("why", name)
    assert f"`mailsrv why {report}` tells what became of the report." in tool.out
    tool.run("why", report)
    assert f"Message {report} from <> (a report)\n" in tool.out
    assert f"written by this server, a report about {name}: the message is stored.\n" in tool.out


def test_a_refusal_without_a_message(tool: Tool, rows: Rows) -> None:
    rows.write(
        START,
        Event(
            *("refused", None, None, "bobb@example.org", CAROL, "192.0.2.7", "5.1.1", "there is no such mailbox"),
            rule="accounts",
            detail="RCPT",
        ),
    )
    assert tool.run("why", "bobb@example.org") == 0
    assert tool.out.splitlines() == [
        "No message, but:",
        f"  {moment(START)}  bobb@example.org: refused at RCPT, sender carol@example.net from 192.0.2.7 (5.1.1):"
        " there is no such mailbox. Decided by: accounts."
        " Nothing was accepted; the sender's server has told its user.",
    ]
    assert tool.run("why", CAROL) == 0
    assert "refused at RCPT" in tool.out


def test_a_full_mailbox(tool: Tool, rows: Rows) -> None:
    reason = "there is no room in the mailbox of bob@example.org"
    event = Event("refused", address="bob@example.org", status="4.2.2", reason=reason, rule="quota", detail="DATA")
    rows.write(START, event)
    tool.run("why", "bob@example.org")
    assert "The client may try again; `mailsrv account quota ADDRESS` shows how full it is" in tool.out


def test_a_bare_lf_names_the_key_that_mends_it(tool: Tool, rows: Rows) -> None:
    reason = BARE_LF_IN_CONTENT.text
    rows.write(
        START, Event("refused", address=CARL, status="5.6.0", reason=reason, rule="RFC 5321 2.3.8", detail="DATA")
    )
    tool.run("why", CARL)
    assert "where it was one of your users, `submission.mend_lines` mends such lines." in tool.out


def test_the_channel_stands_behind_what_was_said(tool: Tool, rows: Rows) -> None:
    remote = "mx.example.net [192.0.2.9]:25, TLSv1.3 TLS_AES_256_GCM_SHA384, unverified: it is self-signed"
    rows.settle(rows.accept(), 0, "delivered", answer="250 2.0.0 queued", remote=remote)
    tool.run("why", BOB)
    assert (
        'mx.example.net [192.0.2.9]:25 said: "250 2.0.0 queued".'
        " Over TLSv1.3 TLS_AES_256_GCM_SHA384, unverified: it is self-signed."
    ) in tool.out


def test_a_failed_login(tool: Tool, rows: Rows) -> None:
    rows.write(START, Event("login", address=CARL, client="192.0.2.7", reason="wrong password", detail="PLAIN"))
    tool.run("why", CARL)
    assert "carl@example.org: login failed, from 192.0.2.7: wrong password. `mailsrv account passwd" in tool.out


def test_a_login_that_came_too_soon(tool: Tool, rows: Rows) -> None:
    reason = "the last login was 1 s ago, and 90 s have to pass"
    event = Event("login", None, None, CARL, "", "192.0.2.7", "4.7.0", reason, "limits.login_delay")
    rows.write(START, event)
    assert tool.run("why", CARL) == 0
    assert (
        f"carl@example.org: login failed, from 192.0.2.7 (4.7.0): {reason}. Decided by: limits.login_delay."
        " The password was right; let the program look for mail less often, or shorten the delay."
    ) in tool.out


def test_more_than_was_asked_for(tool: Tool, rows: Rows) -> None:
    for n in range(3):
        rows.accept(at=START + n)
    tool.run("why", BOB, "--limit", "2")
    assert tool.out.count("Message-ID") == 2
    assert tool.out.endswith("There is more that is older; `--limit 20` shows it.\n")
    tool.run("why", BOB)
    assert "There is more" not in tool.out


def test_nothing_known(tool: Tool) -> None:
    assert tool.run("why", BOB) == 1
    assert tool.err == (
        f"mailsrv: no message or refusal for {BOB} is in the ledger, which is empty:"
        " nothing has come to this server yet.\n"
    )
    tool.rows.accept()
    assert tool.run("why", "nobody@example.org") == 1
    assert tool.out == ""
    assert tool.err == (
        "mailsrv: no message or refusal for nobody@example.org is in the ledger; it was never offered to this"
        f" server, or longer ago than {moment(START)}, where the ledger begins.\n"
    )


def test_as_json(tool: Tool, rows: Rows) -> None:
    id = rows.accept([CARL], message_id="a.1@example.org")
    rows.write(START, Event("refused", address=CARL, status="4.3.1"))
    found = tool.json("why", CARL)
    (message,) = found.pop("messages")
    assert message["id"] == queue_id.text(id)
    assert [each["state"] for each in message["recipients"]] == ["queued"]
    assert [event["kind"] for event in message["events"]] == ["accepted"]
    assert found == {
        "key": CARL,
        "events": [{"at": START, "kind": "refused", "address": CARL, "status": "4.3.1"}],
        "more": False,
        "since": START,
    }
    assert tool.json("why", "nobody@example.org")["messages"] == []
    assert tool.run("why", "nobody@example.org", "--json") == 1


@pytest.mark.parametrize("limit", ["0", "-1", "1_0", "x", "", "9999999999"])
def test_a_limit_is_a_number(tool: Tool, limit: str) -> None:
    assert tool.run("why", BOB, f"--limit={limit}") == 2


def test_nothing_that_a_stranger_sent_commands_the_terminal(tool: Tool, rows: Rows) -> None:
    evil = "\x1b]0;x\x07\x9b2J\u202e\r\n\x7f"
    id = rows.accept(message_id=evil, helo=evil, client=evil, protocol=evil, account=evil, about=evil)
    rows.settle(id, 0, "bounced", status=evil, answer=evil, reason=evil, remote=evil, rule=evil, detail=evil)
    rows.connection.execute("UPDATE message SET sender = ?", (evil,))
    rows.connection.execute("UPDATE recipient SET original = ?, state = ?", (evil, evil))
    rows.write(START, *(Event(kind, None, None, BOB, *([evil] * 8)) for kind in ("refused", "login", "config", evil)))
    for options in ([], ["--json"]):
        assert tool.run("why", BOB, *options) == 0
        assert all(character.isprintable() for line in tool.out.split("\n") for character in line)
    assert tool.run("why", evil + "nobody") == 1
    assert tool.err.count("\n") == 1
    assert "\x1b" not in tool.err


NO_PTR = "550 5.7.25 The IP address sending this message does not have a PTR record. x-1 - gsmtp"


def test_a_known_refusal_is_explained_once(tool: Tool, rows: Rows) -> None:
    id = rows.accept([BOB, CAROL])
    rows.settle(id, 0, "bounced", status="5.7.25", reason="refused", answer=NO_PTR, rule="google-no-ptr")
    rows.settle(id, 1, "deferred", next_attempt=START + 300, status="4.7.0", answer="450 4.7.1 Greylisting in action")
    tool.run("why", queue_id.text(id))
    assert tool.out.count("    That means: Google takes no mail from an address without a name in DNS") == 1
    assert "What to do: Have whoever gave you the address set its PTR record" in tool.out
    assert tool.out.count("    That means: The other server lets senders that it does not know wait") == 1


def test_a_cause_is_asked_for_by_its_key(tool: Tool, rows: Rows) -> None:
    assert tool.run("why", "google-no-ptr") == 0
    assert tool.out.startswith("google-no-ptr: Google takes no mail from an address without a name in DNS")
    assert "No server has said so to this one." in tool.out
    rows.connection.execute("INSERT INTO notice VALUES ('google-no-ptr', ?, ?, 7)", (START, START + 9))
    assert tool.run("why", "google-no-ptr") == 0
    assert f"Said 7 times, the last one on {moment(START + 9)}; the postmaster was told on {moment(START)}." in tool.out
    found = tool.json("why", "google-no-ptr")
    assert (found["cause"], found["times"], found["seen"]) == ("google-no-ptr", 7, START + 9)
    assert found["action"] == "other_family"


def test_a_notice_and_a_double_bounce_are_of_this_server(tool: Tool, rows: Rows) -> None:
    notice = rows.accept([CARL], sender="", client="", protocol="notice")
    double = rows.accept([CARL], sender="", client="", protocol="double bounce", about=queue_id.text(notice))
    tool.run("why", CARL)
    assert "written by this server: the message is stored." in tool.out
    assert f"written by this server, a report about {queue_id.text(notice)}: the message is stored." in tool.out
    assert queue_id.text(double) in tool.out
