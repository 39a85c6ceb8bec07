"""What ``twistd mailsrv`` runs: options, and a service that binds ports as root and works as somebody else.

Everything that is wrong at the start ends it with one sentence and exit status 1.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from typing import Any, NoReturn

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python import usage

from mailsrv.app import Server, StartError, build
from mailsrv.config import DEFAULT_PATH, ConfigError
from mailsrv.outside.monotonic import keep_steady_time
from mailsrv.outside.polling import prompt
from mailsrv.outside.real import RealOutside
from mailsrv.settings import FileSettings
from mailsrv.store import state_lock
from mailsrv.store.accounts.accounts import AccountsError
from mailsrv.store.keys import KeyFileError
from mailsrv.store.schema import DatabaseError
from mailsrv.tls import CertificateError

log = Logger()

TOGETHER_S = 1.0  # signals within that are one
SPARE_FILES = 4500  # beside one for each client: attempts to deliver and their connections, database, files under way


class Options(usage.Options):
    synopsis = "[--config FILE]"
    optParameters = [["config", "c", None, f"The configuration file (default: $MAILSRV_CONFIG, else {DEFAULT_PATH})."]]


class MailService(Service):
    """The mail server as twistd starts and stops it."""

    name = "mailsrv"

    def __init__(self, settings: FileSettings, foreground: bool = True) -> None:
        self._settings = settings
        self._foreground = foreground
        self._server: Server | None = None
        self._lock: int | None = None

    def privilegedStartService(self) -> None:
        # Only here: before this, twistd may still fork, and threads do not survive that.
        from twisted.internet import reactor

        os.umask(0o077)  # mail, database and keys are nobody else's
        _raise_file_limit(self._settings.config.limits.connections)
        prompt(reactor)
        keep_steady_time(reactor)
        self._server = build(self._settings, RealOutside(reactor))
        try:
            self._server.listen()
        except StartError as error:
            self._give_up(error)

    def startService(self) -> None:
        from twisted.internet import reactor

        assert self._server is not None
        try:
            self._lock = _take(self._settings.config.state)
            self._server.start()
        except (StartError, DatabaseError) as error:
            self._give_up(error)
        super().startService()  # type: ignore[no-untyped-call]
        gc.freeze()  # what is here now stays, and the collector need not look through it again and again
        signal.signal(signal.SIGHUP, self._hang_up)
        reactor.callWhenRunning(_Ending(reactor).watch)
        log.info("mailsrv is at work for {domains}.", domains=", ".join(self._settings.config.domains))

    def _give_up(self, error: Exception) -> NoReturn:
        if self._foreground:
            raise SystemExit(f"mailsrv: {error}") from None
        # The first process waits for the daemon to say how it went, and of a SystemExit it never hears.  It ends as
        # soon as it has heard, so the log says why before the exception is out, and is not told a second time.
        log.critical("{error}", error=str(error))
        sys.excepthook = lambda kind, value, trace: None
        raise StartError(str(error)) from None

    def stopService(self) -> Deferred[None] | None:
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._server.stop()) if self._server is not None else None

    def _hang_up(self, number: int, frame: Any) -> None:
        from twisted.internet import reactor

        reactor.callFromThread(self._settings.reload)  # type: ignore[attr-defined]


class _Ending:
    """The signals that end the server: the first one in order, as Twisted does it, another one at once.

    Twisted tries to stop a second time and fails.  What comes within TOGETHER_S is one: many a program that ends
    another one sends two signals.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._usual: dict[int, Any] = {}
        self._told_at: float | None = None

    def watch(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            usual = signal.getsignal(number)
            if callable(usual):  # a shell may have had SIGINT ignored
                self._usual[number] = usual
                signal.signal(number, self._told)

    def _told(self, number: int, frame: Any) -> None:
        now = self._reactor.seconds()
        if self._told_at is None:
            self._told_at = now
            self._usual[number](number, frame)
        elif now - self._told_at >= TOGETHER_S:
            # Not by the reactor: it may be what the operator does not want to wait for any longer.
            log.warn("Told to end a second time: mailsrv ends at once, as after a crash.")
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def makeService(options: Options) -> MailService:
    """Read the configuration and everything it names; a mistake ends the program with one sentence."""
    try:
        foreground = options.parent is None or bool(options.parent["nodaemon"])
        path = options["config"] or os.environ.get("MAILSRV_CONFIG") or DEFAULT_PATH
        return MailService(FileSettings(path), foreground)
    except (ConfigError, AccountsError, CertificateError, KeyFileError) as error:
        raise SystemExit(f"mailsrv: {error}") from None


def _take(state: str) -> int:
    """Keep a second server off the same mail (StartError)."""
    try:
        os.makedirs(state, 0o700, exist_ok=True)
        lock = state_lock.take(state)
    except OSError as error:
        raise StartError(f"{state}: cannot be made or opened: {error.strerror}.") from None
    if lock is None:
        raise StartError(f"{state}: another mailsrv is at work on this folder.")
    return lock


def _raise_file_limit(connections: int) -> None:
    wanted = connections + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    for limits in ((wanted, max(hard, wanted)), (min(wanted, hard), hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            return
        except (OSError, ValueError):
            continue
    log.warn("The limit of open files stays at {soft}, too low for {n} connections.", soft=soft, n=connections)
