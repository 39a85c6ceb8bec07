"""The states of a POP3 session and every legal way between them: the one table (RFC 1939 3 to 6, 2595 4, 5034 4, 6856).

Words in capitals are commands; a command that is not in the row of the present state is refused there.  The others are
what happens: "keys" answers LOOKING_UP, "logged in" and "failed" answer CHECKING, "sent" ends a message, "listed" a
long listing.  A refused command leaves the state as it is, except where "failed" says otherwise.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping


class State(enum.Enum):
    __hash__ = object.__hash__  # that of Enum is Python, and every command looks into the table

    GREETING = "greeting"  # connected, the greeting is awaited
    AUTHORIZATION = "authorization"
    NAMED = "named"  # AUTHORIZATION, and USER has been said
    EXCHANGE = "exchange"  # within AUTH: lines are responses of the mechanism
    LOOKING_UP = "looking up"  # within AUTH: the keys of a user are
    CHECKING = "checking"  # a password is being verified and the mailbox opened
    SECURING = "securing"  # +OK to STLS was given, TLS is to begin
    TRANSACTION = "transaction"
    LISTING = "listing"  # in the answer to LIST or UIDL
    SENDING = "sending"  # in the answer to RETR or TOP
    UPDATE = "update"
    CLOSED = "closed"


_OPENING = {
    "CAPA": State.AUTHORIZATION,
    "LANG": State.AUTHORIZATION,
    "UTF8": State.AUTHORIZATION,
    "STLS": State.SECURING,
    "USER": State.NAMED,
    "AUTH": State.EXCHANGE,
    "QUIT": State.CLOSED,
}

TABLE: Mapping[State, Mapping[str, State]] = {
    State.GREETING: {"greeted": State.AUTHORIZATION, "refused": State.CLOSED},
    State.AUTHORIZATION: _OPENING,
    State.NAMED: {
        **_OPENING,
        "CAPA": State.NAMED,
        "LANG": State.NAMED,
        "UTF8": State.NAMED,
        "PASS": State.CHECKING,
    },
    State.EXCHANGE: {
        "credentials": State.CHECKING,
        "name": State.LOOKING_UP,
        "proof": State.CHECKING,
        "failed": State.AUTHORIZATION,
    },
    State.LOOKING_UP: {"keys": State.EXCHANGE, "failed": State.AUTHORIZATION},
    State.CHECKING: {"logged in": State.TRANSACTION, "failed": State.AUTHORIZATION},
    # RFC 2595 4: the client begins anew, nothing that was said in clear text is known any more.
    State.SECURING: {"secured": State.AUTHORIZATION},
    State.TRANSACTION: {
        "CAPA": State.TRANSACTION,
        "LANG": State.TRANSACTION,
        "STAT": State.TRANSACTION,
        "LIST": State.LISTING,
        "UIDL": State.LISTING,
        "RETR": State.SENDING,
        "TOP": State.SENDING,
        "DELE": State.TRANSACTION,
        "RSET": State.TRANSACTION,
        "NOOP": State.TRANSACTION,
        # RFC 1939 6: QUIT, and nothing else, leads to UPDATE.
        "QUIT": State.UPDATE,
    },
    State.LISTING: {"listed": State.TRANSACTION},
    State.SENDING: {"sent": State.TRANSACTION, "failed": State.TRANSACTION},
    State.UPDATE: {"updated": State.CLOSED},
    State.CLOSED: {},
}

# Lines are read in these states; in the others the client has to wait, however much it pipelines.
READING = frozenset({State.AUTHORIZATION, State.NAMED, State.EXCHANGE, State.TRANSACTION})
COMMANDS = frozenset(word for row in TABLE.values() for word in row if word.isupper())
