"""DNS: one contract for the real resolver and the one made of records, and what only the real one has to survive.

The real one asks a small server on loopback, over real sockets.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, cast

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, ITCPTransport, IUDPTransport
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase

from mailsrv.outside.interfaces import IResolver, LookupFailed, NameNotFound
from mailsrv.outside.resolver import DnsResolver
from tests.worlds.resolver import Records, RecordsResolver

reactor: Any = global_reactor

RECORDS: Records = {
    ("example.net", "MX"): [(10, "mx.example.net"), (20, "b.mx.example.net")],
    ("mx.example.net", "A"): ["192.0.2.1", "192.0.2.2"],
    ("mx.example.net", "AAAA"): ["2001:db8::1"],
    ("b.mx.example.net", "A"): ["192.0.2.3"],
    ("null.example", "MX"): [(0, "")],
    ("example.net", "TXT"): ["v=spf1 -all", "Gr\xfc\xdfe"],
    ("1.2.0.192.in-addr.arpa", "PTR"): ["mx.example.net"],
    ("www.example.net", "CNAME"): ["alias.example.net"],
    ("alias.example.net", "CNAME"): ["mx.example.net"],
    ("broken.example.net", "CNAME"): ["gone.example.net"],
    ("down.example", "MX"): LookupFailed,
    ("denied.example", "MX"): NameNotFound,
}

Answer = Callable[[dns.message.Message, str], Sequence[bytes]]


class Contract:
    """Mixed into a TestCase that has ``resolver``."""

    resolver: IResolver

    async def ask(self, name: str, kind: str) -> tuple[Any, ...]:
        """Sorted: a set of records has no order."""
        return tuple(sorted((await self.resolver.query(name, kind)).records))

    async def refused(self, error: type[Exception], name: str, kind: str) -> None:
        try:
            answer = await self.resolver.query(name, kind)
        except error as raised:
            assert str(raised)
        else:
            raise AssertionError(answer)

    async def test_records(self) -> None:
        assert await self.ask("example.net", "MX") == ((10, "mx.example.net"), (20, "b.mx.example.net"))
        assert await self.ask("mx.example.net", "A") == ("192.0.2.1", "192.0.2.2")
        assert await self.ask("mx.example.net", "AAAA") == ("2001:db8::1",)
        assert await self.ask("1.2.0.192.in-addr.arpa", "PTR") == ("mx.example.net",)
        assert await self.ask("example.net", "TXT") == ("Gr\xfc\xdfe", "v=spf1 -all")

    async def test_the_root_is_the_empty_text(self) -> None:
        assert await self.ask("null.example", "MX") == ((0, ""),)

    async def test_case_and_a_final_dot_make_no_difference(self) -> None:
        assert await self.ask("MX.Example.NET.", "AAAA") == ("2001:db8::1",)

    async def test_a_name_without_the_kind(self) -> None:
        assert await self.ask("mx.example.net", "MX") == ()

    async def test_a_name_with_names_below_it_only(self) -> None:
        assert await self.ask("2.0.192.in-addr.arpa", "PTR") == ()

    async def test_a_chain_of_aliases(self) -> None:
        answer = await self.resolver.query("www.example.net", "A")
        assert (set(answer.records), answer.name) == ({"192.0.2.1", "192.0.2.2"}, "mx.example.net")
        answer = await self.resolver.query("www.example.net", "MX")
        assert (answer.records, answer.name) == ((), "mx.example.net")

    async def test_no_such_name(self) -> None:
        await self.refused(NameNotFound, "nowhere.example.net", "MX")
        await self.refused(NameNotFound, "denied.example", "MX")

    async def test_an_alias_of_nothing(self) -> None:
        await self.refused(NameNotFound, "broken.example.net", "A")

    async def test_no_answer(self) -> None:
        await self.refused(LookupFailed, "down.example", "MX")

    async def test_nothing_is_authenticated_unless_said(self) -> None:
        assert not (await self.resolver.query("example.net", "MX")).authenticated


class OfRecords(Contract, TestCase):
    def setUp(self) -> None:
        self.resolver = RecordsResolver(RECORDS)

    async def test_authenticated(self) -> None:
        resolver = RecordsResolver(RECORDS, authenticated=True)
        assert (await resolver.query("example.net", "MX")).authenticated
        assert resolver.asked == [("example.net", "MX")]

    async def test_a_loop_of_aliases(self) -> None:
        self.resolver = RecordsResolver({("a.example", "CNAME"): ["b.example"], ("b.example", "CNAME"): ["a.example"]})
        await self.refused(LookupFailed, "a.example", "A")


class Nameserver:
    """Answers over UDP and TCP on one port of loopback as ``answer`` says: any number of messages to each question."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str, str]] = []
        self._ports: list[IListeningPort] = []

    def listen(self) -> str:
        factory = Factory.forProtocol(lambda: _Stream(self))
        factory.noisy = False
        while True:
            tcp = reactor.listenTCP(0, factory, interface="127.0.0.1")
            self._ports.append(tcp)
            port = tcp.getHost().port
            try:
                self._ports.append(reactor.listenUDP(port, _Datagrams(self), interface="127.0.0.1"))
            except CannotListenError:
                continue  # somebody's UDP; the TCP port stays taken until the end, so that it is not offered again
            return f"127.0.0.1:{port}"

    async def close(self) -> None:
        for port in self._ports:
            stopped = port.stopListening()
            if stopped is not None:
                await stopped

    def answers(self, wire: bytes, way: str) -> Sequence[bytes]:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        self.asked.append((question.name.to_text(True), dns.rdatatype.to_text(question.rdtype), way))
        return self.answer(query, way)


