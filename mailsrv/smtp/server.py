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
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mailsrv.mail.envelope import Envelope
from mailsrv.sasl import mechanisms
from mailsrv.sasl.base64 import decode, encode
from mailsrv.smtp import events, grammar, replies, states
from mailsrv.smtp.events import Event
from mailsrv.smtp.grammar import CommandError
from mailsrv.smtp.replies import Reply
from mailsrv.smtp.service import Service
from mailsrv.smtp.states import State
from mailsrv.wire.dots import LineCheck, Unstuffer
from mailsrv.wire.lines import CONTROL, LineBuffer, LineTooLong

__all__ = ["BUFFER_LIMIT", "ServerConnection", "Service"]

BUFFER_LIMIT = 65_536  # octets waiting to be parsed beyond which the shell should not read more
# None for what is usual; several for LMTP's end of data.
Answer: TypeAlias = Reply | Sequence[Reply] | None

_NOT_PRINTABLE = re.compile(rb"[^\x20-\x7e]")


class _Transaction:
    """One mail transaction, from an accepted MAIL to the end of its content."""

    __slots__ = ("check", "limit", "recipients", "refused", "smtputf8", "spoiled", "too_big")

    def __init__(self, envelope: Envelope, size_limit: int) -> None:
        self.smtputf8 = envelope.smtputf8
        self.limit = size_limit
        self.recipients = 0  # accepted
        self.refused = 0  # recipients refused by the session
        self.check = LineCheck()
        self.too_big = False
        self.spoiled = False  # nothing more is handed on

    def take(self, content: bytes) -> bool:
        """Count and examine a piece of content; False when it is not worth handing on."""
        check = self.check
        check.feed(content)
        if check.flawed or (self.limit and check.size > self.limit):
            self.spoiled = True
        return not self.spoiled

    def expect(self, octets: int) -> None:
        """BDAT announces ``octets`` more: when they are too many, none of them is handed on."""
        if self.limit and self.check.size + octets > self.limit:
            self.too_big = self.spoiled = True

    def problem(self) -> Reply | None:
        """Why the content cannot be taken.  In a fixed order, so that cutting it otherwise gives the same answer."""
        if self.too_big or (self.limit and self.check.size > self.limit):
            return replies.TOO_BIG
        if not self.check.flawed:
            return None
        if self.check.nul:
            return replies.NUL_IN_CONTENT
        if self.check.bare_lf:
            return replies.BARE_LF_IN_CONTENT
        return replies.BARE_CR_IN_CONTENT


