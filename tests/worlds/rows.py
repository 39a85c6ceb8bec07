"""Messages in a database of their own, as acceptance and delivery would have written them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from mailsrv.mail.address import Address
from mailsrv.mail.envelope import Envelope
from mailsrv.store import ledger, message, queue_id, schema
from mailsrv.store.ledger import Event
from mailsrv.store.message import Arrival, FinalRecipient, Hold, Settlement

START = 1_764_000_000.0  # seconds since 1970
ALICE = "alice@example.org"
BOB = "bob@example.net"
CAROL = "carol@example.net"


class Rows:
    """A database and short ways to fill it; addresses at example.org are own mailboxes."""

    def __init__(self, path: str = ":memory:") -> None:
        self.path = path
        self.connection = sqlite3.connect(path, isolation_level=None)
        schema.prepare(self.connection, path)
        self._ids = queue_id.QueueIds(0)

    def accept(
        self,
        to: Sequence[str] = (BOB,),
        *,
        sender: str = ALICE,
        at: float = START,
        message_id: str = "",
        account: str = "",
        client: str = "192.0.2.7",
        helo: str = "client.example.net",
        protocol: str = "ESMTP",
        original: str = "",
        content: bytes | None = b"Subject: hello\r\n\r\nbody\r\n",
        about: str = "",
        hold: Hold | None = None,
    ) -> int:
        """The id of the new message; ``content`` None: it is a file."""
        id = self._ids.next(at)
        recipients, names = [], []
        for n, text in enumerate(to):
            address = Address.parse(text)
            mailbox = address.key if address.domain == "example.org" else ""
            recipients.append(FinalRecipient(address, Address.parse(original) if original else address, mailbox))
            names.append(f"{int(at)}.{queue_id.text(id)}_{n}.mx,S=40,W=44" if mailbox else "")
        arrival = Arrival(
            id=id,
            envelope=Envelope(Address.parse(sender) if sender else None),
            recipients=tuple(recipients),
            prefix=b"Received: from client.example.net\r\n",
            message_id=message_id or f"{queue_id.text(id)}@example.org",
            account=account,
            client=client,
            helo=helo,
            protocol=protocol,
            size=len(content or b""),
            lines=(content or b"").count(b"\n"),
            about=about,
            hold=hold,
        )
        message.insert(self.connection, [message.Acceptance(at, arrival, names, content)])
        return id

    def settle(
        self, id: int, n: int, kind: str, *, at: float = START + 5, next_attempt: float = 0.0, **facts: str
    ) -> None:
        """Record an attempt: ``kind`` is a final state, or deferred; ``facts`` are fields of its event."""
        state = schema.QUEUED if kind == ledger.DEFERRED else kind
        address = self.connection.execute(
            "SELECT address FROM recipient WHERE message = ? AND n = ?", (id, n)
        ).fetchone()[0]
        event = Event(kind, id, n, address, **facts)
        message.settle(self.connection, at, id, [Settlement(n, state, event, 1, next_attempt)])

    def finish(self, id: int, *, at: float = START + 5) -> None:
        """Deliver to all recipients."""
        for (n,) in self.connection.execute("SELECT n FROM recipient WHERE message = ?", (id,)).fetchall():
            self.settle(id, n, ledger.DELIVERED, at=at, status="2.0.0", reason="stored in the mailbox")

    def write(self, at: float, *events: Event) -> None:
        ledger.write(self.connection, at, events)

    def value(self, query: str, *arguments: object) -> object:
        """The first column of the first row."""
        return self.connection.execute(query, arguments).fetchone()[0]


def plan(rows: Rows, function: object, *arguments: object) -> list[str]:
    """How SQLite goes about the statements of a function: the lines of its query plans."""
    seen: list[str] = []
    rows.connection.set_trace_callback(seen.append)
    function(rows.connection, *arguments)  # type: ignore[operator]
    rows.connection.set_trace_callback(None)
    return [
        line
        for statement in seen
        if statement.startswith(("SELECT", "UPDATE", "WITH", "DELETE"))
        for *_, line in rows.connection.execute(f"EXPLAIN QUERY PLAN {statement}")
    ]
