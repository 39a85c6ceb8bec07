"""Known refusals, by what servers really say: ``refusals.txt`` has them as they come over the wire."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailsrv.relay.remedies import (
    Action,
    Remedy,
    blocklists,
    generic,
    google,
    microsoft,
    providers,
    remedies,
    remedy_for,
    remedy_of,
)
from mailsrv.smtp.client_replies import ReplyReader


def samples() -> Iterator[tuple[str, str]]:
    """What is expected, and the answer as an outcome has it."""
    for block in (Path(__file__).parent / "refusals.txt").read_text().split("\n\n"):
        lines = [line for line in block.strip().split("\n") if not line.startswith("#")]
        if lines:
            reader = ReplyReader()
            reader.receive("".join(f"{line}\r\n" for line in lines[1:]).encode())
            reply = reader.next_reply()
            assert reply is not None
            assert not reader.pending
            yield lines[0], reply.text


@pytest.mark.parametrize(("expected", "answer"), list(samples()))
def test_what_servers_say(expected: str, answer: str) -> None:
    remedy = remedy_for(answer)
    assert (f"{remedy.cause} {remedy.action.name}" if remedy else "-") == expected


def test_every_cause_has_an_example() -> None:
    assert {expected.split()[0] for expected, _ in samples()} - {"-"} == {remedy.cause for remedy in remedies()}


@pytest.mark.parametrize("remedy", list(remedies()), ids=lambda remedy: str(remedy.cause))
def test_a_remedy_is_for_people(remedy: Remedy) -> None:
    assert remedy_of(remedy.cause) is remedy
    for words in (remedy.meaning, remedy.remedy):
        assert words[0].isupper() or words[0] == "`"
        assert words.endswith((".", ")"))
        assert "  " not in words
        assert "{" not in words
    assert remedy.remedy != remedy.meaning


def test_a_cause_has_one_remedy() -> None:
    """Rows that share a cause share everything."""
    tables = (google, microsoft, providers, blocklists, generic)
    assert {row.remedy for table in tables for row in table.ROWS} == set(remedies())


def test_unknown_causes() -> None:
    assert remedy_of("no-such-cause") is None
    assert remedy_for("") is None
    assert remedy_for("garbage") is None


@pytest.mark.parametrize(
    "address",
    [
        "[TSS04]@example.com",
        '"[TSS04] "@example.com',
        "<[TSS04] x>",
        "<zen.spamhaus.org>",
        "blocked.spamhaus@example.com",
    ],
)
def test_an_address_acts_on_nothing(address: str) -> None:
    """Who writes to us, or whom we write to, chooses it; servers repeat it."""
    assert remedy_for(f"421 4.7.0 {address} try later") is None
    assert remedy_for(f"550 5.7.1 refused: {address}") is None


@pytest.mark.parametrize(
    "text",
    [
        "<" * 1000,
        '"' * 1000,
        "a" * 1000,
        "a@" * 500,
        "block " * 180,
        "no " * 330,
        "SPF " * 250,
        "spam " * 200,
        "5.7.1 " * 180,
    ],
)
def test_no_answer_takes_long(text: str) -> None:
    """A server that answers to confuse gets a few milliseconds at most; a pattern that doubles back would take more."""
    for head in ("550 5.7.1 ", "451 4.7.0 ", "554 ", "550 5.7.26 "):
        began = time.process_time()
        remedy_for.__wrapped__(head + text)
        assert time.process_time() - began < 0.1


def test_what_is_told_and_what_is_not() -> None:
    """What passes by itself or concerns one mailbox is nothing for the postmaster."""
    assert {remedy.cause for remedy in remedies() if not remedy.tell} >= {"greylist", "mailbox-full", "connections"}
    assert all(remedy.tell for remedy in remedies() if remedy.cause.endswith(("-no-ptr", "-block-list", "-blocked")))
    assert Action.WAIT in {remedy.action for remedy in remedies()}
