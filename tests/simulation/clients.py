"""Mail clients of a simulated world: they send and fetch over the simulated network and report what they were told.

What counts for a sender is what RFC 5321 says counts: a message is the server's from the moment that 250 answers the
final dot.  An answer that never came leaves it unknown whether the server has it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError

from tests.simulation.lines import Conversation, Conversations, Gone
from tests.simulation.reactor import SimulatedReactor


class Told(Enum):
    """What the client knows of a message at the end of a try."""

    ACCEPTED = "accepted"  # 250 answered the final dot
    REFUSED = "refused"  # 5xx for the sender, all recipients or the content
    LATER = "later"  # 4xx, or the connection ended before the final dot
    UNKNOWN = "unknown"  # the final dot was sent and no answer came


@dataclass(slots=True)
class Message:
    """A message that a client has to send.  ``content`` is canonical: CRLF lines, ending in CRLF."""

    id: str
    sender: str
    recipients: tuple[str, ...]
    content: bytes
    told: list[Told] = field(default_factory=list)  # of each try
    accepted: list[tuple[str, ...]] = field(default_factory=list)  # recipients of each try that was accepted
    doubtful: list[tuple[str, ...]] = field(default_factory=list)  # recipients of each try with an unknown end
    answers: list[str] = field(default_factory=list)
    accepted_at: list[float] = field(default_factory=list)  # seconds since the world began

    @property
    def done(self) -> bool:
        return bool(self.told) and self.told[-1] in (Told.ACCEPTED, Told.REFUSED)


@dataclass(frozen=True, slots=True)
class Login:
    username: str
    password: str


@dataclass(frozen=True, slots=True)
class Manner:
    """How a client behaves: ``pipelining`` as RFC 2920 allows; ``context`` for STARTTLS, or for TLS from the start."""

    pipelining: bool = True
    login: Login | None = None
    context: Any = None
    implicit_tls: bool = False
    patience_s: float = 600.0


def dot_stuffed(content: bytes) -> bytes:
    return re.sub(rb"(?m)^\.", b"..", content) + b".\r\n"


def dot_unstuffed(data: bytes) -> bytes:
    assert data.endswith(b".\r\n")
    return re.sub(rb"(?m)^\.", b"", data[:-3])


async def connect(reactor: SimulatedReactor, host: str, port: int, manner: Manner) -> Conversation:
    """A connection to ``host`` (an address); ``Gone`` when there is none to be had."""
    endpoint = (TCP6ClientEndpoint if ":" in host else TCP4ClientEndpoint)(reactor, host, port)
    conversation = Conversation(reactor, manner.patience_s)
    factory: Any = Conversations(lambda: conversation)
    if manner.implicit_tls:
        from twisted.protocols.tls import TLSMemoryBIOFactory

        factory = TLSMemoryBIOFactory(manner.context, True, factory, clock=reactor)
    try:
        await endpoint.connect(factory)
    except ConnectError as error:
        raise Gone(str(error)) from error
    return conversation


class SmtpClient:
    """One connection that sends any number of messages."""

    def __init__(self, reactor: SimulatedReactor, host: str, port: int, manner: Manner, name: str) -> None:
        self._reactor = reactor
        self._place = (host, port)
        self._manner = manner
        self._name = name
        self._extensions: set[str] = set()

    async def send(self, messages: Sequence[Message]) -> None:
        """Try each message once, in order; each learns what it was told.  Never raises for what the server does."""
        left = list(messages)
        try:
            conversation = await connect(self._reactor, *self._place, self._manner)
        except Gone as error:
            return _none_sent(left, f"no connection: {error}")
        try:
            refusal = await self._greet(conversation)
            while left and not refusal:
                await self._transaction(conversation, left[0])
                left.pop(0)
                if conversation.gone:
                    refusal = "the connection is lost"
            if not conversation.gone:
                conversation.send(b"QUIT\r\n")
                await reply(conversation)
        except Gone as error:
            refusal = str(error)
        conversation.close()
        return _none_sent(left, refusal)

    async def _greet(self, conversation: Conversation) -> str:
        """ "" when mail may be sent, else the refusal."""
        code, text = await reply(conversation)
        if code != 220:
            return text
        await self._hello(conversation)
        if self._manner.context is not None and not self._manner.implicit_tls:
            conversation.send(b"STARTTLS\r\n")
            code, text = await reply(conversation)
            if code != 220:
                return text
            conversation.start_tls(self._manner.context)
            await self._hello(conversation)
        if self._manner.login is not None:
            login = self._manner.login
            secret = base64.b64encode(f"\0{login.username}\0{login.password}".encode())
            conversation.send(b"AUTH PLAIN " + secret + b"\r\n")
            code, text = await reply(conversation)
            if code != 235:
                return text
        return ""

    async def _hello(self, conversation: Conversation) -> None:
        conversation.send(f"EHLO {self._name}\r\n".encode())
        code, text = await reply(conversation)
        if code != 250:
            raise Gone(text)
        self._extensions = {line.split()[0].upper() for line in text.split("\n")[1:] if line}

    async def _transaction(self, conversation: Conversation, message: Message) -> None:
        body = b" BODY=8BITMIME" if "8BITMIME" in self._extensions else b""
        commands = [b"MAIL FROM:<%b>%b\r\n" % (message.sender.encode(), body)]
        commands += [b"RCPT TO:<%b>\r\n" % recipient.encode() for recipient in message.recipients]
        commands.append(b"DATA\r\n")
        if self._manner.pipelining and "PIPELINING" in self._extensions:
            conversation.send(b"".join(commands))
            answers = [await reply(conversation) for _ in commands]
        else:
            answers = []
            for command in commands:
                conversation.send(command)
                answers.append(await reply(conversation))
                if answers[0][0] != 250:
                    break
                if len(answers) == len(commands) - 1 and not any(code == 250 for code, _ in answers[1:]):
                    break
        rcpts = answers[1 : len(message.recipients) + 1]
        taken = tuple(to for to, (code, _) in zip(message.recipients, rcpts, strict=False) if code == 250)
        if len(answers) < len(commands) or answers[-1][0] != 354:
            refusals = [answers[-1]] if taken else rcpts if answers[0][0] == 250 else answers[:1]
            message.told.append(Told.REFUSED if all(code >= 500 for code, _ in refusals) else Told.LATER)
            message.answers.append(refusals[0][1])
            conversation.send(b"RSET\r\n")
            await reply(conversation)
            return
        assert taken, f"DATA was answered with 354 though no recipient was taken: {answers}"
        conversation.send(dot_stuffed(message.content))
        try:
            code, text = await reply(conversation)
        except Gone as error:
            message.told.append(Told.UNKNOWN)
            message.doubtful.append(taken)
            message.answers.append(str(error))
            return
        message.answers.append(text)
        if code == 250:
            message.told.append(Told.ACCEPTED)
            message.accepted.append(taken)
            message.accepted_at.append(self._reactor.seconds())
        else:
            message.told.append(Told.REFUSED if code >= 500 else Told.LATER)


def _none_sent(messages: Sequence[Message], answer: str) -> None:
    for message in messages:
        message.told.append(Told.LATER)
        message.answers.append(answer)


async def reply(conversation: Conversation) -> tuple[int, str]:
    """An SMTP reply (RFC 5321 4.2): its code, and its lines joined by line feeds."""
    lines = []
    while True:
        line = await conversation.line()
        assert re.fullmatch(rb"[2-5][0-9][0-9][ -][ -~]*\r\n|[2-5][0-9][0-9]\r\n", line), f"not a reply: {line!r}"
        assert len(line) <= 512, f"a reply of more than 512 octets: {line!r}"
        lines.append(line)
        assert line[:3] == lines[0][:3], f"codes differ within a reply: {lines}"
        if line[3:4] != b"-":
            break
    return int(lines[0][:3]), "\n".join(line[4:].decode().strip() for line in lines)


class Pop3Client:
    """One POP3 session (RFC 1939) that fetches everything."""

    def __init__(self, reactor: SimulatedReactor, host: str, port: int, manner: Manner) -> None:
        assert manner.login is not None
        self._reactor = reactor
        self._place = (host, port)
        self._manner = manner
        self._login = manner.login
        self.complaints: list[str] = []

    async def fetch(self, delete: Sequence[str] = ()) -> dict[str, bytes]:
        """Unique-id and content of each message.  Those named in ``delete`` are deleted; ``Gone``."""
        conversation = await connect(self._reactor, *self._place, self._manner)
        try:
            return await self._session(conversation, delete)
        finally:
            conversation.close()

    async def _session(self, conversation: Conversation, delete: Sequence[str]) -> dict[str, bytes]:
        await self._ok(conversation)
        if self._manner.context is not None and not self._manner.implicit_tls:
            await self._command(conversation, "STLS")
            conversation.start_tls(self._manner.context)
        await self._command(conversation, f"USER {self._login.username}")
        await self._command(conversation, f"PASS {self._login.password}")
        count, octets = (int(part) for part in (await self._command(conversation, "STAT")).split()[1:3])
        sizes = await self._listing(conversation, "LIST")
        names = await self._listing(conversation, "UIDL")
        self._hold(len(sizes) == len(names) == count, f"STAT, LIST and UIDL differ: {count} {sizes} {names}")
        self._hold(len(set(names.values())) == count, f"unique-ids repeat: {names}")
        self._hold(sum(int(size) for size in sizes.values()) == octets, f"STAT says {octets}, LIST {sizes}")
        fetched = {}
        for number, name in names.items():
            await self._command(conversation, f"RETR {number}")
            data = await conversation.until(b"\r\n.\r\n")
            content = dot_unstuffed(data)
            self._hold(len(content) == int(sizes[number]), f"LIST says {sizes[number]}, RETR gave {len(content)}")
            fetched[name] = content
            if name in delete:
                await self._command(conversation, f"DELE {number}")
        await self._command(conversation, "QUIT")
        return fetched

    async def _listing(self, conversation: Conversation, command: str) -> dict[str, str]:
        await self._command(conversation, command)
        listing = {}
        while (line := await conversation.line()) != b".\r\n":
            number, value = line.decode().split()
            listing[number] = value
        return listing

    async def _command(self, conversation: Conversation, command: str) -> str:
        conversation.send(f"{command}\r\n".encode())
        return await self._ok(conversation)

    async def _ok(self, conversation: Conversation) -> str:
        line = (await conversation.line()).decode()
        if not line.startswith("+OK"):
            raise Gone(line)
        return line

    def _hold(self, holds: bool, complaint: str) -> None:
        if not holds:
            self.complaints.append(complaint)