class ServerConnection:
    """One connection: feed ``receive``, loop over ``next_event`` until None, answer by ``reply``, send ``take_output``.

    ``secure``: octets come through TLS (from the start on ports with implicit TLS); ``authenticated``: AUTH succeeded.
    """

    __slots__ = (
        "_advance",
        "_commands",
        "_decoder",
        "_ended",
        "_envelope",
        "_errors",
        "_exchange",
        "_input",
        "_last_chunk",
        "_left",
        "_login_tried",
        "_mechanism",
        "_output",
        "_problem",
        "_question",
        "_queue",
        "_service",
        "_state",
        "_swallowed",
        "_transaction",
        "_wanted",
        "authenticated",
        "secure",
    )

    def __init__(self, service: Service, secure: bool = False) -> None:
        self._service = service
        self._commands = _COMMANDS[service.kind]
        self.secure = secure
        self.authenticated = False
        self._state = State.GREETING
        self._input = LineBuffer(grammar.AUTH_LIMIT)
        self._ended = False  # the client sends no more
        self._output: list[bytes] = []
        self._queue: deque[Event] = deque()
        # Who takes the reply to the event that was asked last; None when nothing was.
        self._question: Callable[[Answer], None] | None = None
        # Reads one thing from the input; False when that needs more of it.
        self._advance: Callable[[], bool] = self._read_command
        self._errors = 0
        self._login_tried = False
        self._exchange: mechanisms.Exchange | None = None
        self._transaction: _Transaction | None = None
        self._ask(events.Connected(), self._connected)

    # What the shell sees.

    def receive(self, data: bytes) -> None:
        """Octets from the client, cut anywhere.  Ignored after the end."""
        if self._state is State.TLS and data:
            self._end("data behind STARTTLS")
        if self._state is not State.CLOSED and not self._ended:
            self._input.feed(data)

    def receive_eof(self) -> None:
        """The client sends no more: what was received is still answered, then comes ``Closed``."""
        self._ended = True

    def next_event(self) -> Event | None:
        """The next event; None when input or a reply is needed first, and after ``Closed``."""
        queue = self._queue
        while not queue:
            if self._question is not None or self._state is State.CLOSED:
                return None
            if not self._advance() and not queue:
                if not self._ended:
                    return None
                self._end("the client closed the connection")
        return queue.popleft()

    @property
    def paused(self) -> bool:
        """True while the event that came last waits for ``reply``."""
        return self._question is not None and not self._queue

    @property
    def closed(self) -> bool:
        """True once nothing more is read; ``Closed`` has been or will be the last event."""
        return self._state is State.CLOSED

    @property
    def state(self) -> State:
        """Where the dialog stands, for time-outs and the log."""
        return self._state

    @property
    def buffered(self) -> int:
        """Octets received and not yet parsed."""
        return len(self._input)

    @property
    def hungry(self) -> bool:
        """False when the shell should not read for now: more than BUFFER_LIMIT octets wait, or the end has come."""
        return not self._ended and self._state is not State.CLOSED and len(self._input) <= BUFFER_LIMIT

    def reply(self, answer: Answer = None) -> None:
        """Answer the event that came last; None is the usual positive answer (or ``DataEnd.problem``).

        For LMTP's ``DataEnd``: one reply for all recipients, or one for each accepted recipient in order (RFC 2033
        4.2).  A reply with code 421 ends the connection.  Ignored when the connection has ended meanwhile;
        RuntimeError when nothing was asked.
        """
        if self._state is State.CLOSED:
            return
        take = self._question
        if take is None or self._queue:
            raise RuntimeError("a reply to nothing")
        self._question = None
        if isinstance(answer, Reply) and answer.code == 421:
            self._output.append(answer.encode())
            self._end(answer.text)
        else:
            take(answer)

    def take_output(self) -> bytes:
        """Everything to be sent since the last call, in order."""
        output = b"".join(self._output)
        self._output.clear()
        return output

    def tls_started(self) -> None:
        """TLS is on, after ``TlsWanted``: everything said before is forgotten (RFC 3207 4.2)."""
        if self._state is State.CLOSED:
            return
        if self._state is not State.TLS:
            raise RuntimeError("TLS without STARTTLS")
        self.secure = True
        self.authenticated = self._login_tried = False
        self._state = State.READY
        self._input.clear()
        self._advance = self._read_command

    def close(self, answer: Reply | None, reason: str) -> None:
        """End now, whatever is under way: ``answer`` is a 421 to be sent, None when the client is gone already.

        ``Reset``, if a transaction was under way, and ``Closed`` come out next; a reply given later is ignored.
        """
        if self._state is not State.CLOSED:
            if answer is not None:
                self._output.append(answer.encode())
            self._end(reason)

    # Asking, refusing, ending.

    def _ask(self, event: events.Question, then: Callable[[Answer], None]) -> None:
        self._queue.append(event)
        self._question = then

    def _give(self, answer: Answer, usual: Reply) -> bool:
        """Write the reply of the session; True when it is positive."""
        if answer is None:
            answer = usual
        if not isinstance(answer, Reply):
            raise TypeError("only the end of LMTP's data takes several replies")
        self._output.append(answer.encode())
        self._count(answer)
        return answer.code < 400

    def _refuse(self, command: str, answer: Reply, argument: bytes = b"") -> None:
        """The core's own refusal: written and told."""
        self._output.append(answer.encode())
        self._queue.append(events.Refused(command, answer, _cleaned(argument)))
        self._count(answer)

    def _count(self, answer: Reply) -> None:
        """Too many errors end the connection.  What is refused for now (4xx) is no error of the client."""
        if answer.code >= 500:
            self._errors += 1
            if self._errors >= self._service.max_errors:
                self._output.append(replies.TOO_MANY_ERRORS.encode())
                self._end("too many errors")

    def _forget_transaction(self) -> None:
        if self._transaction is not None:
            self._transaction = None
            self._queue.append(events.Reset())

    def _end(self, reason: str) -> None:
        if self._state is State.CLOSED:
            return
        self._state = State.CLOSED
        self._question = None
        self._input.clear()
        self._forget_transaction()
        self._queue.append(events.Closed(reason))

    def _move(self, state: State) -> None:
        """To ``state``, unless too many errors have just ended everything."""
        if self._state is not State.CLOSED:
            self._state = state

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
        if control:
            answer = replies.BARE_LINE_END if control[0] in (b"\r", b"\n") else replies.CONTROL_CHARACTER
        else:
            answer = replies.UNRECOGNISED if command is None else replies.NOT_ASCII
        # A client that goes on with its password after AUTH was refused says it in place of a command.
        self._refuse("", answer, b"" if self._login_tried and not self.authenticated else line)

    def _out_of_order(self, row: states.Row) -> Reply:
        transaction = self._transaction
        refusal = row.refusal(self._state)
        if refusal is replies.RCPT_FIRST and transaction is not None and transaction.refused:
            return replies.NO_VALID_RECIPIENTS
        return refusal

    def _connected(self, answer: Answer) -> None:
        self._move(State.READY if self._give(answer, self._service.greeting) else State.BARRED)

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
        self._greet(answer, service.hello_under_tls if self.secure else service.hello_in_clear)

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
            self._transaction = _Transaction(self._envelope, self._service.size_limit)
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
            if mechanism not in service.mechanisms:
                raise CommandError(replies.UNKNOWN_MECHANISM)
        except CommandError as error:
            self._refuse("AUTH", error.reply, mechanism.encode())
            return
        self._mechanism = mechanism
        self._exchange = mechanisms.exchange(mechanism, initial)
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
        exchange = self._exchange
        if exchange is None:
            raise RuntimeError("no exchange under way")
        match exchange.step(response):
            case mechanisms.Challenge(data):
                self._output.append(b"334 " + encode(data) + b"\r\n")
            case mechanisms.Credentials(username, password):
                self._ask(events.Login(self._mechanism, username, password), self._login_answered)
            case mechanisms.Refused(reason):
                self._login_refused(replies.LOGIN_FAILED, reason)

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

    # Content by DATA (RFC 5321 4.1.1.4, 4.5.2).

    def _data(self, argument: bytes) -> None:
        if argument:
            self._refuse("DATA", replies.NO_ARGUMENT_ALLOWED, argument)
        else:
            self._ask(events.DataBegin(), self._data_begun)

    def _data_begun(self, answer: Answer) -> None:
        if self._give(answer, replies.SEND_CONTENT):
            self._state = State.DATA
            self._decoder = Unstuffer()
            self._advance = self._read_data

    def _read_data(self) -> bool:
        data, start = self._input.peek()
        if start == len(data):
            return False
        content, stop = self._decoder.feed(data, start)
        self._input.skip_to(len(data) if stop < 0 else stop)
        self._take(content)
        if stop >= 0:
            self._content_ended(self._under_way().recipients)
        return True

    def _take(self, content: bytes) -> None:
        if content and self._under_way().take(content):
            self._queue.append(events.Content(content))

    def _content_ended(self, recipients: int) -> None:
        transaction = self._under_way()
        check = transaction.check
        check.finish()
        # From here on there is no transaction that Reset could be about: the session has it.
        self._transaction = None
        self._state = State.HELLO
        self._advance = self._read_command
        self._problem = transaction.problem()
        self._wanted = recipients if self._service.kind == "lmtp" else 1
        self._ask(events.DataEnd(check.size, check.lines, self._problem), self._content_answered)

    def _content_answered(self, answer: Answer) -> None:
        if answer is None or self._problem is not None:
            answer = self._problem or replies.ACCEPTED
        answers = [answer] * self._wanted if isinstance(answer, Reply) else answer
        if len(answers) != self._wanted:
            raise ValueError(f"{self._wanted} replies wanted, {len(answers)} given")
        self._output.extend(each.encode() for each in answers)
        if any(each.positive for each in answers):
            self._errors = 0
        else:
            self._count(answers[0])

    # Content by BDAT (RFC 3030 2).

    def _bdat(self, argument: bytes) -> None:
        try:
            size, last = grammar.chunk(argument)
        except CommandError as error:
            # Where the chunk ends cannot be known, so nothing behind it can be read.
            self._refuse("BDAT", error.reply, argument)
            self._end("BDAT without a size")
            return
        self._left = size
        self._last_chunk = last
        row = self._commands[b"BDAT"].row
        if "CHUNKING" not in self._service.extensions:
            self._swallow(replies.NOT_OFFERED)
        elif self._state not in row.leads_to:
            self._swallow(self._out_of_order(row))
        elif self._state is State.RCPT:
            self._ask(events.DataBegin(), self._chunks_begun)
        else:
            self._begin_chunk()

    def _chunks_begun(self, answer: Answer) -> None:
        if answer is None or (isinstance(answer, Reply) and answer.positive):
            self._state = State.CHUNKS
            self._begin_chunk()
        elif isinstance(answer, Reply):
            self._state = State.HELLO
            self._forget_transaction()
            self._swallow(answer, told=True)
        else:
            raise TypeError("one reply is wanted")

    def _begin_chunk(self) -> None:
        self._under_way().expect(self._left)
        self._advance = self._read_chunk

    def _read_chunk(self) -> bool:
        if self._left:
            octets = self._input.take(self._left)
            if not octets:
                return False
            self._left -= len(octets)
            self._take(octets)
        if not self._left:
            self._chunk_ended()
        return True

    def _chunk_ended(self) -> None:
        transaction = self._under_way()
        self._advance = self._read_command
        if not self._last_chunk:
            if transaction.problem() is None:
                self._output.append(replies.CHUNK_OK.encode())
            else:
                self._content_ended(1)
            return
        transaction.check.finish()
        if not transaction.check.complete:
            # RFC 3030 4.2 leaves the last line end to whoever sends on by DATA; here it is added at once, for all.
            self._take(b"\r\n")
        self._content_ended(transaction.recipients)

    def _swallow(self, answer: Reply, told: bool = False) -> None:
        """Refuse a chunk with ``answer`` once all its octets are gone; ``told``: it is the session's own refusal."""
        self._swallowed = (answer, told)
        self._advance = self._read_swallowed

    def _read_swallowed(self) -> bool:
        if self._left:
            octets = self._input.take(self._left)
            if not octets:
                return False
            self._left -= len(octets)
        if not self._left:
            self._advance = self._read_command
            answer, told = self._swallowed
            if told:
                self._give(answer, answer)
            else:
                self._refuse("BDAT", answer)
        return True

    def _under_way(self) -> _Transaction:
        if self._transaction is None:
            raise RuntimeError("no transaction is under way")
        return self._transaction


def _cleaned(argument: bytes) -> str:
    return _NOT_PRINTABLE.sub(b"?", argument[:100]).decode("ascii")


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
