"""Passwords: kept as one-way hashes, checked away from the reactor's thread.

A stored password is ``{SCHEME}hash``; ``password_schemes`` says what is known.  New ones are Argon2id (RFC 9106).  An
account has a main password and any number of app passwords; ``Match`` says which of them was right.  When the main one
is stored in an old way or has no SCRAM keys, ``on_outdated`` is told, for this is the moment to make good for it.

A check takes the same time for an unknown user, a locked account and a wrong password, so the answer tells a stranger
nothing.  Where hashes of old schemes make some accounts slower than others, it takes for an unknown user what it takes
for some account, always the same one.  The hashes of an account share their salt where they can: then one computation
compares a password with all of them, and their number shows neither in time nor in work.  A password that was right is
remembered for five minutes under a key of this process, so that clients that log in every minute cost one hash in five;
nothing can be read back from what is remembered.

Checks wait in two lanes that take turns: one for accounts at a place of theirs (``homes``), in turn for each account
and place; one for everybody else, in turn for each client network.  Each has a fixed number of places, and when they
are taken the network with the most of them loses one: that is ``TooBusy``, which a server answers with "try again
later".  So guessing from however many networks delays an owner at home by one check, and no network can use up the
places.

SCRAM needs no check here but a user's keys, or for who has none such that fit nothing: ``server_first``.
"""

from __future__ import annotations

import base64
import hmac
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import argon2
from argon2 import low_level
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mailsrv.outside.interfaces import Outside
from mailsrv.sasl import scram
from mailsrv.sasl.scram import ServerFirst
from mailsrv.store.accounts import scram_keys
from mailsrv.store.accounts.homes import Homes
from mailsrv.store.accounts.password_schemes import CURRENT, UnknownScheme, scheme_of, take_apart
from mailsrv.store.accounts.turns import Lane

if TYPE_CHECKING:
    from mailsrv.store.accounts.accounts import Account

THREADS: Final = 2
WAITING_LIMIT: Final = 100  # in each lane
REMEMBERED_S: Final = 300.0
REMEMBERED_LIMIT: Final = 10_000

# RFC 9106 4 leaves the cost open; this is the smallest set that password guidance accepts, and 19 MiB for each thread.
_TIME_COST = 2
_MEMORY_KIB = 19 * 1024
_LANES = 1
_SALT_OCTETS = 16
_HASH_OCTETS = 32
_NONCE_OCTETS = 18

_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"  # 32, without those that look alike


class TooBusy(Exception):
    """Too many passwords are waiting to be checked."""


# Well formed, of the usual cost, and the hash of nothing that anybody knows.
_DUMMY = (
    f"{{ARGON2ID}}$argon2id$v=19$m={_MEMORY_KIB},t={_TIME_COST},p={_LANES}"
    f"${base64.b64encode(bytes(_SALT_OCTETS)).decode().rstrip('=')}"
    f"${base64.b64encode(bytes(_HASH_OCTETS)).decode().rstrip('=')}"
)


def hash_password(password: str, random: Callable[[int], bytes], beside: Iterable[str] = ()) -> str:
    """``{ARGON2ID}$argon2id$...`` for the accounts file.  Takes some 20 ms and 19 MiB.

    ``beside`` are the other stored passwords of the account; the new one takes the salt of the first that is like it.
    """
    salt = next(filter(None, map(_salt_to_share, beside)), None) or random(_SALT_OCTETS)
    encoded = low_level.hash_secret(
        password.encode(), salt, _TIME_COST, _MEMORY_KIB, _LANES, _HASH_OCTETS, low_level.Type.ID
    )
    return f"{{ARGON2ID}}{encoded.decode()}"


def generate_password(random: Callable[[int], bytes]) -> str:
    """A password of 100 bits that can be read out and typed: ``"k7mq-..."``, five groups of four letters."""
    letters = "".join(_LETTERS[octet % 32] for octet in random(20))
    return "-".join(letters[start : start + 4] for start in range(0, 20, 4))


def check_stored(stored: str) -> None:
    """Refuse what no login could be compared with (UnknownScheme)."""
    take_apart(stored)


def is_old(stored: str) -> bool:
    """Whether a stored password is of a scheme that is not used for new ones."""
    return scheme_of(stored) != CURRENT


