"""The lock on the folder of the state: one server at a time.  The kernel gives it back, however the server ends."""

from __future__ import annotations

import fcntl
import os


def take(state: str) -> int | None:
    """Take the lock; a descriptor that holds it until it is closed, None when another server has it (OSError)."""
    descriptor = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def is_taken(state: str) -> bool:
    """Whether a server is at work, or nobody can tell.

    The answer is old at once.  Whoever holds the database's write lock may rely on "no": a server that takes the folder
    after that comes to the database behind them.  To ask is to hold the lock for an instant, in which a server that
    starts is refused; so it is asked only where something depends on it.
    """
    try:
        descriptor = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
