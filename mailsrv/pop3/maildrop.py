"""The maildrop of a session: message numbers, sizes, unique-ids and deletion marks (RFC 1939 5).

Numbers are those of the moment of login and never change; a mark changes nothing outside until QUIT.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Message(Protocol):
    """``size`` is the octets that RETR sends, before dot-stuffing."""

    @property
    def uidl(self) -> str: ...

    @property
    def size(self) -> int: ...


class Maildrop:
    """``octets`` is the sum of the sizes.  Messages are numbered from 1 for the client; an index is one less."""

    def __init__(self, messages: Sequence[Message], octets: int) -> None:
        self._messages = messages
        self._deleted: set[int] = set()
        self._all_octets = octets
        self._deleted_octets = 0
        self._sizes: dict[int, int] = {}  # of messages that turned out to have another size than was told

    def __len__(self) -> int:
        """How many numbers there are, those of deleted messages included."""
        return len(self._messages)

    @property
    def count(self) -> int:
        return len(self._messages) - len(self._deleted)

    @property
    def octets(self) -> int:
        return self._all_octets - self._deleted_octets

    @property
    def deleted(self) -> tuple[int, ...]:
        """The indices of messages marked as deleted, in order."""
        return tuple(sorted(self._deleted))

    def has(self, number: int) -> bool:
        """Whether a client may name this message: it is there and not marked as deleted."""
        return 1 <= number <= len(self._messages) and number - 1 not in self._deleted

    def size(self, index: int) -> int:
        return self._sizes[index] if index in self._sizes else self._messages[index].size

    def correct(self, index: int, size: int) -> None:
        """The message has this size, as its reading showed."""
        difference = size - self.size(index)
        self._sizes[index] = size
        self._all_octets += difference
        if index in self._deleted:
            self._deleted_octets += difference

    def delete(self, number: int) -> None:
        self._deleted.add(number - 1)
        self._deleted_octets += self.size(number - 1)

    def reset(self) -> None:
        """Take all marks back."""
        self._deleted.clear()
        self._deleted_octets = 0

    def scan_listing(self, number: int) -> bytes:
        return b"%d %d\r\n" % (number, self.size(number - 1))

    def unique_id_listing(self, number: int) -> bytes:
        return b"%d %b\r\n" % (number, self._messages[number - 1].uidl.encode())
