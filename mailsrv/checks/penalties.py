"""Delays for those who guess: passwords, recipients, what a server might forgive.

Each failed login makes the next one from that client network wait longer, and, more gently, the next one to that
account from anywhere.  Logins of a network that has to wait stand in line, so many connections at once try hardly more
passwords than one.  Where an account was logged in to before is a place of its owner
(``mailsrv.store.accounts.homes``): strangers cannot slow it down, only failures with that account from there can, and
these gently too.  A login makes good for the failures with its own account and not for those with others.

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
LONGEST_LINE_S = 120.0  # in which logins of one network stand: no client would wait much longer
LONGEST_HOME_LINE_S = 30.0
LONGEST_ERROR_S = 10.0
LONGEST_ACCOUNT_S = 5.0  # for an account, or at a place of its owner


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

    def clear(self, key: str) -> int:
        """Forget a key; gives what its count was."""
        count = self.count(key)
        self._counts.pop(key, None)
        return count

    def take_back(self, key: str, failures: int) -> None:
        """So many of the failures were none."""
        count, last = self._counts.get(key, (0, 0.0))
        if count > failures:
            self._counts[key] = count - failures, last
        else:
            self._counts.pop(key, None)


class Penalties:
    """``enabled`` is asked each time, so a changed configuration holds at once; ``seconds`` is a monotonic clock.

    ``is_home`` says whether an account (its key) was logged in to from a network before.
    """

    def __init__(
        self, enabled: Callable[[], bool], seconds: Callable[[], float], is_home: Callable[[str, str], bool]
    ) -> None:
        self._enabled = enabled
        self._seconds = seconds
        self._is_home = is_home
        self._clients = _Failures(seconds)
        self._accounts = _Failures(seconds)
        self._pairs = _Failures(seconds)  # of network and account
        self._errors = _Failures(seconds)
        self._lines: OrderedDict[str, float] = OrderedDict()  # when the last in the line of a network comes to its turn

    def delay_s(self, client: str, account: str) -> float:
        """How long a login is to wait before its password is looked at, right or wrong; to be asked once for each."""
        if not self._enabled():
            return 0.0
        network = network_of(client)
        if self._is_home(account, network):
            own = _growing(self._pairs.count(_pair(network, account)), LONGEST_ACCOUNT_S)
            return self._in_line(_pair(network, account), own, LONGEST_HOME_LINE_S)
        others = self._accounts.count(account)
        shared = min(0.1 * (others - FREE + 1), LONGEST_ACCOUNT_S) if others >= FREE else 0.0
        own = _growing(self._clients.count(network), LONGEST_CLIENT_S)
        return max(self._in_line(network, own, LONGEST_LINE_S), shared)

    def _in_line(self, key: str, delay_s: float, longest_s: float) -> float:
        """The delay behind all those who wait already."""
        if not delay_s:
            return 0.0
        now = self._seconds()
        turn = min(max(self._lines.get(key, now), now) + delay_s, now + longest_s)
        self._lines[key] = turn
        self._lines.move_to_end(key)
        if len(self._lines) > REMEMBERED:
            self._lines.popitem(last=False)
        return turn - now

    def failed(self, client: str, account: str) -> None:
        network = network_of(client)
        self._clients.add(network)
        self._accounts.add(account)
        self._pairs.add(_pair(network, account))

    def succeeded(self, client: str, account: str) -> None:
        network = network_of(client)
        failures = self._pairs.clear(_pair(network, account))
        self._clients.take_back(network, failures)
        self._accounts.take_back(account, failures)

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


def _growing(failures: int, longest_s: float) -> float:
    return 0.0 if failures < FREE else min(0.5 * 2.0 ** min(failures - FREE, 16), longest_s)


def _pair(network: str, account: str) -> str:
    return f"{network} {account}"
