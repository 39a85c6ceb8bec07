"""The pure core of the ESMTP, submission and LMTP server: octets in, events out; replies in, octets out.

No I/O, no clock, no policy.  ``ServerConnection`` is fed what a client sends, cut anywhere, and is asked for the next
event until there is none; what it wants to send is taken from it.  It promises:

- replies stand in the order of the commands, however they were pipelined (RFC 2920) and however late a reply is
  given: while an event waits for its reply nothing further is parsed;
- events and output depend on the octets and the replies, never on how the octets were cut;
- CRLF ends a command, CRLF.CRLF ends DATA, a counted number of octets ends BDAT, and nothing else does; what has been
  refused is read to its true end all the same, so content never becomes commands;
- octets in clear behind STARTTLS end the connection, and everything said before TLS is forgotten (RFC 3207 4.2);
- memory is bounded: a line costs its limit, content is handed on as it comes; ``hungry`` tells the shell when to stop
  reading.

What may follow what is decided by ``mailsrv.smtp.states`` alone, what is offered by ``Service``.
Implements RFC 5321, 1870, 2033, 2034, 2920, 3030, 3207, 3461, 4865, 4954, 6152, 6531, 9422 as far as the protocol goes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import assert_never

from mailsrv.sasl import exchange, mechanisms
from mailsrv.sasl.base64 import decode, encode
from mailsrv.sasl.scram import Scram, ServerFirst
from mailsrv.smtp import events, grammar, replies, states
from mailsrv.smtp.dialog import BUFFER_LIMIT, Answer
from mailsrv.smtp.grammar import CommandError
from mailsrv.smtp.receiving import Receiving
from mailsrv.smtp.replies import Reply
from mailsrv.smtp.service import Service
from mailsrv.smtp.states import State
from mailsrv.smtp.transaction import Transaction
from mailsrv.wire.lines import CONTROL, LineTooLong

__all__ = ["BUFFER_LIMIT", "ServerConnection", "Service"]


class ServerConnection(Receiving):
    """One connection of a client; ``mailsrv.smtp.dialog.Dialog`` says how to drive it.

    ``secure``: octets come through TLS (from the start on ports with implicit TLS); ``authenticated``: AUTH succeeded.
    ``exporter``: what that TLS has for channel bindings (RFC 9266), None when it has nothing; to be set, where AUTH is
    offered, once the handshake is done.
    """

    __slots__ = (
        "_commands",
        "_envelope",
        "_exchange",
        "_login_tried",
        "_mechanism",
        "authenticated",
        "exporter",
        "secure",
    )

    def __init__(self, service: Service, secure: bool = False) -> None:
        super().__init__(service)
        self.secure = secure
        self.exporter: bytes | None = None
        self.authenticated = False
        self._commands = _COMMANDS[service.kind]
        self._login_tried = False
        self._exchange: exchange.Exchange | None = None
        self._ask(events.Connected(), self._connected)

    def tls_started(self) -> None:
        """TLS is on, after ``TlsWanted``: everything said before is forgotten (RFC 3207 4.2)."""
        if self._state is State.CLOSED:
            return
        if self._state is not State.TLS:
            raise RuntimeError("TLS without STARTTLS")
        self.secure = True
        self.exporter = None
        self.authenticated = self._login_tried = False
        self._state = State.READY
        self._input.clear()
        self._advance = self._read_command

    # Commands.

    def _read_command(self) -> bool:
        try:
            line = self._input.next_line()
        except LineTooLong:
            self._refuse("", replies.LINE_TOO_LONG)
            return True
        if line is None:
            return False
        command = self._commands.get(line)
        if command is not None and self._state in command.row.leads_to:  # DATA, RSET, QUIT: nothing to parse
            command.run(self, b"")
            return True
        verb, _, argument = line.partition(b" ")
        command = self._commands.get(verb) or self._commands.get(verb.upper())
        # Before anything is parsed, so that no control character gets any further.
        control = CONTROL.search(line)
        if control or command is None or not (command.beyond_ascii or line.isascii()):
            self._refuse_line(line, control, command)
        elif len(line) > command.limit:
            self._refuse(command.name, replies.LINE_TOO_LONG)
        elif self._state in command.row.leads_to or command.name == "BDAT":
            command.run(self, argument.strip(b" "))
        else:
            self._refuse(command.name, self._out_of_order(command.row), argument)
        return True

    def _refuse_line(self, line: bytes, control: re.Match[bytes] | None, command: _Command | None) -> None:
        if _WEB.match(line):
            # Somebody's browser, sent here by a page whose author chose what follows.
            self._refuse("", replies.NO_WEB_SERVER)
            self._end("HTTP")
            return
        if control:
            answer = replies.BARE_LINE_END if control[0] in (b"\r", b"\n") else replies.CONTROL_CHARACTER
        else:
            answer = replies.UNRECOGNISED if command is None else replies.NOT_ASCII
        # A client that goes on with its password after AUTH was refused says it in place of a command.
        self._refuse("", answer, b"" if self._login_tried and not self.authenticated else line)

    def _connected(self, answer: Answer) -> None:
        if self._give(answer, self._service.greeting):
            self._state = State.READY
        elif not self.closed:
            self._state = State.BARRED

    def _hello(self, argument: bytes) -> None:
        self._say_hello(argument, "HELO", False)

    def _extended_hello(self, argument: bytes) -> None:
        self._say_hello(argument, "LHLO" if self._service.kind == "lmtp" else "EHLO", True)

    def _say_hello(self, argument: bytes, verb: str, extended: bool) -> None:
        try:
            name = grammar.hello(argument)
        except CommandError as error:
            self._refuse(verb, error.reply, argument)
            return
        self._ask(events.Hello(name, extended), self._extended if extended else self._not_extended)

    def _extended(self, answer: Answer) -> None:
        service = self._service
        if not self.secure:
            usual = service.hello_in_clear
        elif self.exporter is None:
            usual = service.hello_under_tls
        else:
            usual = service.hello_under_bound_tls
        self._greet(answer, usual)

    def _not_extended(self, answer: Answer) -> None:
        self._greet(answer, self._service.hello)

    def _greet(self, answer: Answer, usual: Reply) -> None:
        # RFC 5321 4.1.4: an accepted hello is a RSET too, a refused one changes nothing.
        if self._give(answer, usual):
            self._state = State.HELLO
            self._forget_transaction()

    def _mail(self, argument: bytes) -> None:
        service = self._service
        try:
            if service.auth_required and not self.authenticated:
                # RFC 4954 6, RFC 3207 4
                possible = service.auth_offered(self.secure)
                raise CommandError(replies.LOGIN_FIRST if possible else replies.STARTTLS_FIRST)
            mail = grammar.mail(argument, service.parameters)
            if service.size_limit and (mail.envelope.size or 0) > service.size_limit:
                raise CommandError(replies.TOO_BIG)  # RFC 1870 6.1
            if (mail.hold_for_s or 0) > service.hold_limit_s or (mail.hold_until or 0.0) > service.latest_hold:
                raise CommandError(replies.HOLD_TOO_LONG)
        except CommandError as error:
            self._refuse("MAIL", error.reply, argument)
            return
        self._envelope = mail.envelope
        self._ask(mail, self._mail_answered)

    def _mail_answered(self, answer: Answer) -> None:
        if self._give(answer, replies.SENDER_OK):
            service = self._service
            self._transaction = Transaction(self._envelope, service.size_limit, service.mend_lines)
            self._state = State.MAIL

    def _rcpt(self, argument: bytes) -> None:
        service = self._service
        transaction = self._under_way()
        try:
            if transaction.recipients >= service.recipients_limit:
                raise CommandError(replies.TOO_MANY_RECIPIENTS)  # RFC 5321 4.5.3.1.10
            recipient = grammar.rcpt(argument, service.parameters, transaction.smtputf8)
        except CommandError as error:
            transaction.refused += 1
            self._refuse("RCPT", error.reply, argument)
            return
        self._ask(events.Rcpt(recipient), self._rcpt_answered)

    def _rcpt_answered(self, answer: Answer) -> None:
        transaction = self._under_way()
        if self._give(answer, replies.RECIPIENT_OK):
            transaction.recipients += 1
            self._state = State.RCPT
        else:
            transaction.refused += 1

    def _rset(self, argument: bytes) -> None:
        if argument:
            self._refuse("RSET", replies.NO_ARGUMENT_ALLOWED, argument)
            return
        self._state = self._commands[b"RSET"].row.leads_to[self._state]
        self._output.append(replies.RESET.encode())
        self._forget_transaction()

    def _noop(self, argument: bytes) -> None:
        self._output.append(replies.NOOP.encode())

    def _help(self, argument: bytes) -> None:
        self._output.append(replies.HELP.encode())

    def _vrfy(self, argument: bytes) -> None:
        if argument:
            self._output.append(replies.CANNOT_VERIFY.encode())
        else:
            self._refuse("VRFY", replies.ARGUMENT_MISSING)

    def _expn(self, argument: bytes) -> None:
        self._refuse("EXPN", replies.NOT_OFFERED, argument)

    def _quit(self, argument: bytes) -> None:
        if argument:
            self._refuse("QUIT", replies.NO_ARGUMENT_ALLOWED, argument)
            return
        self._output.append(replies.GOODBYE.encode())
        self._end("QUIT")

    # STARTTLS (RFC 3207).

    def _starttls(self, argument: bytes) -> None:
        refusal = None
        if self.secure:
            refusal = replies.ALREADY_SECURE
        elif not self._service.starttls:
            refusal = replies.NOT_OFFERED
        elif argument:
            refusal = replies.NO_ARGUMENT_ALLOWED
        elif len(self._input):
            # Somebody in between put commands there, to be taken for the client's own under TLS.
            refusal = replies.BEHIND_STARTTLS
        if refusal:
            self._refuse("STARTTLS", refusal, argument)
            if refusal is replies.BEHIND_STARTTLS:
                self._end("data behind STARTTLS")
            return
        self._output.append(replies.START_TLS.encode())
        self._forget_transaction()
        self._state = State.TLS
        self._advance = self._wait_for_tls
        self._queue.append(events.TlsWanted())

    def _wait_for_tls(self) -> bool:
        return False

    # AUTH (RFC 4954).

    def _auth(self, argument: bytes) -> None:
        service = self._service
        self._login_tried = True
        mechanism = ""
        try:
            if not service.mechanisms:
                raise CommandError(replies.NOT_OFFERED)
            if self.authenticated:
                raise CommandError(replies.LOGIN_AGAIN)
            if not service.auth_offered(self.secure):
                raise CommandError(replies.LOGIN_NEEDS_TLS)
            mechanism, initial = grammar.auth(argument)
            if mechanism not in mechanisms.usable(service.mechanisms, self.exporter is not None):
                raise CommandError(replies.UNKNOWN_MECHANISM)
        except CommandError as error:
            self._refuse("AUTH", error.reply, mechanism.encode())
            return
        self._mechanism = mechanism
        self._exchange = mechanisms.exchange(mechanism, initial, self.exporter)
        self._state = State.AUTH
        self._advance = self._read_response
        self._step(None)

    def _read_response(self) -> bool:
        try:
            line = self._input.next_line()
            if line is None:
                return False
            if line == b"*":
                raise CommandError(replies.LOGIN_CANCELLED)
            response = decode(line)
        except LineTooLong:
            self._login_refused(replies.LOGIN_LINE_TOO_LONG)
        except ValueError:
            self._login_refused(replies.BAD_BASE64)
        except CommandError as error:
            self._login_refused(error.reply)
        else:
            self._step(response)
        return True

    def _step(self, response: bytes | None) -> None:
        if self._exchange is None:
            raise RuntimeError("no exchange under way")
        match self._exchange.step(response):
            case exchange.Challenge(data):
                self._challenge(data)
            case exchange.Credentials(username, password):
                self._ask(events.Login(self._mechanism, username, password), self._login_answered)
            case exchange.NeedKeys(username):
                self._ask(events.Keys(self._mechanism, username), self._keys_answered)
            case exchange.Proof(username, fault):
                self._ask(events.Proof(self._mechanism, username, fault), self._login_answered)
            case exchange.Refused(reason):
                self._login_refused(replies.LOGIN_FAILED, reason)
            case other:
                assert_never(other)

    def _challenge(self, data: bytes) -> None:
        self._output.append(b"334 " + encode(data) + b"\r\n")

    def _keys_answered(self, answer: Answer) -> None:
        if isinstance(answer, ServerFirst) and isinstance(self._exchange, Scram):
            self._challenge(self._exchange.keys(answer).data)
        elif isinstance(answer, Reply) and not answer.positive:
            self._login_answered(answer)
        else:
            raise TypeError("keys are wanted, or a refusal")

    def _login_refused(self, answer: Reply, reason: str = "") -> None:
        self._leave_exchange()
        self._refuse("AUTH", answer, f"{self._mechanism} {reason}".strip().encode())

    def _login_answered(self, answer: Answer) -> None:
        self._leave_exchange()
        self.authenticated = self._give(answer, replies.LOGGED_IN)

    def _leave_exchange(self) -> None:
        self._exchange = None
        self._state = State.HELLO
        self._advance = self._read_command


_WEB = re.compile(rb"(?:GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH) ")


@dataclass(frozen=True, slots=True)
class _Command:
    """How one verb is read: its row of the table, the longest line, whether octets above 127 may be in it."""

    name: str
    row: states.Row
    run: Callable[[ServerConnection, bytes], None]
    limit: int = grammar.COMMAND_LIMIT
    beyond_ascii: bool = False


_METHODS: dict[str, Callable[[ServerConnection, bytes], None]] = {
    "HELO": ServerConnection._hello,
    "EHLO": ServerConnection._extended_hello,
    "LHLO": ServerConnection._extended_hello,
    "MAIL": ServerConnection._mail,
    "RCPT": ServerConnection._rcpt,
    "DATA": ServerConnection._data,
    "BDAT": ServerConnection._bdat,
    "RSET": ServerConnection._rset,
    "NOOP": ServerConnection._noop,
    "HELP": ServerConnection._help,
    "VRFY": ServerConnection._vrfy,
    "EXPN": ServerConnection._expn,
    "QUIT": ServerConnection._quit,
    "STARTTLS": ServerConnection._starttls,
    "AUTH": ServerConnection._auth,
}
_LIMITS = {"MAIL": grammar.MAIL_LIMIT, "RCPT": grammar.RCPT_LIMIT, "AUTH": grammar.AUTH_LIMIT}
_BEYOND_ASCII = {"MAIL", "RCPT", "VRFY", "EXPN"}  # RFC 6531 3.3, 3.7.4


def _commands(table: Mapping[str, states.Row]) -> dict[bytes, _Command]:
    return {
        verb.encode(): _Command(
            verb, row, _METHODS[verb], _LIMITS.get(verb, grammar.COMMAND_LIMIT), verb in _BEYOND_ASCII
        )
        for verb, row in table.items()
    }


_COMMANDS = {"smtp": _commands(states.SMTP), "submission": _commands(states.SMTP), "lmtp": _commands(states.LMTP)}
