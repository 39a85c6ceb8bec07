"""What a POP3 session decides: who may log in, and what is read and removed for whom.

Promises: the mailbox is given back whatever happens; an unknown user and a wrong password get the same answer after the
same work; messages are removed only when the client has said QUIT and has taken what it asked for before, and then
whether or not it waits for the answer; a message that has gone or cannot be read disturbs no other.  It never touches
the transport: ``Flush`` sends what the core has to say and waits while the client does not take it.

Reports: failed logins and removed messages to the ledger, local trouble to the log.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from twisted.logger import Logger

from mailsrv.checks.clients import network_of
from mailsrv.checks.interfaces import Admission, Penalties
from mailsrv.checks.login import Denied, Granted, Login
from mailsrv.checks.login_delay import LoginDelay
from mailsrv.config import Config
from mailsrv.outside.interfaces import Outside
from mailsrv.pop3 import events, replies
from mailsrv.pop3.events import Event, Question
from mailsrv.pop3.maildrop import Maildrop
from mailsrv.pop3.replies import Refusal
from mailsrv.pop3.server import ServerConnection
from mailsrv.store import ledger
from mailsrv.store.accounts.accounts import Directory
from mailsrv.store.accounts.passwords import Passwords
from mailsrv.store.ledger import Event as LedgerEvent
from mailsrv.store.mailbox.mailboxes import InUse, MailboxSession, MailStore, MessageReader

log = Logger()

Flush = Callable[[], Awaitable[None]]
Sleep = Callable[[float], Awaitable[None]]


TOLD_AT_ONCE = 500  # events of removed messages that are made in one turn

# What no waiting mends: something is there that is no mailbox or no message, or not for us to read (RFC 3206 4).
_PERMANENT = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EINVAL, errno.ENXIO)


class Gone(Exception):
    """The client is no longer there; raised by ``Flush`` and ``Sleep``."""


class ReadingFailed(Exception):
    """A message could not be read to its end; only closing the connection can tell the client so."""


class Settings(Protocol):
    """What may change while the server runs; looked at anew each time."""

    @property
    def config(self) -> Config: ...

    @property
    def directory(self) -> Directory: ...


class Recorder(Protocol):
    """``mailsrv.store.recorder.Recorder``, as far as a session needs it."""

    def record(self, event: LedgerEvent) -> None: ...

    def record_seldom(self, event: LedgerEvent, who: str) -> None: ...

    async def record_all(self, events: Sequence[LedgerEvent]) -> None: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """All that the sessions of a server share."""

    settings: Settings
    outside: Outside
    mailboxes: MailStore
    passwords: Passwords
    admission: Admission
    penalties: Penalties
    login_delay: LoginDelay
    recorder: Recorder


class Session:
    """One client at ``peer_ip``.  ``ended`` must be called at the end, whatever has happened."""

    __slots__ = ("_connection", "_flush", "_logins", "_mailbox", "_peer_ip", "_sleep", "_with")

    def __init__(
        self, surroundings: Surroundings, connection: ServerConnection, peer_ip: str, flush: Flush, sleep: Sleep
    ) -> None:
        self._with = surroundings
        self._connection = connection
        self._peer_ip = peer_ip
        self._flush = flush
        self._sleep = sleep
        self._logins = Login(
            surroundings.settings,
            surroundings.passwords,
            surroundings.penalties,
            surroundings.recorder.record,
            self._wait,
            "pop3",
            peer_ip,
        )
        self._mailbox: MailboxSession | None = None

    def answer_at_once(self, event: Event) -> bool:
        """Answer an event that takes no waiting; False when it is not one, and nothing has happened."""
        return type(event) is events.Retrieve and event.lines is None and self._retrieve_at_once(event.index)

    async def answer(self, event: Question) -> None:
        """Answer an event of the core for which ``answer_at_once`` was not enough.  Gone, ReadingFailed."""
        match event:
            case events.Connected():
                self._connection.greet()
            case events.Login():
                await self._flush()
                outcome = await self._logins.with_password(event.mechanism, event.username, event.password)
                self._connection_answer(await self._open(outcome))
            case events.Keys():
                await self._flush()
                await self._give_keys(event)
            case events.Proof():
                outcome = self._logins.with_proof(event.mechanism, event.username, event.fault)
                self._connection_answer(await self._open(outcome))
            case events.Retrieve():
                await self._retrieve(event)
            case events.More():
                await self._flush()
                self._connection.list_more()
            case events.Update():
                # What was asked for before goes out before anything is removed: a client that has gone keeps its mail.
                await self._flush()
                await self._update(event)

    def turned_away(self, reason: str) -> None:
        """The client did not get a session at all."""
        event = LedgerEvent(
            ledger.CONNECTION, client=self._peer_ip, status="4.7.0", reason=reason, rule="limits.connections"
        )
        self._with.recorder.record_seldom(event, network_of(self._peer_ip))

    def ended(self) -> None:
        """Give the mailbox back."""
        if self._mailbox is not None:
            self._mailbox.release()
            self._mailbox = None

    def _connection_answer(self, answer: Maildrop | Refusal) -> None:
        if isinstance(answer, Maildrop):
            self._connection.log_in(answer)
        else:
            self._connection.refuse(answer)

    async def _give_keys(self, event: events.Keys) -> None:
        first = await self._logins.server_first(event.username)
        if isinstance(first, Denied):
            self._connection.refuse(replies.LOGIN_BUSY)
        else:
            self._connection.give_keys(first)

    async def _open(self, outcome: Granted | Denied) -> Maildrop | Refusal:
        """The maildrop, or the refusal."""
        if isinstance(outcome, Denied):
            return replies.LOGIN_BUSY if outcome is Denied.BUSY else replies.BAD_LOGIN
        account = outcome.account
        delay = self._with.login_delay
        if delay.too_soon(account.key):
            self._too_soon(account.key)
            return replies.LOGIN_TOO_SOON
        try:
            self._mailbox = await self._with.mailboxes.open(account.key)
        except InUse:
            return replies.LOGIN_IN_USE
        except OSError as error:
            log.warn("the mailbox of {account} cannot be opened: {error}", account=account.key, error=error)
            return replies.MAILBOX_BROKEN if _is_permanent(error) else replies.MAILBOX_TROUBLE
        delay.logged_in(account.key)
        return Maildrop(self._mailbox.messages, self._mailbox.messages.octets)

    def _too_soon(self, account: str) -> None:
        reason = self._with.login_delay.refused(account)
        if reason:
            self._with.recorder.record(
                LedgerEvent(
                    ledger.LOGIN,
                    address=account,
                    client=self._peer_ip,
                    status="4.7.0",
                    reason=reason,
                    rule="limits.login_delay",
                    detail="POP3",
                )
            )

    async def _wait(self, seconds: float) -> bool:
        await self._sleep(seconds)
        return True

    def _retrieve_at_once(self, index: int) -> bool:
        mailbox = self._mailbox
        assert mailbox is not None
        message = mailbox.read_at_once(index)
        if message is None:
            return False
        self._connection.whole_message(message)
        if len(message) != mailbox.messages.sizes[index]:
            self._learn_size(index, len(message))
        return True

    def _learn_size(self, index: int, size: int) -> None:
        assert self._mailbox is not None
        self._connection.correct_size(index, size)
        self._mailbox.learn(index, size)

    async def _retrieve(self, wanted: events.Retrieve) -> None:
        assert self._mailbox is not None
        try:
            reader = await self._mailbox.read(wanted.index, wanted.lines)
        except FileNotFoundError:
            self._connection.refuse(replies.MESSAGE_GONE)
            return
        except OSError as error:
            self._trouble(wanted.index, error)
            self._connection.refuse(replies.MESSAGE_BROKEN if _is_permanent(error) else replies.MESSAGE_TROUBLE)
            return
        try:
            await self._send(reader, wanted)
        except OSError as error:
            self._trouble(wanted.index, error)
            raise ReadingFailed from error
        finally:
            await reader.close()

    async def _send(self, reader: MessageReader, wanted: events.Retrieve) -> None:
        connection = self._connection
        told = connection.size(wanted.index)
        whole = wanted.lines is None
        # Most messages are one piece, and then their size is known before it is announced.
        connection.begin_message((reader.size if reader.done else told) if whole else None)
        connection.send(reader.chunk)
        while not reader.done:
            await self._flush()
            connection.send(await reader.next_chunk())
        connection.end_message()
        if whole and reader.size != told:
            self._learn_size(wanted.index, reader.size)

    async def _update(self, update: events.Update) -> None:
        mailbox = self._mailbox
        assert mailbox is not None
        try:
            answer = await self._remove(mailbox, update.indices) if update.indices else None
        finally:
            # Before the answer, because a client may log in again as soon as it has it.
            self.ended()
        if answer is None:
            self._connection.updated()
        else:
            self._connection.refuse(answer)

    async def _remove(self, mailbox: MailboxSession, indices: Sequence[int]) -> Refusal | None:
        """None when every message is gone, else the refusal."""
        try:
            removal = await mailbox.remove(indices)
        except Exception:
            log.failure("nothing was removed from the mailbox {mailbox}", mailbox=mailbox.mailbox)
            return replies.UPDATE_TROUBLE
        for problem in removal.problems:
            log.error("{problem}", problem=problem)
        for start in range(0, len(removal.names), TOLD_AT_ONCE):
            await self._tell(mailbox.mailbox, removal.names[start : start + TOLD_AT_ONCE])
        return replies.UPDATE_TROUBLE if removal.problems else None

    async def _tell(self, mailbox: str, names: Sequence[str]) -> None:
        told = [
            LedgerEvent(
                ledger.DELETED,
                address=mailbox,
                client=self._peer_ip,
                reason="the client deleted it",
                rule="RFC 1939 6",
                detail=name,
            )
            for name in names
        ]
        try:
            await self._with.recorder.record_all(told)
        except Exception:
            # What is told has happened already; a ledger that cannot be written now must not undo or repeat it.
            log.failure("the ledger could not be told of {n} events", n=len(told))

    def _trouble(self, index: int, error: OSError) -> None:
        assert self._mailbox is not None
        log.error(
            "the message {name} of {mailbox} cannot be read: {error}",
            name=ascii(self._mailbox.messages.path(index)),
            mailbox=self._mailbox.mailbox,
            error=error,
        )


def _is_permanent(error: OSError) -> bool:
    return error.errno in _PERMANENT or isinstance(error, NotADirectoryError)
