"""The table of transitions, and the server that obeys it: every verb in every state."""

from __future__ import annotations

import pytest

from mailsrv.smtp import events, states
from mailsrv.smtp.replies import reply
from mailsrv.smtp.server import ServerConnection, Service
from mailsrv.smtp.states import State
from tests.smtp.driver import LMTP, SMTP, Record, lines, settle

MAIL, RCPT = "MAIL FROM:<alice@example.net>", "RCPT TO:<bob@example.org>"
WAYS = {
    State.READY: b"",
    State.HELLO: lines("{hello} a.example"),
    State.MAIL: lines("{hello} a.example", MAIL),
    State.RCPT: lines("{hello} a.example", MAIL, RCPT),
    State.CHUNKS: lines("{hello} a.example", MAIL, RCPT, "BDAT 2", ""),
}
COMMANDS = {
    "HELO": "HELO a.example",
    "EHLO": "EHLO a.example",
    "LHLO": "LHLO a.example",
    "MAIL": MAIL,
    "RCPT": RCPT,
    "BDAT": "BDAT 2\r\n",
    "VRFY": "VRFY alice",
    "AUTH": "AUTH PLAIN",
    "EXPN": "EXPN staff",
}
OPEN = Service("mx.example.org", extensions=SMTP.extensions, starttls=True, mechanisms=("PLAIN",), auth_in_clear=True)


def at(state: State, service: Service) -> ServerConnection:
    connection, record = ServerConnection(service), Record()
    if state is State.BARRED:
        assert connection.next_event() == events.Connected()
        connection.reply(reply(554, "5.7.1", "Go away"))
        connection.take_output()
    else:
        hello = b"LHLO" if service.kind == "lmtp" else b"EHLO"
        connection.receive(WAYS[state].replace(b"{hello}", hello))
        settle(connection, record)
    assert connection.state is state
    return connection


@pytest.mark.parametrize("state", states.LISTENING)
@pytest.mark.parametrize("service", [OPEN, LMTP], ids=lambda service: service.kind)
@pytest.mark.parametrize("verb", sorted(set(states.SMTP) | set(states.LMTP)))
def test_every_verb_in_every_state(verb: str, service: Service, state: State) -> None:
    connection, record = at(state, service), Record()
    connection.receive(lines(COMMANDS.get(verb, verb)))
    settle(connection, record)
    row = service.table.get(verb)
    refused = record.of(events.Refused)
    if row is None:
        assert record.lines == ["500 5.5.1 Command not recognised"]
    elif state not in row.leads_to:
        assert record.lines == [str(row.refusal(state))]
        assert row.refusal(state).code == 503
        assert [type(event) for event in record.events] == [events.Refused]
        assert connection.state is state
    elif verb == "EXPN" or (service is LMTP and verb in ("AUTH", "STARTTLS")):
        assert record.lines == ["502 5.5.1 Command not offered here"]
        assert connection.state is state
    else:
        assert refused == []
        assert record.codes[-1] < 400
        assert connection.state is row.leads_to[state]
    # A transaction is forgotten exactly when its states are left in another way than by its content.
    left = state in states.IN_TRANSACTION and connection.state not in states.IN_TRANSACTION
    assert (events.Reset() in record.events) == left


@pytest.mark.parametrize("table", [states.SMTP, states.LMTP])
def test_the_table_is_sound(table: dict[str, states.Row]) -> None:
    reached = {State.READY}
    while True:
        more = {to for row in table.values() for state, to in row.leads_to.items() if state in reached}
        if more <= reached:
            break
        reached |= more
    assert reached == set(State) - {State.GREETING, State.BARRED}
    for row in table.values():
        assert row.leads_to
        for state in states.LISTENING:
            assert state in row.leads_to or row.refusal(state).code == 503
    assert all(State.CLOSED not in row.leads_to for row in table.values())
    assert [verb for verb, row in table.items() if State.BARRED in row.leads_to] == ["QUIT"]
