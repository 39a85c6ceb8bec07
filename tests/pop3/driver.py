"""Drives the POP3 core without a shell: one account, two messages, everything answered at once."""

from __future__ import annotations

from dataclasses import dataclass, field

from mailsrv.pop3 import events, replies
from mailsrv.pop3.maildrop import Maildrop
from mailsrv.pop3.server import ServerConnection, Service
from tests.worlds.scram import EXAMPLE_FIRST

LOOPBACK = Service("mx.example.org", cleartext=True)
PLAIN = Service("mx.example.org", stls=True)
CREDENTIALS = ("alice@example.org", "secret word ")
CONTENTS = (b"Subject: one\r\n\r\n.first\r\n..\r\n", b"Subject: two\r\n\r\nsecond\r\nline\r\n")


class Stored:
    """The messages of the account."""

    def __len__(self) -> int:
        return len(CONTENTS)

    def size(self, index: int) -> int:
        return len(CONTENTS[index])

    def some_sizes(self, start: int, stop: int) -> list[int]:
        return [len(content) for content in CONTENTS[start:stop]]

    def unique_ids(self, start: int, stop: int) -> list[bytes]:
        return [b"uid-%d" % (index + 1) for index in range(start, stop)]


@dataclass
class Record:
    """What came out of a connection."""

    output: bytes = b""
    events: list[events.Event] = field(default_factory=list)
    removed: tuple[int, ...] | None = None

    @property
    def lines(self) -> list[str]:
        assert not self.output or self.output.endswith(b"\r\n")
        return self.output.decode().split("\r\n")[:-1]


def settle(connection: ServerConnection, record: Record) -> None:
    """Answer until more input is needed."""
    while True:
        event = connection.next_event()
        full = connection.full
        record.output += connection.take_output()
        if event is None and not full:
            return
        if event is not None:
            record.events.append(event)
            _answer(connection, record, event)


def _log_in(connection: ServerConnection, right: bool) -> None:
    if right:
        connection.log_in(Maildrop(Stored(), sum(map(len, CONTENTS))))
    else:
        connection.refuse(replies.BAD_LOGIN)


def _answer(connection: ServerConnection, record: Record, event: events.Event) -> None:
    match event:
        case events.Connected():
            connection.greet()
        case events.Login(_, username, password):
            _log_in(connection, (username, password) == CREDENTIALS)
        case events.Keys(_, username):
            if username == "later":
                connection.refuse(replies.LOGIN_BUSY)
            else:
                connection.give_keys(EXAMPLE_FIRST)
        case events.Proof(_, _, fault):
            _log_in(connection, not fault)
        case events.Retrieve(index, lines):
            content = CONTENTS[index]
            if lines is not None:
                content = content[: content.index(b"\r\n\r\n") + 4]
            connection.begin_message(len(content) if lines is None else None)
            connection.send(content)
            connection.end_message()
        case events.More():
            connection.list_more()
        case events.Update(indices):
            record.removed = indices
            connection.updated()
