"""``mailsrv queue``: what waits, and the operator's hand on it; beside a running server and without one."""

from __future__ import annotations

import argparse
import os
import sqlite3
from collections.abc import Callable
from typing import Any

from mailsrv.cli import story
from mailsrv.cli.command import Failure, add_common, config_of, fail, wants_json
from mailsrv.cli.wording import as_json, clean, counted, moment, now
from mailsrv.mail.address import Address, AddressError
from mailsrv.store import history, queue, queue_id, schema
from mailsrv.store.connection import opened, snapshot, transaction
from mailsrv.store.queue import Entry


def register(subparsers: Any) -> None:
    """Add the verbs."""
    parser = subparsers.add_parser("queue", help="list and change what waits for delivery")
    add_common(parser)
    verbs = parser.add_subparsers(title="actions", metavar="ACTION", dest="queue_verb", required=True)

    verb = _verb(verbs, "list", _list, "list the messages that wait", json=True)
    verb.add_argument("--held", action="store_true", help="only messages that were held")

    verb = _verb(verbs, "show", _show, "show one message: its history and its headers", json=True)
    verb.add_argument("id", metavar="ID", help="a queue id, in any case")

    verb = _verb(verbs, "retry", _retry, "try now and not only when the schedule says so")
    which = verb.add_mutually_exclusive_group(required=True)
    which.add_argument("--all", action="store_true", help="everything that is queued")
    which.add_argument("ids", metavar="ID", nargs="*", default=[], help="queue ids, in any case")

    verb = _verb(verbs, "hold", _hold, "make no more attempts until the message is released")
    verb.add_argument("ids", metavar="ID", nargs="+", help="queue ids, in any case")

    verb = _verb(verbs, "release", _release, "let the attempts go on")
    which = verb.add_mutually_exclusive_group(required=True)
    which.add_argument("--all", action="store_true", help="everything that is held")
    which.add_argument("--account", metavar="ADDRESS", help="everything that is held of what this account has sent")
    which.add_argument("ids", metavar="ID", nargs="*", default=[], help="queue ids, in any case")

    verb = _verb(verbs, "remove", _remove, "take messages out; their senders are not told")
    which = verb.add_mutually_exclusive_group(required=True)
    which.add_argument("--account", metavar="ADDRESS", help="what is held of what this account has sent, nothing else")
    which.add_argument("ids", metavar="ID", nargs="*", default=[], help="queue ids, in any case")


