"""[outbound.tls] over real sockets: TLS that was demanded and cannot be had makes mail wait."""

from __future__ import annotations

from mailsrv.config import Route
from mailsrv.mail.outcome import Result
from tests.worlds.delivery import STARTTLS, DeliveryCase, SettingsOf, job, one
from tests.worlds.smtp_server import Script


class Demanded(DeliveryCase):
    def setUp(self) -> None:
        super().setUp()
        self.resolver.records["smart.example", "A"] = ["127.0.0.1"]

    async def waits(self, demand: str, script: Script, status: str, path: str = "") -> None:
        server = self.serve(script)
        relay = self.relay(Route("smtp", "smart.example", server.port), path, example_net=demand)
        for _ in range(2):  # a failed handshake that is remembered changes nothing
            outcome = one(await relay.deliver(job()))
            assert (outcome.result, outcome.status) == (Result.DEFERRED, status), outcome
            assert outcome.rule == 'outbound.tls."example.net"'
        assert not [line for line in server.lines if line.startswith((b"MAIL", b"RCPT"))]
        # Other destinations go their way.
        outcome = one(await relay.deliver(job(destination="example.com")))
        assert outcome.result is Result.DELIVERED

    async def test_not_offered(self) -> None:
        for demand in ("required", "verified"):
            await self.waits(demand, Script(), "4.7.4")

    async def test_not_offered_by_an_old_server(self) -> None:
        await self.waits("required", Script(ehlo=b"502 what?\r\n"), "4.7.4")

    async def test_nothing_fails_for_what_was_said_in_clear(self) -> None:
        for script in (Script(greeting=b"521 never\r\n"), Script(ehlo=b"521 never\r\n", helo=b"521 never\r\n")):
            server = self.serve(script)
            relay = self.relay(Route("smtp", "smart.example", server.port), example_net="required")
            assert one(await relay.deliver(job())).result is Result.DEFERRED
            assert one(await relay.deliver(job(destination="example.com"))).result is Result.FAILED

    async def test_offered_and_refused(self) -> None:
        await self.waits("required", Script(ehlo=STARTTLS, starttls=b"454 not now\r\n"), "4.7.4")

    async def test_handshake_failed(self) -> None:
        for demand in ("required", "verified"):
            await self.waits(demand, Script(ehlo=STARTTLS, tls=None), "4.7.5")

    async def test_not_trusted(self) -> None:
        options, _ = self.certificate()
        await self.waits("verified", Script(ehlo=STARTTLS, tls=options), "4.7.5")

    async def test_for_another_name(self) -> None:
        options, path = self.certificate("other.example")
        await self.waits("verified", Script(ehlo=STARTTLS, tls=options), "4.7.5", path)

    async def goes(self, demand: str, name: str, path: str, script: Script) -> str:
        server = self.serve(script)
        relay = self.relay(Route("smtp", "smart.example", server.port), path, **{name: demand})
        outcome = one(await relay.deliver(job()))
        assert outcome.result is Result.DELIVERED, outcome
        assert server.messages[0].secure is (demand != "opportunistic")
        return outcome.tls

    async def test_met(self) -> None:
        options, path = self.certificate()
        script = Script(ehlo=STARTTLS, tls=options)
        for name in ("example_net", "smart_example", "all"):
            assert "unverified" in await self.goes("required", name, "", script)
            assert "verified" in (await self.goes("verified", name, path, script)).split(", ")

    async def test_the_destination_before_the_host_before_the_star(self) -> None:
        server = self.serve()
        route = Route("smtp", "smart.example", server.port)
        for demands, result in (
            ({"all": "required"}, Result.DEFERRED),
            ({"all": "required", "smart_example": "opportunistic"}, Result.DELIVERED),
            ({"smart_example": "required", "example_net": "opportunistic"}, Result.DELIVERED),
            ({"all": "opportunistic", "smart_example": "required"}, Result.DEFERRED),
        ):
            assert one(await self.relay(route, **demands).deliver(job())).result is result

    async def test_a_change_is_in_force_for_the_next_attempt(self) -> None:
        server = self.serve()
        route = Route("smtp", "smart.example", server.port)
        settings = SettingsOf(self.config(route, example_net="required"))
        relay = self.relay_with(settings)
        assert one(await relay.deliver(job())).result is Result.DEFERRED
        settings.config = self.config(route)
        assert one(await relay.deliver(job())).result is Result.DELIVERED
        settings.config = self.config(route, example_net="required")  # not over the connection that is kept
        assert one(await relay.deliver(job())).result is Result.DEFERRED

    async def test_what_a_route_demands_is_never_less(self) -> None:
        server = self.serve()
        route = Route("smtps", "smart.example", server.port)
        outcome = one(await self.relay(route, example_net="opportunistic").deliver(job()))
        assert (outcome.result, outcome.rule) == (Result.DEFERRED, "outbound.routes")
        options, _ = self.certificate()
        server = self.serve(Script(tls=options, implicit=True))
        outcome = one(await self.relay(Route("smtps", "smart.example", server.port), all="verified").deliver(job()))
        assert (outcome.result, outcome.status, outcome.rule) == (Result.DEFERRED, "4.7.5", 'outbound.tls."*"')