def verify_stored(stored: str, password: str) -> bool:
    """Compare; slow.  False for anything that ``check_stored`` refuses."""
    try:
        scheme, decoded = take_apart(stored)
    except UnknownScheme:
        return False
    return scheme.verify(decoded, password.encode())


def which(stored: Sequence[str], password: str) -> str | None:
    """The one of several stored passwords that this is; slow, but no slower for many that share their salt.

    Takes no less time over a wrong password than for a user who does not exist.
    """
    computed: dict[tuple[str, int], bytes] = {}
    for each in stored:
        if verify_stored(each, password) if is_old(each) else _verify_current(each, password, computed):
            return each
    if not computed:
        verify_stored(_DUMMY, password)
    return None


def _verify_current(stored: str, password: str, computed: dict[tuple[str, int], bytes]) -> bool:
    """Compare with Argon2id; ``computed`` has what came out for each salt and cost so far."""
    try:
        _, decoded = take_apart(stored)
        start, _, end = decoded.decode("ascii").rpartition("$")
        digest = _unpadded(end)
        key = start, len(digest)
        if key not in computed:
            cost = argon2.extract_parameters(decoded.decode("ascii"))
            computed[key] = low_level.hash_secret_raw(
                password.encode(),
                _unpadded(start.rpartition("$")[2]),
                cost.time_cost,
                cost.memory_cost,
                cost.parallelism,
                len(digest),
                low_level.Type.ID,
                cost.version,
            )
    except (ValueError, argon2.exceptions.HashingError):
        return False
    return hmac.compare_digest(computed[key], digest)


def _salt_to_share(stored: str) -> bytes | None:
    """The salt of a stored password that is just as a new one would be."""
    start, _, salt = stored.rpartition("$")[0].rpartition("$")
    if not _DUMMY.startswith(f"{start}$"):
        return None
    try:
        return _unpadded(salt)
    except ValueError:
        return None


def _unpadded(text: str) -> bytes:
    """base64 as the Argon2 hashes have it (ValueError)."""
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


@dataclass(frozen=True, slots=True)
class Match:
    """A password of an account: ``name`` is that of an app password, "" for the main one; ``stored`` is its hash."""

    name: str
    stored: str = field(repr=False)


class _Waiting:
    """A check that waits for its turn; ``done`` answers with the stored password that was right, or None."""

    __slots__ = ("done", "password", "stored")

    def __init__(self, stored: list[str], password: str) -> None:
        self.stored = stored
        self.password = password
        self.done: Deferred[str | None] = Deferred()


