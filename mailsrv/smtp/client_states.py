"""The states of a client's connection and all that may happen in them: the one table that ``client.py`` obeys."""

from __future__ import annotations

import enum
from typing import Final


class State(enum.Enum):
    GREETING = "the server speaks first"
    UNWELCOME = "greeted with a refusal"
    GREETED = "greeted; a name has to be given"
    HELLO = "EHLO or HELO sent"
    READY = "between transactions"
    STARTTLS = "STARTTLS sent"
    HANDSHAKE = "TLS is being set up"
    LOGIN = "AUTH sent"
    ENVELOPE = "MAIL, RCPT and, without CHUNKING, DATA sent"
    FLIGHT = "MAIL, RCPT and BDAT with the whole content sent"
    CONTENT = "the server waits for content"
    FINISHING = "the end of the content sent"
    REFUSED = "between transactions, the last one not reset yet"
    QUITTING = "QUIT sent"
    ENDED = "over"

    __hash__ = object.__hash__  # an Enum's own is a function in Python, and each step asks for it


# What may happen: calls of ours, and what replies mean.  From every state the connection may also end.
TRANSITIONS: Final[dict[tuple[State, str], State]] = {
    (State.GREETING, "greeted"): State.GREETED,
    (State.GREETING, "turned away"): State.UNWELCOME,
    (State.GREETED, "say hello"): State.HELLO,
    (State.HELLO, "hello refused"): State.GREETED,
    (State.HELLO, "hello accepted"): State.READY,
    (State.READY, "start tls"): State.STARTTLS,
    (State.STARTTLS, "tls refused"): State.READY,
    (State.STARTTLS, "tls ready"): State.HANDSHAKE,
    (State.HANDSHAKE, "tls started"): State.GREETED,
    (State.READY, "log in"): State.LOGIN,
    (State.LOGIN, "login answered"): State.READY,
    (State.READY, "send"): State.ENVELOPE,
    (State.REFUSED, "send"): State.ENVELOPE,
    (State.READY, "send whole"): State.FLIGHT,
    (State.REFUSED, "send whole"): State.FLIGHT,
    (State.FLIGHT, "answered"): State.READY,
    (State.FLIGHT, "content refused"): State.REFUSED,
    (State.ENVELOPE, "envelope refused"): State.REFUSED,
    (State.ENVELOPE, "content wanted"): State.CONTENT,
    (State.ENVELOPE, "content wanted for nobody"): State.FINISHING,
    (State.CONTENT, "content ended"): State.FINISHING,
    (State.FINISHING, "answered"): State.READY,
    (State.FINISHING, "content refused"): State.REFUSED,
    (State.UNWELCOME, "quit"): State.QUITTING,
    (State.GREETED, "quit"): State.QUITTING,
    (State.READY, "quit"): State.QUITTING,
    (State.REFUSED, "quit"): State.QUITTING,
}
