"""The one table of what may follow what in an SMTP or LMTP dialog (RFC 5321 4.1.4, 2033, 3030, 3207, 4954).

A row per verb: the states in which it may be given, and the state that a positive reply leads to.  A verb in a state
that is not in its row is answered by the row's refusal for that state.  The server and the documentation's diagram
both read this table; nothing else decides about order.

A connection is not a transaction: GREETING to HELLO and AUTH and TLS are about the connection; MAIL, RCPT, CHUNKS and
DATA are the stages of one transaction, and each of them goes back to HELLO.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from mailsrv.smtp import replies
from mailsrv.smtp.replies import Reply


class State(StrEnum):
    GREETING = "greeting"  # the client is there, nothing was said yet
    BARRED = "barred"  # the greeting was a refusal: only QUIT is served (RFC 5321 3.1)
    READY = "ready"  # greeted, or TLS has just begun; no hello yet
    HELLO = "hello"  # between transactions
    MAIL = "mail"  # a sender, no accepted recipient
    RCPT = "rcpt"  # at least one accepted recipient
    CHUNKS = "chunks"  # between two BDAT of one message
    DATA = "data"  # content, not commands, until its end
    AUTH = "auth"  # answers to challenges, not commands
    TLS = "tls"  # the handshake, not commands
    CLOSED = "closed"


# States in which a transaction is under way.
IN_TRANSACTION = frozenset({State.MAIL, State.RCPT, State.CHUNKS, State.DATA})
# States in which content is on its way; between two chunks, the commands that announce them too.
CONTENT = frozenset({State.DATA, State.CHUNKS})
# States in which the octets that come are commands.
LISTENING = (State.READY, State.BARRED, State.HELLO, State.MAIL, State.RCPT, State.CHUNKS)

_SERVED = (State.READY, State.HELLO, State.MAIL, State.RCPT, State.CHUNKS)


@dataclass(frozen=True, slots=True)
class Row:
    """``leads_to`` maps each state that allows the verb to the state after a positive reply."""

    leads_to: Mapping[State, State]
    refusals: Mapping[State, Reply]

    def refusal(self, state: State) -> Reply:
        """The reply to the verb in a state that does not allow it."""
        if state is State.BARRED:
            return replies.GREETING_REFUSED
        return self.refusals.get(state, replies.OUT_OF_ORDER)


def _stays(*states: State) -> dict[State, State]:
    return {state: state for state in states}


def _goes(to: State, *states: State) -> dict[State, State]:
    return dict.fromkeys(states, to)


_NESTED = {
    State.READY: replies.HELLO_FIRST,
    State.MAIL: replies.NESTED_MAIL,
    State.RCPT: replies.NESTED_MAIL,
    State.CHUNKS: replies.CHUNKS_BEGUN,
}

# RFC 5321 4.1.4: hello at any time, and it ends a transaction.
_HELLO = Row(_goes(State.HELLO, *_SERVED), {})
_ANY_TIME = Row(_stays(*_SERVED), {})

_COMMON: dict[str, Row] = {
    "MAIL": Row(_goes(State.MAIL, State.HELLO), _NESTED),
    "RCPT": Row(
        _goes(State.RCPT, State.MAIL, State.RCPT),
        {State.READY: replies.HELLO_FIRST, State.HELLO: replies.MAIL_FIRST, State.CHUNKS: replies.CHUNKS_BEGUN},
    ),
    # RFC 3030 2: DATA and BDAT are not mixed in a transaction.  After the end of DATA and after BDAT LAST: HELLO.
    "DATA": Row(
        _goes(State.DATA, State.RCPT),
        {
            State.READY: replies.HELLO_FIRST,
            State.HELLO: replies.MAIL_FIRST,
            State.MAIL: replies.RCPT_FIRST,
            State.CHUNKS: replies.CHUNKS_BEGUN,
        },
    ),
    "BDAT": Row(
        _goes(State.CHUNKS, State.RCPT, State.CHUNKS),
        {State.READY: replies.HELLO_FIRST, State.HELLO: replies.MAIL_FIRST, State.MAIL: replies.RCPT_FIRST},
    ),
    "RSET": Row({State.READY: State.READY} | _goes(State.HELLO, *_SERVED[1:]), {}),
    "NOOP": _ANY_TIME,
    "HELP": _ANY_TIME,
    "VRFY": _ANY_TIME,
    "EXPN": _ANY_TIME,
    "QUIT": Row(_goes(State.CLOSED, State.BARRED, *_SERVED), {}),
    # RFC 3207 4; a transaction under way is forgotten (4.2).  Not before a hello, for the client cannot know of it.
    "STARTTLS": Row(
        _goes(State.TLS, State.HELLO, State.MAIL, State.RCPT),
        {State.READY: replies.HELLO_FIRST, State.CHUNKS: replies.CHUNKS_BEGUN},
    ),
    # RFC 4954 4: not in a transaction.  After the exchange: HELLO.
    "AUTH": Row(_goes(State.AUTH, State.HELLO), _NESTED),
}

SMTP: Mapping[str, Row] = {"HELO": _HELLO, "EHLO": _HELLO} | _COMMON
# RFC 2033 4.1: LHLO in place of HELO and EHLO, which are not known.
LMTP: Mapping[str, Row] = {"LHLO": _HELLO} | _COMMON