class Passwords:
    """Checks passwords in threads of its own.

    ``on_outdated`` is called with account and password after a right main one that is stored in an old way or has no
    SCRAM keys; ``on_used`` by whoever lets a client in, with account, match, the client's address and the service.
    ``secret`` makes the salts of those who do not exist; it is to be the same after a restart.
    """

    def __init__(self, outside: Outside) -> None:
        self._seconds = outside.reactor.seconds
        self._random = outside.random
        self._worker = outside.worker("passwords", THREADS)
        self._key = outside.random(32)
        self._owners: Lane[_Waiting] = Lane(WAITING_LIMIT)
        self._strangers: Lane[_Waiting] = Lane(WAITING_LIMIT)
        self._running = 0
        self._owner_last = False
        self.homes = Homes(outside.reactor.seconds)
        self._right: dict[bytes, tuple[float, Match]] = {}  # what was right, until when; oldest first
        self._renewed: OrderedDict[str, str] = OrderedDict()
        self.secret = outside.random(32)
        self.on_outdated: Callable[[Account, str], None] = lambda account, password: None
        self.on_used: Callable[[Account, Match, str, str], None] = lambda account, match, client, service: None

    async def verify(
        self,
        account: Account | None,
        password: str,
        service: str = "",
        network: str = "",
        blame: float = 0.0,
        like: Account | None = None,
    ) -> Match | None:
        """Which password of this account it is, of those that are good for the service; None for a wrong one (TooBusy).

        An ``account`` of None is an unknown user.  ``network`` is the client's, and ``blame`` says how much cause it
        gave to be turned away before others.  ``like`` is an account whose work is done in place of that for a user who
        does not exist or is locked; its password opens nothing.
        """
        matches = _matches(account, service)
        stored = [match.stored for match in matches or _matches(like, service)] or [_DUMMY]
        if account is None or not matches:
            await self._in_turn(_Waiting(stored, password), None, network, blame)
            return None
        mark = hmac.digest(self._key, "\0".join((*stored, password)).encode("utf-8", "surrogatepass"), "sha256")
        until, known = self._right.get(mark, (float("-inf"), None))
        if until > self._seconds():
            return known
        right = await self._in_turn(_Waiting(stored, password), account, network, blame)
        match = next((match for match in matches if match.stored == right), None)
        if match is None:
            return None
        self._remember(mark, match)
        if not match.name and _outdated(account, password):
            self.on_outdated(account, password)
        return match

    def _in_turn(self, waiting: _Waiting, account: Account | None, network: str, blame: float) -> Deferred[str | None]:
        if account is not None and self.homes.knows(account.key, network):
            turned_away = self._owners.add(f"{network} {account.key}", blame, waiting)
        else:
            turned_away = self._strangers.add(network, blame, waiting)
        if turned_away is not None:
            turned_away.done.errback(TooBusy())
        self._go_on()
        return waiting.done

    def _go_on(self) -> None:
        """Keep the threads busy."""
        while self._running < THREADS and (self._owners or self._strangers):
            self._owner_last = bool(self._owners) and not (self._owner_last and self._strangers)
            waiting = (self._owners if self._owner_last else self._strangers).next()
            self._running += 1
            self._worker.call(which, waiting.stored, waiting.password).addBoth(self._checked, waiting)

    def _checked(self, right: str | Failure | None, waiting: _Waiting) -> None:
        self._running -= 1
        self._go_on()
        waiting.done.callback(right)

    def somebody(self, accounts: Sequence[Account], name: str) -> Account | None:
        """An account in place of nobody's ``name``, as long as the accounts are the same always the same one."""
        if not accounts:
            return None
        octets = hmac.digest(self.secret, b"like" + name.encode("utf-8", "surrogatepass"), "sha256")
        return accounts[int.from_bytes(octets[:8]) % len(accounts)]

    def server_first(self, account: Account | None, name: str) -> ServerFirst:
        """What SCRAM goes on with; None is an unknown user.  The same ``name`` is answered by the same salt."""
        # Made in any case, for the time that it takes.
        none = scram.stand_in(self.secret, name)
        usable = account is not None and not account.locked
        keys = account.scram if account is not None and usable else None
        nonce = base64.b64encode(self._random(_NONCE_OCTETS)).decode()
        return ServerFirst(keys or none, nonce)

    def named(self, account: Account | None, name: str) -> Match | None:
        """The password of that name, "" for the main one, as it is now."""
        return next((match for match in _matches(account, None) if match.name == name), None)

    def renewed(self, old: str, new: str) -> None:
        """The same password is stored anew: who has logged in with it stays logged in."""
        self._renewed[old] = new
        if len(self._renewed) > REMEMBERED_LIMIT:
            self._renewed.popitem(last=False)

    def holds(self, account: Account | None, match: Match) -> bool:
        """Whether who has once logged in so could do so still; ``account`` is what it is by now."""
        now = self.named(account, match.name)
        return now is not None and now.stored in (match.stored, self._renewed.get(match.stored))

    def stop(self) -> None:
        """End the threads; who still waits has gone, and gets no answer."""
        self._owners = self._strangers = Lane(0)
        self._worker.stop()

    def _remember(self, mark: bytes, match: Match) -> None:
        self._right.pop(mark, None)
        self._right[mark] = self._seconds() + REMEMBERED_S, match
        while len(self._right) > REMEMBERED_LIMIT or next(iter(self._right.values()))[0] <= self._seconds():
            del self._right[next(iter(self._right))]


def _matches(account: Account | None, service: str | None) -> tuple[Match, ...]:
    """The passwords that open an account for a service (None: for any), the main one first; none of a locked one."""
    if account is None or account.locked:
        return ()
    apps = (Match(app.name, app.hash) for app in account.apps if service is None or app.good_for(service))
    return (Match("", account.hash), *apps)


def _outdated(account: Account, password: str) -> bool:
    keys = account.scram
    up_to_date = keys is not None and keys.iterations == scram.ITERATIONS
    return is_old(account.hash) or (not up_to_date and scram_keys.possible(password))
