"""Content by BDAT where CHUNKING is offered, and what happens where it does not work as offered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from twisted.internet.defer import Deferred

from mailsrv.config import Route
from mailsrv.mail.outcome import Outcome, Result
from mailsrv.relay.conversation import ONE_FLIGHT
from mailsrv.relay.conversion import AT_ONCE
from mailsrv.smtp.client import CHUNK
from tests.worlds.delivery import CONTENT, DeliveryCase, SettingsOf, Text, job, one, turn
from tests.worlds.smtp_server import Drop, Script, Server

OFFER = b"250-mx.example.net\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 CHUNKING\r\n"
LARGE = b".x" * 400_000 + b"\r\n"


class Chunked(DeliveryCase):
    async def deliver(self, content: bytes = CONTENT, *recipients: str, **script: Any) -> tuple[Server, list[Outcome]]:
        server = self.serve(Script(ehlo=OFFER, **script))
        outcomes = await self.to(server).deliver(job(*recipients, content=Text(content, 10_007)))
        return server, outcomes

    async def test_a_small_message_in_one_piece_as_it_is(self) -> None:
        server, outcomes = await self.deliver()
        assert one(outcomes).result is Result.DELIVERED
        assert (server.messages[0].content, server.messages[0].chunks) == (CONTENT, (len(CONTENT),))
        assert b"DATA" not in server.lines

    async def test_a_large_message_in_several(self) -> None:
        server, outcomes = await self.deliver(LARGE)
        assert one(outcomes).result is Result.DELIVERED
        assert server.messages[0].content == LARGE
        assert len(server.messages[0].chunks) == 4
        assert max(server.messages[0].chunks) <= CHUNK

    async def test_between_the_two(self) -> None:
        for size, lines in ((ONE_FLIGHT, 1), (ONE_FLIGHT + 1, 1)):
            server, outcomes = await self.deliver(b"x" * (size - 2) + b"\r\n")
            assert one(outcomes).result is Result.DELIVERED
            assert len(server.messages[0].chunks) == lines

    async def test_not_without_pipelining(self) -> None:
        server = self.serve(Script(ehlo=b"250-mx.example.net\r\n250-8BITMIME\r\n250 CHUNKING\r\n"))
        assert one(await self.to(server).deliver(job())).result is Result.DELIVERED
        assert server.messages[0].chunks == ()

    async def test_each_recipient_has_its_own_answer(self) -> None:
        answers = {b"carol": b"550 5.1.1 who?\r\n", b"dan": b"450 4.2.0 busy\r\n"}
        for content in (CONTENT, LARGE):
            server, outcomes = await self.deliver(
                content, "bob", "carol", "dan", rcpt=lambda line: answers.get(line[9:].split(b"@")[0], b"250 ok\r\n")
            )
            assert [o.status for o in outcomes] == ["2.0.0", "5.1.1", "4.2.0"]
            assert server.messages[0].content == content

    async def test_nobody_accepted(self) -> None:
        for content in (CONTENT, LARGE):
            server, outcomes = await self.deliver(content, "bob", "carol", rcpt=b"550 5.1.1 who?\r\n")
            assert [o.status for o in outcomes] == ["5.1.1", "5.1.1"]
            assert server.messages == []
            # Only what goes in one flight is sent before it is known that nobody wants it.
            assert any(line.startswith(b"BDAT") for line in server.lines) is (content is CONTENT)

    async def test_sender_refused(self) -> None:
        for content in (CONTENT, LARGE):
            _, outcomes = await self.deliver(content, mail=b"550 5.7.1 not you\r\n", rcpt=b"503 no\r\n")
            assert (one(outcomes).result, one(outcomes).status) == (Result.FAILED, "5.7.1")

    async def test_content_refused(self) -> None:
        for content, script in (
            (CONTENT, {"dot": b"550 5.7.1 spam\r\n"}),
            (CONTENT, {"dot": b"500 5.7.1 spam\r\n"}),
            (LARGE, {"chunk": b"552 5.2.2 full\r\n"}),
        ):
            server, outcomes = await self.deliver(content, **script)
            assert (one(outcomes).result, server.connections) == (Result.FAILED, 1)
            assert one(outcomes).status in ("5.7.1", "5.2.2")

    async def test_where_it_is_not_understood_data_does_at_once_and_the_next_time(self) -> None:
        for content in (CONTENT, LARGE):
            server = self.serve(Script(ehlo=OFFER, bdat=b"502 5.5.1 not here\r\n"))
            relay = self.to(server)
            for connections in (2, 2):
                assert one(await relay.deliver(job(content=Text(content, 10_007)))).result is Result.DELIVERED
                assert server.connections == connections
            assert server.lines.count(b"DATA") == 2
            assert [message.chunks for message in server.messages] == [(), ()]

    async def test_no_answer_may_be_a_duplicate_and_the_second_attempt_goes_by_data(self) -> None:
        server = self.serve(Script(ehlo=OFFER, dot=Drop()))
        relay = self.to(server)
        outcome = one(await relay.deliver(job()))
        assert (outcome.result, outcome.status, server.connections) == (Result.DEFERRED, "4.4.2", 1)
        assert "second time" in outcome.reason
        server.script.dot = b"250 2.0.0 taken\r\n"
        assert one(await relay.deliver(job())).result is Result.DELIVERED
        assert server.lines.count(b"DATA") == 1

    async def test_recipients_that_nobody_spoke_about_are_in_doubt_too(self) -> None:
        answers: dict[bytes, Any] = {b"bob": b"550 5.1.1 who?\r\n", b"carol": b"250 ok\r\n"}
        _, outcomes = await self.deliver(
            CONTENT, "bob", "carol", "dan", rcpt=lambda line: answers.get(line[9:].split(b"@")[0], Drop())
        )
        assert [o.status for o in outcomes] == ["5.1.1", "4.4.2", "4.4.2"]
        assert "second time" in outcomes[2].reason

    async def test_our_own_copy_unreadable_or_cut_short(self) -> None:
        for content, size in ((Text(broken=2), len(CONTENT)), (Text(), len(CONTENT) + 1)):
            server = self.serve(Script(ehlo=OFFER))
            outcome = one(await self.to(server).deliver(job(content=content, size=size)))
            assert (outcome.result, outcome.status) == (Result.DEFERRED, "4.3.0")
            assert not [line for line in server.lines if line.startswith(b"MAIL")]

    async def test_a_large_copy_cut_short(self) -> None:
        server = self.serve(Script(ehlo=OFFER))
        outcome = one(await self.to(server).deliver(job(content=Text(LARGE, 10_007), size=len(LARGE) + 1)))
        assert (outcome.result, outcome.status, server.messages) == (Result.DEFERRED, "4.3.0", [])


class SevenBit(DeliveryCase):
    """Servers without 8BITMIME."""

    TEXT = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n"

    async def test_content_is_converted(self) -> None:
        server = self.serve()
        outcome = one(await self.to(server).deliver(job(content=Text(self.TEXT), eight_bit=True)))
        assert outcome.result is Result.DELIVERED
        assert server.messages[0].content.endswith(
            b"Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe\r\n"
        )
        assert server.messages[0].commands[0] == b"MAIL FROM:<alice@example.org>"

    async def test_also_when_the_sender_had_not_declared_it(self) -> None:
        server = self.serve()
        assert one(await self.to(server).deliver(job(content=Text(self.TEXT)))).result is Result.DELIVERED
        assert server.messages[0].content.isascii()

    async def test_where_8bitmime_is_offered_nothing_is_touched(self) -> None:
        server = self.serve(Script(ehlo=OFFER))
        await self.to(server).deliver(job(content=Text(self.TEXT), eight_bit=True))
        assert server.messages[0].content == self.TEXT
        assert server.messages[0].commands[0].endswith(b" BODY=8BITMIME")

    async def test_what_cannot_be_converted_fails_with_the_reason(self) -> None:
        server = self.serve()
        text = Text(b"Subject: \xe4\r\n\r\nx\r\n")
        outcome = one(await self.to(server).deliver(job(content=text, eight_bit=True)))
        assert (outcome.result, outcome.status, outcome.rule) == (Result.FAILED, "5.6.3", "8BITMIME (RFC 6152)")
        assert "a header has octets above 127" in outcome.reason
        assert not [line for line in server.lines if line.startswith(b"MAIL")]

    async def test_large_content(self) -> None:
        text = self.TEXT + b"\xc3\xa4" * 100_000 + b"\r\n"
        server = self.serve(Script(ehlo=b"250-mx.example.net\r\n250-CHUNKING\r\n250 PIPELINING\r\n"))
        assert one(await self.to(server).deliver(job(content=Text(text, 9999)))).result is Result.DELIVERED
        content = server.messages[0].content
        assert content.replace(b"=\r\n", b"").count(b"=C3=A4") == 100_000
        assert max(server.messages[0].chunks) <= CHUNK

    async def test_the_size_that_counts_is_the_new_one(self) -> None:
        server = self.serve(Script(ehlo=b"250-mx\r\n250 SIZE %d\r\n" % (len(self.TEXT) + 1)))
        outcome = one(await self.to(server).deliver(job(content=Text(self.TEXT), eight_bit=True)))
        assert (outcome.result, outcome.status) == (Result.FAILED, "5.3.4")

    async def test_signatures_are_made_anew(self) -> None:
        server = self.serve()

        class Signing:
            def is_current(self, begun: bytes) -> bool | None:
                raise AssertionError("what is converted is signed in any case")

            async def again(self, header: bytes, body: AsyncIterator[bytes]) -> bytes:
                return b"DKIM-Signature: of %d octets\r\n" % len(b"".join([piece async for piece in body])) + header

        settings = SettingsOf(self.config(Route("smtp", "127.0.0.1", server.port)))
        relay = self.relay_with(settings, signer=Signing())
        assert one(await relay.deliver(job(content=Text(self.TEXT)))).result is Result.DELIVERED
        assert server.messages[0].content == (
            b"DKIM-Signature: of 17 octets\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe\r\n"
        )

    async def test_who_waits_for_memory_is_deferred_when_the_server_stops(self) -> None:
        server = self.serve()
        relay = self.to(server)
        await relay._converter._budget.take(AT_ONCE)
        delivering = Deferred.fromCoroutine(relay.deliver(job(content=Text(self.TEXT))))
        while not any(line.startswith(b"EHLO") for line in server.lines):
            await turn()
        for _ in range(5):
            await turn()
        await relay.close()
        outcome = one(await delivering)
        assert (outcome.result, outcome.status, outcome.rule) == (Result.DEFERRED, "4.3.0", "conversion to 7 bits")
        assert "being converted" in outcome.reason
