"""The signer: chunks of any size, keys in force, nothing read for a domain without keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.dkim.canonical import RelaxedBody
from mailsrv.dkim.signature import take_off
from mailsrv.dkim.signer import PIECE, Signer
from mailsrv.mail.header import split
from mailsrv.store.keys import SigningKey
from tests.simulation.outside import Machine
from tests.simulation.timeline import Timeline
from tests.worlds.keys import pair, signing_key
from tests.worlds.store import machine, wait
from tests.worlds.verifier import verified

HEADER = b"From: alice@example.org\r\nSubject: hello\r\n"


class Desk:
    """A signer on a simulated machine."""

    def __init__(self) -> None:
        self.timeline = Timeline()
        self.machine: Machine = machine(self.timeline)
        self.keys: Mapping[str, Sequence[SigningKey]] = {"example.org": pair()}
        self.signer = Signer(self.machine.boot(), lambda: self.keys)
        self.read = 0

    async def body(self, chunks: Sequence[bytes]) -> AsyncIterator[bytes]:
        for chunk in chunks:
            self.read += 1
            yield chunk

    def fields(self, *chunks: bytes, domain: str = "example.org") -> bytes:
        return wait(self.timeline, self.signer.fields(domain, HEADER, self.body(chunks)))

    def close(self) -> None:
        self.machine.life.end()
        self.machine.databases.remove()


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.close()


@given(st.lists(st.sampled_from([b"", b" ", b"a", b"\r", b"\n", b"\r\n", b"b \t"]), max_size=8))
def test_chunks_of_any_size(chunks: list[bytes]) -> None:
    desk = Desk()
    body = b"".join(chunks).replace(b"\r", b"").replace(b"\n", b"\r\n")
    whole = desk.fields(body)
    assert verified(whole + HEADER + b"\r\n" + body + b"\r\n" * (not body.endswith(b"\r\n")), pair()) == [True, True]
    again = desk.fields(*(body[n : n + 1] for n in range(len(body))))
    assert body_hashes(again) == body_hashes(whole)
    desk.close()


def body_hashes(front: bytes) -> list[bytes]:
    """The rest differs by the time of signing."""
    return [line for line in front.split(b"\r\n") if line.startswith(b"\tbh=")]


def test_nothing_is_read_where_there_is_no_key(desk: Desk) -> None:
    assert desk.fields(b"body\r\n", domain="example.net") == b""
    assert desk.read == 0


def test_the_keys_are_those_of_the_beginning(desk: Desk) -> None:
    desk.keys = {"example.org": [signing_key("ed25519")]}

    async def body() -> AsyncIterator[bytes]:
        yield b"body\r\n"
        desk.keys = {}

    fields = wait(desk.timeline, desk.signer.fields("example.org", HEADER, body()))
    assert fields.count(b"DKIM-Signature: ") == 1
    assert desk.fields(b"body\r\n") == b""


def test_what_cannot_be_read_is_the_callers_trouble(desk: Desk) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"some\r\n"
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        wait(desk.timeline, desk.signer.fields("example.org", HEADER, body()))


def test_what_is_changed_on_its_way_out_is_signed_anew(desk: Desk) -> None:
    body = "grüße \r\n".encode()
    message = desk.fields(body) + b"Received: x\r\n" + HEADER + b"\r\n" + body
    changed = message.replace(body, b"gr=C3=BC=C3=9Fe=20\r\n").replace(
        b"\r\nSubject:", b"\r\nContent-Transfer-Encoding: quoted-printable\r\nSubject:"
    )
    assert verified(changed, pair()) == [False, False]
    header, body = split(changed)
    again = wait(desk.timeline, desk.signer.again(header, desk.body([body])))
    assert again.endswith(take_off(header)[1])
    assert verified(again + b"\r\n" + body, pair()) == [True, True]
    desk.read = 0
    foreign = again.replace(b"DKIM-Signature:", b"DKIM-signature:")
    assert wait(desk.timeline, desk.signer.again(foreign, desk.body([body]))) == foreign
    assert desk.read == 0


def test_a_large_message_in_memory_is_hashed_in_pieces(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other thread runs while a piece is made canonical."""
    octets: list[int] = []
    feed = RelaxedBody.feed

    def counted(self: RelaxedBody, chunk: bytes) -> None:
        octets.append(len(chunk))
        feed(self, chunk)

    monkeypatch.setattr(RelaxedBody, "feed", counted)
    message = HEADER + b"\r\n" + b"two  words\r\n" * (PIECE // 4)
    fields = wait(desk.timeline, desk.signer.fields_of("example.org", message))
    assert max(octets) == PIECE
    assert verified(fields + message, pair()) == [True, True]
