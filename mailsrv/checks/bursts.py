"""A burst of first-time recipients from a network that is new to the account: what a stolen password looks like.

A network (an IPv4 /24, an IPv6 /48) is new to an account until a day after the first message that was sent from it,
or until the operator releases one that was held; of an account that has sent for less than a day, none is new.  A
recipient is first-time when the account has never written to it nor heard from it, as far back as the ledger goes;
colleagues in own domains never are.  Up to so many of them in an hour pass; a message that exceeds them is held.  Mail
to known recipients goes on, from wherever it comes.

Networks are those of accepted messages, so a restart forgets none; the count of the last hour is kept in memory.  There
nothing depends on the wall clock.  In the database times are of the wall clock: a network that was first used in what
is the future, since the clock was set back, is not new.  How long ago that was nobody can tell, and its owner would be
held until the clock has caught up.
"""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache

from mailsrv.checks.clients import address_of
from mailsrv.mail.address import Address
from mailsrv.store.accounts import acquaintance
from mailsrv.store.database import Database
from mailsrv.store.message import Hold

RULE = "limits.first_time_recipients"
NEW_FOR_S = 86400.0
WINDOW_S = 3600.0
SET_BACK_S = 60.0  # so far ahead is a time by which the clock was set back, and no small correction
NAMED = 3  # recipients that the reason names


class _History:
    """One account, by the monotonic clock: since when its networks are used, and first-time recipients of an hour."""

    __slots__ = ("networks", "recent")

    def __init__(self, networks: dict[str, float]) -> None:
        self.networks = networks
        self.recent: deque[tuple[float, int]] = deque()


class Bursts:
    """``limit`` is asked each time, 0 turns it off.

    ``wall`` gives seconds since 1970, ``seconds`` those of a clock that never jumps.
    """

    def __init__(
        self, limit: Callable[[], int], database: Database, wall: Callable[[], float], seconds: Callable[[], float]
    ) -> None:
        self._limit = limit
        self._database = database
        self._wall = wall
        self._seconds = seconds
        self._histories: dict[str, _History] = {}

    def look_again(self) -> None:
        """The operator may have released mail: what is known of networks is read anew, at the next message of each."""
        self._histories = {account: history for account, history in self._histories.items() if history.recent}
        for history in self._histories.values():
            history.networks = {}

    async def judge(self, account: str, client: str, recipients: Sequence[Address]) -> Hold | None:
        """Whether a message to ``recipients``, who are elsewhere, is to be held (StorageTrouble)."""
        limit = self._limit()
        if not limit or not recipients:
            return None
        history = await self._history(account)
        if not self._is_new(history, client):
            return None
        first = await self._database.read(acquaintance.strangers, account, [str(address) for address in recipients])
        if not first:
            return None
        now = self._seconds()
        while history.recent and history.recent[0][0] <= now - WINDOW_S:
            history.recent.popleft()
        if sum(count for _, count in history.recent) + len(first) <= limit:
            history.recent.append((now, len(first)))
            return None
        named = ", ".join(first[:NAMED]) + (f" and {len(first) - NAMED} more" if len(first) > NAMED else "")
        return Hold(
            f"{account} has not sent from the network of {client} before, and never written to {named}: more than "
            f"{limit} such recipients in an hour",
            RULE,
        )

    def accepted(self, account: str, client: str) -> None:
        """A message from there was accepted and not held."""
        history = self._histories.get(account)
        if history is not None and history.networks:
            history.networks.setdefault(network_of(client), self._seconds())

    async def _history(self, account: str) -> _History:
        history = self._histories.get(account)
        if history is None or not history.networks:
            networks: dict[str, float] = {}
            found = await self._database.read(acquaintance.clients, account, self._wall() - NEW_FOR_S)
            wall, now = self._wall(), self._seconds()
            for client, first in found.items():
                network, ago = network_of(client), wall - first
                since = now - max(ago, 0.0) if ago >= -SET_BACK_S else float("-inf")
                networks[network] = min(since, networks.get(network, since))
            history = self._histories.setdefault(account, _History(networks))
            history.networks = history.networks or networks
        return history

    def _is_new(self, history: _History, client: str) -> bool:
        old = self._seconds() - NEW_FOR_S
        if not any(since <= old for since in history.networks.values()):
            return False
        since = history.networks.get(network_of(client))
        return since is None or since > old


@lru_cache(maxsize=4096)
def network_of(client: str) -> str:
    """The network that a person is at home in: providers give out other addresses of it from day to day."""
    address = address_of(client)
    if address is None:
        return client
    return str(ipaddress.ip_network(f"{address}/{24 if address.version == 4 else 48}", strict=False))
