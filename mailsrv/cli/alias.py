"""``mailsrv alias``: addresses that stand for others, here or elsewhere.

``add`` joins targets to those that the alias has; a target here may be an account that comes later.  ``remove`` takes
targets away, or the whole alias.  A change is in force in a running server within a second.
"""

from __future__ import annotations

import argparse

from mailsrv.cli.account import directory_of
from mailsrv.cli.command import Failure, add_common, config_of, print_json, table, wants_json
from mailsrv.config import Config
from mailsrv.mail.address import POSTMASTER, Address
from mailsrv.store.accounts.account_files import Texts, edit
from mailsrv.store.accounts.accounts import Directory, alias_key, split_targets, target_address


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    verb = subparsers.add_parser("alias", help="add, list and remove aliases")
    add_common(verb)
    actions = verb.add_subparsers(title="actions", metavar="ACTION", required=True)
    action = actions.add_parser(
        "add",
        help="let an address stand for others",
        description="Let ADDRESS stand for each TARGET, here or elsewhere.",
    )
    add_common(action)
    action.add_argument("address", metavar="ADDRESS", help='an address of ours, or "postmaster" for all domains')
    action.add_argument("targets", metavar="TARGET", nargs="+")
    action.set_defaults(run=_add)
    action = actions.add_parser("list", help="list the aliases", description="List the aliases.")
    add_common(action, json=True)
    action.add_argument("address", metavar="ADDRESS", nargs="?", help="only this one")
    action.set_defaults(run=_list)
    action = actions.add_parser(
        "remove", help="remove an alias, or targets of it", description="Remove an alias, or only some of its targets."
    )
    add_common(action)
    action.add_argument("address", metavar="ADDRESS")
    action.add_argument("targets", metavar="TARGET", nargs="*")
    action.set_defaults(run=_remove)


def _add(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    key = _key(arguments, config)
    targets = _targets(arguments)
    if not targets:
        raise Failure("there is no target.")

    def change(texts: Texts, directory: Directory) -> Texts:
        if any(account.key == key for account in directory.accounts):
            raise Failure(f"{key} is an account; an address is an account or an alias.")
        return texts.with_alias(key, list(dict.fromkeys([*directory.aliases.get(key, ()), *targets])))

    directory = edit(config, change)
    print(f"{_name(key)} stands for {_text(directory.aliases[key])}.")
    for alias, target in directory.dangling():
        if alias == key:
            print(f"{target.text} is nobody yet; 'mailsrv account add {target}' changes that.")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    aliases = directory_of(config).aliases
    if arguments.address is not None:
        key = _key(arguments, config)
        aliases = {key: _known(aliases, key)}
    if wants_json(arguments):
        print_json([{"address": _name(key), "targets": [str(one) for one in aliases[key]]} for key in aliases])
    elif aliases:
        print(table([(_name(key), _text(targets)) for key, targets in aliases.items()], ("address", "targets")))
    else:
        print("There are no aliases; 'mailsrv alias add ADDRESS TARGET' adds one.")
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    key = _key(arguments, config)
    targets = _targets(arguments)

    def change(texts: Texts, directory: Directory) -> Texts:
        had = _known(directory.aliases, key)
        for target in targets:
            if target not in had:
                raise Failure(f"{_name(key)} does not stand for {target.text}.")
        return texts.with_alias(key, [target for target in had if targets and target not in targets])

    left = edit(config, change).aliases.get(key)
    print(f"{_name(key)} stands for {_text(left)}." if left else f"Removed {_name(key)}.")
    return 0


def _key(arguments: argparse.Namespace, config: Config) -> str:
    try:
        return alias_key(arguments.address, config.domains)
    except ValueError as error:
        raise Failure(f"{error}.") from None


def _targets(arguments: argparse.Namespace) -> list[Address]:
    try:
        return [target_address(text) for text in split_targets(",".join(arguments.targets))]
    except ValueError as error:
        raise Failure(f"{error}.") from None


def _known(aliases: dict[str, tuple[Address, ...]], key: str) -> tuple[Address, ...]:
    if key not in aliases:
        raise Failure(f"{_name(key)} is not an alias; 'mailsrv alias list' names all.")
    return aliases[key]


def _name(key: str) -> str:
    return POSTMASTER.local if key == POSTMASTER.key else key


def _text(targets: tuple[Address, ...]) -> str:
    return ", ".join(target.text for target in targets)
