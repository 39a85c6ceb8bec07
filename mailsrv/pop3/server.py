"""The POP3 server's core: octets in, events out; answers in, octets out (RFC 1939, 2449, 2595, 3206, 5034).

Pure: no I/O, no clock.  ``mailsrv.pop3.dialog`` says how a connection is driven.  Which command is legal when stands in
``states.TABLE`` and nowhere else.

Refused: overlong lines and control characters (-ERR), a line end that is a bare LF and anything sent in clear text
behind STLS (the connection ends), passwords where they may not be used, more than ``ERRORS_LIMIT`` refused commands or
``LOGINS_LIMIT`` failed logins.  APOP is not offered, as passwords are kept as one-way hashes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mailsrv.pop3 import events, replies
from mailsrv.pop3.dialog import Dialog
from mailsrv.pop3.grammar import (
    LINE_LIMIT,
    SyntaxProblem,
    parse_auth,
    parse_command,
    parse_number,
    parse_two_numbers,
)
from mailsrv.pop3.maildrop import Maildrop
from mailsrv.pop3.states import COMMANDS, TABLE, State
from mailsrv.sasl import base64, exchange, mechanisms
from mailsrv.sasl.scram import Scram, ServerFirst
from mailsrv.wire.dots import Stuffer, stuffed

ERRORS_LIMIT = 50
LOGINS_LIMIT = 5
LISTED = 2000  # lines of a listing that are made at a time

Listing = Callable[[int, int], list[bytes]]  # lines for the messages from one index up to and without another


class _Nothing:
    """The messages of a maildrop before the login."""

    def __len__(self) -> int:
        return 0

    def size(self, index: int) -> int:
        raise IndexError

    def some_sizes(self, start: int, stop: int) -> tuple[()]:
        return ()

    def unique_ids(self, start: int, stop: int) -> tuple[()]:
        return ()


_NO_MAILDROP = Maildrop(_Nothing(), 0)


@dataclass(frozen=True, slots=True)
class Service:
    """What is offered on a connection.  ``cleartext``: passwords may be used without TLS.

    Of ``mechanisms``, those with channel binding are offered only where there is a channel to bind to.
    """

    hostname: str
    stls: bool = False
    cleartext: bool = False
    mechanisms: tuple[str, ...] = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN")


class NoSuchMessage(Exception):
    """The number is none of the maildrop, or that of a deleted message."""


class ServerConnection(Dialog):
    """One connection; ``secure`` says that it is under TLS.

    ``exporter`` is what that TLS has for channel bindings (RFC 9266), None when it has nothing; to be set once the
    handshake is done.
    """

    __slots__ = (
        "_errors",
        "_exchange",
        "_failed_logins",
        "_listed",
        "_listing",
        "_maildrop",
        "_mechanism",
        "_service",
        "_stuffer",
        "_username",
        "exporter",
        "secure",
    )

    def __init__(self, service: Service, secure: bool = False) -> None:
        super().__init__()
        self.secure = secure
        self.exporter: bytes | None = None
        self._service = service
        self._errors = 0
        self._failed_logins = 0
        self._username = ""
        self._mechanism = ""
        self._exchange: exchange.Exchange | None = None
        self._maildrop = _NO_MAILDROP
        self._listing: Listing | None = None
        self._listed = 0  # how many messages the listing has come past
        self._stuffer = Stuffer()

    @property
    def logged_in(self) -> bool:
        return self._state in (State.TRANSACTION, State.LISTING, State.SENDING, State.UPDATE)

    # -- answers to events

    def greet(self) -> None:
        """Answer ``Connected``."""
        if self._happened("greeted"):
            self._write(replies.ok(f"{self._service.hostname} POP3 server ready"))

    def log_in(self, maildrop: Maildrop) -> None:
        """Answer ``Login``: this is the client's maildrop."""
        if self._happened("logged in"):
            self._maildrop = maildrop
            self._write(replies.ok(_messages(maildrop)))

    def give_keys(self, first: ServerFirst) -> None:
        """Answer ``Keys``."""
        if self._happened("keys"):
            assert isinstance(self._exchange, Scram)
            self._challenge(self._exchange.keys(first).data)

    def refuse(self, reply: bytes) -> None:
        """Answer any event with -ERR."""
        if self._state is State.GREETING:
            self.close(reply, "not admitted")
        elif self._state is State.UPDATE:
            self.close(reply, "quit, not all removed")
        elif self._state is State.CHECKING:
            self._happened("failed")
            self._username = ""
            self._write(reply)
            if reply == replies.BAD_LOGIN:
                self._failed_logins += 1
            if self._failed_logins >= LOGINS_LIMIT:
                self.close(None, "too many failed logins")
        elif self._happened("failed"):
            self._write(reply)

    def whole_message(self, message: bytes) -> None:
        """Answer ``Retrieve`` of RETR with all of a message: CRLF lines that end with one, or nothing."""
        if self._happened("sent"):
            self._write(b"+OK %d octets\r\n" % len(message))
            self._write(stuffed(message))

    def begin_message(self, size: int | None) -> None:
        """Answer ``Retrieve``: a message of ``size`` octets follows, None for TOP."""
        if self._state is State.SENDING:
            self._stuffer = Stuffer()
            self._write(replies.ok("the top of the message follows" if size is None else f"{size} octets"))

    def send(self, piece: bytes) -> None:
        """A piece of the message, cut anywhere."""
        if self._state is State.SENDING:
            self._write(self._stuffer.feed(piece))

    def end_message(self) -> None:
        if self._happened("sent"):
            self._write(self._stuffer.finish())

    def size(self, index: int) -> int:
        """The octets that were told for a message."""
        return self._maildrop.size(index)

    def correct_size(self, index: int, size: int) -> None:
        """Reading showed that a message has another size than was told; listings say the truth from here on."""
        self._maildrop.correct(index, size)

    def list_more(self) -> None:
        """Answer ``More``."""
        listing = self._listing
        if self._state is not State.LISTING or listing is None:
            return
        maildrop = self._maildrop
        stop = min(self._listed + LISTED, len(maildrop))
        self._write(b"".join(listing(self._listed, stop)))
        self._listed = stop
        if stop < len(maildrop):
            self._events.append(events.More())
        elif self._happened("listed"):
            self._listing = None
            self._write(b".\r\n")

    def updated(self) -> None:
        """Answer ``Update``: everything was removed."""
        if self._state is State.UPDATE:
            self.close(replies.ok("goodbye"), "quit")

    def tls_started(self) -> None:
        """TLS is on: everything said before is forgotten (RFC 2595 4)."""
        if self._happened("secured"):
            self.secure = True
            self.exporter = None
            self._username = ""
            self._lines.clear()
            self._last = b""

    # -- within

    @property
    def _may_log_in(self) -> bool:
        return self.secure or self._service.cleartext

    @property
    def _mechanisms(self) -> tuple[str, ...]:
        return mechanisms.usable(self._service.mechanisms, self.exporter is not None)

    def _line(self, line: bytes) -> None:
        if self._state is State.EXCHANGE:
            self._response(line)
            return
        if len(line) > LINE_LIMIT and line[:5].upper() != b"AUTH ":
            self._refuse_command("the line is too long")
            return
        try:
            verb, argument = parse_command(line)
            if verb not in COMMANDS:
                raise SyntaxProblem("there is no such command")
            if verb not in TABLE[self._state]:
                if verb == "PASS":
                    self._check_may_log_in()
                raise SyntaxProblem(_OUT_OF_PLACE[self._state])
            _COMMANDS[verb](self, argument if verb == "PASS" else argument.strip(" "))
        except SyntaxProblem as problem:
            self._refuse_command(str(problem))
        except NoSuchMessage:
            self._write(replies.NO_SUCH_MESSAGE)

    def _refuse_command(self, text: str) -> None:
        if self._state is State.EXCHANGE:
            self._exchange = None
            self._happened("failed")
        self._write(replies.err(text))
        self._errors += 1
        if self._errors >= ERRORS_LIMIT:
            self.close(replies.err("too many errors"), "too many errors")

    def _capa(self, argument: str) -> None:
        _no_argument(argument)
        # RFC 2449 6 announces TOP and UIDL in both states; what is for logging in is named only where it works.
        capabilities = [b"TOP", b"UIDL", b"RESP-CODES", b"AUTH-RESP-CODE", b"PIPELINING", b"EXPIRE NEVER"]
        if not self.logged_in:
            if self._may_log_in:
                names = " ".join(self._mechanisms)
                capabilities += [b"USER", b"SASL " + names.encode()]
            if self._service.stls and not self.secure:
                capabilities.append(b"STLS")
        capabilities.append(b"IMPLEMENTATION mailsrv")
        self._write(replies.ok("capabilities follow") + b"\r\n".join(capabilities) + b"\r\n.\r\n")

    def _stls(self, argument: str) -> None:
        _no_argument(argument)
        if self.secure:
            raise SyntaxProblem("TLS is on already")
        if not self._service.stls:
            raise SyntaxProblem("STLS is not offered")
        if len(self._lines) or self._bare_lf:
            self._spoke_in_clear()
            return
        self._happened("STLS")
        self._write(replies.ok("begin TLS"))
        self._events.append(events.TlsWanted())

    def _user(self, argument: str) -> None:
        self._check_may_log_in()
        if not argument:
            raise SyntaxProblem("USER needs a name")
        self._happened("USER")
        self._username = argument
        # RFC 1939 7: the same answer whether there is such a user or not.
        self._write(replies.ok("now the password"))

    def _pass(self, argument: str) -> None:
        self._check_may_log_in()
        if not argument:
            raise SyntaxProblem("PASS needs a password")
        self._happened("PASS")
        self._events.append(events.Login("USER", self._username, argument))

    def _auth(self, argument: str) -> None:
        self._check_may_log_in()
        mechanism, initial = parse_auth(argument)
        if mechanism not in self._mechanisms:
            raise SyntaxProblem("this mechanism is not offered")
        try:
            decoded = None if initial is None else base64.decode_initial(initial)
        except ValueError:
            raise SyntaxProblem("the initial response is not base64") from None
        self._happened("AUTH")
        self._mechanism = mechanism
        self._exchange = mechanisms.exchange(mechanism, decoded, self.exporter)
        self._step(None)

    def _response(self, line: bytes) -> None:
        if line == b"*":  # RFC 5034 4
            self._refuse_command("authentication was cancelled")
            return
        try:
            response = base64.decode(line)
        except ValueError:
            self._refuse_command("the response is not base64")
            return
        self._step(response)

    def _step(self, response: bytes | None) -> None:
        assert self._exchange is not None
        match self._exchange.step(response):
            case exchange.Challenge(data):
                self._challenge(data)
            case exchange.Credentials(username, password):
                self._happened("credentials")
                self._events.append(events.Login(self._mechanism, username, password))
                self._exchange = None
            case exchange.NeedKeys(username):
                self._happened("name")
                self._events.append(events.Keys(self._mechanism, username))
            case exchange.Proof(username, fault):
                self._happened("proof")
                self._events.append(events.Proof(self._mechanism, username, fault))
                self._exchange = None
            case exchange.Refused(reason):
                self._refuse_command(reason)

    def _challenge(self, data: bytes) -> None:
        self._write(b"+ " + base64.encode(data) + b"\r\n")

    def _check_may_log_in(self) -> None:
        if not self._may_log_in:
            raise SyntaxProblem("passwords are taken under TLS only, use STLS first")

    def _stat(self, argument: str) -> None:
        _no_argument(argument)
        self._write(b"+OK %d %d\r\n" % (self._maildrop.count, self._maildrop.octets))

    def _list(self, argument: str) -> None:
        self._answer_listing("LIST", argument, self._maildrop.scan_listings)

    def _uidl(self, argument: str) -> None:
        self._answer_listing("UIDL", argument, self._maildrop.unique_id_listings)

    def _answer_listing(self, verb: str, argument: str, listing: Listing) -> None:
        if argument:
            number = self._number(argument)
            self._write(b"+OK " + listing(number - 1, number)[0])
            return
        self._happened(verb)
        self._write(replies.ok(_messages(self._maildrop)))
        self._listing = listing
        self._listed = 0
        self.list_more()

    def _retr(self, argument: str) -> None:
        index = self._number(argument) - 1
        self._happened("RETR")
        self._events.append(events.Retrieve(index))

    def _top(self, argument: str) -> None:
        number, lines = parse_two_numbers(argument)
        self._check_number(number)
        self._happened("TOP")
        self._events.append(events.Retrieve(number - 1, lines))

    def _dele(self, argument: str) -> None:
        number = self._number(argument)
        self._maildrop.delete(number)
        self._write(replies.ok(f"message {number} deleted"))

    def _rset(self, argument: str) -> None:
        _no_argument(argument)
        self._maildrop.reset()
        self._write(replies.ok(_messages(self._maildrop)))

    def _noop(self, argument: str) -> None:
        _no_argument(argument)
        self._write(replies.ok("nothing done"))

    def _quit(self, argument: str) -> None:
        _no_argument(argument)
        if self._state is State.TRANSACTION:
            self._happened("QUIT")
            self._events.append(events.Update(self._maildrop.deleted))
        else:
            self.close(replies.ok("goodbye"), "quit")

    def _number(self, text: str) -> int:
        number = parse_number(text)
        self._check_number(number)
        return number

    def _check_number(self, number: int) -> None:
        if not self._maildrop.has(number):
            raise NoSuchMessage


_OUT_OF_PLACE = {
    State.AUTHORIZATION: "log in first, with USER and then PASS",
    State.NAMED: "log in first, PASS comes next",
    State.TRANSACTION: "you are logged in already",
}

_COMMANDS: dict[str, Callable[[ServerConnection, str], None]] = {
    "AUTH": ServerConnection._auth,
    "CAPA": ServerConnection._capa,
    "DELE": ServerConnection._dele,
    "LIST": ServerConnection._list,
    "NOOP": ServerConnection._noop,
    "PASS": ServerConnection._pass,
    "QUIT": ServerConnection._quit,
    "RETR": ServerConnection._retr,
    "RSET": ServerConnection._rset,
    "STAT": ServerConnection._stat,
    "STLS": ServerConnection._stls,
    "TOP": ServerConnection._top,
    "UIDL": ServerConnection._uidl,
    "USER": ServerConnection._user,
}


def _messages(maildrop: Maildrop) -> str:
    count = maildrop.count
    return f"{count} message{'' if count == 1 else 's'} ({maildrop.octets} octets)"


def _no_argument(argument: str) -> None:
    if argument:
        raise SyntaxProblem("this command has no argument")
