"""The maildrop of a session: message numbers, sizes, unique-ids and deletion marks (RFC 1939 5).

Numbers are those of the moment of login and never change; a mark changes nothing outside until QUIT.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Messages(Protocol):
    """Messages by their index; ranges go from ``start`` up to and without ``stop``.

    A size is the octets that RETR sends, before dot-stuffing.
    """

    def __len__(self) -> int: ...

    def size(self, index: int, /) -> int: ...

    def some_sizes(self, start: int, stop: int, /) -> Sequence[int]: ...

    def unique_ids(self, start: int, stop: int, /) -> Sequence[bytes]: ...


class Maildrop:
    """``octets`` is the sum of the sizes.  Messages are numbered from 1 for the client; an index is one less."""

    def __init__(self, messages: Messages, octets: int) -> None:
        self._messages = messages
        self._len = len(messages)
        self._deleted: set[int] = set()
        self._all_octets = octets
        self._deleted_octets = 0
        self._sizes: dict[int, int] = {}  # of messages that turned out to have another size than was told

    def __len__(self) -> int:
        """How many numbers there are, those of deleted messages included."""
        return self._len

    @property
    def count(self) -> int:
        return self._len - len(self._deleted)

    @property
    def octets(self) -> int:
        return self._all_octets - self._deleted_octets

    @property
    def deleted(self) -> tuple[int, ...]:
        """The indices of messages marked as deleted, in order."""
        return tuple(sorted(self._deleted))

    def has(self, number: int) -> bool:
        """Whether a client may name this message: it is there and not marked as deleted."""
        return 1 <= number <= self._len and number - 1 not in self._deleted

    def size(self, index: int) -> int:
        return self._sizes[index] if index in self._sizes else self._messages.size(index)

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

    def scan_listings(self, start: int, stop: int) -> list[bytes]:
        """Lines for the messages with these indices, without those that are marked."""
        sizes = list(self._messages.some_sizes(start, stop))
        for index in self._sizes.keys() & range(start, stop) if self._sizes else ():
            sizes[index - start] = self._sizes[index]
        return [b"%d %d\r\n" % (number, sizes[number - 1 - start]) for number in self._numbers(start, stop)]

    def unique_id_listings(self, start: int, stop: int) -> list[bytes]:
        """The same with unique-ids."""
        identifiers = self._messages.unique_ids(start, stop)
        return [b"%d %b\r\n" % (number, identifiers[number - 1 - start]) for number in self._numbers(start, stop)]

    def _numbers(self, start: int, stop: int) -> Sequence[int]:
        numbers = range(start + 1, stop + 1)
        return [number for number in numbers if number - 1 not in self._deleted] if self._deleted else numbers
