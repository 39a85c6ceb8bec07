"""One mail transaction as the server's core knows it: from an accepted MAIL to the end of its content."""

from __future__ import annotations

from mailsrv.mail.envelope import Envelope
from mailsrv.smtp import replies
from mailsrv.smtp.replies import Reply
from mailsrv.wire.dots import LineCheck, LineMender


class Transaction:
    """Counts recipients and content, and knows why the content cannot be taken."""

    __slots__ = ("_announced_too_much", "_limit", "_mender", "_spoiled", "check", "recipients", "refused", "smtputf8")

    def __init__(self, envelope: Envelope, size_limit: int, mend_lines: bool = False) -> None:
        self.smtputf8 = envelope.smtputf8
        self.recipients = 0  # accepted
        self.refused = 0
        self.check = LineCheck()
        self._limit = size_limit  # octets, 0 for none
        self._mender = LineMender() if mend_lines else None
        self._announced_too_much = False
        self._spoiled = False

    def take(self, content: bytes) -> bytes:
        """Count and examine a piece of content; gives what is to be handed on, b"" when it is not worth that."""
        if self._mender is not None:
            content = self._mender.feed(content)
        check = self.check
        check.feed(content)
        if check.flawed or (self._limit and check.size > self._limit):
            self._spoiled = True
        return b"" if self._spoiled else content

    def expect(self, octets: int) -> None:
        """BDAT announces ``octets`` more: when they are too many, none of them is handed on."""
        if self._limit and self.check.size + octets > self._limit:
            self._announced_too_much = self._spoiled = True

    def problem(self) -> Reply | None:
        """Why the content cannot be taken.  In a fixed order, so that cutting it otherwise gives the same answer."""
        check = self.check
        if self._announced_too_much or (self._limit and check.size > self._limit):
            return replies.TOO_BIG
        if not check.flawed:
            return None
        if check.nul:
            return replies.NUL_IN_CONTENT
        return replies.BARE_LF_IN_CONTENT if check.bare_lf else replies.BARE_CR_IN_CONTENT
