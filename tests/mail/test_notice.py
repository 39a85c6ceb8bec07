"""Notices: golden files in ``golden/`` (with plain line ends), and Python's parser as the judge of the rest.

``MAILSRV_WRITE_GOLDEN=1 pytest tests/mail/test_notice.py`` writes the files anew.
"""

from __future__ import annotations

import email
import email.policy
import os
import pathlib
from email.message import EmailMessage

from hypothesis import given
from hypothesis import strategies as st

from mailsrv.mail import notice
from mailsrv.mail.address import Address
from mailsrv.mail.notice import Notice

GOLDEN = pathlib.Path(__file__).parent / "golden"
NOW = 1795457040.75
ALICE = Address("alice", "example.org")

TEXT = """Your mailbox is nearly full: 950 MB of 1,000 MB are used, and mail that does not fit any more is sent back \
to whom it comes from.

What to do:

    Fetch mail and delete it from the server, or empty the folder Trash in your mail program; large attachments weigh \
most.

Nobody reads answers to this message.
"""


def build(to: Address = ALICE, subject: str = "Your mailbox is nearly full", text: str = TEXT) -> Notice:
    return notice.build(
        domain="example.org", to=to, subject=subject, text=text, now=NOW, message_id="1K0YS8BW921@mx.example.org"
    )


def parsed(content: bytes) -> EmailMessage:
    found = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    assert found.defects == []
    return found


def check_golden(name: str, content: bytes) -> None:
    path = GOLDEN / name
    text = content.replace(b"\r\n", b"\n")
    if os.environ.get("MAILSRV_WRITE_GOLDEN"):
        path.write_bytes(text)
    assert path.read_bytes() == text


def test_golden() -> None:
    check_golden("notice.eml", build().content)


def test_golden_beyond_ascii() -> None:
    made = build(Address("älice", "example.org"), "Postfach fast voll: 95 %, Grüße", "Größe: 950 MB.\n\n" + TEXT)
    check_golden("notice-international.eml", made.content)
    assert made.smtputf8
    assert not build(subject="Grüße").smtputf8


def test_who_it_is_from_and_that_nothing_automatic_should_answer() -> None:
    found = parsed(build().content)
    assert found["From"] == "Mail Delivery System <MAILER-DAEMON@example.org>"
    assert found["To"] == "alice@example.org"
    assert found["Auto-Submitted"] == "auto-generated"
    assert found["Message-ID"] == "<1K0YS8BW921@mx.example.org>"
    assert found["Date"].datetime.timestamp() == int(NOW)


def test_lines_are_short_and_keep_their_indent() -> None:
    lines = parsed(build().content).get_content().splitlines()
    assert max(map(len, lines)) <= notice.WIDTH
    assert "    Fetch mail and delete it from the server, or empty the folder Trash" in lines
    assert "    in your mail program; large attachments weigh most." in lines


def test_what_it_quotes_is_bounded() -> None:
    made = build(subject="s" * 5000, text="word " * 100_000)
    assert len(made.content) < 2 * notice.TEXT_LIMIT
    assert len(parsed(made.content)["Subject"]) <= notice.SUBJECT_LIMIT


@given(st.text(max_size=300), st.text(max_size=300))
def test_no_text_adds_a_field_or_a_line_of_its_own(subject: str, text: str) -> None:
    content = build(subject=subject, text=text).content
    assert b"\0" not in content
    assert content.replace(b"\r\n", b"").count(b"\n") == content.replace(b"\r\n", b"").count(b"\r") == 0
    head, _ = content.split(b"\r\n\r\n", 1)
    assert [line.partition(b":")[0] for line in head.split(b"\r\n") if not line.startswith(b" ")] in (
        [b"Date", b"From", b"To", b"Subject", b"Message-ID", b"Auto-Submitted", b"MIME-Version", b"Content-Type"],
        [
            *(b"Date", b"From", b"To", b"Subject", b"Message-ID", b"Auto-Submitted", b"MIME-Version", b"Content-Type"),
            b"Content-Transfer-Encoding",
        ],
    )
    assert max(map(len, content.split(b"\r\n"))) <= 998
