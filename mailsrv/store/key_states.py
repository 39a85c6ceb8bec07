"""Which keys of a domain sign, which are to sign next, and which have signed: the change of keys, safe at each step.

``state/keys/states`` has a line for each key that is not there from the beginning: its name in DNS, its state, and
since when.  It is written for people to read::

    rsa-20261123._domainkey.example.org retired 2027-11-30T08:15:00Z
    rsa-20271129._domainkey.example.org signing 2027-11-30T08:15:00Z

=========  ==================  ============================================================================
state      published, signs    what comes next
=========  ==================  ============================================================================
next       yes, no             ``activate``, when the world can see its record
signing    yes, yes            "retired", when another pair is activated
retired    yes, no             ``withdraw`` when no mail that it signed is under way any more (``kept_s``)
=========  ==================  ============================================================================

A key without a line signs: so do the first keys of a domain, and one that an operator has put there.

Each change is one file that takes the place of another, so a crash leaves the states of before or of after.  A line of
a key that is to be made is written before its file, and taken out after it: a key file is never taken for one
without a line.  Lines of "next" and "retired" without a file mean nothing.  Several programs take turns by a lock on
the folder.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from mailsrv.config import Config
from mailsrv.store import keys
from mailsrv.store.accounts.account_files import locked, own_as_folder, replace_file
from mailsrv.store.keys import KINDS, KeyFileError, PublicKey, SigningKey

NEXT = "next"
SIGNING = "signing"
RETIRED = "retired"
STATES = (NEXT, SIGNING, RETIRED)

LONGEST_HELD_S = 30 * 86400.0  # RFC 4865: what the longest wait before the first attempt may be
MARGIN_S = 7 * 86400.0  # in the queues of others, and until it is read

_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class KeyState:
    """One key that is there.  ``since`` is seconds since 1970, None when nobody has written it down."""

    domain: str
    selector: str
    state: str
    since: float | None = None

    @property
    def name(self) -> str:
        return keys.record_name(self.domain, self.selector)


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys in force, by domain: those that sign in the order of their signatures, and what is to be seen in DNS."""

    signing: Mapping[str, tuple[SigningKey, ...]]
    next: Mapping[str, tuple[PublicKey, ...]]


NO_KEYS = Keys({}, {})

_Lines = dict[str, tuple[str, float]]  # the states file: by name, state and since


def path(state: str) -> str:
    """Where the states are."""
    return os.path.join(keys.folder(state), "states")


def files(config: Config) -> list[str]:
    """All that :func:`load` reads, the folder included: whoever wants to know of changes looks at these."""
    state = config.state
    found = [keys.folder(state), path(state)]
    for domain in config.domains:
        with contextlib.suppress(KeyFileError):
            found += [keys.path(state, domain, selector) for selector in keys.of_domain(state, domain)]
    return found


def load(config: Config) -> Keys:
    """The keys in force (KeyFileError).  Those that have retired are not looked at."""
    signing: dict[str, tuple[SigningKey, ...]] = {}
    following: dict[str, tuple[PublicKey, ...]] = {}
    lines = _read(config.state)
    for domain in config.domains:
        found = _of_domain(config.state, domain, lines)
        for name, (state, _) in lines.items():
            if state == SIGNING and _is_of(name, domain) and name not in {key.name for key in found}:
                raise KeyFileError(f"{path(config.state)}: {name} is to sign, but its file is not there.")
        by_state = {state: _private(config.state, found, state) for state in (SIGNING, NEXT)}
        if by_state[SIGNING]:
            signing[domain] = by_state[SIGNING]
        if by_state[NEXT]:
            following[domain] = tuple(key.public for key in by_state[NEXT])
    return Keys(signing, following)


def _private(place: str, found: Sequence[KeyState], state: str) -> tuple[SigningKey, ...]:
    read = [keys.read(place, key.domain, key.selector) for key in found if key.state == state]
    return tuple(sorted(read, key=lambda key: (KINDS.index(key.kind), key.selector)))


def of_domain(state: str, domain: str) -> tuple[KeyState, ...]:
    """The keys of a domain that are there, by selector (KeyFileError)."""
    return _of_domain(state, domain, _read(state))


def _of_domain(state: str, domain: str, lines: _Lines) -> tuple[KeyState, ...]:
    found = []
    for selector in keys.of_domain(state, domain):
        line = lines.get(keys.record_name(domain, selector))
        found.append(KeyState(domain, selector, *(line or (SIGNING, None))))
    return tuple(found)


def kept_s(config: Config) -> float:
    """How long a key stays published when it signs no more: as long as mail that it signed may be under way."""
    return config.queue.expire + LONGEST_HELD_S + MARGIN_S


def is_over(key: KeyState, config: Config, now: float) -> bool:
    """Whether a key has retired so long ago that its record may go."""
    return key.state == RETIRED and key.since is not None and now > key.since + kept_s(config)


# -- changes


