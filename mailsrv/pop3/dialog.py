"""Reading lines, following the table, writing and ending: what the POP3 server's core does whatever the command.

``Dialog`` keeps the order: while an event waits for its answer nothing further is parsed, so replies come in the order
of pipelined commands.  The result does not depend on how the input was cut.  ``mailsrv.pop3.server`` has the commands.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod

from mailsrv.pop3 import events, languages, replies
from mailsrv.pop3.events import Event
from mailsrv.pop3.grammar import SASL_LINE_LIMIT
from mailsrv.pop3.replies import Refusal
from mailsrv.pop3.states import READING, TABLE, State
from mailsrv.wire.lines import LineBuffer, LineTooLong

OUTPUT_LIMIT = 64 * 1024  # octets of replies that are gathered before they are to be sent
PIECES_LIMIT = 1000  # and how many, for short ones take longer to make than to send
INPUT_LIMIT = 64 * 1024  # octets of commands that wait before reading stops

_BARE_LF = re.compile(rb"(?<!\r)\n")


class Dialog(ABC):
    """One connection: feed ``receive``, loop over ``next_event``, answer each that asks, send ``take_output``."""

    __slots__ = ("_bare_lf", "_eof", "_events", "_language", "_last", "_lines", "_out", "_out_size", "_state", "full")

    def __init__(self) -> None:
        self.full = False  # the output is to be taken and sent before more is parsed
        self._state = State.GREETING
        self._language = languages.DEFAULT
        self._lines = LineBuffer(SASL_LINE_LIMIT)
        self._out: list[bytes] = []
        self._out_size = 0
        self._events: list[Event] = [events.Connected()]
        self._last = b""  # a CR, when it was the last octet received
        self._bare_lf = False
        self._eof = False

    # -- from the client

    def receive(self, data: bytes) -> None:
        """Octets from the client, cut anywhere."""
        if self._state is State.CLOSED or self._bare_lf or not data:
            return
        if self._state is State.SECURING:
            self._spoke_in_clear()
            return
        if self._last or data.count(b"\n") != data.count(b"\r\n"):
            bare = _BARE_LF.search(self._last + data)
            if bare:
                # What came before it is still answered.
                self._bare_lf = True
                data = data[: bare.start() - len(self._last)]
        self._last = b"\r" if data.endswith(b"\r") else b""
        self._lines.feed(data)

    def receive_eof(self) -> None:
        """The client sends no more: what was received is still answered, then comes ``Closed``."""
        self._eof = True

    def next_event(self) -> Event | None:
        """The next event; None when input or an answer is needed first, or when the output is ``full``."""
        while not self._events:
            if self._state not in READING or self.full:
                return None
            try:
                line = self._lines.next_line()
            except LineTooLong:
                self._refuse_command("the line is too long")
                continue
            if line is not None:
                self._line(line)
            elif self._bare_lf:
                self.close(replies.BARE_LF, "bare LF")
            elif self._eof:
                self.close(None, "the client closed")
            else:
                return None
        return self._events.pop(0)

    # -- to the client

    @property
    def hungry(self) -> bool:
        """False when the shell should stop reading."""
        return len(self._lines) < INPUT_LIMIT

    @property
    def closed(self) -> bool:
        """True once nothing more is read; ``Closed`` has been or will be the last event."""
        return self._state is State.CLOSED

    def take_output(self) -> bytes:
        """Everything to be sent since the last call, in order."""
        output = b"".join(self._out)
        self._out.clear()
        self._out_size = 0
        self.full = False
        return output

    def close(self, refusal: Refusal | None, reason: str) -> None:
        """End now, whatever is under way; ``refusal`` is a last word.  ``Closed`` is the only event that follows."""
        if self._state is not State.CLOSED:
            if refusal is not None:
                self._err(refusal)
            self._state = State.CLOSED
            self._lines.clear()
            self._events[:] = [events.Closed(reason)]

    # -- what the commands are made of

    @abstractmethod
    def _line(self, line: bytes) -> None:
        """Carry out one line."""

    @abstractmethod
    def _refuse_command(self, text: str) -> None:
        """Say -ERR and count it."""

    def _write(self, data: bytes) -> None:
        self._out.append(data)
        self._out_size += len(data)
        if self._out_size >= OUTPUT_LIMIT or len(self._out) >= PIECES_LIMIT:
            self.full = True

    def _ok(self, text: str, *values: object) -> None:
        self._write(replies.ok(text, *values, language=self._language))

    def _err(self, refusal: Refusal) -> None:
        self._write(replies.err(refusal, self._language))

    def _happened(self, what: str) -> bool:
        """Follow the table; False when this cannot happen here, as the connection was closed meanwhile."""
        following = TABLE[self._state].get(what)
        if following is None:
            return False
        self._state = following
        return True

    def _spoke_in_clear(self) -> None:
        # A man in the middle can put commands there (CVE-2011-0411); no honest client does.
        self.close(None, "clear text behind STLS")
