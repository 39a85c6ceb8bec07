"""Delivery reports: golden files in ``golden/`` (with plain line ends), and Python's parser as the judge of the rest.

``MAILSRV_WRITE_GOLDEN=1 pytest tests/mail/test_report.py`` writes the files anew; look at the difference before keeping
them.
"""

from __future__ import annotations

import email
import email.policy
import os
import pathlib
import re
from email.message import EmailMessage
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailsrv.mail import report
from mailsrv.mail.address import POSTMASTER, Address
from mailsrv.mail.report import Report, ReportedRecipient
from mailsrv.relay.remedies import remedy_of

GOLDEN = pathlib.Path(__file__).parent / "golden"
ARRIVED = 1795450000.25
NOW = 1795457040.75
ALICE = Address("alice", "example.org")
HEADER = (
    b"Received: from laptop ([192.0.2.44])\r\n\tby mx.example.org with ESMTPSA id 0A;\r\n"
    b"\tMon, 23 Nov 2026 16:06:40 +0000\r\n"
    b"From: Alice <alice@example.org>\r\n"
    b"To: bob@example.net\r\n"
    b"Subject: Lunch on =?utf-8?q?Friday=2C_caf=C3=A9_au_lait?=\r\n"
    b"Date: Mon, 23 Nov 2026 17:06:39 +0100\r\n"
    b"Message-ID: <lunch.2@example.org>\r\n"
    b"References: <lunch.0@example.net>\r\n <lunch.1@example.org>\r\n"
)
BODY = b"At noon?\r\n.\r\n--\r\nAlice\r\n"
REFUSED = ReportedRecipient(
    Address("bob", "example.net"),
    "5.1.1",
    "the other server refused the recipient",
    "550 5.1.1 <bob@example.net>: Recipient address rejected: User unknown in local recipient table",
    "mx.example.net [192.0.2.7]:25",
    attempted_at=NOW - 2,
)
USUAL: dict[str, Any] = {
    "hostname": "mx.example.org",
    "domain": "example.org",
    "to": ALICE,
    "recipients": [REFUSED],
    "original_header": HEADER,
    "original_body": BODY,
    "arrived_at": ARRIVED,
    "now": NOW,
    "message_id": "report.1@mx.example.org",
    "boundary_token": "0123456789abcdef",
}


def build(kind: report.Kind = "failed", **changes: Any) -> Report:
    return report.build(kind, **{**USUAL, **changes})


