"""``mailsrv why``: the history of a message or of an address, decision by decision, with the next step.

Asked for the key of a known refusal, such as ``google-no-ptr``, it says what that means, what helps, and how often
other servers have said so.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from mailsrv.cli import story
from mailsrv.cli.command import add_common, config_of, fail, wants_json
from mailsrv.cli.wording import as_json, clean, counted, moment, now
from mailsrv.relay.remedies import Remedy, remedy_of
from mailsrv.store import history, notices
from mailsrv.store.connection import opened, snapshot

LIMIT = 20


def register(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "why",
        help="what happened to a message or an address, and why",
        description="Tell what happened to a message or an address, newest first, and what comes next.",
    )
    add_common(parser, json=True)
    parser.add_argument(
        "key",
        metavar="KEY",
        help="a Message-ID, a queue id, a mail address, the IP address of a client, or the cause of a refusal",
    )
    parser.add_argument(
        "--limit", type=_positive, default=LIMIT, metavar="N", help=f"messages at most (default {LIMIT})"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit status 1 when nothing is known."""
    config = config_of(arguments)
    remedy = remedy_of(arguments.key.strip())
    if remedy is not None:
        return _refusal(os.path.join(config.state, "mailsrv.db"), remedy, wants_json(arguments))
    with opened(os.path.join(config.state, "mailsrv.db")) as connection, snapshot(connection):
        found = history.history(connection, arguments.key, arguments.limit)
    if wants_json(arguments):
        print(as_json(_object(arguments.key, found)))
    else:
        _print(found, arguments.limit)
    if found.messages or found.loose:
        return 0
    return fail(_unknown(clean(arguments.key), found.since))


def _refusal(path: str, remedy: Remedy, json: bool) -> int:
    """A cause is known even when it was never met."""
    with opened(path) as connection, snapshot(connection):
        count = next((each for each in notices.counts(connection) if each.cause == remedy.cause), None)
    if json:
        print(
            as_json(
                {
                    "cause": remedy.cause,
                    "meaning": remedy.meaning,
                    "remedy": remedy.remedy,
                    "action": remedy.action.name.lower(),
                    "times": count.times if count else 0,
                    "seen": count.seen if count else None,
                    "told": count.told if count and count.told else None,
                }
            )
        )
        return 0
    print(f"{remedy.cause}: {remedy.meaning}")
    print(f"  What to do: {remedy.remedy}")
    print(f"  What the server does by itself: {remedy.action.value}.")
    if count is None:
        print("  No server has said so to this one.")
    else:
        told = f"; the postmaster was told on {moment(count.told)}" if count.told else ""
        print(f"  Said {counted(count.times, 'time')}, the last one on {moment(count.seen)}{told}.")
    return 0


def _print(found: history.History, limit: int) -> None:
    at = now()
    for message in found.messages:
        print("\n".join(story.message_lines(message, at)), end="\n\n")
    if found.loose:
        print("Without a message:" if found.messages else "No message, but:")
        for record in found.loose:
            print(f"  {story.loose_line(record)}")
    if found.more:
        print(f"There is more that is older; `--limit {limit * 10}` shows it.")


def _object(key: str, found: history.History) -> dict[str, Any]:
    return {
        "key": key,
        "messages": [story.message_object(message) for message in found.messages],
        "events": [story.event_object(record) for record in found.loose],
        "more": found.more,
        "since": found.since,
    }


def _unknown(key: str, since: float | None) -> str:
    if since is None:
        return f"no message or refusal for {key} is in the ledger, which is empty: nothing has come to this server yet."
    return (
        f"no message or refusal for {key} is in the ledger; it was never offered to this server, "
        f"or longer ago than {moment(since)}, where the ledger begins."
    )


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < len(text) <= 9 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of messages")
    return int(text)
