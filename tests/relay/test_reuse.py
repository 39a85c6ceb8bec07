"""Connections that are kept for the next message: when they are used, when not, and that nothing is left open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import ITCPTransport

from mailsrv.config import Route
from mailsrv.mail.outcome import Result
from mailsrv.relay.delivery import Relay
from tests.worlds.delivery import DeliveryCase, SettingsOf, Text, job, one, turn
from tests.worlds.smtp_server import Drop, Script, Server

LIMITS = b"250-mx.example.net\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 LIMITS "
CHUNKING = b"250-mx.example.net\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 CHUNKING\r\n"


def ehlo(limits: str) -> Script:
    return Script(ehlo=LIMITS + limits.encode() + b"\r\n")


def first_time(*answers: Any) -> Any:
    """Answers in turn, the last one for ever."""
    left = list(answers)
    return lambda line: left.pop(0) if len(left) > 1 else left[0]


class Slow(Text):
    """Content that takes so long to read that the server hangs up, the first time."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server
        self._first = True

    async def chunks(self) -> AsyncIterator[bytes]:
        first, self._first = self._first, False
        for session in list(self._server.open) if first else ():
            cast(ITCPTransport, session.transport).loseConnection()
        while first and self._server.open:
            await turn()
        for _ in range(5):
            await turn()
        yield self.text


