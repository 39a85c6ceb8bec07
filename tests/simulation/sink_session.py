"""The dialogue of a simulated server, written against RFC 5321 and its extensions and not against any client.

Several transactions on a connection, PIPELINING (RFC 2920), CHUNKING (RFC 3030), STARTTLS (RFC 3207), AUTH (RFC 4954).
What a client may not do lands in ``Sink.complaints``.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from tests.simulation.behaviour import (
    CONTENT,
    DATA,
    DOT,
    GREETING,
    HANDSHAKE,
    HELLO,
    LOGIN,
    MAIL,
    QUIT,
    RCPT,
    STARTTLS,
    Received,
)
from tests.simulation.clients import dot_unstuffed
from tests.simulation.lines import Conversation, Gone

if TYPE_CHECKING:
    from tests.simulation.sink import Sink

_PARAMETERS = r"((?: [A-Z0-9-]+(?:=[!-~]+)?)*)"
_ALONE = ("EHLO", "HELO", "STARTTLS", "DATA", "AUTH")  # nothing may be sent behind these (RFC 2920 3.1)
_SILENCE_S = 7200.0
_FAREWELL_S = 5.0  # what was said last is read before the connection ends


class SinkSession:
    """One connection.  ``run`` it, then say that it is ``over``."""

    def __init__(self, sink: Sink, conversation: Conversation) -> None:
        self._sink = sink
        self._conversation = conversation
        self._sender: str | None = None
        self._recipients: list[str] = []
        self._parameters = ""
        self._chunks = b""
        self._chunking = False  # between the first BDAT and the last
        self._spoilt = False  # a BDAT was refused, and so are the others of the transaction
        self._transactions = 0
        self._extended = False  # by EHLO
        self._tls = sink.implicit_tls
        self._logged_in = False
        self._unheard: list[Received] = []
        self._before = 0  # how much had been sent before the end of the latest answer

    async def run(self) -> None:
        if await self._fault(GREETING):
            return
        if self._conversation.pending and not self._sink.implicit_tls:
            self._complain(f"spoke before the greeting: {self._conversation.pending!r}")
        await self._answer(f"220 {self._sink.name} ESMTP")
        while not self._conversation.gone:
            line = await self._conversation.line()
            self._listen()
            if len(line) > 512 + 500 or not re.fullmatch(rb"[ -~\x80-\xff]*\r\n", line):  # RFC 3461 4: 500 more
                self._complain(f"not a command line: {line!r}")
            verb, _, rest = line.decode(errors="replace").rstrip("\r\n").partition(" ")
            verb = verb.upper()
            waits = self._conversation.pending and verb != "BDAT"
            if waits and (verb in _ALONE or "PIPELINING" not in self._offered()):
                self._complain(f"did not wait for the answer to {verb}: {self._conversation.pending[:80]!r}")
            if not await self._command(verb, rest):
                return

    def over(self) -> None:
        """The connection has ended, or is about to."""
        self._listen()

    def _listen(self) -> None:
        if self._unheard and self._conversation.heard(self._before):
            for received in self._unheard:
                received.answered = True
            self._unheard.clear()

    def _offered(self) -> list[str]:
        """The extensions in force."""
        return [extension.split()[0] for extension in self._sink.extensions] if self._extended else []

    async def _command(self, verb: str, rest: str) -> bool:
        """False when the connection is over."""
        match verb:
            case "EHLO":
                await self._hello()
            case "HELO":
                self._reset()
                self._extended = False
                await self._answer(f"250 {self._sink.name}")
            case "STARTTLS" if self._sink.context is not None and not self._tls:
                await self._starttls()
            case "AUTH" if self._sink.login is not None:
                await self._auth(rest)
            case "MAIL":
                await self._mail(rest)
            case "RCPT":
                await self._rcpt(rest)
            case "DATA":
                await self._data()
            case "BDAT" if "CHUNKING" in self._offered():
                await self._bdat(rest)
            case "RSET":
                self._reset()
                await self._answer("250 2.0.0 forgotten")
            case "NOOP":
                await self._answer("250 2.0.0 fine")
            case "QUIT":
                if not await self._fault(QUIT):
                    await self._answer("221 2.0.0 farewell")
                return False
            case _:
                self._complain(f"unknown command {verb} {rest}")
                await self._answer("500 5.5.2 unknown")
        return True

    # Before mail.

    async def _hello(self) -> None:
        self._reset()
        if await self._fault(HELLO):
            return
        self._extended = True
        extensions = [*self._sink.extensions]
        if self._sink.context is not None and not self._tls:
            extensions.append("STARTTLS")
        if self._sink.login is not None and self._tls:
            extensions.append("AUTH PLAIN")
        lines = [self._sink.name, *extensions]
        await self._answer("\r\n".join([f"250-{text}" for text in lines[:-1]] + [f"250 {lines[-1]}"]))

    async def _starttls(self) -> None:
        if await self._fault(STARTTLS):
            return
        fault = self._sink.strikes(HANDSHAKE)
        await self._answer("220 go ahead")
        if await self._apply(fault):
            return
        self._conversation.start_tls(self._sink.context)
        self._tls = True
        self._extended = False
        self._reset()

    async def _auth(self, rest: str) -> None:
        if not self._tls:
            self._complain(f"a password in clear: AUTH {rest}")
        mechanism, _, secret = rest.partition(" ")
        if mechanism != "PLAIN":
            self._complain(f"AUTH {mechanism} was not offered")
        if not secret:
            await self._answer("334 ")
            secret = (await self._conversation.line()).decode().rstrip("\r\n")
        if await self._fault(LOGIN):
            return
        expected = base64.b64encode("\0".join(("", *(self._sink.login or ()))).encode()).decode()
        self._logged_in = secret == expected
        await self._answer("235 2.7.0 welcome" if self._logged_in else "535 5.7.8 wrong password")

    # The envelope.

    async def _mail(self, rest: str) -> None:
        found = re.fullmatch(rf"FROM:<([^>]*)>{_PARAMETERS}", rest, re.ASCII)
        if found is None:
            self._complain(f"MAIL {rest}")
            await self._answer("501 5.5.4 syntax")
            return
        if self._sender is not None:
            self._complain("a second MAIL")
            await self._answer("503 5.5.1 sender is known")
            return
        self._hold_to_extensions(found.group(2), {"SIZE": "SIZE", "BODY": "8BITMIME", "RET": "DSN", "ENVID": "DSN"})
        if self._sink.login is not None and not self._logged_in:
            await self._answer("530 5.7.0 log in first")
        elif self._transactions >= self._sink.most_messages:
            await self._answer("421 4.7.0 enough for this connection")
            await self._leave("421")
        elif not await self._fault(MAIL):
            self._sender = found.group(1)
            self._parameters = found.group(2)
            await self._answer("250 2.1.0 sender ok")

    async def _rcpt(self, rest: str) -> None:
        found = re.fullmatch(rf"TO:<([^>]+)>{_PARAMETERS}", rest, re.ASCII)
        if found is None:
            self._complain(f"RCPT {rest}")
            await self._answer("501 5.5.4 syntax")
            return
        self._hold_to_extensions(found.group(2), {"NOTIFY": "DSN", "ORCPT": "DSN"})
        if self._sender is None:
            await self._answer("503 5.5.1 no sender")
        elif found.group(1) in self._sink.refused:
            await self._answer("550 5.1.1 no such user")
        elif len(self._recipients) >= self._sink.most_recipients:
            await self._answer("452 4.5.3 too many recipients")
        elif not await self._fault(RCPT):
            self._recipients.append(found.group(1))
            await self._answer("250 2.1.5 recipient ok")

    def _hold_to_extensions(self, parameters: str, needed: dict[str, str]) -> None:
        for parameter in parameters.split():
            keyword = parameter.partition("=")[0]
            if needed.get(keyword) not in self._offered():
                self._complain(f"{parameter} was not offered")

    # The content.

    async def _data(self) -> None:
        if self._chunking:
            self._complain("DATA after BDAT")  # RFC 3030 2
        if not self._recipients or self._chunking:
            await self._answer("503 5.5.1 no recipients")
            return
        if await self._fault(DATA):
            return
        fault = self._sink.strikes(CONTENT)
        await self._answer("354 go ahead")
        if fault and await self._interrupt(fault):
            return
        data = b""
        while not (data == b".\r\n" or data.endswith(b"\r\n.\r\n")):
            data += await self._conversation.until(b".\r\n")
        await self._take(dot_unstuffed(data))

    async def _bdat(self, rest: str) -> None:
        found = re.fullmatch(r"([0-9]{1,10})( LAST)?", rest, re.ASCII)
        if found is None:
            self._complain(f"BDAT {rest}")
            await self._answer("501 5.5.4 syntax")
            return
        first, self._chunking = not self._chunking, True
        fault = self._sink.strikes(CONTENT) if first and self._recipients else ""
        if fault and fault not in ("451", "421"):
            await self._interrupt(fault)
        self._chunks += await self._conversation.octets(int(found.group(1)))
        last = bool(found.group(2))
        if self._spoilt or not self._recipients:
            self._spoilt = True
            await self._answer("503 5.5.1 not now")
        elif fault:
            self._spoilt = True
            await self._apply(fault)
        elif first and await self._fault(DATA):
            self._spoilt = True
        elif last:
            await self._take(self._chunks)
            return
        else:
            await self._answer("250 2.0.0 on with it")
        if last:
            self._reset()

    async def _interrupt(self, fault: str) -> bool:
        """Something happens while content comes; True when an answer was given and the rest is of no interest."""
        if fault == "stall":
            self._conversation.stop_reading()
            await self._conversation.pause(_SILENCE_S)
            raise Gone(fault)
        if fault == "drop":
            # After any number of octets, the last dot among them.
            wanted, waited = int(10 ** self._sink.rng.uniform(0, 4)), 0
            while len(self._conversation.pending) < wanted and waited < 20 and not self._conversation.gone:
                waited += 1
                await self._conversation.pause(0.1)
            self._conversation.abort()
            raise Gone(fault)
        await self._apply(fault)
        data = b""
        while not (data == b".\r\n" or data.endswith(b"\r\n.\r\n")):
            data += await self._conversation.until(b".\r\n")
        self._reset()
        return True

    async def _take(self, content: bytes) -> None:
        """The message is here, whole; what we answer, and whether we keep it, are two things."""
        self._check(content)
        fault = self._sink.strikes(DOT)
        received = Received(
            self._sender or "",
            tuple(self._recipients),
            content,
            False,
            self._sink.reactor.seconds(),
            self._tls,
            "8BITMIME" not in self._offered(),
        )
        if not fault.isdigit():
            self._sink.messages.append(received)
        self._transactions += 1
        self._reset()
        if not await self._apply(fault):
            await self._answer("250 2.0.0 taken")
            self._unheard.append(received)

    def _check(self, content: bytes) -> None:
        if re.search(rb"\r(?!\n)|(?<!\r)\n|\x00", content):
            self._complain(f"content with bare CR, bare LF or NUL: {content[:500]!r}")
        if any(len(line) > 1000 for line in content.split(b"\n")):
            self._complain("a content line of more than 1000 octets")
        if "8BITMIME" not in self._offered() and not content.isascii():
            self._complain("octets above 127 that were not asked for")
        declared = re.search(r" SIZE=([0-9]+)", self._parameters)
        if declared is not None and int(declared.group(1)) > 2 * len(content) + 1000:
            self._complain(f"SIZE={declared.group(1)} for {len(content)} octets")

    def _reset(self) -> None:
        self._sender = None
        self._recipients = []
        self._parameters = ""
        self._chunks = b""
        self._chunking = self._spoilt = False

    # Answers, and what comes instead of them.

    async def _fault(self, place: tuple[str, ...]) -> bool:
        return await self._apply(self._sink.strikes(place))

    async def _apply(self, fault: str) -> bool:
        """True when the fault took the place of the answer."""
        if not fault:
            return False
        conversation, rng = self._conversation, self._sink.rng
        match fault:
            case "late":
                await conversation.pause(self._sink.behaviour.late_s)
                return False
            case "drop":
                conversation.abort()
            case "half":
                conversation.send(b"250 2.0.0 taken and"[: rng.randrange(1, 19)])
                await conversation.pause(rng.random())
                conversation.abort()
            case "silence":
                await conversation.pause(_SILENCE_S)
            case "garbage":
                conversation.send(rng.choice(_GARBAGE))
                await conversation.pause(_FAREWELL_S)
            case "endless":
                while not conversation.gone:
                    conversation.send(b"250-and another thing\r\n" * rng.randrange(1, 30))
                    await conversation.pause(1.0)
            case _:
                await self._answer(f"{fault} {fault[0]}.3.0 fault of the simulation")
                if fault == "421":
                    await self._leave(fault)
                return True
        raise Gone(fault)

    async def _leave(self, why: str) -> None:
        await self._conversation.pause(_FAREWELL_S)
        raise Gone(why)

    async def _answer(self, text: str) -> None:
        octets = f"{text}\r\n".encode()
        if self._sink.behaviour.tarpit_s:
            await self._conversation.pause(self._sink.rng.random() * self._sink.behaviour.tarpit_s)
        while len(octets) > 1 and self._sink.behaviour.octet_s and not self._conversation.gone:
            self._conversation.send(octets[:1])
            octets = octets[1:]
            await self._conversation.pause(self._sink.behaviour.octet_s)
        self._before = self._conversation.sent
        self._conversation.send(octets)

    def _complain(self, complaint: str) -> None:
        self._sink.complaints.append(complaint)


_GARBAGE = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"2\xb2\xb5\x30 fullwidth\r\n",
    b"250" + b"-x" * 3000,
    b"250-" + b"\r\n250-".join([b"endless"] * 2000) + b"\r\n",
    b"\r\n\r\n\r\n",
    b"999 no such class\r\n",
    bytes(range(256)) * 20,
)