def parts(made: Report) -> tuple[EmailMessage, list[EmailMessage]]:
    message = email.message_from_bytes(made.content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    for part in message.walk():
        assert not part.defects
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    return message, [cast(EmailMessage, part) for part in message.iter_parts()]


def status_groups(made: Report) -> list[dict[str, str]]:
    """The groups of fields of the part for programs."""
    part = made.content.split(b"\r\n--=_0123456789abcdef.0\r\n")[2].decode()
    groups = part.partition("\r\n\r\n")[2].split("\r\n\r\n")
    return [dict(email.message_from_string(group, policy=email.policy.default).items()) for group in groups]


NO_PTR, SPAM, GREYLIST = (remedy for cause in ("no-ptr", "content", "greylist") if (remedy := remedy_of(cause)))

CASES: dict[str, tuple[report.Kind, dict[str, Any]]] = {
    "failed": ("failed", {"envid": "QQ314159"}),
    "failed-several": (
        "failed",
        {
            "original_body": None,
            "recipients": [
                REFUSED,
                ReportedRecipient(
                    Address("carol", "example.com"),
                    "4.4.1",
                    "no server of example.com answered for five days",
                    original="rfc822;sales@example.org",
                    attempted_at=NOW,
                ),
                ReportedRecipient(Address("d e", "xn--bcher-kva.example"), "5.1.10", "its MX record is the null MX"),
            ],
        },
    ),
    "delayed": (
        "delayed",
        {
            "recipients": [
                ReportedRecipient(
                    Address("bob", "example.net"),
                    "4.2.2",
                    "the other server asked us to try later",
                    "452 4.2.2 Mailbox full",
                    "mx.example.net [2001:db8::7]:25",
                    attempted_at=NOW,
                    retry_until=ARRIVED + 5 * 86400,
                )
            ],
            "original_body": None,
        },
    ),
    "remedy": (
        "failed",
        {
            "recipients": [
                ReportedRecipient(
                    Address("bob", "example.net"),
                    "5.7.25",
                    "mx.example.net [2001:db8::7]:25 refused the message.",
                    "550 5.7.25 [2001:db8::25] The IP address sending this message does not have a PTR record setup",
                    "mx.example.net [2001:db8::7]:25",
                    attempted_at=NOW,
                    meaning=NO_PTR.meaning,
                    remedy=NO_PTR.remedy,
                    for_postmaster=NO_PTR.tell,
                ),
                ReportedRecipient(
                    Address("carol", "example.net"),
                    "5.7.1",
                    "mx.example.net [2001:db8::7]:25 refused the message.",
                    "554 5.7.1 Message rejected as spam",
                    "mx.example.net [2001:db8::7]:25",
                    attempted_at=NOW,
                    meaning=SPAM.meaning,
                    remedy=SPAM.remedy,
                    for_postmaster=SPAM.tell,
                ),
                ReportedRecipient(
                    Address("dave", "example.net"),
                    "4.4.7",
                    "given up after 120 hours of trying: mx.example.net does not take the message now.",
                    "451 4.7.1 Greylisting in action",
                    "mx.example.net [2001:db8::7]:25",
                    attempted_at=NOW,
                    meaning=GREYLIST.meaning,
                    remedy=GREYLIST.remedy,
                    for_postmaster=GREYLIST.tell,
                ),
            ],
            "original_body": None,
        },
    ),
    "remedy-delayed": (
        "delayed",
        {
            "recipients": [
                ReportedRecipient(
                    Address("bob", "example.net"),
                    "4.7.25",
                    "mx.example.net [2001:db8::7]:25 does not take the message now.",
                    "450 4.7.25 no PTR",
                    "mx.example.net [2001:db8::7]:25",
                    attempted_at=NOW,
                    retry_until=ARRIVED + 5 * 86400,
                    meaning=NO_PTR.meaning,
                    remedy=NO_PTR.remedy,
                    for_postmaster=NO_PTR.tell,
                )
            ],
            "original_body": None,
        },
    ),
    "lost": (
        "lost",
        {
            "to": Address("postmaster", "example.org"),
            "original_header": b"From: Mail Delivery System <MAILER-DAEMON@mx.example.org>\r\nTo: frank@example.com\r\n"
            b"Subject: Undeliverable: hello\r\nMessage-ID: <report.0@mx.example.org>\r\n",
            "original_body": b"Your message could not be delivered.\r\n",
            "recipients": [
                ReportedRecipient(
                    Address("frank", "example.com"),
                    "5.1.1",
                    "the other server refused the recipient",
                    "550 5.1.1 who?",
                    "mx.example.com [192.0.2.9]:25",
                    attempted_at=NOW,
                )
            ],
        },
    ),
    "delivered": ("delivered", {"recipients": [ReportedRecipient(ALICE, "2.1.5")], "original_body": None}),
    "relayed": (
        "relayed",
        {
            "recipients": [
                ReportedRecipient(
                    Address("bob", "example.net"), "2.1.9", "", "250 2.0.0 ok", "mx.example.net [192.0.2.7]:25"
                )
            ],
            "original_body": None,
        },
    ),
    "expanded": ("expanded", {"recipients": [ReportedRecipient(ALICE, "2.1.5")], "original_body": None}),
    "international": (
        "failed",
        {
            "to": Address("jörg", "xn--bcher-kva.example"),
            "original_header": "From: jörg@bücher.example\r\nSubject: Grüße\r\n".encode(),
            "original_body": "Schöne Grüße\r\n".encode(),
            "recipients": [
                ReportedRecipient(
                    Address("用户", "example.net"),
                    "5.6.7",
                    "the other server offers no SMTPUTF8",
                    original="utf-8;用户@例子.example",
                )
            ],
        },
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    kind, changes = CASES[name]
    made = build(kind, **changes)
    path = GOLDEN / f"{name}.eml"
    if os.environ.get("MAILSRV_WRITE_GOLDEN"):
        path.write_bytes(made.content.replace(b"\r\n", b"\n"))
    assert made.content == path.read_bytes().replace(b"\n", b"\r\n")
    parts(made)


def test_header_fields() -> None:
    message, _ = parts(build())
    assert message["From"] == "Mail Delivery System <MAILER-DAEMON@example.org>"
    assert message["To"] == "alice@example.org"
    assert message["Subject"] == "Undeliverable: Lunch on Friday, café au lait"
    assert message["Date"] == "Mon, 23 Nov 2026 18:04:00 +0000"
    assert message["Message-ID"] == "<report.1@mx.example.org>"
    assert message["In-Reply-To"] == "<lunch.2@example.org>"
    assert message["References"] == "<lunch.0@example.net> <lunch.1@example.org> <lunch.2@example.org>"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["MIME-Version"] == "1.0"


def test_status_part() -> None:
    made = build(
        envid="QQ314159", recipients=[REFUSED, ReportedRecipient(ALICE, "5.0.0", original="rfc822;x@y.example")]
    )
    _, (_, machine, _) = parts(made)
    assert machine.get_content_type() == "message/delivery-status"
    message, bob, alice = status_groups(made)
    assert message == {
        "Original-Envelope-Id": "QQ314159",
        "Reporting-MTA": "dns; mx.example.org",
        "Arrival-Date": "Mon, 23 Nov 2026 16:06:40 +0000",
    }
    assert bob == {
        "Final-Recipient": "rfc822; bob@example.net",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx.example.net",
        "Diagnostic-Code": "smtp; 550 5.1.1 <bob@example.net>: Recipient address rejected: "
        "User unknown in local recipient table",
        "Last-Attempt-Date": "Mon, 23 Nov 2026 18:03:58 +0000",
    }
    assert alice == {
        "Original-Recipient": "rfc822; x@y.example",
        "Final-Recipient": "rfc822; alice@example.org",
        "Action": "failed",
        "Status": "5.0.0",
    }


def test_only_delays_say_until_when() -> None:
    late = ReportedRecipient(ALICE, "4.4.1", retry_until=NOW + 60)
    assert b"Will-Retry-Until: Mon, 23 Nov 2026 18:05:00 +0000\r\n" in build("delayed", recipients=[late]).content
    assert b"Will-Retry-Until" not in build(recipients=[late]).content


def test_text_part() -> None:
    _, (text, _, _) = parts(build())
    words = " ".join(text.get_content().split())
    for wanted in [
        "could not be delivered to the address below",
        "bob@example.net",
        "There is no mailbox of that name at this domain.",
        "mx.example.net [192.0.2.7]:25 said:",
        "550 5.1.1 <bob@example.net>: Recipient address rejected",
        "What you can do: Check the address",
        "Subject: Lunch on Friday, café au lait",
        "Message-ID: lunch.2@example.org",
        "Your message is attached.",
    ]:
        assert wanted in words
    assert max(map(len, text.get_content().splitlines())) <= 72


def test_giving_up_is_not_called_trying() -> None:
    given_up = ReportedRecipient(ALICE, "4.4.1", "no server answered for five days")
    assert b"tried again" not in build(recipients=[given_up]).content
    assert b"Status: 4.4.1" in build(recipients=[given_up]).content


def test_the_original_comes_back_octet_for_octet() -> None:
    for body in [b"", b"x", b"x\r\n", b"x\r\n\r\n", bytes(range(14, 256)) + b"\r\n"]:
        made = build(original_body=body)
        assert made.content.endswith(b"\r\n\r\n" + HEADER + b"\r\n" + body + b"\r\n--=_0123456789abcdef.0--\r\n")
        assert b"\r\nContent-Type: message/rfc822\r\n" in made.content


def test_header_only() -> None:
    for body in [None, b"x" * 65536]:
        made = build(original_body=body)
        _, (_, _, original) = parts(made)
        assert original.get_content_type() == "text/rfc822-headers"
        assert made.content.endswith(b"\r\n\r\n" + HEADER + b"\r\n--=_0123456789abcdef.0--\r\n")
        assert b"The header of your message is attached" in made.content


def test_huge_headers_are_cut_at_a_line() -> None:
    made = build(original_header=b"X: " + b"y" * 95 + b"\r\n" + b"Z: abcde\r\n" * 20_000, original_body=b"x")
    assert len(made.content) < 70_000
    _, (_, _, original) = parts(made)
    assert original.get_content().rstrip().endswith("\nZ: abcde")
    assert len(build(original_header=b"X" * 1_000_000).content) < 70_000


def test_many_recipients() -> None:
    made = build(recipients=[ReportedRecipient(Address(f"u{n}", "example.net"), "5.1.1") for n in range(200)])
    _, (text, _, _) = parts(made)
    assert "And 150 more" in text.get_content()
    assert "addresses below" in text.get_content()
    assert len(status_groups(made)) == 201


def test_envelope_needs() -> None:
    plain = build()
    assert (plain.body, plain.smtputf8, plain.content.isascii()) == ("7BIT", False, True)
    eight = build(original_body=b"caf\xe9\r\n")
    assert (eight.body, eight.smtputf8) == ("8BITMIME", False)
    message, (_, _, original) = parts(eight)
    assert message["Content-Transfer-Encoding"] == original["Content-Transfer-Encoding"] == "8bit"
    international = build(recipients=[ReportedRecipient(Address("jörg", "example.net"), "5.1.1")])
    assert (international.body, international.smtputf8) == ("8BITMIME", True)


def test_answers_beyond_ascii_need_no_smtputf8() -> None:
    made = build(recipients=[ReportedRecipient(ALICE, "5.1.1", answer="550 не найден")])
    assert not made.smtputf8
    assert made.content.isascii()
    _, (text, _, _) = parts(made)
    assert "550 не найден" in text.get_content()
    assert status_groups(made)[1]["Diagnostic-Code"] == "smtp; 550 ?? ??????"


def test_international_parts() -> None:
    kind, changes = CASES["international"]
    made = build(kind, **changes)
    assert (made.body, made.smtputf8) == ("8BITMIME", True)
    message, (_, machine, original) = parts(made)
    assert message["To"] == "jörg@xn--bcher-kva.example"
    assert machine.get_content_type() == "message/global-delivery-status"
    assert status_groups(made)[1]["Final-Recipient"] == "utf-8; 用户@example.net"
    assert status_groups(made)[1]["Original-Recipient"] == "utf-8; 用户@例子.example"
    assert original.get_content_type() == "message/global"
    assert "Content-Type: message/global-headers" in build(kind, **{**changes, "original_body": None}).content.decode()


def test_the_boundary_is_not_in_the_original() -> None:
    nasty = b"--=_0123456789abcdef.0--\r\n--=_0123456789abcdef.1\r\n\r\nContent-Type: text/html\r\n"
    _, found = parts(build(original_body=nasty))
    assert len(found) == 3
    _, found = parts(build(original_header=nasty, original_body=None))
    assert len(found) == 3


def test_without_message_id_and_subject() -> None:
    message, _ = parts(build(original_header=b"", original_body=b""))
    assert message["In-Reply-To"] is None
    assert message["References"] is None
    assert message["Subject"] == "Undeliverable: your message"


def test_to_the_postmaster() -> None:
    message, _ = parts(build(to=POSTMASTER))
    assert message["To"] == "postmaster@mx.example.org"


@pytest.mark.parametrize("token", ["", "short", "with space", "a" * 49, "semi;colon", "öööööööö"])
def test_refuses_bad_tokens(token: str) -> None:
    with pytest.raises(ValueError):
        build(boundary_token=token)


def test_refuses_bad_names() -> None:
    with pytest.raises(ValueError):
        build(hostname="a\r\nb")
    with pytest.raises(ValueError):
        build(message_id="a\r\nb")


evil = st.text(st.sampled_from('ab\r\n\0\t :;<>-=_,"ö用\u2028\x85\ud800'), max_size=40) | st.text(max_size=20)
evil_octets = st.lists(
    st.sampled_from(
        [b"\r\n", b"\n", b"\r", b"\0", b"--=_0123456789abcdef.0", b"--", b"A: b", b"\xff", b"\xc3\xb6", b"x" * 90]
    ),
    max_size=12,
).map(b"".join)


@given(
    kind=st.sampled_from(["failed", "delayed", "delivered", "relayed", "expanded"]),
    recipient=st.builds(
        ReportedRecipient,
        st.builds(Address, evil, evil),
        evil | st.just("5.1.1"),
        evil,
        evil | st.just("ö" * 2000),
        evil,
        evil,
        st.none() | st.floats(0, 4e9),
        st.none() | st.floats(0, 4e9),
    ),
    head=evil_octets,
    body=st.none() | evil_octets,
    envid=evil,
)
@settings(max_examples=250, deadline=None)
def test_three_parts_whatever_is_in_it(
    kind: report.Kind, recipient: ReportedRecipient, head: bytes, body: bytes | None, envid: str
) -> None:
    made = build(kind, recipients=[recipient], original_header=head, original_body=body, envid=envid)
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", made.content)
    boundary = re.search(rb'boundary="([^"]+)"', made.content)
    assert boundary
    assert made.content.count(b"\r\n--" + boundary[1]) == 4
    assert made.body == "8BITMIME" or made.content.isascii()
    fields, _, rest = made.content.partition(b"\r\n\r\n")
    assert made.smtputf8 or fields.isascii()
    names = re.findall(rb"(?m)^([A-Za-z-]+):", fields)
    assert sorted(names) == sorted(set(names))
    machine = rest.split(b"--" + boundary[1])[2]
    assert made.smtputf8 or machine.isascii()
    groups = machine.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n").split(b"\r\n\r\n")
    assert len(groups) == 2
    assert re.findall(rb"(?m)^(Action|Status|Final-Recipient):", groups[1]) == [
        b"Final-Recipient",
        b"Action",
        b"Status",
    ]
    for line in machine.split(b"\r\n"):
        assert len(line) <= 998
