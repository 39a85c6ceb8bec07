"""An mbox file as a source of mail for one folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from email.utils import mktime_tz, parsedate_tz

from mailsrv.mail import header, mbox
from mailsrv.store.migration.letter import Letter, Trouble, why


class MboxSource:
    """The file at ``path``; its messages belong into ``directory``.  OSError, NotMbox: it cannot be taken at all."""

    def __init__(self, path: str, directory: str) -> None:
        self._path = path
        self._directory = directory
        with open(path, "rb") as file:
            self.octets = os.fstat(file.fileno()).st_size
            self._modified = os.fstat(file.fileno()).st_mtime
            next(mbox.read(file), None)

    def letters(self) -> Iterator[Letter | Trouble]:
        """The messages in their order.

        Of two that are alike in everything, From_ line included, each is one of its own.
        """
        seen: dict[bytes, int] = {}
        try:
            with open(self._path, "rb") as file:
                for message in mbox.read(file):
                    yield self._letter(message, seen)
        except OSError as error:
            yield Trouble(self._path, why(error))

    def keywords(self) -> Iterator[tuple[str, dict[str, str]]]:
        """None: what programs call keywords in an mbox has no letters."""
        return iter(())

    def _letter(self, message: mbox.MboxMessage, seen: dict[bytes, int]) -> Letter | Trouble:
        origin = f"{self._path}, octet {message.offset}"
        octets = message.end - message.offset
        if message.content is None:
            return Trouble(origin, f"is larger than {mbox.MESSAGE_LIMIT:,} octets", octets)
        if not message.content.strip():
            return Trouble(origin, "is empty", octets)
        same = hashlib.sha256(message.from_line + b"\n" + message.content).digest()[:16]
        seen[same] = seen.get(same, 0) + 1
        seconds = message.seconds
        if seconds is None:
            seconds = _dated(message.content) or int(self._modified)
        return Letter(
            directory=self._directory,
            content=message.content,
            identity=b"%b\n%d" % (message.from_line, seen[same]),
            seconds=seconds,
            modified=float(seconds),
            flags=message.flags,
            new=message.new,
            uidl="",
            unique="",
            origin=origin,
            octets=octets,
        )


def _dated(content: bytes) -> int | None:
    """When a message was delivered or else written, as its header says."""
    head = content.partition(b"\n\n")[0].replace(b"\n", b"\r\n") + b"\r\n\r\n"
    received = header.field(head, "Received")
    for text in (received.rpartition(b";")[2] if received else b"", header.field(head, "Date") or b""):
        date = parsedate_tz(text.decode("latin-1"))
        if date is not None:
            try:
                seconds = int(mktime_tz(date))
            except (OverflowError, ValueError):
                continue
            if seconds > 0:
                return seconds
    return None
