"""Runs the dialogs of ``tests/dialogs/smtp``: each line by line, octet by octet, and all at once.

A dialog is what stands on the wire::

    # What it shows.
    service: submission       (smtp when not said; or lmtp; "secure" behind it: under TLS from the start)
    C: a line of the client, CRLF added; \\xHH, \\r, \\n, \\\\ stand for octets, {N*X} for N times X
    c: octets of the client without a line end
    S: a line of the server; "..." at the end stands for whatever text
    T: the TLS handshake takes place
    X: the server closes; with the reason behind it

Addresses of the local parts unknown, later, busy and blocked are refused by the policy, the only password is "secret".
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mailsrv.smtp import events
from mailsrv.smtp.server import ServerConnection
from tests.smtp.driver import LMTP, SMTP, SUBMISSION, Record, settle

DIALOGS = sorted((Path(__file__).parent.parent / "dialogs" / "smtp").glob("*.txt"))
SERVICES = {"smtp": SMTP, "submission": SUBMISSION, "lmtp": LMTP}
_ESCAPE = re.compile(rb"\\(x[0-9a-f]{2}|r|n|\\)|\{(\d+)\*(.)\}")


def octets(text: str) -> bytes:
    def replaced(match: re.Match[bytes]) -> bytes:
        if match[2]:
            return match[3] * int(match[2])
        return {b"r": b"\r", b"n": b"\n", b"\\": b"\\"}.get(match[1]) or bytes([int(match[1][1:], 16)])

    return _ESCAPE.sub(replaced, text.encode())


def parse(path: Path) -> tuple[str, list[tuple[str, str]]]:
    service, steps = "smtp", []
    for line in path.read_text().splitlines():
        if line.startswith("service: "):
            service = line.removeprefix("service: ")
        elif line and not line.startswith("#"):
            kind, colon, text = line.partition(":")
            assert kind in ("C", "c", "S", "T", "X"), line
            assert colon, line
            steps.append((kind, text.removeprefix(" ")))
    return service, steps


def compare(said: list[str], expected: list[str]) -> None:
    """Where the text of a line is left open, take what was said, so that pytest shows the lines that differ."""
    filled = [
        line if pattern.endswith("...") and line.startswith(pattern[:-3]) else pattern
        for line, pattern in zip(said, expected, strict=False)
    ]
    assert said == filled + expected[len(said) :]


def feed(connection: ServerConnection, record: Record, sent: bytes, one_by_one: bool) -> None:
    for chunk in [bytes([octet]) for octet in sent] if one_by_one else [sent]:
        connection.receive(chunk)
        settle(connection, record)


@pytest.mark.parametrize("way", ["line by line", "octet by octet", "all at once"])
@pytest.mark.parametrize("path", DIALOGS, ids=lambda path: path.stem)
def test_dialog(path: Path, way: str) -> None:
    service, steps = parse(path)
    name, _, secure = service.partition(" ")
    connection, record = ServerConnection(SERVICES[name], secure=secure == "secure"), Record()
    settle(connection, record)
    expected: list[str] = []
    waiting = b""
    for kind, text in [*steps, ("T", "end")]:
        if kind in ("C", "c"):
            if way == "line by line" and not waiting:
                compare(record.lines, expected)
            waiting += octets(text) + (b"\r\n" if kind == "C" else b"")
        elif kind == "S":
            expected.append(text)
        if waiting and (kind in "TX" or (way == "line by line" and kind == "S")):
            feed(connection, record, waiting, one_by_one=way == "octet by octet")
            waiting = b""
        if kind == "T" and text != "end":
            connection.tls_started()
        if kind == "X":
            assert record.events[-1] == events.Closed(text)
    compare(record.lines, expected)
    assert connection.closed == (steps[-1][0] == "X")


def test_there_are_dialogs() -> None:
    assert len(DIALOGS) > 10
