"""What a POP3 session decides: who may log in, and what is read and removed for whom.

Promises: the mailbox is given back whatever happens; an unknown user and a wrong password get the same answer after the
same work; messages are removed only when the client has said QUIT and has taken what it asked for before, and then
whether or not it waits for the answer; a message that has gone or cannot be read disturbs no other.  It never touches
the transport: ``Flush`` sends what the core has to say and waits while the client does not take it.

Reports: failed logins and removed messages to the ledger, local trouble to the log.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from twisted.logger import Logger

from mailsrv.checks.interfaces import Admission, Penalties
from mailsrv.config import Config
from mailsrv.mail.address import Address, AddressError
from mailsrv.outside.interfaces import Outside
from mailsrv.pop3 import events, replies
from mailsrv.pop3.events import Question
from mailsrv.pop3.maildrop import Maildrop
from mailsrv.pop3.server import ServerConnection
from mailsrv.store import ledger
from mailsrv.store.accounts import Account, Directory
from mailsrv.store.ledger import Event
from mailsrv.store.mailboxes import InUse, MailboxSession, MailStore, MessageReader
from mailsrv.store.passwords import TooBusy

log = Logger()

Record = Callable[[Sequence[Event]], Awaitable[None]]
Flush = Callable[[], Awaitable[None]]
Sleep = Callable[[float], Awaitable[None]]


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


class PasswordCheck(Protocol):
    """``mailsrv.store.passwords.Passwords``, as far as a session needs it."""

    async def verify(self, account: Account | None, password: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """All that the sessions of a server share."""

    settings: Settings
    outside: Outside
    mailboxes: MailStore
    passwords: PasswordCheck
    admission: Admission
    penalties: Penalties
    record: Record


class Session:
    """One client at ``peer_ip``.  ``ended`` must be called at the end, whatever has happened."""

    __slots__ = ("_connection", "_flush", "_mailbox", "_peer_ip", "_sleep", "_with")

    def __init__(
        self, surroundings: Surroundings, connection: ServerConnection, peer_ip: str, flush: Flush, sleep: Sleep
    ) -> None:
        self._with = surroundings
        self._connection = connection
        self._peer_ip = peer_ip
        self._flush = flush
        self._sleep = sleep
        self._mailbox: MailboxSession | None = None

    async def answer(self, event: Question) -> None:
        """Answer an event of the core.  Gone, ReadingFailed."""
        match event:
            case events.Connected():
                self._connection.greet()
            case events.Login():
                await self._flush()
                self._connection_answer(await self._log_in(event))
            case events.Retrieve():
                await self._retrieve(event)
            case events.More():
                await self._flush()
                self._connection.list_more()
            case events.Update():
                # What was asked for before goes out before anything is removed: a client that has gone keeps its mail.
                await self._flush()
                await self._update(event)

    def ended(self) -> None:
        """Give the mailbox back."""
        if self._mailbox is not None:
            self._mailbox.release()
            self._mailbox = None

    def _connection_answer(self, answer: Maildrop | bytes) -> None:
        if isinstance(answer, Maildrop):
            self._connection.log_in(answer)
        else:
            self._connection.refuse(answer)

    async def _log_in(self, login: events.Login) -> Maildrop | bytes:
        """The maildrop, or the refusal."""
        key, account = self._look_up(login.username)
        delay_s = self._with.penalties.delay_s(self._peer_ip, key)
        if delay_s > 0:
            await self._sleep(delay_s)
        try:
            right = await self._with.passwords.verify(account, login.password)
        except TooBusy:
            return replies.LOGIN_BUSY
        if account is None or not right:
            self._with.penalties.failed(self._peer_ip, key)
            reason = "the user name or the password is wrong"
            await self._tell(
                [Event(ledger.LOGIN, address=key, client=self._peer_ip, reason=reason, detail=login.mechanism)]
            )
            return replies.BAD_LOGIN
        self._with.penalties.succeeded(self._peer_ip, key)
        try:
            self._mailbox = await self._with.mailboxes.open(account.key)
        except InUse:
            return replies.LOGIN_IN_USE
        except OSError as error:
            log.warn("the mailbox of {account} cannot be opened: {error}", account=account.key, error=error)
            return replies.MAILBOX_TROUBLE
        return Maildrop(self._mailbox.messages, self._mailbox.octets)

    def _look_up(self, username: str) -> tuple[str, Account | None]:
        """The key of the address, "" when the name is none, and its account."""
        try:
            address = Address.parse(username)
        except AddressError:
            return "", None
        return address.key, self._with.settings.directory.account(address)

    async def _retrieve(self, wanted: events.Retrieve) -> None:
        assert self._mailbox is not None
        try:
            reader = await self._mailbox.read(wanted.index, wanted.lines)
        except FileNotFoundError:
            self._connection.refuse(replies.MESSAGE_GONE)
            return
        except OSError as error:
            self._trouble(wanted.index, error)
            self._connection.refuse(replies.MESSAGE_TROUBLE)
            return
        try:
            await self._send(reader, wanted)
        except OSError as error:
            self._trouble(wanted.index, error)
            raise ReadingFailed from error
        finally:
            await reader.close()

    async def _send(self, reader: MessageReader, wanted: events.Retrieve) -> None:
        assert self._mailbox is not None
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
            self._mailbox.learn(wanted.index, reader.size)
            connection.correct_size(wanted.index, reader.size)

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

    async def _remove(self, mailbox: MailboxSession, indices: Sequence[int]) -> bytes | None:
        """None when every message is gone, else the refusal."""
        try:
            removal = await mailbox.remove(indices)
        except Exception:
            log.failure("nothing was removed from the mailbox {mailbox}", mailbox=mailbox.mailbox)
            return replies.UPDATE_TROUBLE
        for problem in removal.problems:
            log.error("{problem}", problem=problem)
        await self._tell(
            [
                Event(
                    ledger.DELETED,
                    address=mailbox.mailbox,
                    client=self._peer_ip,
                    reason="the client deleted it",
                    rule="RFC 1939 6",
                    detail=name,
                )
                for name in removal.names
            ]
        )
        return replies.UPDATE_TROUBLE if removal.problems else None

    async def _tell(self, told: Sequence[Event]) -> None:
        try:
            await self._with.record(told)
        except Exception:
            # What is told has happened already; a ledger that cannot be written now must not undo or repeat it.
            log.failure("the ledger could not be told of {n} events", n=len(told))

    def _trouble(self, index: int, error: OSError) -> None:
        assert self._mailbox is not None
        log.error(
            "the message {name} of {mailbox} cannot be read: {error}",
            name=ascii(self._mailbox.messages[index].name),
            mailbox=self._mailbox.mailbox,
            error=error,
        )
