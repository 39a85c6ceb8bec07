"""The POP3 server's core: octets in, events out; answers in, octets out (RFC 1939, 2449, 2595, 3206, 5034, 6856).

Pure: no I/O, no clock.  ``mailsrv.pop3.dialog`` says how a connection is driven, ``mailsrv.pop3.authorization`` is what
comes before the maildrop is open.  Which command is legal when stands in ``states.TABLE`` and nowhere else.

Refused: overlong lines and control characters (-ERR), a line end that is a bare LF (the connection ends), more than
``ERRORS_LIMIT`` refused commands.
"""

from __future__ import annotations

from collections.abc import Callable

from mailsrv.pop3 import events, languages, replies
from mailsrv.pop3.authorization import Authorization, Service
from mailsrv.pop3.grammar import (
    LINE_LIMIT,
    SyntaxProblem,
    no_argument,
    parse_command,
    parse_number,
    parse_two_numbers,
)
from mailsrv.pop3.maildrop import Maildrop
from mailsrv.pop3.replies import Refusal
from mailsrv.pop3.states import COMMANDS, TABLE, State
from mailsrv.pop3.surrogate import Surrogate, surrogate
from mailsrv.wire.dots import Stuffer, stuffed

__all__ = ["ServerConnection", "Service"]

ERRORS_LIMIT = 50
LISTED = 2000  # lines of a listing that are made at a time

# The reply before a message, by language.  Not made by replies.ok, which would look at the text of each.
_SIZE = {
    language.tag: b"+OK %b\r\n" % language.say("{} octets").replace("{}", "%d").encode()
    for language in languages.LANGUAGES
}

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


class NoSuchMessage(Exception):
    """The number is none of the maildrop, or that of a deleted message."""


class ServerConnection(Authorization):
    """One connection."""

    __slots__ = ("_errors", "_listed", "_listing", "_maildrop", "_stuffer", "_surrogate")

    def __init__(self, service: Service, secure: bool = False) -> None:
        super().__init__(service, secure)
        self._errors = 0
        self._maildrop = _NO_MAILDROP
        self._listing: Listing | None = None
        self._listed = 0  # how many messages the listing has come past
        self._stuffer = Stuffer()
        self._surrogate: Surrogate | None = None

    @property
    def logged_in(self) -> bool:
        return self._state in (State.TRANSACTION, State.LISTING, State.SENDING, State.UPDATE)

    # -- answers to events

    def log_in(self, maildrop: Maildrop) -> None:
        """Answer ``Login``: this is the client's maildrop."""
        if self._happened("logged in"):
            self._maildrop = maildrop
            self._ok_messages()

    def refuse(self, refusal: Refusal) -> None:
        """Answer any event with -ERR."""
        if self._state is State.GREETING:
            self.close(refusal, "not admitted")
        elif self._state is State.UPDATE:
            self.close(refusal, "quit, not all removed")
        elif self._state is State.CHECKING:
            self._login_failed(refusal)
        elif self._happened("failed"):
            self._err(refusal)

    def whole_message(self, message: bytes) -> None:
        """Answer ``Retrieve`` of RETR with all of a message: CRLF lines that end with one, or nothing."""
        if self._happened("sent"):
            reply = _SIZE[self._language.tag] % len(message)
            self._write(stuffed(message if self._utf8 else surrogate(message), reply))

    def begin_message(self, size: int | None) -> None:
        """Answer ``Retrieve``: a message of ``size`` octets follows, None for TOP."""
        if self._state is State.SENDING:
            self._stuffer = Stuffer(crlf=True)
            self._surrogate = None if self._utf8 else Surrogate()
            if size is None:
                self._ok("the top of the message follows")
            else:
                self._write(_SIZE[self._language.tag] % size)

    def send(self, piece: bytes) -> None:
        """A piece of the message in CRLF lines, cut anywhere."""
        if self._state is State.SENDING:
            self._write(self._stuffer.feed(piece if self._surrogate is None else self._surrogate.feed(piece)))

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
            self._say_goodbye()

    # -- within

    def _line(self, line: bytes) -> None:
        if self._state is State.EXCHANGE:
            self._response(line)
            return
        if len(line) > LINE_LIMIT and line[:5].upper() != b"AUTH ":
            self._refuse_command("the line is too long")
            return
        try:
            verb, argument = parse_command(line)
            if verb not in TABLE[self._state]:
                if verb not in COMMANDS:
                    raise SyntaxProblem("there is no such command")
                if verb == "PASS":
                    self._check_may_log_in()
                raise SyntaxProblem(_OUT_OF_PLACE[self._state])
            _COMMANDS[verb](self, argument if verb == "PASS" else argument.strip(" "))
        except SyntaxProblem as problem:
            self._refuse_command(str(problem))
        except NoSuchMessage:
            self._err(replies.NO_SUCH_MESSAGE)

    def _refuse_command(self, text: str) -> None:
        if self._state is State.EXCHANGE:
            self._exchange = None
            self._happened("failed")
        self._err(Refusal(text))
        self._errors += 1
        if self._errors >= ERRORS_LIMIT:
            self.close(replies.TOO_MANY_ERRORS, "too many errors")

    def _ok_messages(self) -> None:
        count, octets = self._maildrop.count, self._maildrop.octets
        if count == 1:
            self._ok("1 message ({} octets)", octets)
        else:
            self._ok("{} messages ({} octets)", count, octets)

    def _say_goodbye(self) -> None:
        self._ok("goodbye")
        self.close(None, "quit")

    # -- commands

    def _capa(self, argument: str) -> None:
        no_argument(argument)
        # RFC 2449 6 announces TOP and UIDL in both states; what is for logging in is named only where it works.
        capabilities = ["TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "EXPIRE NEVER"]
        if self._service.login_delay_s:
            # RFC 2449 6.5: without USER, for it is the same for every user.
            capabilities.append(f"LOGIN-DELAY {self._service.login_delay_s}")
        capabilities += ["UTF8 USER", "LANG"]
        if not self.logged_in:
            if self._may_log_in:
                capabilities += ["USER", f"SASL {' '.join(self._mechanisms)}"]
            if self._service.stls and not self.secure:
                capabilities.append("STLS")
        capabilities.append("IMPLEMENTATION mailsrv")
        self._ok("capabilities follow")
        self._write("".join([f"{capability}\r\n" for capability in capabilities]).encode() + b".\r\n")

    def _stat(self, argument: str) -> None:
        no_argument(argument)
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
        self._ok_messages()
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
        self._ok("message {} deleted", number)

    def _rset(self, argument: str) -> None:
        no_argument(argument)
        self._maildrop.reset()
        self._ok_messages()

    def _noop(self, argument: str) -> None:
        no_argument(argument)
        self._ok("nothing done")

    def _quit(self, argument: str) -> None:
        no_argument(argument)
        if self._state is State.TRANSACTION:
            self._happened("QUIT")
            self._events.append(events.Update(self._maildrop.deleted))
        else:
            self._say_goodbye()

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
    "LANG": ServerConnection._lang,
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
    "UTF8": ServerConnection._utf8_on,
}