def _verb(
    verbs: Any, name: str, run: Callable[[argparse.Namespace], int], help: str, *, json: bool = False
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")
    add_common(parser, json=json)
    parser.set_defaults(run=run)
    return parser


def _database(arguments: argparse.Namespace) -> str:
    return os.path.join(config_of(arguments).state, "mailsrv.db")


# -- looking


def _list(arguments: argparse.Namespace) -> int:
    with opened(_database(arguments)) as connection, snapshot(connection):
        if wants_json(arguments):
            print(as_json([_entry_object(entry) for entry in queue.entries(connection, arguments.held)]))
            return 0
        at, messages, recipients = now(), 0, 0
        for entry in queue.entries(connection, arguments.held):
            messages += 1
            recipients += sum(recipient.state in schema.OPEN for recipient in entry.recipients)
            _print_entry(entry, at)
    if messages:
        print(f"{counted(messages, 'message')}, {counted(recipients, 'recipient')} waiting.")
    else:
        print("No message is held." if arguments.held else "The queue is empty.")
    return 0


def _print_entry(entry: Entry, at: float) -> None:
    id = queue_id.text(entry.id)
    print(f"{id}  {moment(entry.accepted)}  {story.sender(entry.sender)}, {story.size(entry.size)}")
    if entry.held:
        account = f", sent as {clean(entry.account)}" if entry.account else ""
        print(f"    held{account}: {clean(entry.held)}")
    done = 0
    for recipient in entry.recipients:
        if recipient.state not in schema.OPEN:
            done += 1
            continue
        state = "held" if recipient.state == schema.HELD else story.waiting(recipient, at)
        attempts = counted(recipient.attempts, "attempt")
        said = clean(recipient.answer)
        if recipient.status not in said:
            said = f"{clean(recipient.status)} {said}".rstrip()
        print(f"    to {clean(recipient.address)}: {state}, {attempts} so far{f': {said}' if said else ''}")
    if done:
        print(f"    {counted(done, 'other recipient')} done")


def _entry_object(entry: Entry) -> dict[str, Any]:
    return {
        "id": queue_id.text(entry.id),
        "sender": entry.sender,
        "message_id": entry.message_id,
        "recipients": [story.recipient_object(recipient) for recipient in entry.recipients],
        "size": entry.size,
        "account": entry.account,
        "held": entry.held or None,
        "accepted": entry.accepted,
    }


def _show(arguments: argparse.Namespace) -> int:
    path = _database(arguments)
    number = _number(arguments.id)
    with opened(path) as connection, snapshot(connection):
        message = history.message(connection, number)
        if message is None:
            raise Failure(_unknown(arguments.id))
        block, spool_file = queue.header(connection, number)
    if spool_file:
        block += _spooled_header(_spool_path(path, spool_file))
    header = block.decode("utf-8", "replace").removesuffix("\r\n").split("\r\n") if block else []
    if wants_json(arguments):
        print(as_json(story.message_object(message) | {"header": header}))
        return 0
    print("\n".join(story.message_lines(message, now())))
    if header:
        print("\nHeaders:")
        print("\n".join(f"  {clean(line.expandtabs())}" for line in header))
    else:
        print("\nThe content is gone, as nobody waits for the message any more.")
    return 0


def _spooled_header(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return queue.header_block(file.read(queue.HEADER))
    except FileNotFoundError:
        return b""  # delivered in this moment


# -- changing


def _retry(arguments: argparse.Namespace) -> int:
    if arguments.all:
        with opened(_database(arguments)) as connection, transaction(connection):
            messages = queue.retry_all(connection, now())
        print(f"{counted(messages, 'message')} will be tried now." if messages else "Nothing is queued.")
        return 0
    return _change(arguments, queue.retry, "will be tried now", "is not queued but held: release it first")


def _hold(arguments: argparse.Namespace) -> int:
    return _change(arguments, queue.hold, "held until it is released", "is held already")


def _release(arguments: argparse.Namespace) -> int:
    if arguments.all or arguments.account is not None:
        return _change_held(arguments, queue.release, "released and will be tried now")
    return _change(arguments, queue.release, "released and will be tried now", "is not held")


def _remove(arguments: argparse.Namespace) -> int:
    path = _database(arguments)
    files: list[str] = []

    def remove(connection: sqlite3.Connection, at: float, message: int) -> int:
        removal = queue.remove(connection, at, message)
        if removal.spool_file:
            files.append(removal.spool_file)
        return removal.recipients

    if arguments.account is not None:
        status = _change_held(arguments, remove, "removed")
    else:
        status = _change(arguments, remove, "removed", "")
    for name in files:
        try:
            os.unlink(_spool_path(path, name))
        except FileNotFoundError:
            pass
    return status


def _change_held(
    arguments: argparse.Namespace, operation: Callable[[sqlite3.Connection, float, int], int], done: str
) -> int:
    """Do ``operation`` to all messages that are held, or to those of an account."""
    account = None
    if arguments.account is not None:
        try:
            account = Address.parse(arguments.account).key
        except AddressError as error:
            raise Failure(f"{clean(arguments.account)} is no address: {error}.") from None
    with opened(_database(arguments)) as connection, transaction(connection):
        at = now()
        messages = queue.held(connection, account)
        count = sum([operation(connection, at, message) for message in messages])
    of = f" of {clean(arguments.account)}" if arguments.account is not None else ""
    if not messages:
        return fail(f"nothing{of} is held.")
    print(f"{counted(len(messages), 'message')}{of}, {counted(count, 'recipient')} {done}.")
    return 0


def _change(
    arguments: argparse.Namespace,
    operation: Callable[[sqlite3.Connection, float, int], int],
    done: str,
    otherwise: str,
) -> int:
    """Do ``operation`` to each message; exit status 1 when one is unknown, not waiting or not in the right state."""
    changed: list[tuple[str, int]] = []
    wrong: list[str] = []
    with opened(_database(arguments)) as connection, transaction(connection):
        at = now()
        for text in dict.fromkeys(arguments.ids):
            number = queue_id.number(text)
            waiting = None if number is None else queue.open_recipients(connection, number)
            if number is None or waiting is None:
                wrong.append(_unknown(text))
                continue
            id = queue_id.text(number)
            count = operation(connection, at, number)
            if count:
                changed.append((id, count))
            elif not any(waiting.values()):
                wrong.append(f"{id} is not in the queue any more; `mailsrv why {id}` tells what became of it.")
            else:
                wrong.append(f"{id} {otherwise}.")
    for id, count in changed:
        print(f"{id}: {counted(count, 'recipient')} {done}.")
    for sentence in wrong:
        fail(sentence)
    return 1 if wrong else 0


def _number(text: str) -> int:
    number = queue_id.number(text)
    if number is None:
        raise Failure(_unknown(text))
    return number


def _unknown(text: str) -> str:
    if queue_id.number(text) is None:
        return f"{clean(text)} is not a queue id, which has {queue_id.LENGTH} letters and digits."
    return f"no message {clean(text)} is known; `mailsrv queue list` shows what waits."


def _spool_path(database: str, name: str) -> str:
    return os.path.join(os.path.dirname(database), "spool", name)
