"""Mail servers elsewhere in a simulated world: they take mail, remember it, and misbehave as the seed says.

A sink judges what it is sent: every octet that RFC 5321 does not allow it to be sent lands in ``complaints``.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from tests.simulation.clients import dot_unstuffed
from tests.simulation.lines import Conversation, Conversations, Gone
from tests.simulation.reactor import SimulatedReactor

_logger = Logger()

# What may go wrong, and at which place of the dialogue.
GREETING = ("greeting 421", "greeting 554", "greeting garbage", "greeting silence", "greeting drop")
HELLO = ("hello 502", "hello drop")
MAIL = ("mail 451", "mail 421", "mail 550")
RCPT = ("rcpt 450", "rcpt 421", "rcpt drop")
DATA = ("data 451", "data drop", "data garbage", "data silence")
CONTENT = ("content drop",)
DOT = ("dot 451", "dot 554", "dot 421", "dot drop", "dot silence", "dot garbage")
QUIT = ("quit drop",)
ALL = (*GREETING, *HELLO, *MAIL, *RCPT, *DATA, *CONTENT, *DOT, *QUIT)
# Answers after which the other side must not believe that the message was refused for good.
PASSING = tuple(fault for fault in ALL if not fault.endswith(("550", "554")))


@dataclass(frozen=True, slots=True)
class Received:
    """A message that arrived whole.  ``answered``: the sender was told 250; ``seven_bit``: and not 8BITMIME before."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    answered: bool
    at: float
    tls: bool
    seven_bit: bool = False


class Sink:
    """A server on every address of ``reactor``.

    ``faults`` gives the probability of each fault when its place is reached; ``tarpit_s`` is how long each
    answer takes at most.  ``refused`` names recipients that never exist.
    """

    def __init__(self, name: str, reactor: SimulatedReactor, rng: random.Random, port: int = 25) -> None:
        self.name = name
        self.reactor = reactor
        self.port = port
        self.rng = rng
        self.faults: Mapping[str, float] = {}
        self.tarpit_s = 0.0
        self.refused: set[str] = set()
        self.extensions = ["PIPELINING", "8BITMIME", "SIZE 10000000", "ENHANCEDSTATUSCODES"]
        self.context: Any = None  # for STARTTLS
        self.messages: list[Received] = []
        self.complaints: list[str] = []
        self.happened: list[str] = []  # the faults, in order
        self.connections = 0
        for interface in ("", "::"):
            reactor.listenTCP(port, Conversations(self._conversation), interface=interface)

    def _conversation(self) -> Conversation:
        self.connections += 1
        conversation = Conversation(self.reactor)
        conversation.made().addCallback(lambda made: Deferred.fromCoroutine(self._serve(made)))
        return conversation

    async def _serve(self, conversation: Conversation) -> None:
        try:
            await _Session(self, conversation).run()
        except Gone:
            pass
        except Exception:
            _logger.failure("a sink failed")
        conversation.close()

    def strikes(self, place: tuple[str, ...]) -> str:
        """The fault that happens at this place, "" for none."""
        for fault in place:
            probability = self.faults.get(fault, 0.0)
            if probability and self.rng.random() < probability:
                self.happened.append(fault)
                return fault.partition(" ")[2]
        return ""


