"""Runs the dialogs of ``tests/dialogs/pop3``: each line by line, octet by octet, and all at once.

A dialog is what stands on the wire::

    # What it shows.
    service: loopback         (passwords in clear text, as when not said; or plain: STLS first; or secure: under TLS)
    C: a line of the client, CRLF added; \\xHH, \\r, \\n, \\\\ stand for octets, {N*X} for N times X
    c: octets of the client without a line end
    S: a line of the server; "..." at the end stands for whatever text
    T: the TLS handshake takes place
    X: the server closes; with the reason behind it

The account, its password and its two messages are those of ``driver``.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mailsrv.pop3 import events
from mailsrv.pop3.server import ServerConnection
from tests.pop3.driver import LOOPBACK, PLAIN, Record, settle

DIALOGS = sorted((Path(__file__).parent.parent / "dialogs" / "pop3").glob("*.txt"))
_ESCAPE = re.compile(rb"\\(x[0-9a-f]{2}|r|n|\\)|\{(\d+)\*(.)\}")


def octets(text: str) -> bytes:
    def replaced(match: re.Match[bytes]) -> bytes:
        if match[2]:
            return match[3] * int(match[2])
        return {b"r": b"\r", b"n": b"\n", b"\\": b"\\"}.get(match[1]) or bytes([int(match[1][1:], 16)])

    return _ESCAPE.sub(replaced, text.encode())


def parse(path: Path) -> tuple[str, list[tuple[str, str]]]:
    service, steps = "loopback", []
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


@pytest.mark.parametrize("way", ["line by line", "octet by octet", "all at once"])
@pytest.mark.parametrize("path", DIALOGS, ids=lambda path: path.stem)
def test_dialog(path: Path, way: str) -> None:
    service, steps = parse(path)
    connection = ServerConnection(LOOPBACK if service == "loopback" else PLAIN, secure=service == "secure")
    record = Record()
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
            for chunk in [bytes([octet]) for octet in waiting] if way == "octet by octet" else [waiting]:
                connection.receive(chunk)
                settle(connection, record)
            waiting = b""
        if kind == "T" and text != "end":
            connection.tls_started()
        if kind == "X":
            assert record.events[-1] == events.Closed(text)
    compare(record.lines, expected)
    assert connection.closed == (steps[-1][0] == "X")


def test_there_are_dialogs() -> None:
    assert len(DIALOGS) > 8
