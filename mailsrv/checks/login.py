"""Logging in, the same way for every protocol: who a client is, what guessing costs, and what the ledger is told.

By a password, main or app, which a mechanism has brought, or by SCRAM's proof of the main one.  Promises: an unknown
user, a locked account and a wrong password get the same answer after the same work and the same delay; that delay comes
before anything is looked at, so guessing cannot keep the threads busy that hash for others.

Reports: failed logins to the ledger, with the reason that the client is not told; uses of passwords to ``Passwords``.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mailsrv.checks.clients import network_of
from mailsrv.checks.interfaces import Penalties
from mailsrv.mail.address import Address, AddressError
from mailsrv.sasl.scram import WRONG_PASSWORD, ServerFirst, StoredKeys
from mailsrv.store import ledger
from mailsrv.store.accounts.accounts import Account
from mailsrv.store.accounts.passwords import Match, Passwords, TooBusy
from mailsrv.store.ledger import Event
from mailsrv.store.settings import Settings

_LABELS = {"smtp": "SMTP AUTH", "pop3": "POP3"}
_NAME_LIMIT = 254  # of what a client said that is no address


class Denied(enum.Enum):
    """A login that came to nothing."""

    WRONG = "wrong"  # not to be let in
    BUSY = "busy"  # not looked at: too many at once, or the connection is ending


@dataclass(frozen=True, slots=True)
class Granted:
    """Who has logged in, and with which password."""

    account: Account
    match: Match


class Login:
    """The logins of one connection, one after the other.

    ``service`` is "smtp" or "pop3", ``client`` an address.  ``record`` takes an event for the ledger, ``wait`` waits
    some seconds and says whether it has waited to the end.
    """

    __slots__ = ("_client", "_keys", "_passwords", "_penalties", "_record", "_service", "_settings", "_wait")

    def __init__(
        self,
        settings: Settings,
        passwords: Passwords,
        penalties: Penalties,
        record: Callable[[Event], None],
        wait: Callable[[float], Awaitable[bool]],
        service: str,
        client: str,
    ) -> None:
        self._settings = settings
        self._passwords = passwords
        self._penalties = penalties
        self._record = record
        self._wait = wait
        self._service = service
        self._client = client
        self._keys: StoredKeys | None = None  # of the exchange under way

    async def with_password(self, mechanism: str, username: str, password: str) -> Granted | Denied:
        """PLAIN, LOGIN, or USER and PASS."""
        name, account = self._look_up(username)
        delay_s = await self._wait_as_due(name)
        if delay_s is None:
            return Denied.BUSY
        try:
            # Who had to wait long is the first to be turned away.
            network = network_of(self._client)
            like = self._passwords.somebody(self._settings.directory.accounts, name)
            match = await self._passwords.verify(account, password, self._service, network, delay_s, like)
        except TooBusy:
            return Denied.BUSY
        if account is None or match is None:
            return self._failed(mechanism, name, account, WRONG_PASSWORD)
        return self._succeeded(account, match)

    async def server_first(self, username: str) -> ServerFirst | Denied:
        """SCRAM, when the client has said its name."""
        name, account = self._look_up(username)
        if await self._wait_as_due(name) is None:
            return Denied.BUSY
        first = self._passwords.server_first(account, name)
        self._keys = first.keys
        return first

    def with_proof(self, mechanism: str, username: str, fault: str) -> Granted | Denied:
        """SCRAM, when the client has proved that it has the password, or failed to: ``fault``."""
        keys, self._keys = self._keys, None
        name, account = self._look_up(username)
        if account is not None and not fault and (keys is None or account.locked or account.scram != keys):
            fault = "the password was changed during the login"
        if account is None or fault:
            return self._failed(mechanism, name, account, _scram_fault(account, fault))
        return self._succeeded(account, Match("", account.hash))

    def holds(self, granted: Granted) -> bool:
        """Whether the account is still there, and the password still one of its own."""
        return self._passwords.holds(self._settings.directory.account(granted.account.address), granted.match)

    def _look_up(self, username: str) -> tuple[str, Account | None]:
        """What the ledger and the penalties call the user, and its account."""
        try:
            address = Address.parse(username)
        except AddressError:
            return username[:_NAME_LIMIT].lower(), None
        return address.key, self._settings.directory.account(address)

    async def _wait_as_due(self, name: str) -> float | None:
        """How long it has waited, in seconds; None when the waiting was cut short."""
        delay_s = self._penalties.delay_s(self._client, name)
        return delay_s if delay_s <= 0 or await self._wait(delay_s) else None

    def _succeeded(self, account: Account, match: Match) -> Granted:
        self._penalties.succeeded(self._client, account.key)
        self._passwords.homes.add(account, match, network_of(self._client))
        self._passwords.on_used(account, match, self._client, self._service)
        return Granted(account, match)

    def _failed(self, mechanism: str, name: str, account: Account | None, reason: str) -> Denied:
        self._penalties.failed(self._client, name)
        if account is None:
            reason = "there is no such account"
        elif account.locked:
            reason = "the account is locked"
        self._record(
            Event(
                ledger.LOGIN,
                address=name,
                client=self._client,
                status="5.7.8",
                reason=reason,
                rule="accounts",
                detail=f"{_LABELS[self._service]} {mechanism}",
            )
        )
        return Denied.WRONG


def _scram_fault(account: Account | None, fault: str) -> str:
    """The reason for a person who wonders why the right password was wrong."""
    if account is not None and fault == WRONG_PASSWORD:
        if account.scram is None:
            return "the account has no SCRAM keys yet; a login by PLAIN makes them, as does `mailsrv account passwd`"
        if account.apps:
            return f"{fault}, or an app password: these are not for SCRAM"
    return fault