class _Datagrams(DatagramProtocol):
    noisy = False

    def __init__(self, server: Nameserver) -> None:
        self._server = server

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        for answer in self._server.answers(datagram, "udp"):
            cast(IUDPTransport, self.transport).write(answer, addr)


class _Stream(Protocol):
    def __init__(self, server: Nameserver) -> None:
        self._server = server
        self._buffer = b""

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        (length,) = struct.unpack("!H", self._buffer[:2].rjust(2, b"\0"))
        if len(self._buffer) >= 2 + length:
            transport = cast(ITCPTransport, self.transport)
            for answer in self._server.answers(self._buffer[2:], "tcp"):
                framed = struct.pack("!H", len(answer)) + answer
                for n in range(0, len(framed), 700):
                    transport.write(framed[n : n + 700])
            transport.loseConnection()


def from_records(records: Records) -> Answer:
    """An honest recursive server."""
    source = RecordsResolver(records)

    def rrset(name: str, kind: str, values: Sequence[Any]) -> dns.rrset.RRset:
        def text(value: Any) -> str:
            match kind:
                case "MX":
                    return f"{value[0]} {value[1]}."
                case "TXT":
                    return '"' + "".join(f"\\{ord(c):03d}" if not c.isascii() else c for c in value) + '"'
                case "PTR" | "CNAME":
                    return f"{value}."
            return str(value)

        return dns.rrset.from_text_list(f"{name}.", 60, "IN", kind, [text(value) for value in values])

    def answer(query: dns.message.Message, way: str) -> Sequence[bytes]:
        question = query.question[0]
        name, kind = question.name.to_text(True).lower(), dns.rdatatype.to_text(question.rdtype)
        response = dns.message.make_response(query, recursion_available=True)
        response.flags |= dns.flags.AD
        while (alias := source.records.get((name, "CNAME"))) is not None:
            assert isinstance(alias, Sequence)
            response.answer.append(rrset(name, "CNAME", alias))
            name = alias[0]
        found = source.records.get((name, kind))
        if isinstance(found, Sequence):
            response.answer.append(rrset(name, kind, found))
        elif found is LookupFailed:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif found is NameNotFound or not source._exists(name):
            response.set_rcode(dns.rcode.NXDOMAIN)
        return [response.to_wire(max_size=65535)]

    return answer


