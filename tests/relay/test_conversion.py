"""The converter: what it has in memory at once, who waits for whom, and that what leaves is what was signed."""

from __future__ import annotations

import email
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from mailsrv.dkim.signer import Signer
from mailsrv.mail.address import Address
from mailsrv.mail.envelope import Envelope
from mailsrv.outside.interfaces import Worker
from mailsrv.relay import conversion
from mailsrv.relay.connection import ContentLost
from mailsrv.relay.conversion import AT_ONCE, LARGEST, LONGEST_WAIT_S, Converter, Crowded
from mailsrv.relay.job import Job
from mailsrv.smtp.client_events import Extensions
from mailsrv.store.keys import SigningKey
from tests.simulation.timeline import Timeline
from tests.worlds.delivery import Text, job
from tests.worlds.keys import pair
from tests.worlds.store import machine, wait
from tests.worlds.verifier import verified
from tests.worlds.worker import HeldWorker

PLAIN = Extensions()
EIGHT_BIT = Extensions.parse(("mx.example.net", "8BITMIME"))
HEADER = (
    b"From: alice@example.org\r\nSubject: hello\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
)


def letter(octets: int) -> Text:
    """A message of so many octets, to be converted."""
    head = HEADER + b"\r\n"
    return Text(head + (b"\xc3\xa4 " * octets)[: octets - len(head) - 2] + b"\r\n", step=100_000)


class Place:
    """A converter on a simulated machine.  What is to be done by ``held`` workers waits for the test."""

    def __init__(self, *held: str) -> None:
        self.timeline = Timeline()
        self.machine = machine(self.timeline)
        self.outside = self.machine.boot()
        self.workers = {name: HeldWorker() for name in held}
        ordinary = self.outside.worker

        def worker(name: str, threads: int = 1) -> Worker:
            return self.workers[name] if name in self.workers else ordinary(name, threads)

        vars(self.outside)["worker"] = worker
        self.keys: Mapping[str, Sequence[SigningKey]] = {"example.org": pair()}
        self.signer = Signer(self.outside, lambda: self.keys)
        self.converter = Converter(self.outside, None)

    def begin(self, text: Text) -> list[Any]:
        """The outcome of fitting it, as soon as there is one."""
        outcome: list[Any] = []
        Deferred.fromCoroutine(self.converter.fitted(job(content=text), PLAIN)).addBoth(outcome.append)
        return outcome

    def passes(self, seconds: float) -> None:
        self.timeline.run(self.timeline.now + seconds, lambda: False)

    def fitted(self, text: Text, extensions: Extensions = PLAIN, **changes: Any) -> Job:
        found = wait(self.timeline, self.converter.fitted(job(content=text, **changes), extensions))
        assert isinstance(found, Job), found
        return found

    def read(self, fitted: Job) -> bytes:
        async def whole() -> bytes:
            return b"".join([chunk async for chunk in fitted.content.chunks()])

        return wait(self.timeline, whole())


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    place = Place(*getattr(request, "param", ()))
    yield place
    place.machine.life.end()
    place.machine.databases.remove()


