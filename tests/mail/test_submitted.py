"""What is added to and taken from a user's message."""

from mailsrv.mail.address import Address
from mailsrv.mail.submitted import amend

ALICE = Address("alice", "example.org")

WHOLE = b"From: alice@example.org\r\nDate: Mon, 23 Nov 2026 18:04:00 +0000\r\nMessage-ID: <1@example.org>\r\n\r\n"


def test_a_whole_header_stays_as_it_is() -> None:
    amended = amend(WHOLE, author=ALICE, at=0.0, message_id="x@mx.example.org")
    assert amended.added == b""
    assert amended.head is None


def test_date_and_message_id_are_added() -> None:
    amended = amend(b"From: alice@example.org\r\n\r\n", author=ALICE, at=0.0, message_id="x@mx.example.org")
    assert amended.added == b"Date: Thu, 01 Jan 1970 00:00:00 +0000\r\nMessage-ID: <x@mx.example.org>\r\n"


def test_bcc_goes_with_its_folded_lines_and_nothing_else() -> None:
    head = (
        b"Bcc: bob@example.net,\r\n carol@example.net\r\nSubject: Bcc: is not a field\r\n here\r\n"
        b"RESENT-BCC : d@example.net\r\nX-Bcc: stays\r\n" + WHOLE
    )
    amended = amend(head, author=ALICE, at=0.0, message_id="x@mx.example.org")
    assert amended.head == b"Subject: Bcc: is not a field\r\n here\r\nX-Bcc: stays\r\n" + WHOLE


def test_a_header_of_bcc_alone_leaves_the_empty_line() -> None:
    assert amend(b"Bcc: a@example.net\r\n\r\n", author=ALICE, at=0.0, message_id="x@y").head == b"\r\n"


def test_from_is_added_where_nobody_is_named() -> None:
    assert amend(b"\r\n", author=ALICE, at=0.0, message_id="x@y").added.startswith(b"From: alice@example.org\r\n")