def begin(state: str, domain: str, now: float) -> tuple[KeyState, ...]:
    """Make the next pair of a domain, or the first, which signs at once; those that it has are given back.

    KeyFileError, OSError.
    """
    folder = _make_folder(state)
    with locked(folder):
        lines = _read(state)
        there = _of_domain(state, domain, lines)
        of_this = {name: line for name, line in lines.items() if _is_of(name, domain)}
        names = [name for name, (of_key, _) in of_this.items() if of_key == NEXT]
        if not there:
            # Whatever is said of keys that are not there is not meant for the new ones.
            _write(state, {name: line for name, line in lines.items() if name not in of_this})
            names = []
        elif not names:
            names = [keys.record_name(domain, selector) for selector in _selectors(there, now)]
            _write(state, {**lines, **dict.fromkeys(names, (NEXT, now))})
        selectors = [name.removesuffix(keys.record_name(domain, "")) for name in names] or _selectors((), now)
        # What a crash has left out is made now.
        for selector in selectors:
            place = keys.path(state, domain, selector)
            if not os.path.lexists(place):
                replace_file(place, keys.generate(_kind(selector, place)))
        return tuple(key for key in of_domain(state, domain) if key.selector in selectors)


def activate(state: str, domain: str, now: float) -> tuple[KeyState, ...]:
    """Let the next keys of a domain sign, and all that sign now retire; the keys that sign from now on.

    Without a next key nothing changes (KeyFileError, OSError).
    """
    folder = _make_folder(state)
    with locked(folder):
        lines = _read(state)
        there = _of_domain(state, domain, lines)
        if any(key.state == NEXT for key in there):
            change = {NEXT: SIGNING, SIGNING: RETIRED}
            changed = {key.name: (change[key.state], now) for key in there if key.state in change}
            # One that a crash has kept from being made is not to come as a pair of its own.
            left = {name: line for name, line in lines.items() if line[0] != NEXT or not _is_of(name, domain)}
            _write(state, {**left, **changed})
        return tuple(key for key in of_domain(state, domain) if key.state == SIGNING)


def withdraw(state: str, domain: str, over: Callable[[KeyState], bool]) -> tuple[KeyState, ...]:
    """Remove the keys of a domain that are ``over``; which they were (KeyFileError, OSError)."""
    folder = _make_folder(state)
    with locked(folder):
        lines = _read(state)
        gone = tuple(key for key in _of_domain(state, domain, lines) if over(key))
        for key in gone:
            os.unlink(keys.path(state, domain, key.selector))
        if gone:
            names = {key.name for key in gone}
            _write(state, {name: line for name, line in lines.items() if name not in names})
        return gone


def _is_of(name: str, domain: str) -> bool:
    return name.endswith(keys.record_name(domain, ""))


def _selectors(there: Sequence[KeyState], now: float) -> list[str]:
    """Names for a new pair: of its kinds and its day, and a number when there is one of that day."""
    taken = {key.selector for key in there}
    day = f"{datetime.fromtimestamp(now, UTC):%Y%m%d}"
    ends = [day, *(f"{day}-{n}" for n in range(2, len(taken) + 3))]
    return next(pair for pair in ([f"{kind}-{end}" for kind in KINDS] for end in ends) if not taken & set(pair))


def _kind(selector: str, place: str) -> str:
    kind = selector.partition("-")[0]
    if kind not in KINDS:
        raise KeyFileError(f"{place}: it is to sign next, but it is not there.")
    return kind


def _make_folder(state: str) -> str:
    for folder in (state, keys.folder(state)):
        if not os.path.isdir(folder):
            os.mkdir(folder, 0o700)
            own_as_folder(folder, os.path.dirname(folder))
    return keys.folder(state)


def _read(state: str) -> _Lines:
    place = path(state)
    try:
        with open(place, "rb") as file:
            text = file.read().decode("ascii")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise KeyFileError(f"{place}: cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise KeyFileError(f"{place}: not ASCII text.") from None
    lines: _Lines = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, of_key, since = line.split()
            lines[name] = of_key, _moment(since)
            STATES.index(of_key)
        except ValueError:
            raise KeyFileError(
                f"{place}:{number}: expected the name of a key, one of next, signing, retired, and a time such as"
                " 2026-11-23T18:04:00Z."
            ) from None
    return lines


def _moment(text: str) -> float:
    """Seconds since 1970 (ValueError).  Neither this nor a codec is loaded when it is first wanted: by then the server
    may be a user who cannot read the files of the interpreter, or these may be of a later version."""
    found = datetime.fromisoformat(text)
    if found.strftime(_TIME) != text:
        raise ValueError(f"{text} is not written like {_TIME}")
    return found.timestamp()


def _write(state: str, lines: _Lines) -> None:
    text = "".join(
        f"{name} {of_key} {datetime.fromtimestamp(since, UTC).strftime(_TIME)}\n"
        for name, (of_key, since) in sorted(lines.items())
    )
    replace_file(path(state), text.encode("ascii"))