def holding(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("place", [names], indirect=True)


@holding("conversion")
def test_all_that_are_looked_through_at_once_share_one_budget(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "AT_ONCE", 2500)
    place.converter = Converter(place.outside, None)
    worker = place.workers["conversion"]
    outcomes = [place.begin(letter(1000)) for _ in range(7)]
    place.passes(1)
    done = []
    while len(worker):
        assert len(worker) <= 2
        worker.run()
        place.passes(1)
        done.append(sum(map(bool, outcomes)))
        # None of them is sent, and all that was held for them is free again; the first come first.
        assert [bool(outcome) for outcome in outcomes] == [n < done[-1] for n in range(7)]
    assert done == [2, 4, 6, 7]
    assert {type(outcome[0]) for outcome in outcomes} == {Job}


def test_the_largest_that_is_converted_finds_room() -> None:
    assert LARGEST < AT_ONCE


@holding("large conversion")
def test_a_small_message_waits_for_no_large_one(place: Place) -> None:
    large = place.begin(letter(conversion.SMALL + 1))
    place.passes(1)
    assert len(place.workers["large conversion"]) == 1
    place.fitted(letter(conversion.SMALL))
    assert large == []
    place.workers["large conversion"].run()
    place.passes(1)
    assert isinstance(large[0], Job)


@holding("conversion")
def test_nobody_waits_for_ever(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "AT_ONCE", 1500)
    place.converter = Converter(place.outside, None)
    first, second = place.begin(letter(1000)), place.begin(letter(1000))
    place.passes(LONGEST_WAIT_S - 1)
    assert second == []
    place.passes(2)
    assert second[0].check(Crowded)
    assert first == []
    third = place.begin(letter(1000))
    place.workers["conversion"].run()
    place.passes(1)
    assert isinstance(first[0], Job)
    place.workers["conversion"].run()
    place.passes(1)
    assert isinstance(third[0], Job)


@holding("conversion")
def test_what_cannot_be_converted_or_read_gives_back_what_it_held(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "AT_ONCE", 1500)
    place.converter = Converter(place.outside, None)
    bad = place.begin(Text(b"Subject: \xe4\r\n\r\n" + b"x" * 1000))
    place.passes(1)
    place.workers["conversion"].run()
    place.passes(1)
    assert "a header has octets" in bad[0]
    for readable, taken in ((1, 0), (2, 1)):  # for the look at all, for the walk, for the size
        text = letter(1000)
        text.readable = readable
        lost = place.begin(text)
        place.passes(1)
        assert len(place.workers["conversion"]) == taken
        place.workers["conversion"].run()
        place.passes(1)
        assert lost[0].check(ContentLost)
    short = letter(1000)
    outcome: list[Any] = []
    work = place.converter.fitted(job(content=short, size=1001), PLAIN)
    Deferred.fromCoroutine(work).addBoth(outcome.append)
    place.passes(1)
    assert outcome[0].check(ContentLost)
    last = place.begin(letter(1500))
    place.passes(1)
    place.workers["conversion"].run()
    place.passes(1)
    assert isinstance(last[0], Job)


def test_what_leaves_has_the_size_and_the_signature_that_were_found_before(place: Place) -> None:
    place.converter = Converter(place.outside, place.signer)
    unsigned = letter(200_000).text
    head, _, body = unsigned.partition(b"\r\n\r\n")

    async def text() -> AsyncIterator[bytes]:
        yield body

    front = wait(place.timeline, place.signer.fields("example.org", head + b"\r\n", text()))
    for step in (65_537, 1_000_000):
        fitted = place.fitted(Text(front + unsigned, step), eight_bit=True)
        content = place.read(fitted)
        assert len(content) == fitted.size
        assert content.isascii()
        assert content == place.read(fitted)
        assert verified(content, pair()) == [True, True]
        assert content.count(b"DKIM-Signature:") == 2
        assert email.message_from_bytes(content).get_payload(decode=True) == body
        assert (fitted.envelope.body, fitted.eight_bit) == ("7BIT", False)


def signed_by_the_first_keys(place: Place, header: bytes, body: bytes) -> bytes:
    place.keys = {"example.org": pair()}

    async def text() -> AsyncIterator[bytes]:
        yield body

    return wait(place.timeline, place.signer.fields("example.org", header, text())) + header


@pytest.mark.parametrize("step", [1, 7, 100_000])
@pytest.mark.parametrize("body", [b"\r\n", b"\r\nhello \r\n", b"\r\n" + b"gr\xc3\xbc\xc3\x9fe  x\r\n" * 20_000])
def test_what_the_keys_have_changed_for_is_signed_anew(place: Place, body: bytes, step: int) -> None:
    place.converter = Converter(place.outside, place.signer)
    header = b"Received: from x\r\n" + HEADER
    content = signed_by_the_first_keys(place, header, body[2:]) + body
    text = Text(content, step if len(body) < 100 else 9999 * step)
    as_it_is = place.fitted(text, EIGHT_BIT, eight_bit=True)
    assert place.read(as_it_is) == content
    place.keys = {"example.org": pair(end="2")}
    fitted = place.fitted(text, EIGHT_BIT, eight_bit=True)
    again = place.read(fitted)
    assert len(again) == fitted.size
    assert again.endswith(header + body)
    assert verified(again, pair(end="2")) == [True, True]
    assert (fitted.eight_bit, fitted.envelope) == (True, as_it_is.envelope)


def test_a_message_without_an_empty_line(place: Place) -> None:
    place.converter = Converter(place.outside, place.signer)
    text = Text(signed_by_the_first_keys(place, HEADER, b""))
    place.keys = {"example.org": pair(end="2")}
    fitted = place.fitted(text)
    assert place.read(fitted).endswith(HEADER)
    assert len(place.read(fitted)) == fitted.size


@pytest.mark.parametrize("keys", [{}, {"example.com": pair("example.com")}])
def test_where_nothing_can_be_signed_with_the_old_signature_stays(place: Place, keys: Any) -> None:
    place.converter = Converter(place.outside, place.signer)
    text = Text(signed_by_the_first_keys(place, HEADER, b"hello\r\n") + b"\r\nhello\r\n")
    place.keys = keys
    assert place.fitted(text).content is text


@pytest.mark.parametrize(
    "front", [b"", b"DKIM-signature: v=1; d=example.org; s=old;\r\n b=x\r\n", b"X: y\r\nDKIM-Signature: z"]
)
def test_what_is_not_our_signature_is_not_touched(place: Place, front: bytes) -> None:
    place.converter = Converter(place.outside, place.signer)
    text = Text(front + HEADER + b"\r\nhello\r\n", 5)
    assert place.fitted(text).content is text


def test_what_cannot_be_read_to_be_signed_anew_is_told(place: Place) -> None:
    place.converter = Converter(place.outside, place.signer)
    text = Text(signed_by_the_first_keys(place, HEADER, b"hello\r\n") + b"\r\nhello\r\n")
    place.keys = {"example.org": pair(end="2")}
    for readable in (0, 1):
        text.readable = readable
        with pytest.raises(ContentLost):
            place.fitted(text, EIGHT_BIT)


def test_what_has_no_signature_of_ours_gets_none(place: Place) -> None:
    place.converter = Converter(place.outside, place.signer)
    fitted = place.fitted(letter(1000))
    content = place.read(fitted)
    assert content.startswith(HEADER)
    assert len(content) == fitted.size


@pytest.mark.parametrize("head", [b"", b"Subject: x\r\n"])
def test_with_a_header_and_without(place: Place, head: bytes) -> None:
    fitted = place.fitted(Text(head + b"\r\n\xe4\r\n"))
    content = place.read(fitted)
    assert content.endswith(b"\r\n\r\n=E4\r\n")
    assert content.startswith(head + b"MIME-Version: 1.0\r\n")
    assert len(content) == fitted.size


def test_a_large_message_lets_others_have_their_turns(place: Place) -> None:
    """Its size is found on the reactor's thread."""
    turns: list[int] = []

    def turn() -> None:
        turns.append(0)
        if not outcome:
            place.outside.reactor.callLater(0, turn)

    class Watched(Text):
        async def chunks(self) -> AsyncIterator[bytes]:
            if self.readable == 998:  # not for the look at all, nor for the walk
                place.outside.reactor.callLater(0, turn)
            async for chunk in super().chunks():
                yield chunk

    outcome = place.begin(Watched(letter(2_000_000).text, step=2_000_000))
    place.passes(10)
    assert isinstance(outcome[0], Job)
    assert len(turns) > 2_000_000 // 65_536


def test_nothing_leaves_in_large_pieces(place: Place) -> None:
    """A line without end is held for a while, and becomes three times as long."""
    fitted = place.fitted(Text(HEADER + b"\r\n" + b"\xe4" * 400_000, step=65_535))

    async def sizes() -> list[int]:
        return [len(chunk) async for chunk in fitted.content.chunks()]

    found = wait(place.timeline, sizes())
    assert max(found) <= 65_536
    assert sum(found) == fitted.size


def test_other_fields_stay_as_they_are(place: Place) -> None:
    envelope = Envelope(Address("alice", "example.org"), "8BITMIME", envid="e1")
    fitted = place.fitted(letter(1000), envelope=envelope)
    assert fitted.envelope == Envelope(Address("alice", "example.org"), "7BIT", envid="e1")
