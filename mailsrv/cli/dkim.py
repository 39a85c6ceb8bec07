"""``mailsrv dkim``: the keys that sign the mail of our domains, and their change.

``rotate`` makes the next pair of keys and prints the records to publish.  A running server lets them sign when DNS has
shown them for an hour; ``activate`` does so at once, for who publishes where the server cannot look.  The old keys stay
published until no mail that they have signed is under way any more; then ``remove`` removes them, and so does the next
``rotate``.  ``list`` tells how far all of that is.  Each works beside a running server and without one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from mailsrv.cli import dns
from mailsrv.cli.check_dns import Lookup, LookupFailed, lookup
from mailsrv.cli.command import Failure, add_common, config_of, print_json, table, wants_json
from mailsrv.cli.wording import moment, now, span
from mailsrv.config import Config
from mailsrv.dkim.publication import SEEN_S
from mailsrv.mail.address import AddressError, domain_a_label
from mailsrv.store import key_states, keys
from mailsrv.store.key_states import NEXT, RETIRED, KeyState


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    verb = subparsers.add_parser("dkim", help="list and change the keys that sign mail")
    add_common(verb)
    actions = verb.add_subparsers(title="actions", metavar="ACTION", required=True)
    text = "list the keys, and what becomes of each"
    action = actions.add_parser("list", help=text, description=f"{text.capitalize()}.")
    add_common(action, json=True)
    _take_domains(action)
    action.set_defaults(run=_list)
    action = actions.add_parser(
        "rotate",
        help="make the next keys, and remove those that are over",
        description="Make the next keys of each domain and print the records to publish; remove keys that are over.",
    )
    add_common(action, json=True)
    _take_domains(action)
    action.set_defaults(run=_rotate)
    action = actions.add_parser(
        "activate",
        help="let the next keys sign now",
        description="Let the next keys of each domain sign now, and the others retire.",
    )
    add_common(action)
    _take_domains(action)
    action.set_defaults(run=_activate)
    action.add_argument("--unseen", action="store_true", help="even if DNS does not show their records here")
    text = "remove the keys that are over"
    action = actions.add_parser(
        "remove", help=text, description=f"{text.capitalize()}: no mail that they have signed is under way any more."
    )
    add_common(action)
    _take_domains(action)
    action.set_defaults(run=_remove)


def _take_domains(action: argparse.ArgumentParser) -> None:
    action.add_argument("domains", metavar="DOMAIN", nargs="*", help="only these (default: all own domains)")


@dataclass(frozen=True, slots=True)
class _Told:
    """What is known of a key.  Times are seconds since 1970, None when they are not known or do not apply."""

    domain: str
    selector: str
    kind: str
    state: str
    since: float | None
    until: float | None  # from when on the record of a retired key may go
    name: str
    record: str


def _list(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    told = [
        _told(config, key)
        for domain in _domains(arguments, config)
        for key in key_states.of_domain(config.state, domain)
    ]
    if wants_json(arguments):
        print_json(told)
    elif told:
        rows = [
            (key.domain, key.selector, key.state, moment(key.since) if key.since else "-", _fate(key)) for key in told
        ]
        print(table(rows, ("domain", "selector", "state", "since", "what comes")))
    else:
        print("There are no keys; 'mailsrv dkim rotate' makes some.")
    return 0


def _rotate(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    domains = _domains(arguments, config)
    at = now()
    text = []
    publish: list[dns.Record] = []
    for domain in domains:
        text += _withdrawn(config, domain, at)
        waited = bool(_next(config, domain))
        fresh = key_states.begin(config.state, domain, at)
        text.append(_begun(domain, fresh, waited))
        publish += [dns.key_record(config, key) for key in fresh]
    if wants_json(arguments):
        print_json([_told(config, key) for domain in domains for key in key_states.of_domain(config.state, domain)])
        return 0
    print("\n".join(text))
    print("\nPublish in DNS:\n")
    print("\n".join(dns.lines(publish)))
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    at = now()
    text = [line for domain in _domains(arguments, config) for line in _withdrawn(config, domain, at)]
    print("\n".join(text) or "No key is over; 'mailsrv dkim list' says when one will be.")
    return 0


def _withdrawn(config: Config, domain: str, at: float) -> list[str]:
    gone = key_states.withdraw(config.state, domain, lambda key: key_states.is_over(key, config, at))
    return [f"Removed {key.selector} of {domain}; take {key.name} out of DNS." for key in gone]


def _begun(domain: str, fresh: Sequence[KeyState], waited: bool) -> str:
    selectors = " and ".join(key.selector for key in fresh)
    if fresh[0].state != NEXT:
        return f"Made {selectors} for {domain}, its first keys; they sign from now on."
    what = f"{selectors} of {domain} wait already" if waited else f"Made {selectors} for {domain}"
    return f"{what}; a running server lets them sign when DNS has shown their records for {span(SEEN_S)}."


def _activate(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    waiting = {domain: _next(config, domain) for domain in _domains(arguments, config)}
    if not any(waiting.values()):
        raise Failure("no next keys wait; 'mailsrv dkim rotate' makes some.")
    if not arguments.unseen:
        ask = lookup(config.dns.servers)
        for key in [key for found in waiting.values() for key in found]:
            _demand(config, key, ask)
    for domain, found in waiting.items():
        if found:
            signing = key_states.activate(config.state, domain, now())
            print(f"{domain} signs with {' and '.join(key.selector for key in signing)}.")
    return 0


def _demand(config: Config, key: KeyState, ask: Lookup) -> None:
    """Failure when DNS does not show the record of a key."""
    public = keys.public(config.state, key.domain, key.selector)
    try:
        if any(keys.is_same(public.record, text) for text in ask(public.name, "TXT")):
            return
        problem = f"DNS does not show {public.name}"
    except LookupFailed as error:
        problem = f"DNS cannot be asked for {public.name} ({error})"
    raise Failure(f"{problem}; publish it first, or insist with --unseen.")


def _next(config: Config, domain: str) -> list[KeyState]:
    return [key for key in key_states.of_domain(config.state, domain) if key.state == NEXT]


def _domains(arguments: argparse.Namespace, config: Config) -> list[str]:
    found = []
    for text in arguments.domains:
        try:
            domain = domain_a_label(text)
        except AddressError as error:
            raise Failure(f'"{text}" is not a domain: {error}.') from None
        if domain not in config.domains:
            raise Failure(f"{domain} is not one of the domains in the configuration.")
        found.append(domain)
    return found or list(config.domains)


def _told(config: Config, key: KeyState) -> _Told:
    private = keys.read(config.state, key.domain, key.selector)
    until = key.since + key_states.kept_s(config) if key.state == RETIRED and key.since is not None else None
    record = private.public.record
    return _Told(key.domain, key.selector, private.kind, key.state, key.since, until, key.name, record)


def _fate(key: _Told) -> str:
    if key.state == NEXT:
        return "signs when DNS has shown it for a while"
    if key.until is None:
        return ""
    return "may go: mailsrv dkim remove" if key.until < now() else f"stays published until {moment(key.until)}"
