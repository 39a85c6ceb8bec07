"""``mailsrv account list``: the accounts, what they hold, their app passwords, the last use of each password."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping
from typing import Any

from mailsrv.cli import account_quota
from mailsrv.cli.command import print_json, table, wants_json
from mailsrv.cli.wording import clean, moment
from mailsrv.config import Config
from mailsrv.store.accounts import logins
from mailsrv.store.accounts.accounts import Account, mailbox_path
from mailsrv.store.accounts.logins import Use
from mailsrv.store.connection import opened

_Uses = Mapping[tuple[str, str], Use]


def mailbox(config: Config, account: Account) -> str:
    """The folder of an account's mail."""
    return os.path.join(config.state, "mail", mailbox_path(account.key))


def show(arguments: argparse.Namespace, config: Config, accounts: Iterable[Account]) -> int:
    """Print them; the exit status."""
    with opened(os.path.join(config.state, "mailsrv.db")) as connection:
        uses = logins.read(connection)
    if wants_json(arguments):
        print_json([_object(config, account, uses) for account in accounts])
        return 0
    rows = [row for account in accounts for row in _rows(config, account, uses)]
    if rows:
        print(table(rows, ("address", "mailbox", "state", "quota", "last login")))
    else:
        print("There are no accounts; 'mailsrv account add ADDRESS' adds one.")
    return 0


def _state(account: Account) -> str:
    return "locked" if account.locked else "active"


def _rows(config: Config, account: Account, uses: _Uses) -> Iterable[tuple[str, ...]]:
    used = account_quota.words(account, mailbox(config, account))
    yield account.key, mailbox(config, account), _state(account), used, _words(uses.get((account.key, "")))
    for app in account.apps:
        limits = f"{' and '.join(app.services)} only" if app.services else ""
        yield f"  app {app.name}", "", limits, "", _words(uses.get((account.key, app.name)))


def _words(use: Use | None) -> str:
    return f"{moment(use.at)} {clean(use.service)} from {clean(use.client)}" if use else "never"


def _object(config: Config, account: Account, uses: _Uses) -> dict[str, Any]:
    return {
        "address": account.key,
        "mailbox": mailbox(config, account),
        "state": _state(account),
        "quota": account_quota.as_object(account, mailbox(config, account)),
        "scram": account.scram is not None,
        "last_login": _use_object(uses.get((account.key, ""))),
        "app_passwords": [
            {
                "name": app.name,
                "services": list(app.services),
                "last_login": _use_object(uses.get((account.key, app.name))),
            }
            for app in account.apps
        ],
    }


def _use_object(use: Use | None) -> dict[str, Any] | None:
    return {"at": use.at, "service": use.service, "client": use.client} if use else None
