"""What the listening servers ask before they serve: may this client connect, and how long must it wait to try again."""

from __future__ import annotations

from typing import Protocol


class Admission(Protocol):
    """Limits on connections, shared by all listeners.  ``peer_ip`` is an address as text, such as ``"192.0.2.1"``."""

    def enter(self, peer_ip: str, /) -> str | None:
        """A client has connected: None when it is admitted, else the reason for people; ``leave`` must follow None."""
        ...

    def leave(self, peer_ip: str, /) -> None:
        """An admitted client has gone."""
        ...


class Penalties(Protocol):
    """Delays for those who guess passwords.  ``account`` is the key of the address that was tried, "" for none."""

    def delay_s(self, peer_ip: str, account: str, /) -> float:
        """Seconds to wait before the next password is looked at; 0.0 for those who gave no cause."""
        ...

    def failed(self, peer_ip: str, account: str, /) -> None:
        """A login has failed."""
        ...

    def succeeded(self, peer_ip: str, account: str, /) -> None:
        """A login has succeeded."""
        ...
