"""Draws the protocol states of the documentation from the tables that the code obeys.

``python -m tools.draw_states`` writes ``docs/developer/states-smtp.rst`` and ``states-pop3.rst`` anew; with ``--check``
it writes nothing and exits with 1 when one of them is out of date.  ``tests/docs`` asks the same.
"""

from __future__ import annotations

import enum
import inspect
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mailsrv.pop3 import states as pop3
from mailsrv.smtp import client
from mailsrv.smtp import states as smtp

DOCS = Path(__file__).resolve().parent.parent / "docs/developer"
_MADE = ".. Made by tools/draw_states.py from the code; change that, then run: python -m tools.draw_states\n"


def smtp_page() -> str:
    """SMTP, both sides."""
    return "\n".join(
        [
            _MADE,
            _title("States of SMTP", "="),
            _text(
                """The server's table is ``mailsrv/smtp/states.py``, the client's is in ``mailsrv/smtp/client.py``.
                Nothing else decides about order. What each reply says stands in ``mailsrv/smtp/replies.py``."""
            ),
            _title("The server's states", "-"),
            _table(("state", "meaning"), _meanings(smtp.State)),
            _title("Which verb in which state", "-"),
            _text(
                """A word is the state after a positive reply, a number the code of the refusal. In the states that have
                no column the octets that come are no commands."""
            ),
            _table(("verb", *(str(state) for state in smtp.LISTENING)), _matrix(smtp.SMTP)),
            _text(
                f"""Besides: the end of DATA, and of BDAT with LAST, leads back to ``hello``, as does the end of an AUTH
                exchange; the end of the TLS handshake leads to ``ready``, and everything said before is forgotten. LMTP
                has the same table with {", ".join(_only(smtp.LMTP, smtp.SMTP))} in place of
                {" and ".join(_only(smtp.SMTP, smtp.LMTP))}."""
            ),
            _title("The client's states", "-"),
            _table(("state", "meaning"), ((state.name.lower(), state.value) for state in client.State)),
            _title("What may happen to the client", "-"),
            _text("From every state the connection may also end."),
            _arrows(
                (before.name.lower(), what, after.name.lower()) for (before, what), after in client.TRANSITIONS.items()
            ),
        ]
    )


def pop3_page() -> str:
    """POP3, the server's side."""
    return "\n".join(
        [
            _MADE,
            _title("States of POP3", "="),
            _text(
                """The table is ``mailsrv/pop3/states.py``. A command that is not in the row of the present state is
                refused there. Words in small letters are not commands but what happens. From every state the connection
                may also end, and then nothing is removed."""
            ),
            _title("The states", "-"),
            _table(("state", "meaning"), _meanings(pop3.State)),
            _title("The ways between them", "-"),
            _arrows(
                (before.value, what, after.value) for before, row in pop3.TABLE.items() for what, after in row.items()
            ),
        ]
    )


PAGES = {"states-smtp.rst": smtp_page, "states-pop3.rst": pop3_page}


def out_of_date() -> list[str]:
    """The pages that do not say what the code says."""
    return [name for name, draw in PAGES.items() if _read(DOCS / name) != draw()]


def main(arguments: Sequence[str]) -> int:
    if arguments == ["--check"]:
        old = out_of_date()
        for name in old:
            print(f"docs/developer/{name} is out of date: python -m tools.draw_states")
        return 1 if old else 0
    for name, draw in PAGES.items():
        (DOCS / name).write_text(draw())
    return 0


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _title(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}\n"


def _text(text: str) -> str:
    """A paragraph."""
    return textwrap.fill(" ".join(text.split()), 110, break_long_words=False, break_on_hyphens=False) + "\n"


def _meanings(states: type[enum.Enum]) -> list[tuple[str, str]]:
    """Each state with the comment that stands behind it in the source, "" when there is none."""
    comments = dict(re.findall(r"(?m)^    ([A-Z_]+) = \"[^\"]*\"(?:  # (.*))?$", inspect.getsource(states)))
    return [(str(state.value), comments[state.name]) for state in states]


def _matrix(table: Mapping[str, smtp.Row]) -> list[tuple[str, ...]]:
    return [(verb, *(_cell(row, state) for state in smtp.LISTENING)) for verb, row in table.items()]


def _cell(row: smtp.Row, state: smtp.State) -> str:
    after = row.leads_to.get(state)
    return str(row.refusal(state).code) if after is None else str(after)


def _only(one: Iterable[str], other: Iterable[str]) -> list[str]:
    return [verb for verb in one if verb not in set(other)]


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A simple table of reStructuredText."""
    cells = [tuple(headers), *(tuple(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule, ""])


def _arrows(ways: Iterable[tuple[str, str, str]]) -> str:
    """By state: one line for each state that follows, with everything that leads there."""
    following: dict[str, dict[str, list[str]]] = {}
    for before, what, after in ways:
        following.setdefault(before, {}).setdefault(after, []).append(what)
    width = max(map(len, following))
    lines = ["::", ""]
    for before, afters in following.items():
        name = before
        for after, whats in afters.items():
            lines.append(f"    {name:{width}}  -- {', '.join(whats)} -->  {after}")
            name = ""
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
