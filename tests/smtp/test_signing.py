"""What is signed at acceptance and what is not, through the whole SMTP server, with dkimpy as the judge."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mailsrv.store.key_states import Keys
from mailsrv.store.spool import KEPT, KEPT_WHEN_BUSY, MEMORY, Draft, Spool
from tests.smtp.world import Client, World
from tests.worlds.keys import pair
from tests.worlds.verifier import verified

ORG, COM = pair(), pair("example.com")
FROM = "From: alice@example.org\r\n"
LETTER = f"{FROM}To: bob@example.net\r\nSubject: hello\r\n\r\nhello \r\n\r\n\r\n"


@pytest.fixture
def world() -> Iterator[World]:
    world = World('trusted_networks = ["203.0.113.0/24"]')
    world.settings.keys = Keys({"example.org": ORG, "example.com": COM}, {})
    yield world
    world.end()


def send(client: Client, content: str, sender: str = "alice@example.org", to: str = "bob@example.net") -> None:
    assert client.transaction(to, sender=sender, content=content)[-1] == 250


def leaving(world: World) -> bytes:
    """The message as the next server gets it."""
    ((prefix, data),) = world.ask("SELECT prefix, data FROM content")
    if data is None:
        (name,) = world.files()
        file = world.outside.filesystem.open(f"/var/lib/mailsrv/spool/{name}")
        data = b"".join(iter(lambda: file.read(1 << 20), b""))
        file.close()
    whole: bytes = prefix + data
    return whole


def signers(message: bytes) -> list[bool]:
    return verified(message, [*ORG, *COM])


def test_what_a_user_sends_is_signed_twice(world: World) -> None:
    send(world.logged_in(), LETTER)
    message = leaving(world)
    assert signers(message) == [True, True]
    assert message.startswith(b"DKIM-Signature: v=1; a=rsa-sha256;")
    assert message.count(b"\td=example.org;") == 2
    assert world.ask("SELECT reason FROM event WHERE kind = 'accepted'") == [
        "the message is stored, signed by example.org"
    ]


def test_added_fields_are_signed_and_removed_ones_are_not(world: World) -> None:
    send(world.logged_in(), "Subject: hello\r\nBcc: carol@example.net\r\n\r\nhello\r\n")
    message = leaving(world)
    assert signers(message) == [True, True]
    assert b"\r\nFrom: alice@example.org\r\n" in message
    assert signers(message.replace(b"\r\nDate: ", b"\r\nDate: x")) == [False, False]


@pytest.mark.parametrize("bcc", ["", "Bcc: carol@example.net\r\n"])
def test_large_messages_are_read_from_their_files(world: World, bcc: str) -> None:
    send(world.logged_in(), f"{FROM}{bcc}X: y\r\n\r\n" + ("0123456789  abcdef \r\n\r\n" * (KEPT // 10)))
    message = leaving(world)
    assert len(message) > 2 * KEPT
    assert signers(message) == [True, True]


def test_a_long_header_section_is_signed_whole_when_memory_runs_short(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_head = Spool.with_head

    async def while_busy(self: Spool, draft: Draft, length: int, head: bytes) -> Draft:
        self.memory += MEMORY
        try:
            return await with_head(self, draft, length, head)
        finally:
            self.memory -= MEMORY

    monkeypatch.setattr(Spool, "with_head", while_busy)
    long = "".join(f"X-{n}: {'x' * 70}\r\n" for n in range(KEPT_WHEN_BUSY // 70))
    send(world.logged_in(), f"Bcc: carol@example.net\r\n{long}{LETTER}")
    message = leaving(world)
    assert b"Bcc" not in message
    assert signers(message) == [True, True]


def test_copies_in_own_mailboxes_have_it_too(world: World) -> None:
    send(world.logged_in(), LETTER, to="bob@example.org")
    assert signers(leaving(world)) == [True, True]


def test_the_domain_is_that_of_the_author(world: World) -> None:
    send(world.greeted(host="203.0.113.7"), LETTER.replace("alice@example.org", "Shop <shop@EXAMPLE.com>"))
    message = leaving(world)
    assert message.count(b"d=example.com;") == 2
    assert signers(message) == [True, True]


def test_several_authors_of_the_own_account(world: World) -> None:
    send(world.logged_in(), LETTER.replace("alice@example.org", "alice@example.org, alice+shop@example.org"))
    assert signers(leaving(world)) == [True, True]


def test_content_without_a_last_line_end_is_signed_as_it_will_leave(world: World) -> None:
    client = world.logged_in()
    content = LETTER.encode() + b"no end"
    assert client.codes("MAIL FROM:<alice@example.org>", "RCPT TO:<bob@example.net>") == [250, 250]
    before = len(client.received)
    client.send(b"BDAT %d LAST\r\n" % len(content) + content)
    assert client.received[before:].startswith(b"250 ")
    assert signers(leaving(world) + b"\r\n") == [True, True]


def test_a_header_section_alone(world: World) -> None:
    client = world.logged_in()
    content = FROM.encode() + b"Subject: no body"
    client.codes("MAIL FROM:<alice@example.org>", "RCPT TO:<bob@example.net>")
    client.send(b"BDAT %d LAST\r\n" % len(content) + content)
    assert signers(leaving(world) + b"\r\n") == [True, True]


def test_messages_for_smtputf8(world: World) -> None:
    client = world.logged_in()
    lines = ("MAIL FROM:<alice@example.org> SMTPUTF8 BODY=8BITMIME", "RCPT TO:<jürgen@example.net>", "DATA")
    assert client.codes(*lines) == [250, 250, 354]
    assert client.codes("From: Ålice <alice@example.org>", "Subject: grüße", "", "grüße", ".") == [250]
    assert signers(leaving(world)) == [True, True]


STRANGERS = {
    "in our name": LETTER,
    "in its own": LETTER.replace("alice@example.org", "dave@example.net"),
}


@pytest.mark.parametrize("content", STRANGERS.values(), ids=STRANGERS)
def test_nothing_of_a_stranger_is_signed(world: World, content: str) -> None:
    send(world.greeted(), content, "dave@example.net", "alice@example.org")
    assert b"DKIM-Signature" not in leaving(world)


def test_forwarded_mail_of_a_stranger_is_not_signed(world: World) -> None:
    send(world.greeted(), STRANGERS["in its own"], "dave@example.net", "team@example.org")
    assert b"DKIM-Signature" not in leaving(world)


@pytest.mark.parametrize(
    "authors",
    [
        "From: dave@example.net\r\n",
        "From: dave@sub.example.org\r\n",
        "",
        "From: alice@example.org\r\nFrom: dave@example.net\r\n",
        "From: alice\r\n",
        "From: dave@example.net, alice@example.org\r\n",
    ],
)
def test_trusted_clients_whose_mail_is_not_from_us(world: World, authors: str) -> None:
    send(world.greeted(host="203.0.113.7"), f"{authors}Subject: x\r\n\r\nhello\r\n", "dave@example.net")
    assert b"DKIM-Signature" not in leaving(world)


def test_a_domain_without_keys_sends_unsigned(world: World) -> None:
    world.settings.keys = Keys({"example.com": COM}, {})
    send(world.logged_in(), LETTER)
    assert b"DKIM-Signature" not in leaving(world)


def test_new_keys_sign_from_the_next_message_on(world: World) -> None:
    client = world.logged_in()
    send(client, LETTER)
    world.settings.keys = Keys({"example.org": ORG[:1]}, {})
    send(client, LETTER)
    prefixes = [prefix.count(b"DKIM-Signature: ") for prefix in world.ask("SELECT prefix FROM content")]
    assert prefixes == [2, 1]


def test_nobody_waits_on_the_reactor_for_a_signature(world: World) -> None:
    """The answer comes when the thread has signed, and others are served meanwhile."""
    client = world.logged_in()
    gate = world.gate("signatures")
    assert client.codes("MAIL FROM:<alice@example.org>", "RCPT TO:<bob@example.net>", "DATA") == [250, 250, 354]
    assert client.codes(*LETTER.splitlines(), ".") == []
    assert world.greeted().transaction("alice@example.org")[-1] == 250
    gate.release()
    world.run()
    assert client.received.splitlines()[-1].startswith(b"250 2.0.0 ")


def test_a_spool_file_that_cannot_be_read_is_local_trouble(world: World) -> None:
    client = world.logged_in()
    assert client.codes("MAIL FROM:<alice@example.org>", "RCPT TO:<bob@example.net>", "DATA") == [250, 250, 354]
    client.send(LETTER.encode() + b"0123456789abcdef\r\n" * (KEPT // 8))
    (name,) = world.files()
    world.outside.filesystem.unlink(f"/var/lib/mailsrv/spool/{name}")
    assert client.codes(".") == [451]
    assert world.messages() == []
