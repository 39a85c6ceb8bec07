"""IPv6 and IPv4: a refusal of one address of ours is tried from the other at once, remembered and told."""

from __future__ import annotations

from mailsrv.mail.outcome import Outcome, Result
from mailsrv.relay.delivery import Relay
from tests.worlds.delivery import DeliveryCase, job, one
from tests.worlds.smtp_server import Drop, Script, Server

NO_PTR = b"550 5.7.25 Your address has no PTR record\r\n"
NO_PTR_NOW = b"450 4.7.25 Your address has no PTR record\r\n"
# One connection takes one message, so that what is asked first is seen.
ALONE = b"250-mx.example.net\r\n250-PIPELINING\r\n250 LIMITS MAILMAX=1\r\n"


class Families(DeliveryCase):
    def both(self, six: Script, four: Script | None = None) -> tuple[Relay, Server, Server]:
        """A name with an address of each family; IPv6 comes first."""
        v4 = self.serve(four or Script(ehlo=ALONE), "127.0.0.1")
        v6 = self.serve(six, "::1", port=v4.port)
        self.resolver.records["next.example", "A"] = ["127.0.0.1"]
        self.resolver.records["next.example", "AAAA"] = ["::1"]
        return self.to(v4, "next.example"), v6, v4

    async def falls_back(self, six: Script) -> Outcome:
        relay, v6, v4 = self.both(six)
        outcome = one(await relay.deliver(job()))
        assert outcome.result is Result.DELIVERED, outcome
        assert (v6.connections, v4.connections) == (1, 1)
        assert "[127.0.0.1]" in outcome.remote
        assert "Before that next.example [::1]" in outcome.reason
        assert "refused the address of this server" in outcome.reason
        # Remembered: the next one begins with the family that worked.
        outcome = one(await relay.deliver(job()))
        assert (outcome.result, v6.connections, v4.connections) == (Result.DELIVERED, 1, 2)
        assert "IPv4 was tried first" in outcome.reason
        return outcome

    async def test_at_the_greeting(self) -> None:
        await self.falls_back(Script(greeting=b"554 5.7.25 Your address has no PTR record\r\n"))

    async def test_at_the_greeting_with_421(self) -> None:
        await self.falls_back(Script(greeting=b"421 4.7.25 Your address has no PTR record\r\n"))

    async def test_at_ehlo(self) -> None:
        await self.falls_back(Script(ehlo=NO_PTR, helo=NO_PTR))

    async def test_at_mail(self) -> None:
        await self.falls_back(Script(mail=NO_PTR, rcpt=b"503 no\r\n", data=b"503 no\r\n"))
        await self.falls_back(Script(mail=NO_PTR_NOW, rcpt=b"503 no\r\n", data=b"503 no\r\n"))
        await self.falls_back(Script(mail=Drop(b"421 4.7.25 Your address has no PTR record\r\n")))

    async def test_at_rcpt(self) -> None:
        await self.falls_back(Script(rcpt=NO_PTR, data=b"503 no\r\n"))
        await self.falls_back(Script(rcpt=NO_PTR_NOW, data=b"503 no\r\n"))

    async def test_at_the_end_of_the_content(self) -> None:
        await self.falls_back(Script(dot=NO_PTR))
        await self.falls_back(Script(dot=NO_PTR_NOW))

    async def test_only_those_who_were_refused_for_it(self) -> None:
        answers = {b"carol": NO_PTR, b"dan": b"550 5.1.1 who?\r\n"}
        six = Script(rcpt=lambda line: answers.get(line[9:].split(b"@")[0], b"250 ok\r\n"))
        relay, _, v4 = self.both(six)
        outcomes = await relay.deliver(job("bob", "carol", "dan"))
        assert [o.status for o in outcomes] == ["2.0.0", "2.0.0", "5.1.1"]
        assert v4.messages[0].commands[1:] == [b"RCPT TO:<carol@example.net>"]
        assert "Before that" in outcomes[1].reason

    async def test_refused_by_both_is_refused(self) -> None:
        relay, v6, v4 = self.both(Script(rcpt=NO_PTR), Script(rcpt=b"550 5.1.1 who?\r\n"))
        outcome = one(await relay.deliver(job()))
        assert (outcome.result, outcome.status) == (Result.FAILED, "5.1.1")
        assert (v6.connections, v4.connections) == (1, 1)
        relay, v6, v4 = self.both(Script(rcpt=NO_PTR), Script(rcpt=NO_PTR))
        outcome = one(await relay.deliver(job()))
        assert (outcome.result, outcome.status, outcome.answer) == (Result.FAILED, "5.7.25", NO_PTR.decode().strip())

    async def test_while_the_other_cannot_be_reached_nothing_is_given_up(self) -> None:
        for script in (Script(rcpt=NO_PTR), Script(dot=NO_PTR)):
            relay, _, _ = self.both(script, Script(greeting=b"421 4.3.2 busy\r\n"))
            outcome = one(await relay.deliver(job()))
            assert (outcome.result, outcome.status) == (Result.DEFERRED, "4.7.25")
            assert outcome.answer == NO_PTR.decode().strip()
            assert "busy" in outcome.reason or "does not want to talk" in outcome.reason

    async def test_with_one_family_only_it_is_refused_at_once(self) -> None:
        server = self.serve(Script(rcpt=NO_PTR))
        outcome = one(await self.to(server).deliver(job()))
        assert (outcome.result, outcome.status) == (Result.FAILED, "5.7.25")

    async def test_other_refusals_are_not_tried_again(self) -> None:
        relay, v6, v4 = self.both(Script(rcpt=b"550 5.1.1 who?\r\n"))
        assert one(await relay.deliver(job())).result is Result.FAILED
        assert (v6.connections, v4.connections) == (1, 0)

    async def test_refused_at_the_greeting_the_same_family_comes_last(self) -> None:
        greeting = Script(greeting=b"554 5.7.25 Your address has no PTR record\r\n")
        a = self.serve(greeting, "127.0.0.1")
        b = self.serve(Script(ehlo=ALONE), "127.0.0.2", port=a.port)
        six = self.serve(Script(greeting=Drop()), "::1", port=a.port)
        self.resolver.records["next.example", "A"] = ["127.0.0.1", "127.0.0.2"]
        self.resolver.records["next.example", "AAAA"] = ["::1"]
        outcome = one(await self.to(a, "next.example").deliver(job()))
        assert outcome.result is Result.DELIVERED
        assert (six.connections, b.connections) == (1, 1)


class Dead(DeliveryCase):
    async def test_an_address_where_nobody_answered_is_asked_last(self) -> None:
        relay, (first, second) = self.several(Script(greeting=Drop()), Script(ehlo=ALONE))
        for connections in (1, 1):
            assert one(await relay.deliver(job())).result is Result.DELIVERED
            assert first.connections == connections
        # But it is asked: nothing waits longer for it.
        second.script.greeting = b"421 no\r\n"
        first.script.greeting = b"220 mx.example.net\r\n"
        assert one(await relay.deliver(job())).result is Result.DELIVERED
        assert first.connections == 2

    async def test_a_server_that_is_alone_is_asked_each_time(self) -> None:
        server = self.serve(Script(greeting=Drop()))
        relay = self.to(server)
        assert one(await relay.deliver(job())).result is Result.DEFERRED
        server.script.greeting = b"220 mx.example.net\r\n"
        assert one(await relay.deliver(job())).result is Result.DELIVERED
