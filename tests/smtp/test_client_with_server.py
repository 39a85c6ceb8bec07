"""Our client talks to our server, cores only, over a wire that cuts anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from mailsrv.mail.address import Address
from mailsrv.mail.envelope import Envelope, Recipient
from mailsrv.smtp import client_events, events, replies
from mailsrv.smtp.client import ClientConnection, State
from mailsrv.smtp.client_events import Transaction
from mailsrv.smtp.server import ServerConnection
from mailsrv.smtp.service import Service

REFUSED = replies.reply(550, "5.1.1", "No such mailbox here")
LATER = replies.reply(450, "4.2.0", "Later")


@dataclass
class Inbound:
    """A server that judges recipients by their names and keeps what it took."""

    core: ServerConnection
    envelope: Envelope | None = None
    recipients: list[Recipient] = field(default_factory=list)
    content: bytes = b""
    taken: list[tuple[Envelope | None, list[Recipient], bytes]] = field(default_factory=list)

    def run(self) -> None:
        while (event := self.core.next_event()) is not None:
            match event:
                case events.Mail():
                    self.envelope, self.recipients, self.content = event.envelope, [], b""
                    self.core.reply(LATER if str(event.envelope.sender).startswith("later") else None)
                case events.Rcpt():
                    verdict = {"no": REFUSED, "later": LATER}.get(event.recipient.address.local)
                    if verdict is None:
                        self.recipients.append(event.recipient)
                    self.core.reply(verdict)
                case events.Content():
                    self.content += event.chunk
                case events.DataEnd():
                    if event.problem is None:
                        self.taken.append((self.envelope, self.recipients, self.content))
                    self.core.reply(None)
                case events.Connected() | events.Hello() | events.DataBegin():
                    self.core.reply(None)


def pump(client: ClientConnection, server: Inbound, rng: Random) -> list[client_events.Event]:
    """Carry octets both ways in pieces until nothing moves; what the client learned."""
    found: list[client_events.Event] = []
    wires = [b"", b""]  # to the server, to the client
    while True:
        wires[0] += client.take_output()
        server.run()
        wires[1] += server.core.take_output()
        moving = [n for n in (0, 1) if wires[n]]
        if not moving:
            return found
        n = rng.choice(moving)
        size = rng.choice((1, 2, 7, 100, 10_000))
        piece, wires[n] = wires[n][:size], wires[n][size:]
        (server.core.receive if n == 0 else client.receive)(piece)
        while (event := client.next_event()) is not None:
            found.append(event)


line = st.one_of(st.sampled_from([b"", b".", b"..", b".x", b"x."]), st.binary(max_size=20))
contents = st.lists(line.map(lambda text: text.translate(None, b"\r\n\0")), max_size=6).map(
    lambda lines: b"".join(text + b"\r\n" for text in lines)
)
messages = st.tuples(
    st.sampled_from(["alice", "later", ""]),
    st.lists(st.sampled_from(["bob", "carol", "no", "later"]), min_size=1, max_size=5),
    contents,
)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["lockstep", "pipelined", "pieces", "one flight"]),
    st.lists(messages, min_size=1, max_size=3),
    st.integers(0, 2**32),
)
def test_both_sides_agree(way: str, mails: list[tuple[str, list[str], bytes]], seed: int) -> None:
    rng = Random(seed)
    offered = {"8BITMIME", "DSN"} | (set() if way == "lockstep" else {"PIPELINING", "CHUNKING"})
    extensions = frozenset(offered)
    server = Inbound(ServerConnection(Service("mx.example.net", extensions=extensions, max_errors=1000)))
    client = ClientConnection("mx.example.org")
    pump(client, server, rng)
    client.say_hello()
    pump(client, server, rng)
    assert client.state is State.READY
    expected = []
    for sender, locals_, content in mails:
        recipients = tuple(Recipient(Address(local, "example.net"), notify=("NEVER",)) for local in locals_)
        envelope = Envelope(Address(sender, "example.org") if sender else None)
        transaction = Transaction(envelope, recipients, len(content), True)
        if way == "one flight":
            client.send_whole(transaction, content)
        else:
            client.send(transaction, chunked=way == "pieces")
        found = pump(client, server, rng)
        accepted = [
            recipients[e.n] for e in found if isinstance(e, client_events.RecipientAnswered) and e.reply.positive
        ]
        if isinstance(found[-1], client_events.ContentWanted):
            for start in range(0, len(content), 5):
                client.send_content(content[start : start + 5])
            client.end_content()
            found = pump(client, server, rng)
        ended = found[-1]
        assert isinstance(ended, client_events.TransactionEnded)
        if ended.reply is not None and ended.reply.positive:
            expected.append((sender, [str(r.address) for r in accepted], content))
        else:
            assert sender == "later" or not accepted
    taken = [
        (e.sender.local if e and e.sender else "", [str(r.address) for r in recipients], content)
        for e, recipients, content in server.taken
    ]
    assert taken == expected
    client.quit()
    assert pump(client, server, rng) == [client_events.ConnectionEnded("goodbye")]
    assert server.core.closed
