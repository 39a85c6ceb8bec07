"""What a source of mail yields: letters, and trouble with what could not be read."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Letter:
    """One message of a source.

    ``directory`` is the Maildir++ directory of its folder there ("" for the inbox), ``content`` has LF line ends.
    ``identity`` tells it from another message of the same content in that folder, and is the same at the next reading.
    ``seconds`` is when it was delivered, ``modified`` the time that IMAP shows (INTERNALDATE); ``flags`` are Maildir's
    letters in order.  ``new``: nobody has seen it.  ``uidl`` is the unique-id by which POP3 clients know it, "" when
    there is none; ``unique`` the unique part of its name when that is one of ours, else "".  ``origin`` names it for
    people; ``octets`` is its part in ``Source.octets``.
    """

    directory: str
    content: bytes = field(repr=False)
    identity: bytes
    seconds: int
    modified: float
    flags: str
    new: bool
    uidl: str
    unique: str
    origin: str
    octets: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something of a source could not be read, or not be kept; ``reason`` is the end of a sentence about ``origin``."""

    origin: str
    reason: str
    octets: int = 0


class Source(Protocol):
    """Mail of another server.  ``octets`` is about how much there is to read, for showing progress."""

    @property
    def octets(self) -> int: ...

    def letters(self) -> Iterator[Letter | Trouble]:
        """Everything in it, one at a time; what cannot be read is Trouble and ends nothing."""
        ...

    def keywords(self) -> Iterator[tuple[str, dict[str, str]]]:
        """What the small letters among the flags mean: the directory of a folder, and names by letter (OSError)."""
        ...


def why(error: OSError) -> str:
    """The end of a sentence: what went wrong."""
    if error.errno == errno.ELOOP:
        return "is a symbolic link, which is not followed"
    return f"cannot be read: {error.strerror or error}"
