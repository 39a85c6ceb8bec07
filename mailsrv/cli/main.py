"""The console script ``mailsrv``: finds the verb, runs it, turns failures into one sentence and exit status 1.

Each module of verbs has ``register(subparsers)``, which adds its parsers and gives each ``run``, a function from the
parsed arguments to the exit status.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from mailsrv import __version__
from mailsrv.cli.command import Failure, add_common, fail
from mailsrv.config import ConfigError
from mailsrv.store.accounts.accounts import AccountsError
from mailsrv.store.keys import KeyFileError
from mailsrv.store.schema import DatabaseError

_VERBS = ("init", "account", "alias", "import_mail", "export_mail", "dns", "dkim", "check", "queue", "why", "ledger")


def parser() -> argparse.ArgumentParser:
    """All verbs and their options."""
    top = argparse.ArgumentParser(prog="mailsrv", description="Run a mail server for your own domain.")
    top.add_argument("--version", action="version", version=f"mailsrv {__version__}")
    add_common(top)
    subparsers = top.add_subparsers(title="verbs", metavar="VERB", dest="verb", required=True)
    for name in _VERBS:
        importlib.import_module(f"mailsrv.cli.{name}").register(subparsers)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the exit status."""
    parsed = parser().parse_args(_config_first(sys.argv[1:] if arguments is None else arguments))
    try:
        status = int(parsed.run(parsed))
        sys.stdout.flush()
        return status
    except (ConfigError, AccountsError, DatabaseError, KeyFileError, Failure) as error:
        return fail(str(error))
    except BrokenPipeError:
        # The reader had enough, as with "| head".  Nothing may be flushed to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return fail(f"{error.filename}: {error.strerror}." if error.filename else f"{error}.")
    except KeyboardInterrupt:
        return fail("interrupted.")


def _config_first(arguments: Sequence[str]) -> list[str]:
    """``--config FILE`` moved to the front: argparse takes no option from between the values of one argument."""
    front: list[str] = []
    rest = list(arguments)
    at = 0
    while at < len(rest) and rest[at] != "--":
        if rest[at] == "--config" and at + 1 < len(rest):
            front = rest[at : at + 2]
            del rest[at : at + 2]
        elif rest[at].startswith("--config="):
            front = [rest.pop(at)]
        else:
            at += 1
    return front + rest


if __name__ == "__main__":
    sys.exit(main())