class RealCase(TestCase):
    timeout = 10

    def serve(self, answer: Answer) -> DnsResolver:
        self.server = Nameserver(answer)
        self.addCleanup(self.server.close)
        return DnsResolver(reactor, [self.server.listen()], timeout_s=0.1, lifetime_s=0.35)


class Real(Contract, RealCase):
    def setUp(self) -> None:
        honest = from_records(RECORDS)

        def without_ad(query: dns.message.Message, way: str) -> Sequence[bytes]:
            (wire,) = honest(query, way)
            response = dns.message.from_wire(wire)
            response.flags &= ~dns.flags.AD
            return [response.to_wire()]

        self.resolver = self.serve(without_ad)


class Trouble(RealCase):
    async def failed(self, resolver: DnsResolver, name: str = "example.net", kind: str = "MX") -> str:
        error = await self.assertFailure(self.deferred(resolver, name, kind), LookupFailed)
        return str(error)

    def deferred(self, resolver: DnsResolver, name: str, kind: str) -> Any:
        return Deferred.fromCoroutine(resolver.query(name, kind))

    async def test_a_question_leaves_no_line_in_the_log(self) -> None:
        resolver = self.serve(from_records(RECORDS))
        with capturedLogs() as logged:
            await resolver.query("example.net", "MX")
            for _ in range(3):  # the socket closes in a turn of its own
                done: Deferred[None] = Deferred()
                reactor.callLater(0, done.callback, None)
                await done
        assert [event["log_format"] for event in logged] == []

    async def test_a_truncated_answer_is_asked_for_again_over_tcp(self) -> None:
        honest = from_records({("big.example", "TXT"): [f"{n:05d}" + "x" * 200 for n in range(200)]})

        def cut(query: dns.message.Message, way: str) -> Sequence[bytes]:
            if way == "tcp":
                return honest(query, way)
            response = dns.message.make_response(query)
            response.flags |= dns.flags.TC
            return [response.to_wire()]

        answer = await self.serve(cut).query("big.example", "TXT")
        assert len(answer.records) == 200
        assert [way for _, _, way in self.server.asked] == ["udp", "tcp"]

    async def test_answers_to_another_id_or_question_are_passed_over(self) -> None:
        honest = from_records(RECORDS)
        evil = from_records(
            {("example.net", "MX"): [(0, "evil.example")], ("other.example", "MX"): [(0, "evil.example")]}
        )

        def spoof(query: dns.message.Message, way: str) -> Sequence[bytes]:
            wrong_id = dns.message.from_wire(evil(query, way)[0])
            wrong_id.id ^= 1
            other = dns.message.make_query("other.example", "MX", id=query.id)
            truncated = dns.message.make_response(other)
            truncated.flags |= dns.flags.TC
            wrong = [wrong_id.to_wire(), evil(other, way)[0], truncated.to_wire(), b"garbage", b""]
            return [*wrong, *honest(query, way)]

        answer = await self.serve(spoof).query("example.net", "MX")
        assert (10, "mx.example.net") in answer.records
        assert len(self.server.asked) == 1

    async def test_only_lies_are_no_answer(self) -> None:
        def lie(query: dns.message.Message, way: str) -> Sequence[bytes]:
            other = dns.message.make_query("example.org", "MX", id=query.id)
            return from_records({("example.org", "MX"): [(0, "evil.example")]})(other, way)

        assert "no answer" in await self.failed(self.serve(lie))

    async def test_an_answer_with_another_names_records(self) -> None:
        def poisoned(query: dns.message.Message, way: str) -> Sequence[bytes]:
            response = dns.message.make_response(query)
            response.answer.append(dns.rrset.from_text("example.org.", 60, "IN", "MX", "0 evil.example."))
            return [response.to_wire()]

        assert (await self.serve(poisoned).query("example.net", "MX")).records == ()

    async def test_silence(self) -> None:
        resolver = self.serve(lambda query, way: [])
        assert "127.0.0.1" in await self.failed(resolver)
        assert len(self.server.asked) > 1

    async def test_refusals(self) -> None:
        for rcode in (dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.FORMERR, dns.rcode.NOTIMP):

            def refuse(query: dns.message.Message, way: str, rcode: Any = rcode) -> Sequence[bytes]:
                response = dns.message.make_response(query)
                response.set_rcode(rcode)
                return [response.to_wire()]

            assert dns.rcode.to_text(rcode) in await self.failed(self.serve(refuse))

    async def test_nobody_there(self) -> None:
        resolver = self.serve(lambda query, way: [])
        await self.server.close()
        await self.failed(resolver)

    async def test_tcp_gone_after_a_truncated_answer(self) -> None:
        def cut(query: dns.message.Message, way: str) -> Sequence[bytes]:
            response = dns.message.make_response(query)
            response.flags |= dns.flags.TC
            return [response.to_wire()] if way == "udp" else []

        await self.failed(self.serve(cut))

    async def test_the_next_server_is_asked(self) -> None:
        dead = Nameserver(lambda query, way: [])
        address = dead.listen()
        await dead.close()
        self.server = Nameserver(from_records(RECORDS))
        self.addCleanup(self.server.close)
        resolver = DnsResolver(reactor, [address, self.server.listen()], timeout_s=0.1, lifetime_s=0.5)
        assert (await resolver.query("mx.example.net", "AAAA")).records == ("2001:db8::1",)

    async def test_answers_are_kept(self) -> None:
        resolver = self.serve(from_records(RECORDS))
        for _ in range(3):
            await resolver.query("example.net", "MX")
            await self.assertFailure(self.deferred(resolver, "nowhere.example", "MX"), NameNotFound)
        assert self.server.asked.count(("example.net", "MX", "udp")) == 1

    async def test_failures_are_not_kept(self) -> None:
        resolver = self.serve(from_records(RECORDS))
        await self.failed(resolver, "down.example")
        before = len(self.server.asked)
        await self.failed(resolver, "down.example")
        assert len(self.server.asked) > before

    async def test_ad_is_believed_from_loopback(self) -> None:
        answer = await self.serve(from_records(RECORDS)).query("example.net", "MX")
        assert answer.authenticated

    async def test_the_question(self) -> None:
        seen: list[dns.message.Message] = []
        honest = from_records(RECORDS)

        def look(query: dns.message.Message, way: str) -> Sequence[bytes]:
            seen.append(query)
            return honest(query, way)

        await self.serve(look).query("example.net", "MX")
        assert seen[0].flags & dns.flags.RD and seen[0].flags & dns.flags.AD
        assert (seen[0].edns, seen[0].payload) == (0, 1232)

    async def test_what_cannot_be_a_name(self) -> None:
        resolver = self.serve(from_records(RECORDS))
        for name in ("x" * 64 + ".example", "a..example", "grüße.example", ".".join(["abcdefgh"] * 40)):
            await self.assertFailure(self.deferred(resolver, name, "MX"), NameNotFound)
        assert self.server.asked == []

    async def test_many_at_once(self) -> None:
        records: dict[tuple[str, str], Any] = {(f"h{n}.example", "A"): [f"192.0.2.{n}"] for n in range(50)}
        resolver = self.serve(from_records(records))
        answers = await gatherResults([self.deferred(resolver, f"h{n}.example", "A") for n in range(50)])
        assert [answer.records for answer in answers] == [(f"192.0.2.{n}",) for n in range(50)]

    def test_servers_in_all_spellings(self) -> None:
        for text in ("127.0.0.1", "127.0.0.1:53", "::1", "[::1]", "[::1]:53"):
            DnsResolver(reactor, [text])
        with pytest.raises(ValueError, match="address"):
            DnsResolver(reactor, ["dns.example:53"])