class _Session:
    def __init__(self, sink: Sink, conversation: Conversation) -> None:
        self._sink = sink
        self._conversation = conversation
        self._sender: str | None = None
        self._recipients: list[str] = []
        self._tls = False
        self._seven_bit = True

    async def run(self) -> None:
        if await self._fault(GREETING):
            return
        if self._conversation.pending:
            self._complain(f"spoke before the greeting: {self._conversation.pending!r}")
        await self._answer(f"220 {self._sink.name} ESMTP")
        while not self._conversation.gone:
            line = await self._conversation.line()
            if len(line) > 512 or not re.fullmatch(rb"[ -~\x80-\xff]*\r\n", line):
                self._complain(f"not a command line: {line!r}")
            verb, _, rest = line.decode(errors="replace").rstrip("\r\n").partition(" ")
            if not await self._command(verb.upper(), rest):
                return

    async def _command(self, verb: str, rest: str) -> bool:
        """False when the connection is over."""
        if verb == "EHLO":
            self._reset()
            if not await self._fault(HELLO):
                extensions = [*self._sink.extensions]
                if self._sink.context is not None and not self._tls:
                    extensions.append("STARTTLS")
                self._seven_bit = "8BITMIME" not in extensions
                lines = [self._sink.name, *extensions]
                await self._answer("\r\n".join([f"250-{text}" for text in lines[:-1]] + [f"250 {lines[-1]}"]))
        elif verb == "HELO":
            self._seven_bit = True
            self._reset()
            await self._answer(f"250 {self._sink.name}")
        elif verb == "STARTTLS" and self._sink.context is not None and not self._tls:
            await self._answer("220 go ahead")
            self._conversation.start_tls(self._sink.context)
            self._tls = True
            self._reset()
        elif verb == "MAIL":
            await self._mail(rest)
        elif verb == "RCPT":
            await self._rcpt(rest)
        elif verb == "DATA":
            await self._data()
        elif verb in ("RSET", "NOOP"):
            self._reset()
            await self._answer("250 2.0.0 fine")
        elif verb == "QUIT":
            if not await self._fault(QUIT):
                await self._answer("221 2.0.0 farewell")
            return False
        else:
            self._complain(f"unknown command {verb} {rest}")
            await self._answer("500 5.5.2 unknown")
        return True

    async def _mail(self, rest: str) -> None:
        found = re.fullmatch(r"FROM:<([^>]*)>((?: [A-Z0-9-]+(?:=[!-~]+)?)*)", rest, re.ASCII)
        if found is None:
            self._complain(f"MAIL {rest}")
            await self._answer("501 5.5.4 syntax")
        elif self._sender is not None:
            self._complain("a second MAIL")
            await self._answer("503 5.5.1 sender is known")
        elif not await self._fault(MAIL):
            self._sender = found.group(1)
            await self._answer("250 2.1.0 sender ok")

    async def _rcpt(self, rest: str) -> None:
        found = re.fullmatch(r"TO:<([^>]+)>((?: [A-Z0-9-]+(?:=[!-~]+)?)*)", rest, re.ASCII)
        if found is None:
            self._complain(f"RCPT {rest}")
            await self._answer("501 5.5.4 syntax")
        elif self._sender is None:
            await self._answer("503 5.5.1 no sender")
        elif found.group(1) in self._sink.refused:
            await self._answer("550 5.1.1 no such user")
        elif not await self._fault(RCPT):
            self._recipients.append(found.group(1))
            await self._answer("250 2.1.5 recipient ok")

    async def _data(self) -> None:
        if not self._recipients:
            await self._answer("503 5.5.1 no recipients")
            return
        if await self._fault(DATA):
            return
        if "drop" in (fault := self._sink.strikes(CONTENT)):
            await self._answer("354 go ahead")
            await self._conversation.pause(self._sink.rng.random() / 10)
            self._conversation.abort()
            raise Gone(fault)
        await self._answer("354 go ahead")
        data = b""
        while not (data == b".\r\n" or data.endswith(b"\r\n.\r\n")):
            data += await self._conversation.until(b".\r\n")
        content = dot_unstuffed(data)
        if re.search(rb"\r(?!\n)|(?<!\r)\n|\x00", content):
            self._complain(f"content with bare CR, bare LF or NUL: {content!r}")
        if any(len(line) > 1000 for line in content.split(b"\n")):
            self._complain("a content line of more than 1000 octets")
        if self._seven_bit and not content.isascii():
            self._complain("octets above 127 that were not asked for")
        fault = self._sink.strikes(DOT)
        refused = fault[:3] in ("451", "554", "421")
        if not refused:
            self._sink.messages.append(
                Received(
                    self._sender or "",
                    tuple(self._recipients),
                    content,
                    not fault,
                    self._sink.reactor.seconds(),
                    self._tls,
                    self._seven_bit,
                )
            )
        self._reset()
        if not await self._apply(fault):
            await self._answer("250 2.0.0 taken")

    def _reset(self) -> None:
        self._sender = None
        self._recipients = []

    async def _fault(self, place: tuple[str, ...]) -> bool:
        return await self._apply(self._sink.strikes(place))

    async def _apply(self, fault: str) -> bool:
        """True when the fault took the place of the answer."""
        if not fault:
            return False
        if fault == "drop":
            self._conversation.abort()
            raise Gone(fault)
        if fault == "silence":
            await self._conversation.pause(7200.0)
            raise Gone(fault)
        if fault == "garbage":
            self._conversation.send(self._sink.rng.choice(_GARBAGE))
            await self._conversation.pause(0.5)
            raise Gone(fault)
        await self._answer(f"{fault} {fault[0]}.3.0 fault of the simulation")
        if fault == "421":
            raise Gone(fault)
        return True

    async def _answer(self, text: str) -> None:
        if self._sink.tarpit_s:
            await self._conversation.pause(self._sink.rng.random() * self._sink.tarpit_s)
        self._conversation.send(f"{text}\r\n".encode())

    def _complain(self, complaint: str) -> None:
        self._sink.complaints.append(f"{self._sink.name}: {complaint}")


_GARBAGE = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"2\xb2\xb5\x30 fullwidth\r\n",
    b"250" + b"-x" * 3000,
    b"250-" + b"\r\n250-".join([b"endless"] * 2000) + b"\r\n",
    b"\r\n\r\n\r\n",
    b"999 no such class\r\n",
)
