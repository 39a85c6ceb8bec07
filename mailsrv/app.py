"""``build``: the one place where the parts meet.

What comes in: connections to the listeners, the operator's changes to files and database, time.  A message's way
through the parts is told in ``docs/developer/architecture.rst``.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IProtocolFactory
from twisted.logger import Logger
from zope.interface import implementer

from mailsrv.checks.admission import Admission
from mailsrv.checks.bursts import Bursts
from mailsrv.checks.caps import Caps
from mailsrv.checks.clients import is_within
from mailsrv.checks.login_delay import LoginDelay
from mailsrv.checks.members import all_checks
from mailsrv.checks.penalties import Penalties
from mailsrv.config import Listen
from mailsrv.dkim.publication import Publication
from mailsrv.dkim.signer import Signer
from mailsrv.mail.address import Address
from mailsrv.outside.interfaces import Answer, IFilesystem, IResolver, Outside
from mailsrv.outside.proxied import ProxiedFactory
from mailsrv.outside.transports import PromptTlsFactory
from mailsrv.pop3.protocol import Pop3Factory
from mailsrv.relay.bounce import Reports
from mailsrv.relay.delivery import Relay
from mailsrv.relay.queue import QueueRunner
from mailsrv.smtp.house import House
from mailsrv.smtp.protocol import SmtpFactory
from mailsrv.store import ledger, schema, secret
from mailsrv.store.accounts import homes
from mailsrv.store.accounts.homes import HomesKept
from mailsrv.store.accounts.logins import Logins
from mailsrv.store.accounts.password_renewal import PasswordRenewal
from mailsrv.store.accounts.passwords import Match, Passwords
from mailsrv.store.database import Database
from mailsrv.store.delivery import LocalDelivery
from mailsrv.store.key_states import Keys
from mailsrv.store.ledger import Event
from mailsrv.store.mailbox import maildir
from mailsrv.store.mailbox.housekeeping import Housekeeping
from mailsrv.store.mailbox.mailboxes import MailStore
from mailsrv.store.mailbox.quota_warning import QuotaWarnings
from mailsrv.store.mailbox.usage import MailboxUsage
from mailsrv.store.message import Acceptance
from mailsrv.store.notices import Notices
from mailsrv.store.recorder import Recorder
from mailsrv.store.settings import Settings as Present
from mailsrv.store.spool import Spool
from mailsrv.store.tail import Tail
from mailsrv.tls import ServerCertificate

log = Logger()

LOOK_EVERY_S = 0.5  # at files and database: a verb is in force within a second
PRUNE_EVERY_S = 600.0
PUBLICATION_EVERY_S = 60.0  # at DNS, while a key waits to be seen there
LEDGER_KEPT_S = 90 * 86400.0
PRUNED_AT_ONCE = 2000
PRUNE_AGAIN_S = 1.0  # as long as there is more
GOODBYE_S = 8.0  # for clients, to hear 421 and to get the answers that are under way
FINISH_S = 8.0  # for deliveries
CLOSE_S = 3.0  # for the last commit


class StartError(Exception):
    """The server cannot start; the message is one sentence for the operator."""


class Settings(Present, Protocol):
    """What is in force, and a call when it has changed."""

    certificate: ServerCertificate
    keys: Keys
    changed: Callable[[], None]
    refused: Callable[[str], None]

    def look(self) -> None:
        """Take up what has changed on disk."""


@implementer(IResolver)
class _Resolver:
    """Asks the servers that the configuration names at the time."""

    def __init__(self, settings: Settings, outside: Outside) -> None:
        self._settings = settings
        self._outside = outside
        self._servers: tuple[str, ...] | None = None
        self._resolver: IResolver

    async def query(self, name: str, kind: str) -> Answer:
        servers = self._settings.config.dns.servers
        if self._servers != servers:
            self._resolver = self._outside.resolver(servers)
            self._servers = servers
        return await self._resolver.query(name, kind)


class Server:
    """The whole mail server.  ``listen``, then ``start``, then in the end ``stop``."""

    def __init__(self, settings: Settings, outside: Outside) -> None:
        self._settings = settings
        self._outside = outside
        reactor = outside.reactor
        state = settings.config.state
        self._state = state
        resolver = _Resolver(settings, outside)
        self.database = Database(outside, os.path.join(state, "mailsrv.db"))
        self._spool = Spool(outside, self.database, state, lambda: settings.config.hostname)
        self._usage = MailboxUsage(outside, os.path.join(state, "mail"), settings)
        self._local = LocalDelivery(outside, self.database, self._spool, state, self._retry_after, self._usage)
        self._signer = Signer(outside, lambda: settings.keys.signing)
        self._relay = Relay(settings, outside, resolver, signer=self._signer)
        reports = Reports(settings, outside, self._spool, self.database, self._signer)
        self._queue = QueueRunner(settings, outside, self.database, self._spool, self._relay, reports, self._local)
        self._recorder = Recorder(outside, self.database)
        self._publication = Publication(settings, outside, resolver, self._recorder)
        self._passwords = Passwords(outside)
        self._renewal = PasswordRenewal(outside, lambda: settings.config)
        self._passwords.on_outdated = self._renewal.take
        self._passwords.on_used = Logins(outside, self.database).used
        self._passwords.homes.on_due = HomesKept(outside, self.database)
        self._renewal.on_renewed = self._passwords.renewed
        self._mailboxes = MailStore(outside, os.path.join(state, "mail"), self._local.settled)
        self._housekeeping = Housekeeping(outside, os.path.join(state, "mail"), settings, self._usage)
        notices = Notices(settings, outside, self._spool, self.database, self._signer.fields_of)
        warnings = QuotaWarnings(settings, outside, self.database, notices)
        self._usage.on_usage = warnings.usage
        self._mailboxes.on_removing = self._usage.removing
        self._mailboxes.on_removed = self._usage.removed
        self._spool.on_accepted = self._accepted
        self._local.on_deferred = self._queue.wake_at
        self._local.report_success = reports.stored

        admission = Admission(lambda: settings.config.limits, self._passwords.homes.knows_network)
        penalties = Penalties(lambda: settings.config.limits.penalties, reactor.seconds, self._passwords.homes.knows)
        login_delay = LoginDelay(lambda: settings.config.limits.login_delay, reactor.seconds)
        checks = all_checks(settings, outside, resolver, self.database, self._recorder)
        self._bursts = Bursts(
            lambda: settings.config.limits.first_time_recipients, self.database, outside.wall, reactor.seconds
        )
        house = House(
            settings=settings,
            outside=outside,
            spool=self._spool,
            passwords=self._passwords,
            penalties=penalties,
            recorder=self._recorder,
            checks=checks,
            caps=Caps(lambda: settings.config.limits, self.database, outside.wall, reactor.seconds),
            bursts=self._bursts,
            signer=self._signer,
            notices=notices,
            usage=self._usage,
        )
        certificate = settings.certificate

        def smtp(kind: str, implicit_tls: bool = False) -> SmtpFactory:
            return SmtpFactory(house, admission, kind, certificate, implicit_tls)

        def pop3(implicit_tls: bool = False) -> Pop3Factory:
            shared = (settings, outside, self._mailboxes, self._passwords, admission, penalties, login_delay)
            return Pop3Factory(*shared, self._recorder, lambda: certificate, implicit_tls)

        self._factories: dict[str, SmtpFactory | Pop3Factory] = {
            "smtp": smtp("smtp"),
            "submission": smtp("submission"),
            "submissions": smtp("submission", implicit_tls=True),
            "pop3": pop3(),
            "pop3s": pop3(implicit_tls=True),
            "lmtp": smtp("lmtp"),
        }
        self._ports: dict[tuple[str, str], IListeningPort] = {}
        self._timers: dict[Callable[[], None], IDelayedCall] = {}
        self._offset = outside.wall() - reactor.seconds()
        self._version: int | None = None
        self._looking = False
        self._stopping = False

    # -- beginning

    def listen(self) -> None:
        """Bind every port of the configuration (StartError); may need root, and is done before root is given up."""
        for service, description in _listeners(self._settings.config.listen):
            self._listen(service, description)

    def _listen(self, service: str, description: str) -> None:
        factory: IProtocolFactory = self._factories[service]
        if self._factories[service].implicit_tls:
            reactor = self._outside.reactor
            factory = PromptTlsFactory(self._settings.certificate, False, self._factories[service], reactor)
        if service != "lmtp":
            factory = ProxiedFactory(factory, self._is_proxy, self._outside.reactor, self._proxy_refused)
        outcome: list[Any] = []
        self._outside.listen(description, factory).addBoth(outcome.append)
        result = outcome[0] if outcome else None
        if isinstance(result, IListeningPort) or IListeningPort.providedBy(result):
            self._ports[service, description] = result
            return
        error = getattr(result, "value", None)
        if description.startswith("tcp6") and "interface=" not in description and _no_ipv6(error):
            log.warn("This machine has no IPv6; {description} is left out.", description=description)
            return
        raise StartError(_why_not(service, description, error))

    def start(self) -> None:
        """Open the database, take up what the last run left, begin to work (StartError, DatabaseError)."""
        for folder in (self._state, os.path.join(self._state, "mail")):
            try:
                maildir.make(self._outside.filesystem, folder)
                self._outside.filesystem.list(folder)
            except OSError as error:
                raise StartError(f"{folder}: cannot be made: {error.strerror}.") from None
        connection = self.database.open()
        try:
            _sync_above(self._outside.filesystem, self._state)
            self._spool.open(connection)
            self._tail = Tail(self.database, connection, self._outside.reactor.seconds)
            self._passwords.secret = secret.lasting(connection, "scram", self._outside.random)
            self._passwords.homes.load(homes.read(connection), self._outside.wall(), self._password)
        except OSError as error:
            raise StartError(f"{error.filename or self._state}: {error.strerror}.") from None
        except sqlite3.Error as error:
            raise schema.unusable(os.path.join(self._state, "mailsrv.db"), error) from None
        self._settings.changed = self._reconfigured
        self._settings.refused = self._configuration_refused
        self._queue.wake()
        self._every(LOOK_EVERY_S, self._look)
        self._every(PRUNE_EVERY_S, self._prune)
        self._housekeeping.start()
        self._every(PUBLICATION_EVERY_S, self._publication.look)

    # -- what happens meanwhile

    def _is_proxy(self, address: str) -> bool:
        return is_within(address, self._settings.config.listen.proxies)

    def _proxy_refused(self, address: str, reason: str) -> None:
        log.warn("The proxy {address} was let go: {reason}.", address=address, reason=reason)
        self._recorder.record(Event(ledger.CONNECTION, client=address, reason=reason, rule="listen.proxies"))

    def _password(self, account: str, name: str) -> Match | None:
        """A password of an account, as it is now."""
        return self._passwords.named(self._settings.directory.account(Address.parse(account)), name)

    def _holds(self, account: str, match: Match) -> bool:
        return self._passwords.holds(self._settings.directory.account(Address.parse(account)), match)

    def _accepted(self, acceptance: Acceptance) -> None:
        if acceptance.arrival.hold is not None:
            return  # the operator's release is a change of the database
        if acceptance.arrival.release_at > self._outside.wall():
            self._queue.wake_at(acceptance.arrival.release_at)
            return
        self._local.accepted(acceptance.arrival, acceptance.names, acceptance.content)
        self._queue.accepted(acceptance)

    def _retry_after(self, attempts: int) -> float:
        retry = self._settings.config.queue.retry
        return retry[min(attempts, len(retry) - 1)]

    def _every(self, seconds: float, work: Callable[[], None]) -> None:
        def run() -> None:
            self._every(seconds, work)
            work()

        if not self._stopping:
            self._timers[work] = self._outside.reactor.callLater(seconds, run)

    def _look(self) -> None:
        self._settings.look()
        if not self._looking:
            self._looking = True
            Deferred.fromCoroutine(self._look_at_database()).addErrback(self._look_failed).addBoth(self._looked)

    def _look_failed(self, failure: object) -> None:
        if not self._stopping:  # else it was closed under our eyes
            log.error("The database could not be looked at: {failure}", failure=failure)

    def _looked(self, result: object) -> None:
        self._looking = False

    async def _look_at_database(self) -> None:
        version = await self.database.foreign_changes()
        if version != self._version:  # the first time, too: something may have changed since the start
            self._version = version
            self._queue.wake()
            self._bursts.look_again()
        await self._tail.look()

    def _prune(self) -> None:
        # A clock that has jumped forward since the start may be wrong, and what is old by it may not be.
        now = min(self._outside.wall(), self._offset + self._outside.reactor.seconds())
        self.database.write(ledger.prune, now - LEDGER_KEPT_S, PRUNED_AT_ONCE, now).addCallbacks(
            self._pruned, lambda failure: log.error("The ledger could not be pruned: {failure}", failure=failure)
        )
        self.database.write(homes.prune, now - homes.KEPT_S).addErrback(
            lambda failure: log.error("Old places of logins could not be pruned: {failure}", failure=failure)
        )

    def _pruned(self, rows: int) -> None:
        if rows and not self._stopping:
            # A busy server writes more in ten minutes than goes at once; in between the writer does other work.
            self._timers[self._prune].reset(PRUNE_AGAIN_S)

    def _reconfigured(self) -> None:
        self._recorder.record(Event(ledger.CONFIG, reason="the configuration was taken up", rule="configuration"))
        log.info("The configuration was taken up.")
        self._passwords.homes.review(self._holds)
        self._queue.reconfigured()
        Deferred.fromCoroutine(self._change_listeners()).addErrback(
            lambda failure: log.error("The listeners could not be changed: {failure}", failure=failure)
        )

    async def _change_listeners(self) -> None:
        unwanted = set(self._ports) - set(_listeners(self._settings.config.listen))
        # A new listener may want the port of an old one, which is free only when that is closed.
        for closing in [self._ports.pop(key).stopListening() for key in unwanted]:
            if closing is not None:
                await closing
        if self._stopping:
            return
        for service, description in _listeners(self._settings.config.listen):
            if (service, description) not in self._ports:
                try:
                    self._listen(service, description)
                except StartError as error:
                    log.error("{error}", error=str(error))

    def _configuration_refused(self, problem: str) -> None:
        self._recorder.record(
            Event(ledger.CONFIG, status="5.3.5", reason=f"refused, the old one stays: {problem}", rule="configuration")
        )

    # -- the end

    async def stop(self) -> None:
        """End in order, within 20 seconds whatever clients and servers do."""
        self._stopping = True
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()
        for port in self._ports.values():
            port.stopListening()
        goodbyes = [factory.shut_down() for factory in self._factories.values()]
        if not await self._within(GOODBYE_S, *goodbyes):
            for factory in self._factories.values():
                factory.abort()
        await self._within(FINISH_S, self._queue.stop(), self._local.stop())
        self._recorder.close()
        await self._within(CLOSE_S, self.database.close())
        parts = (self._spool, self._passwords, self._renewal, self._mailboxes, self._housekeeping, self._usage)
        for part in (*parts, self._signer, self._publication):
            part.stop()

    async def _within(self, seconds: float, *work: Coroutine[Deferred[Any], Any, None]) -> bool:
        """Whether all of it was done in time; what was not goes on by itself."""
        begun = [Deferred.fromCoroutine(coroutine) for coroutine in work]
        limit = self._outside.reactor.seconds() + seconds
        for deferred in begun:
            try:
                await _waited(deferred).addTimeout(
                    max(limit - self._outside.reactor.seconds(), 0.0), self._outside.reactor
                )
            except TimeoutError:
                return False
        return True


def build(settings: Settings, outside: Outside) -> Server:
    """The mail server, in the world that ``outside`` is."""
    return Server(settings, outside)


def _sync_above(filesystem: IFilesystem, path: str) -> None:
    """Make the folders that lead to ``path`` durable, for they may be new (OSError)."""
    while path != "/":
        path = os.path.dirname(path)
        try:
            filesystem.sync_directory(path)
        except PermissionError:
            pass  # a folder that we may not read was not made by us


def _listeners(listen: Listen) -> list[tuple[str, str]]:
    services = ("smtp", "submission", "submissions", "pop3", "pop3s", "lmtp")
    return [(service, description) for service in services for description in getattr(listen, service)]


def _waited(deferred: Deferred[None]) -> Deferred[None]:
    """Another Deferred that fires with this one, so that a time-out ends the waiting and not the work."""
    waiting: Deferred[None] = Deferred()

    def done(result: Any) -> None:
        if not waiting.called:
            waiting.callback(None)
        if result is not None:
            log.error("Stopping: {failure}", failure=result)

    deferred.addBoth(done)
    return waiting


def _no_ipv6(error: object) -> bool:
    cause = getattr(error, "socketError", error)
    return getattr(cause, "errno", None) in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def _why_not(service: str, description: str, error: object) -> str:
    if isinstance(error, CannotListenError):
        cause = error.socketError
        reason = getattr(cause, "strerror", None) or str(cause)
        return f'listen.{service}: cannot listen at "{description}": {reason}.'
    return f'listen.{service}: "{description}" is no endpoint that can be listened at: {error}.'
