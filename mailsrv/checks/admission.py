"""How many connections there may be: in all, and from one client network.

A stranger cannot use up what others need: above a limit a client is told to come back (421 4.7.0, or POP3's like) and
let go at once.  A tenth of all places is for networks from which accounts were used before and for this machine, so no
crowd of strangers keeps owners out.  Limits are read at each connection, so a changed configuration holds for the next.

Where TLS comes first, telling takes a handshake, and memory until it is done.  So this is for one of a network and for
EXPLAINED in all at a time; the others are let go without a word.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from mailsrv.checks.clients import LOCAL, is_loopback, network_of

RESERVED = 10  # one of so many
EXPLAINED = 20  # handshakes at a time only to say no


class Limits(Protocol):
    @property
    def connections(self) -> int: ...

    @property
    def connections_per_client(self) -> int: ...


class Admission:
    """Counts the connections of all services together.  ``is_home``: whether some account was used from a network."""

    def __init__(self, limits: Callable[[], Limits], is_home: Callable[[str], bool]) -> None:
        self._limits = limits
        self._is_home = is_home
        self._all = 0
        self._of: dict[str, int] = {}
        self._explaining: set[str] = set()  # networks

    def enter(self, client: str) -> str | None:
        """Count a connection.  None: welcome, and ``leave`` follows; else why not, for people."""
        network = network_of(client)
        count = self._of.get(network, 0)
        limits = self._limits()
        if self._all >= limits.connections - limits.connections // RESERVED and (
            self._all >= limits.connections or not (client == LOCAL or is_loopback(client) or self._is_home(network))
        ):
            return "too many connections in all"
        if count >= limits.connections_per_client:
            return "too many connections from your address"
        self._all += 1
        self._of[network] = count + 1
        return None

    def explain(self, client: str) -> bool:
        """Whether one that is not welcome may have a handshake, to be told why; ``explained`` follows, at its end."""
        network = network_of(client)
        if network in self._explaining or len(self._explaining) >= EXPLAINED:
            return False
        self._explaining.add(network)
        return True

    def explained(self, client: str) -> None:
        self._explaining.discard(network_of(client))

    def leave(self, client: str) -> None:
        network = network_of(client)
        self._all -= 1
        left = self._of[network] - 1
        if left:
            self._of[network] = left
        else:
            del self._of[network]
