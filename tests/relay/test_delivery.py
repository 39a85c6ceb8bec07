"""Deliveries over real sockets on loopback, to servers that behave in all the ways that servers do."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from mailsrv.config import Route
from mailsrv.mail.address import Address
from mailsrv.mail.envelope import Envelope
from mailsrv.mail.outcome import Outcome, Result
from mailsrv.outside.interfaces import LookupFailed
from tests.worlds.delivery import CONTENT, STARTTLS, DeliveryCase, Text, job, one, turn
from tests.worlds.smtp_server import SILENT, Drop, Script, Server


class Delivered(DeliveryCase):
    async def test_content_arrives_byte_for_byte(self) -> None:
        server = self.serve()
        outcome = one(await self.to(server).deliver(job()))
        assert outcome == Outcome(
            Result.DELIVERED,
            "2.0.0",
            f"127.0.0.1 [127.0.0.1]:{server.port} took the message.",
            "250 2.0.0 taken",
            f"127.0.0.1 [127.0.0.1]:{server.port}",
        )
        (message,) = server.messages
        assert message.content == CONTENT.replace(b"\r\n.", b"\r\n..")
        assert message.commands == [b"MAIL FROM:<alice@example.org>", b"RCPT TO:<bob@example.net>"]
        assert server.lines[0] == b"EHLO us.example.org"

    async def test_a_large_message_to_a_slow_reader(self) -> None:
        server = self.serve()
        text = b"".join(b".%07d " % n + b"x" * 900 + b"\r\n" for n in range(5000))
        outcome = one(await self.to(server).deliver(job(content=Text(text, 100_000))))
        assert outcome.result == Result.DELIVERED
        assert server.messages[0].content == b"." + text.replace(b"\r\n.", b"\r\n..")

    async def test_each_recipient_has_its_own_answer(self) -> None:
        answers = {b"carol": b"550 5.1.1 who?\r\n", b"dan": b"450 4.2.0 busy\r\n"}
        script = Script(rcpt=lambda line: answers.get(line[9:].split(b"@")[0], b"250 ok\r\n"))
        server = self.serve(script)
        outcomes = await self.to(server).deliver(job("bob", "carol", "dan", "erin"))
        assert [o.result.value for o in outcomes] == ["delivered", "failed", "deferred", "delivered"]
        assert [o.status for o in outcomes] == ["2.0.0", "5.1.1", "4.2.0", "2.0.0"]
        assert outcomes[1].answer == "550 5.1.1 who?"
        assert server.connections == 1

    async def test_more_recipients_than_one_transaction_takes(self) -> None:
        server = self.serve()
        outcomes = await self.to(server).deliver(job(*(f"user{n}" for n in range(250))))
        assert {o.result for o in outcomes} == {Result.DELIVERED}
        assert [len(m.commands) - 1 for m in server.messages] == [100, 100, 50]
        assert server.connections == 1

    async def test_too_many_recipients_are_sent_in_another_transaction(self) -> None:
        # RFC 5321 4.5.3.1.10
        server = self.serve()
        server.script.rcpt = lambda line: (
            b"250 ok\r\n"
            if sum(x.startswith(b"RCPT") for x in server.lines) % 4 in (1, 2)
            else b"452 4.5.3 too many\r\n"
        )
        outcomes = await self.to(server).deliver(job("a", "b", "c", "d"))
        assert {o.result for o in outcomes} == {Result.DELIVERED}
        assert len(server.messages) == 2

    async def test_an_old_server(self) -> None:
        server = self.serve(Script(ehlo=b"502 what?\r\n"))
        assert one(await self.to(server).deliver(job())).result == Result.DELIVERED
        assert b"HELO us.example.org" in server.lines

    async def test_the_answer_is_made_harmless(self) -> None:
        server = self.serve(Script(dot=b"250-\x1b[2Jtaken\r\n250 2.0.0 \x07ok\r\n"))
        assert one(await self.to(server).deliver(job())).answer == "250 ?[2Jtaken 2.0.0 ?ok"

    async def test_several_at_once(self) -> None:
        server = self.serve()
        relay = self.to(server)
        results = await gatherResults([Deferred.fromCoroutine(relay.deliver(job())) for _ in range(10)])
        assert {one(outcomes).result for outcomes in results} == {Result.DELIVERED}
        assert len(server.messages) == 10


class Refused(DeliveryCase):
    async def check(self, script: Script, result: Result, status: str, answer: str = "", **changes: Any) -> Server:
        server = self.serve(script)
        outcome = one(await self.to(server).deliver(job(**changes)))
        assert (outcome.result, outcome.status) == (result, status), outcome
        assert answer in outcome.answer
        assert outcome.reason.endswith("."), outcome.reason
        assert "127.0.0.1" in outcome.remote
        return server

    async def test_greeting_4xx(self) -> None:
        await self.check(Script(greeting=b"421 4.3.2 busy\r\n"), Result.DEFERRED, "4.3.2", "421 4.3.2 busy")

    async def test_greeting_5xx_is_no_fact_about_the_mail(self) -> None:
        await self.check(Script(greeting=b"554 5.7.1 no\r\n"), Result.DEFERRED, "4.7.1", "554 5.7.1 no")

    async def test_greeting_521_is_for_ever(self) -> None:
        await self.check(Script(greeting=b"521 never\r\n"), Result.FAILED, "5.3.2", "521 never")

    async def test_ehlo_and_helo_refused(self) -> None:
        await self.check(Script(ehlo=b"550 no\r\n", helo=b"550 5.7.1 no\r\n"), Result.DEFERRED, "4.7.1")

    async def test_mail_4xx(self) -> None:
        await self.check(Script(mail=b"451 4.3.0 hm\r\n"), Result.DEFERRED, "4.3.0", "451")

    async def test_mail_5xx(self) -> None:
        await self.check(Script(mail=b"550 5.7.1 not you\r\n"), Result.FAILED, "5.7.1", "550 5.7.1 not you")

    async def test_rcpt_4xx(self) -> None:
        await self.check(Script(rcpt=b"450 greylisted\r\n"), Result.DEFERRED, "4.2.0")

    async def test_rcpt_5xx(self) -> None:
        server = await self.check(Script(rcpt=b"550 5.1.1 who?\r\n", data=b"554 no\r\n"), Result.FAILED, "5.1.1")
        assert server.messages == []

    async def test_rcpt_5xx_and_data_wanted_all_the_same(self) -> None:
        server = await self.check(Script(rcpt=b"550 5.1.1 who?\r\n"), Result.FAILED, "5.1.1")
        assert [m.content for m in server.messages] == [b""]

    async def test_data_4xx(self) -> None:
        await self.check(Script(data=b"451 4.3.0 disk\r\n"), Result.DEFERRED, "4.3.0")

    async def test_data_5xx(self) -> None:
        await self.check(Script(data=b"554 5.6.0 no\r\n"), Result.FAILED, "5.6.0")

    async def test_dot_4xx(self) -> None:
        await self.check(Script(dot=b"451 4.7.1 later\r\n"), Result.DEFERRED, "4.7.1")

    async def test_dot_5xx(self) -> None:
        await self.check(Script(dot=b"550 5.7.1 spam\r\n"), Result.FAILED, "5.7.1", "550 5.7.1 spam")

    async def test_dot_421(self) -> None:
        server = await self.check(Script(dot=Drop(b"421 4.3.2 bye\r\n")), Result.DEFERRED, "4.3.2")
        assert server.connections == 1

    async def test_a_refusal_in_the_middle_of_the_content(self) -> None:
        text = Text(b"x" * 10_000 + b"\r\n", 100, slow=True)
        await self.check(Script(at_content=Drop(b"552 5.3.4 too big\r\n")), Result.FAILED, "5.3.4", content=text)

    async def test_size_is_known_before_data(self) -> None:
        script = Script(ehlo=b"250-mx\r\n250-PIPELINING\r\n250 SIZE 10\r\n")
        server = await self.check(script, Result.FAILED, "5.3.4")
        assert not [line for line in server.lines if line.startswith(b"MAIL")]

    async def test_an_address_beyond_ascii(self) -> None:
        server = self.serve()
        outcomes = await self.to(server).deliver(job("jürgen", "bob"))
        assert (outcomes[0].result, outcomes[0].status) == (Result.FAILED, "5.6.7")
        assert outcomes[1].result == Result.DELIVERED

    async def test_a_header_beyond_ascii(self) -> None:
        envelope = Envelope(Address("alice", "example.org"), "8BITMIME", smtputf8=True)
        text = Text("Subject: Grüße\r\n\r\nx\r\n".encode())
        await self.check(Script(), Result.FAILED, "5.6.7", envelope=envelope, content=text, eight_bit=True)

    async def test_smtputf8_that_nothing_needs(self) -> None:
        envelope = Envelope(Address("alice", "example.org"), "8BITMIME", smtputf8=True)
        text = Text("Subject: x\r\n\r\nGrüße\r\n".encode(), 5)
        server = await self.check(Script(), Result.DELIVERED, "2.0.0", envelope=envelope, content=text, eight_bit=True)
        assert server.messages[0].commands[0] == b"MAIL FROM:<alice@example.org>"

    async def test_login_wanted_by_the_smarthost_is_local_trouble(self) -> None:
        await self.check(Script(mail=b"530 5.7.0 log in first\r\n"), Result.DEFERRED, "4.7.0")

    async def test_our_own_copy_unreadable(self) -> None:
        server = self.serve()
        outcome = one(await self.to(server).deliver(job(content=Text(broken=2))))
        assert (outcome.result, outcome.status) == (Result.DEFERRED, "4.3.0")
        assert server.messages == []

    async def test_what_was_delivered_stays_so_when_the_next_transaction_fails(self) -> None:
        server = self.serve(Script(ehlo=b"250-mx.example.net\r\n250-8BITMIME\r\n250 PIPELINING\r\n"))
        outcomes = await self.to(server).deliver(job(*(f"user{n}" for n in range(101)), content=Text(readable=1)))
        assert [o.result for o in outcomes] == [Result.DELIVERED] * 100 + [Result.DEFERRED]
        bad = [*(f"user{n}" for n in range(100)), "a\r\nDATA\r\n"]
        outcomes = await self.to(server).deliver(job(*bad))
        assert [o.result for o in outcomes] == [Result.DELIVERED] * 100 + [Result.DEFERRED]
        flush: Any = self.flushLoggedErrors
        assert len(flush(ValueError)) == 1

    async def test_our_own_copy_cut_short(self) -> None:
        server = self.serve()
        outcome = one(await self.to(server).deliver(job(size=len(CONTENT) + 1)))
        assert (outcome.result, outcome.status) == (Result.DEFERRED, "4.3.0")
        assert server.messages == []

    async def test_a_bug_is_an_outcome_too(self) -> None:
        server = self.serve()
        outcome = one(await self.to(server).deliver(job("a\r\nDATA\r\n")))
        assert (outcome.result, outcome.status) == (Result.DEFERRED, "4.3.0")
        flush: Any = self.flushLoggedErrors
        assert len(flush(ValueError)) == 1
        assert b"DATA" not in server.lines


class Lost(DeliveryCase):
    async def lost(self, script: Script, status: str = "4.4.2", **changes: Any) -> Outcome:
        server = self.serve(script)
        outcome = one(await self.to(server).deliver(job(**changes)))
        assert (outcome.result, outcome.status) == (Result.DEFERRED, status), outcome
        return outcome

    async def test_at_every_point_before_the_dot(self) -> None:
        drop = Drop()
        for script in (
            Script(greeting=drop),
            Script(ehlo=drop),
            Script(mail=drop),
            Script(rcpt=drop),
            Script(data=drop),
            Script(at_content=drop),
        ):
            outcome = await self.lost(script, content=Text(b"x" * 100_000 + b"\r\n", 1000, slow=True))
            assert "second time" not in outcome.reason

    async def test_421_at_every_point(self) -> None:
        bye = Drop(b"421 4.3.2 bye\r\n")
        for script in (Script(ehlo=bye), Script(mail=bye), Script(rcpt=bye), Script(data=bye)):
            assert (await self.lost(script, "4.3.2")).answer == "421 4.3.2 bye"

    async def test_after_the_dot_no_other_server_is_asked(self) -> None:
        relay, (first, second) = self.several(Script(dot=Drop()), Script())
        outcome = one(await relay.deliver(job()))
        assert (outcome.result, outcome.status) == (Result.DEFERRED, "4.4.2")
        assert "second time" in outcome.reason
        assert (first.connections, second.connections) == (1, 0)

    async def test_garbage(self) -> None:
        for script in (
            Script(greeting=b"HTTP/1.1 400 Bad Request\r\n"),
            Script(ehlo=b"250-" + b"x" * 3000 + b"\r\n"),
            Script(mail=b"what?\r\n"),
            Script(data=b"250 fine\r\n"),
            Script(rcpt=b"250-x\r\n" * 200),
        ):
            await self.lost(script, "4.5.0")

    async def test_more_than_was_asked_for(self) -> None:
        # Nothing of that is a bug of ours, whatever comes behind an answer in the same piece.
        bye, more = b"421 4.3.2 bye\r\n", b"250 and another thing\r\n"
        for script, status in (
            (Script(greeting=b"220 mx\r\n" + bye), "4.3.2"),
            (Script(greeting=b"220 mx\r\n" + more), "4.5.0"),
            (Script(ehlo=b"250 mx\r\n" + bye), "4.3.2"),
            (Script(ehlo=b"250-mx\r\n250 STARTTLS\r\n" + bye), "4.3.2"),
            (Script(ehlo=b"250 mx\r\n" + more), "4.5.0"),
        ):
            await self.lost(script, status)

    async def test_more_than_was_asked_for_between_two_messages(self) -> None:
        ehlo = b"250-mx\r\n250-PIPELINING\r\n250 LIMITS RCPTMAX=1\r\n"
        for dot in (b"250 taken\r\n421 bye\r\n", b"250 taken\r\n250 and another thing\r\n"):
            server = self.serve(Script(ehlo=ehlo, dot=dot))
            outcomes = await self.to(server).deliver(job("bob", "carol"))
            assert {outcome.result for outcome in outcomes} == {Result.DELIVERED}
            assert server.connections == 2

    async def test_nobody_there(self) -> None:
        server = self.serve()
        await server.close()
        outcome = one(await self.to(server).deliver(job()))
        assert (outcome.result, outcome.status, outcome.answer) == (Result.DEFERRED, "4.4.1", "")
        assert "refused" in outcome.reason


class Elsewhere(DeliveryCase):
    """When another server is asked, and when not."""

    async def second_is_asked(self, first: Script, asked: bool = True) -> Outcome:
        relay, (one_, two) = self.several(first, Script())
        outcome = one(await relay.deliver(job()))
        assert (one_.connections, two.connections) == (1, int(asked))
        return outcome

    async def test_nothing_was_said_about_the_mail(self) -> None:
        for script in (
            Script(greeting=b"554 no\r\n"),
            Script(greeting=b"521 no\r\n"),
            Script(greeting=Drop()),
            Script(ehlo=b"451 no\r\n"),
            Script(mail=b"451 no\r\n"),
            Script(mail=Drop(b"421 bye\r\n")),
            Script(rcpt=Drop()),
            Script(data=Drop()),
            Script(greeting=b"nonsense\r\n"),
        ):
            assert (await self.second_is_asked(script)).result == Result.DELIVERED

    async def test_a_definite_answer(self) -> None:
        for script, result in (
            (Script(mail=b"550 no\r\n"), Result.FAILED),
            (Script(rcpt=b"550 no\r\n", data=b"554 no\r\n"), Result.FAILED),
            (Script(rcpt=b"450 no\r\n", data=b"554 no\r\n"), Result.DEFERRED),
            (Script(data=b"554 no\r\n"), Result.FAILED),
            (Script(dot=b"451 no\r\n"), Result.DEFERRED),
        ):
            assert (await self.second_is_asked(script, asked=False)).result == result

    async def test_only_those_without_an_answer_are_brought_to_the_second(self) -> None:
        answers: dict[bytes, bytes | Drop] = {b"bob": b"550 5.1.1 who?\r\n", b"dan": Drop()}
        first = Script(rcpt=lambda line: answers.get(line[9:].split(b"@")[0], b"250 ok\r\n"))
        relay, (_, second) = self.several(first, Script())
        outcomes = await relay.deliver(job("bob", "carol", "dan"))
        assert [o.result for o in outcomes] == [Result.FAILED, Result.DELIVERED, Result.DELIVERED]
        assert second.messages[0].commands[1:] == [b"RCPT TO:<carol@example.net>", b"RCPT TO:<dan@example.net>"]

    async def test_a_server_that_speaks_explains_more_than_one_that_is_not_there(self) -> None:
        relay, servers = self.several(Script(greeting=b"421 4.7.0 too fast\r\n"), Script())
        await servers[1].close()
        outcome = one(await relay.deliver(job()))
        assert outcome.answer == "421 4.7.0 too fast"

    async def test_521_from_one_and_nothing_from_another_is_not_for_ever(self) -> None:
        relay, servers = self.several(Script(greeting=b"521 no\r\n"), Script())
        await servers[1].close()
        assert one(await relay.deliver(job())).result == Result.DEFERRED

    async def test_the_plan_may_be_an_outcome(self) -> None:
        self.resolver.records["example.net", "MX"] = LookupFailed
        outcomes = await self.relay().deliver(job("bob", "carol"))
        assert [(o.result, o.status) for o in outcomes] == [(Result.DEFERRED, "4.4.3")] * 2

    async def test_closing_ends_what_is_under_way(self) -> None:
        server = self.serve(Script(greeting=SILENT))
        relay = self.to(server)
        delivery = Deferred.fromCoroutine(relay.deliver(job()))
        while not server.connections:
            await turn()
        await relay.close()
        assert one(await delivery).result == Result.DEFERRED
        assert one(await relay.deliver(job())).status == "4.3.2"
        assert server.connections == 1


class Encrypted(DeliveryCase):
    async def test_any_certificate_and_what_it_was_worth(self) -> None:
        options, _ = self.certificate()
        server = self.serve(Script(ehlo=STARTTLS, tls=options))
        outcome = one(await self.to(server).deliver(job()))
        assert outcome.result == Result.DELIVERED
        assert re.search(r"^TLSv1\.3 TLS_\w+, unverified: it is self-signed$", outcome.tls)
        assert server.messages[0].secure
        assert server.lines.count(b"EHLO us.example.org") == 2

    async def test_a_certificate_that_proves_the_name(self) -> None:
        options, path = self.certificate()
        server = self.serve(Script(ehlo=STARTTLS, tls=options))
        for host, verdict in (("127.0.0.1", "verified"), ("localhost", "verified"), ("other.example", "unverified")):
            self.resolver.records[host, "A"] = ["127.0.0.1"]
            outcome = one(await self.relay(Route("smtp", host, server.port), path).deliver(job()))
            assert outcome.tls.split(", ")[1].split(":")[0] == verdict

    async def test_the_end_in_the_middle_of_the_content(self) -> None:
        options, _ = self.certificate()
        said = {b"552 5.3.4 too big\r\n": (Result.FAILED, "5.3.4"), b"": (Result.DEFERRED, "4.4.2")}
        for last, expected in said.items():
            server = self.serve(Script(ehlo=STARTTLS, tls=options, at_content=Drop(last)))
            text = Text(b"x" * 400_000 + b"\r\n", 20_000, slow=True)
            outcome = one(await self.to(server).deliver(job(content=text)))
            assert (outcome.result, outcome.status) == expected, outcome

    async def test_starttls_refused_goes_on_in_clear(self) -> None:
        server = self.serve(Script(ehlo=STARTTLS, starttls=b"454 4.7.0 not now\r\n"))
        outcome = one(await self.to(server).deliver(job()))
        assert (outcome.result, outcome.tls, server.connections) == (Result.DELIVERED, "", 1)

    async def test_a_failed_handshake_goes_on_in_clear_at_once_and_is_remembered(self) -> None:
        server = self.serve(Script(ehlo=STARTTLS, tls=None))
        relay = self.to(server)
        outcome = one(await relay.deliver(job()))
        assert (outcome.result, server.connections) == (Result.DELIVERED, 2)
        assert "clear: TLS failed" in outcome.tls
        outcome = one(await relay.deliver(job()))
        assert (outcome.result, server.connections) == (Result.DELIVERED, 2)
        await relay.close()
        relay = self.to(server)
        assert "clear: TLS failed" in one(await relay.deliver(job())).tls
        assert server.lines.count(b"STARTTLS") == 2

    async def test_nothing_said_in_clear_is_believed_after_the_handshake(self) -> None:
        # CVE-2021-38371
        options, _ = self.certificate()
        script = Script(ehlo=STARTTLS, starttls=b"220 go\r\n250-evil\r\n250 AUTH PLAIN\r\n", tls=options)
        server = self.serve(script)
        outcome = one(await self.to(server).deliver(job()))
        assert (outcome.result, outcome.status) == (Result.DEFERRED, "4.5.0")
        assert (server.connections, server.messages) == (1, [])

    async def test_implicit_tls(self) -> None:
        options, _ = self.certificate()
        server = self.serve(Script(tls=options, implicit=True))
        outcome = one(await self.relay(Route("smtps", "127.0.0.1", server.port)).deliver(job()))
        assert outcome.result == Result.DELIVERED
        assert "unverified" in outcome.tls

    async def test_implicit_tls_never_falls_back(self) -> None:
        server = self.serve()
        outcome = one(await self.relay(Route("smtps", "127.0.0.1", server.port)).deliver(job()))
        assert (outcome.result, outcome.status, server.connections) == (Result.DEFERRED, "4.7.5", 1)


class LoggedIn(DeliveryCase):
    """Routes with a password.  ``smart.example`` is not loopback by its name, so TLS has to be verified."""

    OFFER = b"250-mx.example.net\r\n250-AUTH PLAIN\r\n250 PIPELINING\r\n"

    def setUp(self) -> None:
        super().setUp()
        self.resolver.records["smart.example", "A"] = ["127.0.0.1"]

    def route(self, server: Server, host: str = "smart.example", scheme: str = "smtp") -> Route:
        return Route(scheme, host, server.port, "alice", "secret")

    async def test_verified_starttls(self) -> None:
        options, path = self.certificate()
        server = self.serve(Script(ehlo=STARTTLS, ehlo_secure=self.OFFER, tls=options))
        outcome = one(await self.relay(self.route(server), path).deliver(job()))
        assert outcome.result == Result.DELIVERED, outcome
        assert re.search(", verified$", outcome.tls)
        assert b"AUTH PLAIN AGFsaWNlAHNlY3JldA==" in server.lines

    async def test_verified_implicit_tls(self) -> None:
        options, path = self.certificate()
        server = self.serve(Script(ehlo_secure=self.OFFER, tls=options, implicit=True))
        outcome = one(await self.relay(self.route(server, scheme="smtps"), path).deliver(job()))
        assert outcome.result == Result.DELIVERED, outcome

    async def refused(self, script: Script, status: str, path: str = "") -> tuple[Server, Outcome]:
        server = self.serve(script)
        outcome = one(await self.relay(self.route(server), path).deliver(job()))
        assert (outcome.result, outcome.status) == (Result.DEFERRED, status), outcome
        assert not [line for line in server.lines if line.startswith(b"AUTH")]
        assert not server.messages
        return server, outcome

    async def test_a_certificate_that_is_not_trusted(self) -> None:
        options, _ = self.certificate()
        server, outcome = await self.refused(Script(ehlo=STARTTLS, ehlo_secure=self.OFFER, tls=options), "4.7.5")
        assert "self-signed" in outcome.reason
        assert server.lines.count(b"EHLO us.example.org") == 1  # not an octet of SMTP under TLS

    async def test_a_certificate_for_another_name(self) -> None:
        options, path = self.certificate("other.example")
        _, outcome = await self.refused(Script(ehlo=STARTTLS, ehlo_secure=self.OFFER, tls=options), "4.7.5", path)
        assert "not for smart.example" in outcome.reason

    async def test_no_starttls(self) -> None:
        await self.refused(Script(ehlo=self.OFFER), "4.7.4")

    async def test_starttls_refused(self) -> None:
        await self.refused(Script(ehlo=STARTTLS, starttls=b"454 no\r\n"), "4.7.4")

    async def test_handshake_failed(self) -> None:
        server, _ = await self.refused(Script(ehlo=STARTTLS, tls=None), "4.7.5")
        assert server.connections == 1

    async def test_on_loopback_in_clear(self) -> None:
        server = self.serve(Script(ehlo=self.OFFER))
        outcome = one(await self.relay(self.route(server, "127.0.0.1")).deliver(job()))
        assert outcome.result == Result.DELIVERED, outcome
        assert b"AUTH PLAIN AGFsaWNlAHNlY3JldA==" in server.lines

    async def test_a_wrong_password_is_local_trouble(self) -> None:
        server = self.serve(Script(ehlo=self.OFFER, auth=b"535 5.7.8 wrong\r\n"))
        outcome = one(await self.relay(self.route(server, "127.0.0.1")).deliver(job()))
        assert (outcome.result, outcome.status) == (Result.DEFERRED, "4.7.8")
        assert "check user and password" in outcome.reason
        assert "secret" not in str(outcome)

    async def test_no_login_offered(self) -> None:
        server = self.serve()
        outcome = one(await self.relay(self.route(server, "127.0.0.1")).deliver(job()))
        assert (outcome.result, outcome.status) == (Result.DEFERRED, "4.7.0")