class Kept(DeliveryCase):
    async def deliver(self, relay: Relay, *recipients: str, **changes: Any) -> str:
        outcome = one(await relay.deliver(job(*recipients, **changes)))
        assert outcome.result is Result.DELIVERED, outcome
        return outcome.tls

    async def until_gone(self, server: Server) -> None:
        while server.open:
            await turn()

    async def test_the_next_message_needs_no_new_connection(self) -> None:
        server = self.serve()
        relay = self.to(server)
        for _ in range(5):
            await self.deliver(relay)
        assert (server.connections, len(server.messages)) == (1, 5)
        assert server.lines.count(b"EHLO us.example.org") == 1
        assert b"QUIT" not in server.lines

    async def test_what_tls_was_worth_stays_with_the_connection(self) -> None:
        options, _ = self.certificate()
        server = self.serve(Script(ehlo=b"250-mx\r\n250-STARTTLS\r\n250 PIPELINING\r\n", tls=options))
        relay = self.to(server)
        first = await self.deliver(relay)
        assert first.startswith("TLSv1.3")
        assert await self.deliver(relay) == first
        assert (server.connections, server.lines.count(b"STARTTLS")) == (1, 1)

    async def test_a_login_is_made_once(self) -> None:
        server = self.serve(Script(ehlo=b"250-mx.example.net\r\n250-AUTH PLAIN\r\n250 PIPELINING\r\n"))
        relay = self.relay(Route("smtp", "127.0.0.1", server.port, "alice", "secret"))
        await self.deliver(relay)
        await self.deliver(relay)
        assert len([line for line in server.lines if line.startswith(b"AUTH")]) == 1

    async def test_several_at_once_are_all_kept(self) -> None:
        server = self.serve()
        relay = self.to(server)
        for _ in range(2):
            await gatherResults([Deferred.fromCoroutine(self.deliver(relay)) for _ in range(10)])
        assert (server.connections, len(server.messages)) == (10, 20)

    async def test_after_a_refusal_it_is_reset(self) -> None:
        server = self.serve(Script(ehlo=CHUNKING, rcpt=first_time(b"550 5.1.1 who?\r\n", b"250 ok\r\n")))
        relay = self.to(server)
        assert one(await relay.deliver(job())).status == "5.1.1"
        await self.deliver(relay)
        assert (server.connections, server.lines.count(b"RSET")) == (1, 1)

    async def test_one_that_cannot_be_reset_is_no_outcome(self) -> None:
        script = Script(ehlo=CHUNKING, rset=b"500 what?\r\n", rcpt=first_time(b"550 5.1.1 who?\r\n", b"250 ok\r\n"))
        server = self.serve(script)
        relay = self.to(server)
        assert one(await relay.deliver(job())).status == "5.1.1"
        await self.deliver(relay)
        assert server.connections == 2

    async def test_one_that_was_closed_meanwhile_is_no_outcome(self) -> None:
        server = self.serve()
        relay = self.to(server)
        await self.deliver(relay)
        for session in list(server.open):
            transport: Any = session.transport
            transport.write(b"421 4.4.2 idle for too long\r\n")
            transport.loseConnection()
        await self.until_gone(server)
        await self.deliver(relay)
        assert server.connections == 2

    async def test_one_that_ends_while_the_content_is_read_is_no_outcome(self) -> None:
        server = self.serve(Script(ehlo=CHUNKING))
        relay = self.to(server)
        await self.deliver(relay)
        await self.deliver(relay, content=Slow(server))
        assert server.connections == 2

    async def test_a_new_one_that_ends_while_the_content_is_read_is_no_bug(self) -> None:
        server = self.serve(Script(ehlo=CHUNKING))
        outcome = one(await self.to(server).deliver(job(content=Slow(server))))
        assert (outcome.result, outcome.status, outcome.rule) == (Result.DEFERRED, "4.4.2", "")
        assert "before a word about this message" in outcome.reason

    async def at_mail(self, answer: Any, **changes: Any) -> Server:
        server = self.serve(Script(mail=first_time(b"250 ok\r\n", answer, b"250 ok\r\n"), **changes))
        relay = self.to(server)
        await self.deliver(relay)
        await self.deliver(relay)
        assert (server.connections, len([m for m in server.messages if m.content])) == (2, 2)
        return server

    async def test_one_that_ends_at_mail_is_no_outcome(self) -> None:
        for answer in (Drop(), Drop(b"421 4.4.2 idle for too long\r\n"), Drop(b"421-x\r\n421 4.3.2 bye\r\n")):
            await self.at_mail(answer)

    async def test_one_that_ends_in_the_flight_is_no_outcome(self) -> None:
        for answer in (Drop(), Drop(b"421 4.4.2 idle for too long\r\n")):
            server = await self.at_mail(answer, ehlo=CHUNKING)
            assert server.messages[1].chunks

    async def test_one_that_has_had_enough_of_this_connection_is_no_outcome(self) -> None:
        for answer in (b"451 4.3.0 enough\r\n", b"503 5.5.1 too many messages\r\n"):
            await self.at_mail(answer)

    async def test_a_definite_answer_stays_one(self) -> None:
        server = self.serve(Script(mail=first_time(b"250 ok\r\n", b"550 5.7.1 not you\r\n")))
        relay = self.to(server)
        await self.deliver(relay)
        assert one(await relay.deliver(job())).status == "5.7.1"
        assert server.connections == 1

    async def test_dead_ones_are_all_dropped_at_once(self) -> None:
        server = self.serve()
        relay = self.to(server)
        await gatherResults([Deferred.fromCoroutine(self.deliver(relay)) for _ in range(5)])
        server.script.mail = first_time(Drop(), b"250 ok\r\n")
        await self.deliver(relay)
        assert server.connections == 6
        assert len([line for line in server.lines if line == b"QUIT"]) == 4

    async def test_it_is_not_kept_when_something_went_wrong(self) -> None:
        server = self.serve(Script(mail=first_time(b"451 no\r\n", b"250 ok\r\n")))
        relay = self.to(server)
        assert one(await relay.deliver(job())).result is Result.DEFERRED
        await self.deliver(relay)
        assert server.connections == 2

    async def test_our_own_copy_unreadable(self) -> None:
        server = self.serve()
        relay = self.to(server)
        await self.deliver(relay)
        assert one(await relay.deliver(job(content=Text(broken=2)))).status == "4.3.0"
        await self.until_gone(server)
        assert len(server.messages) == 1

    # Who may share.

    async def test_different_demands_never_share(self) -> None:
        options, _ = self.certificate()
        server = self.serve(Script(ehlo=b"250-mx\r\n250-STARTTLS\r\n250 PIPELINING\r\n", tls=options))
        relay = self.relay(Route("smtp", "127.0.0.1", server.port), b_example="required")
        for destination in ("a.example", "b.example", "a.example", "b.example"):
            await self.deliver(relay, destination=destination)
        assert server.connections == 2

    async def test_domains_of_one_server_share(self) -> None:
        server = self.serve()
        relay = self.to(server)
        for destination in ("a.example", "b.example"):
            await self.deliver(relay, destination=destination)
        assert server.connections == 1

    async def test_a_server_with_an_open_connection_is_asked_first(self) -> None:
        relay, servers = self.several(Script(), Script())
        await self.deliver(relay)
        for _ in range(3):
            await self.deliver(relay)
        assert [server.connections for server in servers] == [1, 0]

    # RFC 9422.

    async def test_mailmax(self) -> None:
        server = self.serve(ehlo("MAILMAX=2"))
        relay = self.to(server)
        for _ in range(4):
            await self.deliver(relay)
        assert server.connections == 2

    async def test_rcptmax_and_mailmax_within_one_message(self) -> None:
        server = self.serve(ehlo("RCPTMAX=2 MAILMAX=1"))
        outcomes = await self.to(server).deliver(job("a", "b", "c", "d", "e"))
        assert {outcome.result for outcome in outcomes} == {Result.DELIVERED}
        assert [len(message.commands) - 1 for message in server.messages] == [2, 2, 1]
        assert server.connections == 3

    async def test_rcptdomainmax(self) -> None:
        server = self.serve(ehlo("RCPTDOMAINMAX=1"))
        relay = self.to(server)
        for destination in ("a.example", "a.example", "b.example", "a.example"):
            await self.deliver(relay, destination=destination)
        assert server.connections == 2

    # The end.

    async def test_closing_says_goodbye_and_leaves_nothing_open(self) -> None:
        server = self.serve()
        relay = self.to(server)
        await self.deliver(relay)
        await relay.close()
        await self.until_gone(server)
        assert server.lines[-1] == b"QUIT"

    async def test_a_new_configuration_closes_what_the_old_one_opened(self) -> None:
        server = self.serve()
        settings = SettingsOf(self.config(Route("smtp", "127.0.0.1", server.port)))
        relay = self.relay_with(settings)
        await self.deliver(relay)
        settings.config = self.config(Route("smtp", "127.0.0.1", server.port))
        await self.deliver(relay)
        assert server.connections == 2
        while len(server.open) > 1:
            await turn()
        assert b"QUIT" in server.lines
