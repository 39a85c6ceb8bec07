"""A mail to accounts that have nearly used up their quota."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mailsrv.config import parse
from mailsrv.dkim.signer import Signer
from mailsrv.store.mailbox.quota import Quota
from mailsrv.store.mailbox.quota_warning import QuotaWarnings, in_words
from mailsrv.store.notices import Notices
from tests.store.test_usage import Mailbox

TEXT = 'hostname = "mx.example.org"\ndomains = ["example.org"]\nlimits.quota_warning = "{}"\n'


class WarnedMailbox(Mailbox):
    """Alice has room for 20,000 octets."""

    def __init__(self) -> None:
        super().__init__(Quota(20_000))

    def boot(self, *, recover: bool = True) -> WarnedMailbox:
        super().boot(recover=recover)
        sign = Signer(self.outside, dict).fields_of
        notices = Notices(self.accounts, self.outside, self.spool, self.database, sign)
        warnings = QuotaWarnings(self.accounts, self.outside, self.database, notices)
        self.usage.on_usage = warnings.usage
        return self

    def level(self, level: str) -> None:
        self.accounts.config = parse(TEXT.format(level), "/etc/mailsrv.toml")

    def warnings(self) -> list[bytes]:
        return [octets for octets in self.mailbox().values() if b"Subject: Your mailbox is" in octets]

    def comes(self, octets: int) -> str:
        path = self.put(octets)
        self.audit()
        self.advance(30.0)
        return path


@pytest.fixture
def box() -> Iterator[WarnedMailbox]:
    mailbox = WarnedMailbox().boot()
    mailbox.comes(1)
    yield mailbox
    mailbox.close()


def test_who_crosses_the_level_is_told_once(box: WarnedMailbox) -> None:
    box.comes(17_000)
    assert box.warnings() == []
    box.comes(1_500)
    (warning,) = box.warnings()
    assert b"Return-Path: <>\n" in warning
    assert b"\nTo: alice@example.org\nSubject: Your mailbox is 92% full\n" in warning
    assert b"\n  18.1 KiB of 19.5 KiB\n" in warning
    box.comes(100)
    box.comes(100)
    assert len(box.warnings()) == 1
    assert box.is_exact()


def test_a_restart_tells_nobody_twice(box: WarnedMailbox) -> None:
    box.comes(18_500)
    for _ in range(2):
        box.crash()
        box.boot()
        box.audit()
        box.comes(1)
        assert len(box.warnings()) == 1


def test_again_after_it_was_below_even_across_a_restart(box: WarnedMailbox) -> None:
    path = box.comes(18_500)
    box.crash()
    box.take(path)
    box.boot()
    box.audit()
    assert len(box.warnings()) == 1
    path = box.comes(18_000)
    assert len(box.warnings()) == 2
    box.take(path)
    box.room()
    box.advance(30.0)
    box.comes(18_000)
    assert len(box.warnings()) == 3


def test_the_level_can_be_another_one_or_none(box: WarnedMailbox) -> None:
    box.level("")
    box.comes(19_000)
    assert box.warnings() == []
    box.level("50%")
    box.comes(1)
    assert len(box.warnings()) == 1


def test_a_full_mailbox_takes_its_warning(box: WarnedMailbox) -> None:
    box.comes(25_000)
    (warning,) = box.warnings()
    assert b"Your mailbox is 125% full" in warning


def test_messages_count_too(box: WarnedMailbox) -> None:
    box.accounts.limit({"alice": Quota(0, 10)})
    for _ in range(8):
        box.comes(1)
    (warning,) = box.warnings()
    assert b"\n  9 of 10 messages\n" in warning


def test_what_cannot_be_told_is_told_later(box: WarnedMailbox) -> None:
    failing: list[Any] = [True]

    def fail(step: str) -> None:
        if failing and step == "database: commit":
            raise OSError("no")

    box.steps.failures.append(fail)
    box.comes(18_500)
    assert box.warnings() == []
    failing.clear()
    box.comes(1)
    assert len(box.warnings()) == 1


@pytest.mark.parametrize(
    ("octets", "words"),
    [(0, "0 octets"), (1023, "1023 octets"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB"), (5 << 50, "5120.0 TiB")],
)
def test_amounts_in_words(octets: int, words: str) -> None:
    assert in_words(octets) == words
