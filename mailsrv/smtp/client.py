"""The client's side of an SMTP connection (RFC 5321, 2920, 3030, 3207, 4954), pure: replies in, events and octets out.

Say something (``say_hello``, ``send``, ...), write what ``take_output`` gives, feed what comes to ``receive``, ask for
``next_event``.  ``TRANSITIONS`` (``client_states.py``) holds everything that may happen and when; a call that is not in
it is a mistake of the caller (StateError), a reply that is not in it ends the connection.  Any number of transactions
may follow one another.

Promises.  Commands of a transaction go out in one piece where the server offers PIPELINING, and every reply is then
checked by itself.  Content goes out unaltered but for its dots, by DATA, or as it is, by BDAT: in pieces once the
recipients have been answered (``send(..., chunked=True)``), or a small message at once with the commands before it
(``send_whole``).  A positive answer counts only after the end of the content was given out.  Nothing that came in clear
is believed once TLS is ready, and what was learned before is forgotten.  A password is refused on a clear channel
unless the caller insists.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from mailsrv.sasl import base64
from mailsrv.smtp import client_commands as commands
from mailsrv.smtp.client_events import (
    ConnectionEnded,
    ContentWanted,
    Event,
    Extensions,
    Greeted,
    HelloAnswered,
    LoginAnswered,
    RecipientAnswered,
    RemoteReply,
    TlsReady,
    TlsRefused,
    Transaction,
    TransactionEnded,
)
from mailsrv.smtp.client_replies import ReplyError, ReplyReader
from mailsrv.smtp.client_states import TRANSITIONS, State
from mailsrv.wire.dots import Stuffer

__all__ = ["CHUNK", "TRANSITIONS", "ClientConnection", "State", "StateError"]

CHUNK: Final = 256 * 1024  # octets of one BDAT, about


class StateError(RuntimeError):
    """A call that the state of the connection does not allow: a bug of the caller."""


class _Fault(Exception):
    """The server broke the protocol."""


@dataclass(frozen=True, slots=True)
class _Command:
    """``name`` is the verb, or what else a reply can be to; ``n`` the recipient; ``last`` of BDAT."""

    name: str
    wire: bytes = b""
    n: int = -1
    last: bool = False


class ClientConnection:
    """One connection to a server, as ``hostname``.  ``secure`` when TLS was there before the first octet (RFC 8314)."""

    def __init__(self, hostname: str, *, secure: bool = False) -> None:
        self.state = State.GREETING
        self.secure = secure
        self.extensions = Extensions()
        self._hostname = hostname
        self._reader = ReplyReader()
        self._output: list[bytes] = []
        self._events: deque[Event] = deque()
        self._unsent: deque[_Command] = deque()
        self._awaited: deque[_Command] = deque([_Command("greeting")])
        self._responses: deque[bytes] = deque()
        self._stuffer = Stuffer()
        self._chunked = False
        self._held: list[bytes] = []  # content for the next BDAT
        self._held_size = 0
        self._accepted = 0
        self._unheard = 0  # recipients without an answer
        self._untouched = False
        self._verdict: TransactionEnded | None = None

    @property
    def ended(self) -> bool:
        return self.state is State.ENDED

    @property
    def at_rest(self) -> bool:
        """Between transactions, with nothing half said: another message may go over this connection."""
        return self.state in (State.READY, State.REFUSED) and not (self._reader.pending or self._events)

    # Bytes and events.

    def receive(self, data: bytes) -> None:
        """Octets from the server, cut anywhere."""
        if self.ended:
            return
        self._reader.receive(data)
        try:
            while not self.ended:
                if self.state is State.HANDSHAKE and self._reader.pending:
                    # RFC 3207 4.2; CVE-2021-38371: clear text behind the 220 would count as said under TLS.
                    raise _Fault("clear text behind the answer to STARTTLS")
                reply = self._reader.next_reply()
                if reply is None:
                    return
                self._answered(reply)
        except (ReplyError, _Fault) as error:
            self._end(str(error), fault=True)

    def receive_eof(self) -> None:
        """The server closed the connection, or it broke."""
        if not self.ended:
            self._end("the connection was lost")

    def give_up(self, reason: str) -> None:
        """We wait no longer; ConnectionEnded with ``reason``."""
        if not self.ended:
            self._untouched = False
            self._end(reason)

    def next_event(self) -> Event | None:
        return self._events.popleft() if self._events else None

    def take_output(self) -> bytes:
        """The octets that are to be written now."""
        data = b"".join(self._output)
        self._output.clear()
        return data

    # What a client may say.

    def say_hello(self) -> None:
        """EHLO, and HELO when that is refused (RFC 5321 4.1.1.1); HelloAnswered."""
        self._go("say hello")
        self._say(_Command("EHLO", commands.line(f"EHLO {self._hostname}")))

    def start_tls(self) -> None:
        """TlsReady or TlsRefused."""
        self._go("start tls")
        self._say(_Command("STARTTLS", b"STARTTLS\r\n"))

    def tls_started(self) -> None:
        """The handshake is done.  RFC 3207 4.2: all that was learned before is void; say hello again."""
        self._go("tls started")
        self.secure = True
        self.extensions = Extensions()

    def log_in(self, username: str, password: str, *, clear: bool = False) -> None:
        """AUTH PLAIN, or LOGIN where only that is offered (RFC 4954, 4616); LoginAnswered.

        ``clear`` insists on a channel without TLS.  StateError when neither mechanism is offered.
        """
        if not (self.secure or clear):
            raise StateError("no password goes over clear text")
        user, secret = username.encode(), password.encode()
        if "PLAIN" in self.extensions.mechanisms:
            command = b"AUTH PLAIN " + base64.encode(b"\0" + user + b"\0" + secret)
            responses: list[bytes] = []
        elif "LOGIN" in self.extensions.mechanisms:
            command = b"AUTH LOGIN"
            responses = [base64.encode(user), base64.encode(secret)]
        else:
            raise StateError("the server offers neither PLAIN nor LOGIN")
        self._go("log in")
        self._responses = deque(responses)
        self._say(_Command("AUTH", command + b"\r\n"))

    def send(self, transaction: Transaction, *, chunked: bool = False) -> None:
        """RecipientAnswered for each that the server spoke about, then ContentWanted or TransactionEnded.

        ``chunked``: the content will go by BDAT; StateError where CHUNKING and PIPELINING are not both offered.
        ValueError, and nothing is said, when an address cannot stand in a command.
        """
        sequence = self._envelope(transaction, chunked)
        if not chunked:
            sequence.append(_Command("DATA", b"DATA\r\n"))
        self._begin("send", sequence, chunked)

    def send_whole(self, transaction: Transaction, content: bytes) -> None:
        """MAIL, RCPT and the whole content in one flight; RecipientAnswered as above, and TransactionEnded.

        StateError where CHUNKING and PIPELINING are not both offered, ValueError as above.
        """
        sequence = self._envelope(transaction, True)
        sequence.append(_Command("BDAT", b"BDAT %d LAST\r\n%b" % (len(content), content), last=True))
        self._begin("send whole", sequence, True)

    def send_content(self, chunk: bytes) -> None:
        """The next piece of the content, cut anywhere."""
        if self.state is not State.CONTENT:
            raise StateError(f"content while {self.state.value}")
        if not self._chunked:
            self._output.append(self._stuffer.feed(chunk))
            return
        # One piece is held back, so that the last BDAT is never an empty one.
        if self._held and self._held_size + len(chunk) > CHUNK:
            self._say_chunk()
        self._held.append(chunk)
        self._held_size += len(chunk)

    def end_content(self) -> None:
        """There is no more content; TransactionEnded."""
        self._go("content ended")
        if self._chunked:
            self._say_chunk(last=True)
        else:
            self._finish()

    def quit(self) -> None:
        """RFC 5321 4.1.1.10.  No event but ConnectionEnded follows."""
        self._go("quit")
        self._say(_Command("QUIT", b"QUIT\r\n"))

    # Replies.

    def _answered(self, reply: RemoteReply) -> None:
        if not self._awaited:
            if reply.code == 421:  # RFC 5321 3.8: a server may say so at any time
                self._end("the server closed the connection", reply)
            elif self.state is State.CONTENT and reply.code >= 400:
                # A refusal before the content was through may be believed; the connection is of no more use.
                self._events.append(TransactionEnded(".", reply))
                self._end("the server answered before the end of the content", fault=True)
            else:
                raise _Fault(f"a reply to nothing: {reply.text[:80]}")
            return
        command = self._awaited.popleft()
        closing = reply.code == 421 and command.name not in ("greeting", "QUIT")
        if not closing or command.name in _ABOUT_CONTENT:
            _ANSWERED[command.name](self, command, reply)
        if closing and not self.ended:
            self._end("the server closed the connection", reply)

    def _greeted(self, command: _Command, reply: RemoteReply) -> None:
        if 300 <= reply.code < 400:
            raise _Fault(f"not a greeting: {reply.text[:80]}")
        self._go("greeted" if reply.positive else "turned away")
        self._events.append(Greeted(reply))

    def _hello_answered(self, command: _Command, reply: RemoteReply) -> None:
        if command.name == "EHLO" and reply.permanent:
            # RFC 5321 3.2, 4.1.1.1: a server that does not know EHLO is an old one.
            self._say(_Command("HELO", commands.line(f"HELO {self._hostname}")))
            return
        if 300 <= reply.code < 400:
            raise _Fault(f"not an answer to {command.name}: {reply.text[:80]}")
        if reply.positive:
            self.extensions = Extensions.parse(reply.lines) if command.name == "EHLO" else Extensions()
            self._go("hello accepted")
            self._events.append(HelloAnswered(reply, self.extensions))
        else:
            self._go("hello refused")
            self._events.append(HelloAnswered(reply, None))

    def _starttls_answered(self, command: _Command, reply: RemoteReply) -> None:
        if reply.positive:
            self._go("tls ready")
            self._events.append(TlsReady())
        elif reply.code >= 400:
            self._go("tls refused")
            self._events.append(TlsRefused(reply))
        else:
            raise _Fault(f"not an answer to STARTTLS: {reply.text[:80]}")

    def _auth_answered(self, command: _Command, reply: RemoteReply) -> None:
        if 300 <= reply.code < 400:
            # RFC 4954 4: what is asked for beyond the exchange is cancelled.
            response = self._responses.popleft() if self._responses else b"*"
            self._say(_Command("AUTH", response + b"\r\n"))
            return
        self._responses.clear()
        self._go("login answered")
        self._events.append(LoginAnswered(reply))

    def _reset_answered(self, command: _Command, reply: RemoteReply) -> None:
        if not reply.positive:
            raise _Fault(f"RSET refused: {reply.text[:80]}")
        self._pump()

    def _mail_answered(self, command: _Command, reply: RemoteReply) -> None:
        _expect_answer(command, reply)
        self._untouched = False
        if not reply.positive:
            self._verdict = TransactionEnded("MAIL", reply)
            self._drop_unsent()
        self._pump()

    def _rcpt_answered(self, command: _Command, reply: RemoteReply) -> None:
        _expect_answer(command, reply)
        if self._verdict is None:
            self._accepted += reply.positive
            self._unheard -= 1
            self._events.append(RecipientAnswered(command.n, reply))
            if not self._unheard and not self._awaited:
                if not self._accepted:
                    self._verdict = TransactionEnded("RCPT", None)
                    self._drop_unsent()
                elif self._chunked:
                    self._go("content wanted")
                    self._events.append(ContentWanted())
        elif not self._awaited:
            self._drop_unsent()
        self._pump()

    def _data_answered(self, command: _Command, reply: RemoteReply) -> None:
        if self._verdict is None and not self._accepted:
            self._verdict = TransactionEnded("RCPT", None)
        if reply.positive:
            raise _Fault(f"not an answer to DATA: {reply.text[:80]}")
        if reply.code < 400 and self._verdict is None:
            self._go("content wanted")
            self._events.append(ContentWanted())
        elif reply.code < 400:
            # RFC 2920 3.1: DATA went out with the rest and the server waits although nobody is left: a dot at once.
            self._go("content wanted for nobody")
            self._finish()
        else:
            self._refused(self._verdict or TransactionEnded("DATA", reply))

    def _content_answered(self, command: _Command, reply: RemoteReply) -> None:
        _expect_answer(command, reply)
        self._go("answered")
        self._events.append(self._verdict or TransactionEnded(".", reply))

    def _bdat_answered(self, command: _Command, reply: RemoteReply) -> None:
        _expect_answer(command, reply)
        if not command.last:
            if reply.positive:
                return
            if self.state is State.CONTENT:
                self._events.append(TransactionEnded(".", reply))
                self._end("the server refused a piece of the content", fault=True)
            else:
                self._verdict = self._verdict or TransactionEnded(".", reply)
            return
        if self._verdict is None and not self._accepted:
            self._verdict = TransactionEnded("RCPT", None)
        # RFC 3030 2: after a refused BDAT only RSET makes the state of the server known again.
        self._go("answered" if reply.positive else "content refused")
        self._events.append(self._verdict or TransactionEnded(".", reply))

    def _quit_answered(self, command: _Command, reply: RemoteReply) -> None:
        self._end("goodbye")

    # Inside.

    def _envelope(self, transaction: Transaction, chunked: bool) -> list[_Command]:
        if chunked and not ("CHUNKING" in self.extensions and "PIPELINING" in self.extensions):
            raise StateError("the server does not offer CHUNKING with PIPELINING")
        if not transaction.recipients:
            raise ValueError("a transaction has a recipient")
        sequence = [_Command("MAIL", commands.mail(transaction, self.extensions))]
        for n, recipient in enumerate(transaction.recipients):
            sequence.append(_Command("RCPT", commands.rcpt(recipient, self.extensions), n))
        return sequence

    def _begin(self, call: str, sequence: list[_Command], chunked: bool) -> None:
        if self.state is State.REFUSED:
            self._unsent.append(_Command("RSET", b"RSET\r\n"))
        self._go(call)
        self._stuffer = Stuffer()
        self._chunked = chunked
        self._held.clear()
        self._held_size = 0
        self._accepted = 0
        self._unheard = sum(command.name == "RCPT" for command in sequence)
        self._untouched = True
        self._verdict = None
        self._unsent.extend(sequence)
        self._pump()

    def _say_chunk(self, *, last: bool = False) -> None:
        content = b"".join(self._held)
        command = b"BDAT %d LAST\r\n" if last else b"BDAT %d\r\n"
        self._say(_Command("BDAT", command % len(content) + content, last=last))
        self._held.clear()
        self._held_size = 0

    def _finish(self) -> None:
        self._output.append(self._stuffer.finish())
        self._awaited.append(_Command("."))

    def _drop_unsent(self) -> None:
        self._unsent.clear()
        if not self._awaited:
            assert self._verdict is not None
            self._refused(self._verdict)

    def _refused(self, verdict: TransactionEnded) -> None:
        self._go("envelope refused")
        self._events.append(verdict)

    def _pump(self) -> None:
        """RFC 2920: everything at once where the server can; else one command, one reply."""
        while self._unsent and (not self._awaited or "PIPELINING" in self.extensions):
            self._say(self._unsent.popleft())

    def _say(self, command: _Command) -> None:
        self._output.append(command.wire)
        self._awaited.append(command)

    def _go(self, happening: str) -> None:
        state = TRANSITIONS.get((self.state, happening))
        if state is None:
            raise StateError(f"{happening} while {self.state.value}")
        self.state = state

    def _end(self, reason: str, reply: RemoteReply | None = None, *, fault: bool = False) -> None:
        # A server that says goodbye before its answer to the content has not taken it.
        sent = self.state is State.FINISHING or (self.state is State.FLIGHT and bool(self._accepted or self._unheard))
        unanswered = sent and self._verdict is None and reply is None
        untouched = self._untouched and self.state in (State.ENVELOPE, State.FLIGHT)
        self.state = State.ENDED
        self._output.clear()
        self._unsent.clear()
        self._awaited.clear()
        self._held.clear()
        self._events.append(ConnectionEnded(reason, reply, fault, unanswered, untouched))


def _expect_answer(command: _Command, reply: RemoteReply) -> None:
    if 300 <= reply.code < 400:
        raise _Fault(f"not an answer to {command.name}: {reply.text[:80]}")


_ABOUT_CONTENT: Final = (".", "BDAT")
_ANSWERED: Final = {
    "greeting": ClientConnection._greeted,
    "EHLO": ClientConnection._hello_answered,
    "HELO": ClientConnection._hello_answered,
    "STARTTLS": ClientConnection._starttls_answered,
    "AUTH": ClientConnection._auth_answered,
    "RSET": ClientConnection._reset_answered,
    "MAIL": ClientConnection._mail_answered,
    "RCPT": ClientConnection._rcpt_answered,
    "DATA": ClientConnection._data_answered,
    "BDAT": ClientConnection._bdat_answered,
    ".": ClientConnection._content_answered,
    "QUIT": ClientConnection._quit_answered,
}
