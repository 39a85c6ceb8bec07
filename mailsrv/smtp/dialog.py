"""Asking, pausing, answering, refusing and ending: what the server's dialog does whatever the command.

``Dialog`` keeps the order: events come out in the order of what the client sent, and while one of them waits for its
reply, nothing further is parsed.  ``mailsrv.smtp.server`` adds the commands.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

from mailsrv.sasl.scram import ServerFirst
from mailsrv.smtp import events, replies
from mailsrv.smtp.events import Event
from mailsrv.smtp.replies import Reply
from mailsrv.smtp.states import State
from mailsrv.wire.lines import LineBuffer

BUFFER_LIMIT = 65_536  # octets waiting to be parsed beyond which the shell should not read more
UNSENT_LIMIT = 256  # replies that may wait to be taken: a short command can have a long reply
ARGUMENT_LIMIT = 100  # characters of a refused command that the ledger is told

# None for what is usual; several for LMTP's end of data; what ``Keys`` asks for.
Answer: TypeAlias = Reply | Sequence[Reply] | ServerFirst | None

_NOT_PRINTABLE = re.compile(rb"[^\x20-\x7e]")


class Dialog(ABC):
    """One connection: feed ``receive``, loop over ``next_event``, answer by ``reply``, send ``take_output``."""

    __slots__ = ("_advance", "_ended", "_errors", "_input", "_max_errors", "_output", "_question", "_queue", "_state")

    def __init__(self, line_limit: int, max_errors: int) -> None:
        self._state = State.GREETING
        self._input = LineBuffer(line_limit)
        self._ended = False  # the client sends no more
        self._output: list[bytes] = []
        self._queue: deque[Event] = deque()
        # Who takes the reply to the event that was asked last; None when nothing was.
        self._question: Callable[[Answer], None] | None = None
        # Reads one thing from the input; False when that needs more of it.
        self._advance: Callable[[], bool] = self._read_command
        self._errors = 0
        self._max_errors = max_errors

    # What the shell sees.

    def receive(self, data: bytes) -> None:
        """Octets from the client, cut anywhere.  Ignored after the end."""
        if self._state is State.CLOSED or self._ended or not data:
            return
        if self._state is State.TLS:
            self._end("data behind STARTTLS")
        else:
            self._input.feed(data)

    def receive_eof(self) -> None:
        """The client sends no more: what was received is still answered, then comes ``Closed``."""
        self._ended = True

    def next_event(self) -> Event | None:
        """The next event; None when input or a reply is needed first, when ``full``, and after ``Closed``."""
        queue = self._queue
        while not queue:
            if self._question is not None or self._state is State.CLOSED or len(self._output) >= UNSENT_LIMIT:
                return None
            if not self._advance():
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

    @property
    def unsent(self) -> int:
        """Replies that ``take_output`` would give."""
        return len(self._output)

    @property
    def full(self) -> bool:
        """True while so many replies wait that nothing more is parsed before ``take_output``."""
        return len(self._output) >= UNSENT_LIMIT

    def reply(self, answer: Answer = None) -> None:
        """Answer the event that came last; None is the usual positive answer (or ``DataEnd.problem``).

        For LMTP's ``DataEnd``: one reply for all recipients, or one for each accepted recipient in order
        (RFC 2033 4.2).  A reply with code 421 ends the connection.  Ignored when the connection has ended meanwhile;
        RuntimeError when nothing was asked.
        """
        take = self._question
        if take is None or self._queue:
            if self._state is State.CLOSED:
                return
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

    def close(self, answer: Reply | None, reason: str) -> None:
        """End now, whatever is under way: ``answer`` is a 421 to be sent, None when the client is gone already.

        ``Reset``, if a transaction was under way, and ``Closed`` come out next; a reply given later is ignored.
        """
        if self._state is not State.CLOSED:
            if answer is not None:
                self._output.append(answer.encode())
            self._end(reason)

    # What the commands are made of.

    @abstractmethod
    def _read_command(self) -> bool:
        """Read and carry out one command line; False when none is whole."""

    @abstractmethod
    def _forget_transaction(self) -> None:
        """Tell by ``Reset`` that the transaction under way, if there is one, has come to nothing."""

    def _ask(self, event: events.Question, then: Callable[[Answer], None]) -> None:
        self._queue.append(event)
        self._question = then

    def _give(self, answer: Answer, usual: Reply) -> bool:
        """Write the session's reply, or the usual one, which is positive; True when what was written is positive."""
        if answer is None:
            self._output.append(usual.encode())
            return True
        if not isinstance(answer, Reply):
            raise TypeError("only the end of LMTP's data takes several replies")
        self._output.append(answer.encode())
        self._count(answer)
        return answer.code < 400

    def _refuse(self, command: str, answer: Reply, argument: bytes = b"") -> None:
        """The core's own refusal: written, told, counted."""
        self._output.append(answer.encode())
        told = _NOT_PRINTABLE.sub(b"?", argument[:ARGUMENT_LIMIT]).decode("ascii")
        self._queue.append(events.Refused(command, answer, told))
        self._count(answer)

    def _count(self, answer: Reply) -> None:
        """Too many errors end the connection.  What is refused for now (4xx) is no error of the client."""
        if answer.code >= 500:
            self._errors += 1
            if self._errors >= self._max_errors:
                self._output.append(replies.TOO_MANY_ERRORS.encode())
                self._end("too many errors")

    def _end(self, reason: str) -> None:
        if self._state is not State.CLOSED:
            self._state = State.CLOSED
            self._question = None
            self._input.clear()
            self._forget_transaction()
            self._queue.append(events.Closed(reason))
