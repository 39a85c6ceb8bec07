"""Opening transports to other servers, and the account of all that are open.

What keeps a transport from coming about is a ``Trouble``, never an exception.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any, Final, cast

from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory

from mailsrv.mail.outcome import Outcome, Result
from mailsrv.outside.interfaces import Outside
from mailsrv.relay.attempt import Trouble
from mailsrv.relay.connection import SmtpClient
from mailsrv.relay.mx import Hop
from mailsrv.relay.route import listens_at
from mailsrv.smtp.client import ClientConnection

GOODBYE_S: Final = 2.0  # for connections that were at rest when everything is closed
_NO_SUCH_FAMILY: Final = (errno.ENETUNREACH, errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


class Dialer:
    """Dials, and can close whatever it has dialled."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        self._reactor = outside.reactor
        self._clients: set[SmtpClient] = set()
        self._dials: set[Deferred[Any]] = set()
        self.closed = False

    async def dial(self, hop: Hop, timeout_s: float, core: ClientConnection) -> SmtpClient | Trouble:
        """A connected client that drives ``core``."""
        if self.closed:
            return Trouble(Outcome(Result.DEFERRED, "4.3.2", "This server is shutting down."))
        client = SmtpClient(self._reactor, core)
        factory = Factory.forProtocol(lambda: client)
        factory.noisy = False
        dial = self._outside.connect(hop.address, hop.port, factory, timeout_s)
        self._dials.add(dial)
        unreachable = False
        try:
            await dial
        except ConnectTimeout:
            reason = f"{hop} did not answer within {timeout_s:g} seconds."
        except (ConnectError, ConnectingCancelledError, CancelledError, OSError) as error:
            reason = f"No connection with {hop}: {_in_words(error)}."
            unreachable = _number(error) in _NO_SUCH_FAMILY
        else:
            self._clients.add(client)
            client.closed.addCallback(lambda _: self._clients.discard(client))
            return client
        finally:
            self._dials.discard(dial)
        return Trouble(Outcome(Result.DEFERRED, "4.4.1", reason, remote=str(hop)), unreachable=unreachable)

    async def close(self) -> None:
        """Cut what is under way; what says goodbye just now may do so within GOODBYE_S.  Returns when all is closed."""
        self.closed = True
        for dial in list(self._dials):
            dial.cancel()
        for client in list(self._clients):
            if not client.closing:
                client.abort()
        late = self._reactor.callLater(GOODBYE_S, self._abort_all)
        await DeferredList([client.closed for client in self._clients])
        if late.active():
            late.cancel()

    def _abort_all(self) -> None:
        for client in list(self._clients):
            client.abort()


def is_this_server(client: SmtpClient, hop: Hop, endpoints: Iterable[str]) -> bool:
    """Whether we have called ourselves, who listen at ``endpoints``.

    A machine reaches its own addresses from the very same address; so this knows those too that stand in no record
    and in no configuration.
    """
    here: Any = cast(ITCPTransport, client.transport).getHost()
    return ip_address(here.host) == ip_address(hop.address) and listens_at(endpoints, hop.address, hop.port)


def _number(error: BaseException) -> int | None:
    number = getattr(error, "osError", None) or getattr(error, "errno", None)
    return number if isinstance(number, int) else getattr(number, "errno", None)


def _in_words(error: BaseException) -> str:
    text = str(error).split("\n")[0].rstrip(".")
    return text or type(error).__name__
