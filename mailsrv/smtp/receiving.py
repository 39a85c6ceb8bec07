"""Receiving the content of messages: DATA (RFC 5321 4.1.1.4, 4.5.2) and BDAT (RFC 3030).

Content is handed on as it comes; it ends where it truly ends and nowhere else, even when long refused, and a
refused chunk is swallowed to its length, so that content never becomes commands.
"""

from __future__ import annotations

from mailsrv.sasl.scram import ServerFirst
from mailsrv.smtp import events, grammar, replies, states
from mailsrv.smtp.dialog import Answer, Dialog
from mailsrv.smtp.grammar import CommandError
from mailsrv.smtp.replies import Reply
from mailsrv.smtp.service import Service
from mailsrv.smtp.states import State
from mailsrv.smtp.transaction import Transaction
from mailsrv.wire.dots import Unstuffer

_DATA_BEGIN = events.DataBegin()


class Receiving(Dialog):
    """The part of a connection that takes a transaction's content."""

    __slots__ = (
        "_decoder",
        "_last_chunk",
        "_left",
        "_problem",
        "_service",
        "_swallowed",
        "_transaction",
        "_wanted",
    )

    def __init__(self, service: Service) -> None:
        super().__init__(grammar.AUTH_LIMIT, service.max_errors)
        self._service = service
        self._transaction: Transaction | None = None

    def _forget_transaction(self) -> None:
        if self._transaction is not None:
            self._transaction = None
            self._queue.append(events.Reset())

    def _under_way(self) -> Transaction:
        if self._transaction is None:
            raise RuntimeError("no transaction is under way")
        return self._transaction

    def _out_of_order(self, row: states.Row) -> Reply:
        transaction = self._transaction
        refusal = row.refusal(self._state)
        if refusal is replies.RCPT_FIRST and transaction is not None and transaction.refused:
            return replies.NO_VALID_RECIPIENTS
        return refusal

    # Content by DATA (RFC 5321 4.1.1.4, 4.5.2).

    def _data(self, argument: bytes) -> None:
        if argument:
            self._refuse("DATA", replies.NO_ARGUMENT_ALLOWED, argument)
        else:
            self._ask(_DATA_BEGIN, self._data_begun)

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
        self._take(content)
        if stop < 0:
            self._input.skip_to(len(data))
        else:
            self._input.skip_to(stop)
            self._content_ended(self._under_way().recipients)
        return True

    def _take(self, content: bytes) -> None:
        content = self._under_way().take(content) if content else b""
        if content:
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
        elif isinstance(answer, ServerFirst):
            raise TypeError("replies are wanted")
        answers = (answer,) * self._wanted if isinstance(answer, Reply) else answer
        if len(answers) != self._wanted:
            raise ValueError(f"{self._wanted} replies wanted, {len(answers)} given")
        accepted = False
        for each in answers:
            self._output.append(each.encode())
            accepted = accepted or each.positive
        if accepted:
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
        row = self._service.table["BDAT"]
        if "CHUNKING" not in self._service.extensions:
            self._swallow(replies.NOT_OFFERED)
        elif self._state not in row.leads_to:
            self._swallow(self._out_of_order(row))
        elif self._state is State.RCPT:
            self._ask(_DATA_BEGIN, self._chunks_begun)
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
