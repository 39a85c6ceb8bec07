"""Delays for those who guess: passwords, recipients, what a server might forgive.

Each failed login makes the next one from that client network wait longer, and, more gently, the next one to that
account from anywhere.  A network from which the account was once logged in to is the owner's: strangers cannot slow it
down, only its own failures can.

Each command that is refused for good makes the client network wait before its next one, so trying out names takes long;
a message that is accepted makes good for it.  Everything is forgotten after an hour.  Memory is bounded: the oldest
entries give way.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from mailsrv.checks.clients import network_of

FORGOTTEN_AFTER_S = 3600.0
REMEMBERED = 10_000  # entries of each kind
FREE = 3  # failures of a client without any delay: people mistype
FREE_ERRORS = 10  # refused commands: lists have stale addresses
LONGEST_CLIENT_S = 30.0
LONGEST_ERROR_S = 10.0
LONGEST_ACCOUNT_S = 5.0


class _Failures:
    """Counts by key, each forgotten after an hour without a new one."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._counts: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def count(self, key: str) -> int:
        count, last = self._counts.get(key, (0, 0.0))
        return count if self._seconds() - last < FORGOTTEN_AFTER_S else 0

    def add(self, key: str) -> None:
        self._counts[key] = (self.count(key) + 1, self._seconds())
        self._counts.move_to_end(key)
        if len(self._counts) > REMEMBERED:
            self._counts.popitem(last=False)

    def clear(self, key: str) -> None:
        self._counts.pop(key, None)


class Penalties:
    """``enabled`` is asked each time, so a changed configuration holds at once; ``seconds`` is a monotonic clock."""

    def __init__(self, enabled: Callable[[], bool], seconds: Callable[[], float]) -> None:
        self._enabled = enabled
        self._clients = _Failures(seconds)
        self._accounts = _Failures(seconds)
        self._errors = _Failures(seconds)
        self._homes: OrderedDict[tuple[str, str], None] = OrderedDict()

    def delay_s(self, client: str, account: str) -> float:
        """How long a login is to wait before its password is looked at, right or wrong."""
        if not self._enabled():
            return 0.0
        network = network_of(client)
        own = self._clients.count(network)
        delay = 0.0 if own < FREE else min(0.5 * 2.0 ** min(own - FREE, 16), LONGEST_CLIENT_S)
        if (network, account) not in self._homes:
            others = self._accounts.count(account)
            if others >= FREE:
                delay = max(delay, min(0.1 * (others - FREE + 1), LONGEST_ACCOUNT_S))
        return delay

    def failed(self, client: str, account: str) -> None:
        self._clients.add(network_of(client))
        self._accounts.add(account)

    def succeeded(self, client: str, account: str) -> None:
        network = network_of(client)
        self._clients.clear(network)
        self._homes[(network, account)] = None
        self._homes.move_to_end((network, account))
        if len(self._homes) > REMEMBERED:
            self._homes.popitem(last=False)

    def refused(self, client: str) -> float:
        """A command was refused for good: how long the client's next one is to wait."""
        network = network_of(client)
        self._errors.add(network)
        errors = self._errors.count(network)
        if errors <= FREE_ERRORS or not self._enabled():
            return 0.0
        return min(0.25 * 2.0 ** min(errors - FREE_ERRORS - 1, 16), LONGEST_ERROR_S)

    def behaved(self, client: str) -> None:
        """A message was accepted."""
        self._errors.clear(network_of(client))
