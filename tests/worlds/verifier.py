"""What dkimpy, which is not ours, thinks of the signatures of a message."""

from __future__ import annotations

from collections.abc import Sequence

import dkim  # type: ignore[import-untyped]

from mailsrv.store.keys import SigningKey
from tests.worlds.keys import zone


def verified(message: bytes, keys: Sequence[SigningKey]) -> list[bool]:
    """Whether each signature, from the top, is valid when DNS has exactly these keys; none of what is no message."""
    records = zone(*keys)

    def look_up(name: bytes, timeout: float = 0) -> bytes | None:
        record = records.get(name.decode().rstrip("."))
        return None if record is None else record.encode()

    try:
        parsed = dkim.DKIM(message)
    except dkim.MessageFormatError:
        return []
    number = sum(name.lower() == b"dkim-signature" for name, _ in parsed.headers)
    return [_is_valid(message, n, look_up) for n in range(number)]


def _is_valid(message: bytes, n: int, look_up: object) -> bool:
    try:
        return bool(dkim.DKIM(message).verify(n, dnsfunc=look_up))
    except dkim.ValidationError:
        return False
