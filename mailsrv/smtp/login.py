"""Who has logged in on a connection, and the answers to AUTH (RFC 4954)."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from mailsrv.checks.login import Denied, Granted, Login
from mailsrv.smtp import events, replies
from mailsrv.smtp.dialog import Answer
from mailsrv.smtp.house import House
from mailsrv.smtp.replies import Reply
from mailsrv.store.accounts.accounts import Account

BUSY = replies.reply(454, "4.7.0", "Too many logins at once; try again")


class Logins:
    """``account`` is who has logged in, None before."""

    __slots__ = ("_granted", "_house", "_logins", "_penalty", "account")

    def __init__(self, house: House, client: str) -> None:
        self.account: Account | None = None
        self._house = house
        self._granted: Granted | None = None
        self._penalty: Deferred[None] | None = None
        self._logins = Login(
            house.settings, house.passwords, house.penalties, house.recorder.record, self._wait, "smtp", client
        )

    async def with_password(self, event: events.Login) -> Answer:
        """PLAIN and LOGIN."""
        return await self._outcome(await self._logins.with_password(event.mechanism, event.username, event.password))

    async def keys(self, event: events.Keys) -> Answer:
        """SCRAM: the client has said its name."""
        first = await self._logins.server_first(event.username)
        return BUSY if isinstance(first, Denied) else first

    async def with_proof(self, event: events.Proof) -> Answer:
        """SCRAM: the client has proved that it has the password, or failed to."""
        return await self._outcome(self._logins.with_proof(event.mechanism, event.username, event.fault))

    async def _outcome(self, outcome: Granted | Denied) -> Reply | None:
        if isinstance(outcome, Denied):
            return BUSY if outcome is Denied.BUSY else replies.LOGIN_FAILED
        await self._house.caps.prepare(outcome.account.key)
        self._granted = outcome
        self.account = outcome.account
        return None

    def hold(self) -> bool:
        """Whether the account is still there with the password that let it in; True when nobody has logged in."""
        return self._granted is None or self._logins.holds(self._granted)

    def forget(self) -> None:
        self.account = self._granted = None

    async def _wait(self, seconds: float) -> bool:
        """False when the waiting was cut short."""
        self._penalty = deferLater(self._house.outside.reactor, seconds)
        try:
            await self._penalty
        except CancelledError:
            return False
        finally:
            self._penalty = None
        return True

    def hurry(self) -> None:
        """Nobody waits for the end of a penalty any more."""
        if self._penalty is not None:
            self._penalty.cancel()
