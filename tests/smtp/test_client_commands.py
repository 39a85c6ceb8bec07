"""MAIL and RCPT with the parameters that a server offers to understand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.mail.address import Address
from mailsrv.mail.envelope import Envelope, Recipient
from mailsrv.smtp.client_commands import line, mail, rcpt, utf8_xtext, xtext
from mailsrv.smtp.client_events import Extensions, Transaction

ALL = Extensions.parse(("mx", "SIZE", "8BITMIME", "SMTPUTF8", "DSN", "PIPELINING"))
NONE = Extensions()
ALICE = Address("alice", "example.org")
BOB = Recipient(Address("bob", "example.net"), "rfc822;Bob+x@example.net", ("DELAY", "FAILURE"))


def transaction(envelope: Envelope, recipient: Recipient = BOB, *, eight_bit: bool = False) -> Transaction:
    return Transaction(envelope, (recipient,), 77, eight_bit)


def test_all_parameters() -> None:
    envelope = Envelope(ALICE, "8BITMIME", True, "HDRS", "id+1 =2")
    assert mail(transaction(envelope, eight_bit=True), ALL) == (
        b"MAIL FROM:<alice@example.org> SIZE=77 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=id+2B1+20+3D2\r\n"
    )
    assert rcpt(BOB, ALL) == b"RCPT TO:<bob@example.net> NOTIFY=DELAY,FAILURE ORCPT=rfc822;Bob+2Bx@example.net\r\n"


def test_nothing_that_was_not_offered() -> None:
    envelope = Envelope(ALICE, "8BITMIME", True, "HDRS", "id")
    assert mail(transaction(envelope, eight_bit=True), NONE) == b"MAIL FROM:<alice@example.org>\r\n"
    assert rcpt(BOB, NONE) == b"RCPT TO:<bob@example.net>\r\n"


def test_an_address_that_needs_smtputf8_asks_for_it() -> None:
    recipient = Recipient(Address("jürgen", "example.net"))
    assert b" SMTPUTF8" in mail(transaction(Envelope(ALICE), recipient), ALL)
    assert b" SMTPUTF8" not in mail(transaction(Envelope(ALICE)), ALL)
    assert rcpt(recipient, ALL) == "RCPT TO:<jürgen@example.net>\r\n".encode()


def test_original_recipient_beyond_ascii() -> None:
    # RFC 6533 3
    recipient = Recipient(Address("bob", "example.net"), "utf-8;jürgen+a@example.net")
    assert rcpt(recipient, ALL).endswith(b"ORCPT=utf-8;j\\x{FC}rgen\\x{2B}a@example.net\r\n")
    assert b"ORCPT" not in rcpt(Recipient(BOB.address, "rfc822;jürgen@example.net"), ALL)


def test_quoted_local_parts() -> None:
    assert rcpt(Recipient(Address("a b", "example.net")), NONE) == b'RCPT TO:<"a b"@example.net>\r\n'


@pytest.mark.parametrize("text", ["a\r", "a\nb", "\x00", "a\x7f", "\x85"])
def test_no_control_characters(text: str) -> None:
    with pytest.raises(ValueError, match="control"):
        line(text)


@given(st.text())
def test_xtext_is_one_word(text: str) -> None:
    if text.isascii():
        assert xtext(text).isascii() and not any(c.isspace() or c == "=" for c in xtext(text))
    assert utf8_xtext(text).isascii() and not any(c.isspace() or c in "+=" for c in utf8_xtext(text))
