"""Who is told what when mail cannot be delivered, through the whole queue; after each story the ledger balances."""

from __future__ import annotations

import email
import email.policy
import sqlite3
from collections.abc import Iterator
from email.message import EmailMessage

import pytest

from mailsrv.mail.outcome import Outcome, Result
from mailsrv.relay.bounce import RETURNED, WAIT_S
from mailsrv.relay.telling import DOUBLE_EVERY_S, DOUBLES
from mailsrv.store import queue, queue_id
from mailsrv.store.database import StorageTrouble
from tests.worlds.queue import ACCOUNTS, CONFIG, DEFERRED, DELIVERED, FAILED, QueueWorld
from tests.worlds.store import LETTER, PREFIX, SPOOL

ALICE = "alice@example.org"
BOB = "bob@example.net"
CAROL = "carol@example.net"
LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcdef\r\n" * 30_000
DAY_S = 86400


@pytest.fixture
def world() -> Iterator[QueueWorld]:
    world = QueueWorld().boot()
    world.advance(1)
    yield world
    assert world.gaps() == []
    world.close()


def report(octets: bytes) -> EmailMessage:
    parsed = email.message_from_bytes(octets, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    assert parsed.get_content_type() == "multipart/report"
    return parsed


def only_report(world: QueueWorld, mailbox: str = ALICE) -> EmailMessage:
    (octets,) = world.reports_in(mailbox)
    return report(octets)


def status_fields(parsed: EmailMessage) -> list[dict[str, str]]:
    """The blocks of the second part: of the message first, then of each recipient."""
    part = list(parsed.iter_parts())[1]
    assert part.get_content_type() == "message/delivery-status"
    return [{name: str(value) for name, value in block.items()} for block in part.get_payload()]  # type: ignore[union-attr]


def returned(parsed: EmailMessage) -> tuple[str, bytes]:
    """Type and octets of the third part."""
    part = list(parsed.iter_parts())[2]
    payload = part.get_payload(0) if part.is_multipart() else part
    return part.get_content_type(), payload.as_bytes() if part.is_multipart() else part.get_content().encode()  # type: ignore[union-attr]


def events(world: QueueWorld, kind: str) -> list[dict[str, str]]:
    names = ("address", "status", "reason", "rule", "answer", "detail")
    found = world.rows(f"SELECT {', '.join(names)} FROM event WHERE kind = ? ORDER BY id", kind)
    return [dict(zip(names, row, strict=True)) for row in found]


# -- failed


def test_a_failure_is_reported_to_the_sender_with_the_original(world: QueueWorld) -> None:
    world.agent.answers[BOB] = FAILED
    id = world.submit(BOB, envid="envelope 7", orcpt="rfc822;bob@example.net")
    world.advance(2)
    parsed = only_report(world)
    assert parsed["To"] == ALICE
    assert parsed["From"] == "Mail Delivery System <MAILER-DAEMON@example.org>"
    assert parsed["Auto-Submitted"] == "auto-replied"
    assert parsed["Return-Path"] == "<>"
    message, recipient = status_fields(parsed)
    assert message["Reporting-MTA"] == "dns; mx.example.org"
    assert message["Original-Envelope-Id"] == "envelope 7"
    assert (recipient["Final-Recipient"], recipient["Action"]) == ("rfc822; bob@example.net", "failed")
    assert recipient["Original-Recipient"] == "rfc822; bob@example.net"
    assert recipient["Status"] == "5.1.1"
    assert "550 who?" in recipient["Diagnostic-Code"]
    kind, original = returned(parsed)
    assert kind == "message/rfc822"
    assert b".body\nand more" in original
    (event,) = events(world, "bounced")
    assert (event["address"], event["status"], event["answer"]) == (BOB, "5.1.1", "550 who?")
    ((about,),) = world.rows("SELECT detail FROM event WHERE kind = 'accepted' AND detail <> ''")
    assert about == queue_id.text(id)
    ((report_id,),) = world.rows("SELECT message FROM event WHERE kind = 'accepted' AND detail <> ''")
    assert event["detail"] == queue_id.text(report_id)
    assert world.row(id)["state"] == "bounced"


def test_the_report_is_accepted_in_the_transaction_that_settles(world: QueueWorld) -> None:
    world.agent.slow.add("example.net")
    world.agent.answers[BOB] = FAILED
    id = world.submit(BOB)
    world.advance(1)
    world.steps.crashes = {world.steps.number + 2}  # just behind the commit
    world.agent.finish()
    world.advance(2)
    assert not world.machine.life.alive
    world.crash(power=3)
    world.steps.crashes = ()
    assert world.row(id)["state"] == "bounced"
    assert world.gaps() == []
    world.boot()
    world.advance(2)
    assert len(world.reports_in()) == 1


def test_several_recipients_share_one_report_and_those_that_got_it_are_not_in_it(world: QueueWorld) -> None:
    world.agent.answers |= {BOB: FAILED, CAROL: FAILED, "eve@example.net": DEFERRED}
    world.submit(BOB, CAROL, "dave@example.net", "eve@example.net")
    world.advance(2)
    _, *recipients = status_fields(only_report(world))
    assert [fields["Final-Recipient"] for fields in recipients] == ["rfc822; " + BOB, "rfc822; " + CAROL]
    assert world.states()[:4] == ["bounced", "bounced", "delivered", "queued"]


def test_only_the_header_goes_back_when_the_sender_wants_no_more(world: QueueWorld) -> None:
    world.agent.answers[BOB] = FAILED
    world.submit(BOB, ret="HDRS")
    world.advance(2)
    kind, original = returned(only_report(world))
    assert kind == "text/rfc822-headers"
    assert b"Subject: hello" in original
    assert b"body" not in original


@pytest.mark.parametrize("size", [RETURNED + 1, len(LARGE)])
def test_only_the_header_of_a_large_message_goes_back(world: QueueWorld, size: int) -> None:
    world.agent.answers[BOB] = FAILED
    world.submit(BOB, content=LARGE[:size])
    world.advance(2)
    (octets,) = world.reports_in()
    assert len(octets) < 10_000
    kind, original = returned(report(octets))
    assert kind == "text/rfc822-headers"
    assert b"Subject: large" in original
    assert world.disk.files(SPOOL) == {}


def test_a_report_is_made_even_when_the_original_cannot_be_read_any_more(world: QueueWorld) -> None:
    """Else what was sent to the other recipients would be sent again and again."""
    world.agent.answers[BOB] = FAILED
    world.agent.slow.add("example.net")
    world.submit(BOB, CAROL, content=LARGE)
    world.advance(1)
    world.fail("disk: open", times=100)
    world.agent.finish()
    world.advance(1)
    assert world.states()[:2] == ["bounced", "delivered"]
    world.healthy()
    world.advance(2)
    world.queue.wake()
    world.advance(100)
    assert len(world.agent.jobs) == 1
    assert len(world.reports_in()) == 1


# -- nobody is told


def test_nothing_is_reported_about_a_message_with_the_null_reverse_path(world: QueueWorld) -> None:
    world.agent.answers[BOB] = FAILED
    id = world.submit(BOB, sender="")
    world.advance(2)
    assert world.row(id)["state"] == "dropped"
    (event,) = events(world, "dropped")
    assert "RFC 5321" in event["rule"]
    assert (event["status"], event["answer"]) == ("5.1.1", "550 who?")
    assert world.rows("SELECT count(*) FROM message") == [(1,)]
    assert world.rows("SELECT * FROM content") == []


def test_a_report_that_cannot_be_delivered_goes_to_the_postmaster(world: QueueWorld) -> None:
    world.agent.answers |= {BOB: FAILED, "frank@example.com": FAILED}
    world.submit(BOB, sender="frank@example.com")
    world.advance(2)
    assert world.states() == ["bounced", "bounced", "delivered"]
    assert world.agent.recipients() == [BOB, "frank@example.com"]
    assert world.agent.jobs[1].envelope.sender is None
    parsed = only_report(world)
    assert (parsed["To"], parsed["Return-Path"]) == ("postmaster@example.org", "<>")
    _, recipient = status_fields(parsed)
    assert (recipient["Final-Recipient"], recipient["Action"]) == ("rfc822; frank@example.com", "failed")
    kind, original = returned(parsed)
    assert kind == "message/rfc822"
    assert b"Final-Recipient: rfc822; bob@example.net" in original, "the report that was lost comes whole"
    assert [event["rule"] for event in events(world, "bounced")] == ["", "double bounces go to the postmaster"]
    world.advance(6 * DAY_S)
    assert world.rows("SELECT count(*) FROM message") == [(3,)]


def test_a_double_bounce_that_cannot_be_delivered_is_the_end(world: QueueWorld) -> None:
    world.settings.change(CONFIG, ACCOUNTS, "postmaster: admin@example.com\n")
    world.agent.answers |= {BOB: FAILED, "frank@example.com": FAILED, "admin@example.com": FAILED}
    world.submit(BOB, sender="frank@example.com")
    world.advance(6 * DAY_S)
    assert world.states() == ["bounced", "bounced", "dropped"]
    (event,) = events(world, "dropped")
    assert "double bounce" in event["rule"]


def test_lost_reports_of_delay_or_success_are_no_double_bounces(world: QueueWorld) -> None:
    world.agent.answers |= {CAROL: DEFERRED, "frank@example.com": FAILED}
    world.submit(BOB, sender="frank@example.com", notify=("SUCCESS",))
    world.submit(CAROL, sender="frank@example.com", notify=("DELAY",))
    world.advance(5 * 3600)
    assert sorted(world.states()) == ["delivered", "dropped", "dropped", "queued"]
    assert world.mailbox() == {}


def test_a_flood_of_lost_reports_has_a_pace(world: QueueWorld) -> None:
    world.agent.answers |= {BOB: FAILED, "frank@example.com": FAILED}
    for _ in range(DOUBLES + 5):
        world.submit(BOB, sender="frank@example.com")
    world.advance(60)
    assert len(world.reports_in()) == DOUBLES
    dropped = events(world, "dropped")
    assert len(dropped) == 5
    assert all(event["rule"] == "more than 20 double bounces in 60 minutes" for event in dropped)
    world.advance(DOUBLE_EVERY_S)
    world.submit(BOB, sender="frank@example.com")
    world.advance(60)
    assert len(world.reports_in()) == DOUBLES + 1


# -- known refusals

NO_PTR = Outcome(
    Result.FAILED,
    "5.7.25",
    "mx.example.net refused the message.",
    "550 5.7.25 The IP address sending this message does not have a PTR record setup. x-1 - gsmtp",
    "mx.example.net [192.0.2.9]:25",
)
UNTRUSTED = Outcome(
    Result.DEFERRED,
    "4.7.0",
    "mx.example.net does not take the message now.",
    "421 4.7.0 This message is suspicious due to the very low reputation of the sending domain. x-1 - gsmtp",
    "mx.example.net [192.0.2.9]:25",
)
GREYLISTED = Outcome(Result.DEFERRED, "4.7.1", "not now.", "451 4.7.1 Greylisting in action")
POSTMASTER = "bob@example.org"


def notices_in(world: QueueWorld) -> list[bytes]:
    return [octets for octets in world.mailbox(POSTMASTER).values() if b"auto-generated" in octets]


@pytest.fixture
def with_postmaster(world: QueueWorld) -> QueueWorld:
    world.settings.change(CONFIG, ACCOUNTS, f"postmaster: {POSTMASTER}\n")
    return world


def test_a_known_refusal_is_explained_to_the_sender(world: QueueWorld) -> None:
    world.agent.answers[BOB] = NO_PTR
    world.submit(BOB)
    world.advance(2)
    text = next(only_report(world).iter_parts()).get_content()
    assert "What it means: Google takes no mail from an address without a" in text
    assert "What you can do: Tell the postmaster of your own mail server" in text
    assert "What the postmaster can do: Have whoever gave you the address set" in text
    (event,) = events(world, "bounced")
    assert event["rule"] == "google-no-ptr"


def test_the_postmaster_is_told_once_for_each_cause_and_not_for_each_message(with_postmaster: QueueWorld) -> None:
    world = with_postmaster
    world.agent.answers |= {BOB: NO_PTR, CAROL: NO_PTR, "dave@example.com": UNTRUSTED}
    for _ in range(5):
        world.submit(BOB, CAROL)
    world.submit("dave@example.com")
    world.advance(10)
    told = sorted(notices_in(world), key=lambda octets: b"domain-reputation" in octets)
    assert len(told) == 2
    assert b"Subject: Mail is refused elsewhere: google-no-ptr\n" in told[0]
    assert b"What to do: Have whoever gave you the address" in told[0]
    assert b"550 5.7.25 The IP address" in told[0]
    assert dict(world.rows("SELECT cause, times FROM notice")) == {"google-no-ptr": 10, "google-domain-reputation": 1}
    world.crash(power=1)
    world.boot()
    world.agent.answers |= {BOB: NO_PTR}
    world.submit(BOB)
    world.advance(10)
    assert len(notices_in(world)) == 2


def test_what_passes_by_itself_is_counted_and_told_to_nobody(with_postmaster: QueueWorld) -> None:
    world = with_postmaster
    world.agent.answers[BOB] = GREYLISTED
    world.submit(BOB)
    world.advance(2)
    assert notices_in(world) == []
    assert world.rows("SELECT cause, told, times FROM notice") == [("greylist", 0.0, 1)]


def test_the_notice_is_accepted_with_what_it_tells_of(with_postmaster: QueueWorld) -> None:
    world = with_postmaster
    world.agent.slow.add("example.net")
    world.agent.answers[BOB] = NO_PTR
    id = world.submit(BOB)
    world.advance(1)
    world.fail("database: commit", times=1, error=lambda: sqlite3.OperationalError("disk I/O error"))
    world.agent.finish()
    world.advance(3)
    assert world.row(id)["state"] == "queued"
    assert world.rows("SELECT count(*) FROM notice") == [(0,)]
    world.healthy()
    world.advance(30)
    assert world.row(id)["state"] == "bounced"
    assert len(notices_in(world)) == 1


def test_an_unreadable_count_keeps_no_attempt_from_being_recorded(with_postmaster: QueueWorld) -> None:
    world = with_postmaster
    world.agent.slow.add("example.net")
    world.agent.answers[BOB] = NO_PTR
    id = world.submit(BOB)
    world.advance(1)

    async def unreadable(*arguments: object) -> object:
        raise StorageTrouble("for a moment")

    read, world.database.read = world.database.read, unreadable  # type: ignore[method-assign,assignment]
    world.agent.finish()
    world.advance(0.5)
    world.database.read = read  # type: ignore[method-assign]
    world.advance(10)
    assert world.row(id)["state"] == "bounced"
    assert len(notices_in(world)) == 1


def test_a_server_that_is_better_left_alone_is_left_alone_for_an_hour(world: QueueWorld) -> None:
    world.agent.answers[BOB] = UNTRUSTED
    id = world.submit(BOB)
    world.advance(2)
    row = world.row(id)
    assert row["next_attempt"] - world.machine.wall() > WAIT_S - 10
    (event,) = events(world, "deferred")
    assert event["rule"] == "google-domain-reputation"
    assert event["reason"].endswith("; the next attempt waits for an hour.")
    world.advance(WAIT_S + 60)
    assert world.row(id)["attempts"] == 2


def test_the_wait_is_never_longer_than_the_time_that_is_left(world: QueueWorld) -> None:
    world.settings.change(CONFIG.replace('expire = "5d"', 'expire = "20m"'))
    world.queue.reconfigured()
    world.agent.answers[BOB] = UNTRUSTED
    id = world.submit(BOB)
    world.advance(20 * 60 + 60)
    assert world.row(id)["state"] == "bounced"


def test_a_sender_who_wants_to_hear_nothing_hears_nothing(world: QueueWorld) -> None:
    world.agent.answers |= {BOB: FAILED, CAROL: DEFERRED}
    id = world.submit(BOB, CAROL, notify=("NEVER",))
    world.advance(6 * DAY_S)
    assert [world.row(id, n)["state"] for n in (0, 1)] == ["dropped", "dropped"]
    assert all("NOTIFY" in event["rule"] for event in events(world, "dropped"))
    assert events(world, "warned") == []
    assert world.mailbox() == {}


def test_a_sender_who_asked_only_about_success_is_not_told_of_a_failure(world: QueueWorld) -> None:
    world.agent.answers[BOB] = FAILED
    id = world.submit(BOB, notify=("SUCCESS",))
    world.advance(2)
    assert world.row(id)["state"] == "dropped"
    assert world.mailbox() == {}


# -- delayed


def test_the_sender_is_told_of_a_delay_once(world: QueueWorld) -> None:
    world.agent.answers[BOB] = DEFERRED
    id = world.submit(BOB)
    world.advance(4 * 3600 - 1000)
    assert world.reports_in() == []
    world.advance(2000)
    parsed = only_report(world)
    _, recipient = status_fields(parsed)
    assert (recipient["Action"], recipient["Status"]) == ("delayed", "4.4.1")
    assert "Will-Retry-Until" in recipient
    assert returned(parsed)[0] == "text/rfc822-headers"
    assert world.row(id)["warned"] == 1
    world.advance(DAY_S)
    assert len(world.reports_in()) == 1
    (event,) = events(world, "warned")
    assert event["address"] == BOB
    assert event["detail"]
    assert world.row(id)["state"] == "queued"


def test_the_warning_is_not_repeated_after_a_restart(world: QueueWorld) -> None:
    world.agent.answers[BOB] = DEFERRED
    world.submit(BOB)
    world.advance(5 * 3600)
    world.crash(power=1)
    world.boot()
    world.agent.answers[BOB] = DEFERRED
    world.advance(5 * 3600)
    assert len(world.reports_in()) == 1


def test_a_delay_is_told_only_to_those_who_asked_for_it_when_they_asked(world: QueueWorld) -> None:
    world.agent.answers |= {BOB: DEFERRED, CAROL: DEFERRED}
    world.submit(BOB, notify=("FAILURE",))
    world.submit(CAROL, notify=("DELAY", "FAILURE"))
    world.advance(5 * 3600)
    assert [event["address"] for event in events(world, "warned")] == [CAROL]


def test_nobody_is_warned_about_a_delayed_report(world: QueueWorld) -> None:
    world.agent.answers[BOB] = DEFERRED
    world.submit(BOB, sender="")
    world.advance(5 * 3600)
    assert events(world, "warned") == []


# -- given up


def test_what_has_waited_too_long_is_given_up_and_reported(world: QueueWorld) -> None:
    world.agent.answers[BOB] = DEFERRED
    id = world.submit(BOB)
    world.advance(5 * DAY_S - 60)
    assert world.row(id)["state"] == "queued"
    world.advance(120)
    assert world.row(id)["state"] == "bounced"
    (event,) = events(world, "bounced")
    assert (event["status"], event["rule"]) == ("4.4.7", "queue.expire")
    assert "120 hours" in event["reason"]
    assert DEFERRED.reason in event["reason"]
    failed = [report(octets) for octets in world.reports_in() if b"Action: failed" in octets]
    assert len(failed) == 1
    assert status_fields(failed[0])[1]["Status"] == "4.4.7"


def test_the_last_attempt_is_made_when_the_time_is_up_and_may_still_succeed(world: QueueWorld) -> None:
    world.settings.change(CONFIG.replace("15m", "40h"))
    world.queue.reconfigured()
    world.agent.answers[BOB] = DEFERRED
    id = world.submit(BOB)
    world.advance(5 * DAY_S - 60)
    made = len(world.agent.jobs)
    del world.agent.answers[BOB]
    world.advance(120)
    assert len(world.agent.jobs) == made + 1
    assert world.row(id)["state"] == "delivered"


def test_a_null_sender_is_given_up_without_a_word(world: QueueWorld) -> None:
    world.agent.answers[BOB] = DEFERRED
    id = world.submit(BOB, sender="")
    world.advance(5 * DAY_S + 60)
    assert world.row(id)["state"] == "dropped"


# -- where a report goes


def test_a_sender_elsewhere_is_told_through_the_queue(world: QueueWorld) -> None:
    world.agent.answers[BOB] = FAILED
    world.submit(BOB, sender="frank@example.com")
    world.advance(2)
    job = world.agent.jobs[1]
    assert job.destination == "example.com"
    assert job.envelope.sender is None
    assert job.recipients[0].notify == ("NEVER",)
    assert b"Action: failed" in world.agent.contents[job.queue_id]


@pytest.mark.parametrize(
    ("sender", "mailbox"),
    [
        ("alice+lists@example.org", ALICE),
        ("nobody@example.org", ALICE),  # the postmaster, who is the first account when nobody else is named
        ("team@example.org", "bob@example.org"),
    ],
)
def test_an_own_sender_is_told_where_its_mail_goes(world: QueueWorld, sender: str, mailbox: str) -> None:
    world.settings.change(CONFIG, ACCOUNTS, "team@example.org: bob@example.org\n")
    world.agent.answers[BOB] = FAILED
    world.submit(BOB, sender=sender)
    world.advance(2)
    assert [name for name in (ALICE, "bob@example.org") if world.reports_in(name)] == [mailbox]


def test_an_alias_with_several_targets_gets_as_many_copies(world: QueueWorld) -> None:
    world.settings.change(CONFIG, ACCOUNTS, "team@example.org: alice@example.org, bob@example.org, x@example.com\n")
    world.agent.answers[BOB] = FAILED
    world.submit(BOB, sender="team@example.org")
    world.advance(2)
    assert len(world.reports_in(ALICE)) == len(world.reports_in("bob@example.org")) == 1
    assert world.agent.recipients() == [BOB, "x@example.com"]


def test_an_own_sender_in_a_domain_without_accounts_is_not_lost_in_silence(world: QueueWorld) -> None:
    world.settings.change(CONFIG, "")
    world.agent.answers |= {BOB: FAILED, ALICE: FAILED}
    id = world.submit(BOB)
    world.advance(2)
    assert world.row(id)["state"] == "bounced"
    assert world.states() == ["bounced", "dropped"]
    (event,) = events(world, "dropped")
    assert "there is no postmaster" in event["rule"]


# -- success


def test_success_is_told_only_to_who_asked(world: QueueWorld) -> None:
    world.submit(BOB)
    world.submit(CAROL, notify=("SUCCESS",))
    world.advance(2)
    parsed = only_report(world)
    _, recipient = status_fields(parsed)
    assert (recipient["Final-Recipient"], recipient["Action"]) == ("rfc822; " + CAROL, "relayed")
    assert returned(parsed)[0] == "text/rfc822-headers"


def test_a_server_that_tells_the_sender_itself_is_left_to_it(world: QueueWorld) -> None:
    world.agent.answers[BOB] = Outcome(Result.DELIVERED, "2.0.0", "taken", "250 ok", tells_sender=True)
    world.submit(BOB, notify=("SUCCESS",))
    world.advance(2)
    assert world.reports_in() == []


def test_success_in_an_own_mailbox_is_told_with_the_mark(world: QueueWorld) -> None:
    world.submit("bob@example.org", notify=("SUCCESS",))
    world.advance(2)
    _, recipient = status_fields(only_report(world))
    assert (recipient["Final-Recipient"], recipient["Action"]) == ("rfc822; bob@example.org", "delivered")
    assert len(world.mailbox("bob@example.org")) == 1


def test_a_report_of_success_that_cannot_be_made_does_not_keep_the_copy_unmarked(world: QueueWorld) -> None:
    async def broken(*arguments: object) -> object:
        raise ValueError("nobody foresaw this")

    world.local.report_success = broken  # type: ignore[assignment]
    world.submit("bob@example.org", notify=("SUCCESS",))
    world.advance(2)
    assert world.states() == ["delivered"]
    assert len(world.mailbox("bob@example.org")) == 1


def test_what_goes_back_is_what_came_with_our_trace_in_front(world: QueueWorld) -> None:
    world.agent.answers[BOB] = FAILED
    world.submit(BOB)
    world.advance(2)
    (octets,) = world.reports_in()
    assert (PREFIX + LETTER).replace(b"\r\n", b"\n") in octets


def test_a_lost_report_that_cannot_be_recorded_for_long_still_goes_to_the_postmaster(world: QueueWorld) -> None:
    """Each try to record it judges anew; only what is recorded counts for the pace."""
    world.agent.slow.add("example.com")
    world.agent.answers |= {BOB: FAILED, "frank@example.com": FAILED}
    world.submit(BOB, sender="frank@example.com")
    world.advance(2)
    world.fail("database: commit", times=10_000, error=lambda: sqlite3.OperationalError("disk I/O error"))
    world.agent.finish()
    world.advance(10 * DOUBLES)
    world.healthy()
    world.advance(20)
    assert world.states() == ["bounced", "bounced", "delivered"]
    assert len(world.reports_in()) == 1


@pytest.mark.parametrize("notify", [(), ("SUCCESS", "FAILURE", "DELAY")])
@pytest.mark.parametrize("outcome", [FAILED, DELIVERED, DEFERRED])
def test_nobody_is_told_of_what_was_removed_while_an_attempt_was_under_way(
    world: QueueWorld, outcome: Outcome, notify: tuple[str, ...]
) -> None:
    world.agent.answers[BOB] = DEFERRED
    id = world.submit(BOB, notify=notify)
    world.advance(60)
    world.agent.slow.add("example.net")
    world.agent.answers[BOB] = outcome
    world.advance(5 * 3600)
    assert len(world.agent.running) == 1
    world.operator(queue.remove, id)
    world.agent.finish()
    world.advance(60)
    assert world.reports_in() == []
    assert world.states() == ["removed"]
    last = {FAILED: "dropped", DELIVERED: "delivered", DEFERRED: "deferred"}[outcome]
    assert world.kinds()[-2:] == ["removed", last]
