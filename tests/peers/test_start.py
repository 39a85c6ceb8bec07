"""What keeps the server from starting is said in one clear sentence, without a traceback."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers.programs import Program, free_port
from tests.peers.server import BIN, ENVIRONMENT, Mailsrv, Template

# What twistd itself writes before and after.
_LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\dT\S+ \[\S*\] ")
_TWISTD = re.compile(
    r"twistd .* starting up|reactor class|Factory.* starting on|Port \d+ Closed|Server Shut Down|Main loop terminated"
)


@pytest.fixture
def server(template: Template, tmp_path: Path) -> Iterator[Mailsrv]:
    """Not yet started."""
    made = Mailsrv(template, tmp_path / "mailsrv")
    yield made
    if made.program is not None:
        made.program.kill()


def complaint(server: Mailsrv) -> str:
    """The one thing that a start which fails has to say."""
    program: Program = server.spawn()
    status = program.wait(20)
    output = program.output()
    assert status != 0, output
    assert "Traceback" not in output, output
    lines = [_LOG_LINE.sub("", line) for line in output.splitlines() if line.strip()]
    said = [line for line in lines if not _TWISTD.search(line)]
    assert len(said) == 1, output
    return said[0]


def change(server: Mailsrv, **settings: Any) -> None:
    server.settings = {name.replace("__", "."): value for name, value in settings.items()}
    server.write_config()


def test_unknown_key(server: Mailsrv) -> None:
    change(server, limits__mesage_size="10 MiB")
    sentence = complaint(server)
    lines = server.config.read_text().splitlines()
    number = next(number for number, line in enumerate(lines, 1) if line.startswith("mesage_size"))
    assert f"mailsrv.toml:{number}: " in sentence
    assert "limits.mesage_size" in sentence
    assert "message_size" in sentence


def test_wrong_value(server: Mailsrv) -> None:
    change(server, queue__expire="five days")
    sentence = complaint(server)
    assert "queue.expire" in sentence


def test_no_toml(server: Mailsrv) -> None:
    server.config.write_text('hostname = "mx.example.org\n')
    assert "mailsrv.toml:1" in complaint(server)


def test_no_configuration(server: Mailsrv) -> None:
    server.config.unlink()
    sentence = complaint(server)
    assert "mailsrv.toml" in sentence
    assert "No such file" in sentence or "does not exist" in sentence or "there is no" in sentence.lower()


def test_port_in_use(server: Mailsrv) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        change(server, listen__pop3=[f"tcp:{port}:interface=127.0.0.1"])
        sentence = complaint(server)
    assert str(port) in sentence
    assert "in use" in sentence


def test_a_daemon_that_cannot_start_says_so_to_who_started_it(server: Mailsrv) -> None:
    log = server.directory / "daemon.log"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        change(server, listen__pop3=[f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"])
        command = [str(BIN / "twistd"), f"--pidfile={server.directory / 'daemon.pid'}", f"--logfile={log}"]
        done = subprocess.run(
            [*command, "mailsrv", "--config", str(server.config)], capture_output=True, timeout=60, check=False
        )
    assert done.returncode == 1
    assert b"cannot listen" in done.stdout + done.stderr
    assert "Address already in use" in log.read_text()
    assert "Traceback" not in log.read_text()


_START_AND_LOOK = """
import sys
from twisted.logger import capturedLogs
from mailsrv.app import StartError
from mailsrv.settings import FileSettings
from mailsrv.tap import MailService
with capturedLogs() as logged:
    try:
        MailService(FileSettings(sys.argv[1]), foreground=False).privilegedStartService()
    except StartError as error:
        print([event["error"] for event in logged if "error" in event] == [str(error)])
"""


def test_a_daemon_has_logged_why_before_the_process_that_waits_for_it_hears(server: Mailsrv) -> None:
    # It hears when the exception is out, and ends; whoever called it may read the log at once.
    with socket.create_server(("127.0.0.1", 0)) as taken:
        change(server, listen__pop3=[f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"])
        done = subprocess.run(
            [sys.executable, "-c", _START_AND_LOOK, str(server.config)],
            env={**os.environ, **ENVIRONMENT},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.stdout == "True\n", done.stderr


def test_malformed_endpoint(server: Mailsrv) -> None:
    change(server, listen__pop3=["tpc:110"])
    sentence = complaint(server)
    assert "listen.pop3" in sentence


@pytest.mark.parametrize("damage", ["missing", "garbage", "wrong key"])
def test_unreadable_certificate(server: Mailsrv, damage: str) -> None:
    path = server.certificate
    if damage == "missing":
        path.unlink()
    elif damage == "garbage":
        path.write_text("-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n")
    else:
        from tests.peers import certificate

        other = server.directory / "other"
        other.mkdir()
        _, key = certificate.write(other)
        (server.directory / "key.pem").write_bytes(key.read_bytes())
        path = server.directory / "key.pem"
    sentence = complaint(server)
    assert str(path) in sentence or str(server.certificate) in sentence


def test_broken_signing_key(server: Mailsrv) -> None:
    path = server.state / "keys" / "rsa-20261123._domainkey.example.org.pem"
    path.parent.mkdir(parents=True)
    path.write_text("-----BEGIN PRIVATE KEY-----\nnothing\n-----END PRIVATE KEY-----\n")
    assert f"{path}: not a private key in PEM without a password." in complaint(server)


def test_broken_database(server: Mailsrv) -> None:
    server.state.mkdir(parents=True)
    (server.state / "mailsrv.db").write_bytes(b"This is no database. " * 1000)
    sentence = complaint(server)
    assert "mailsrv.db" in sentence


def test_broken_accounts(server: Mailsrv) -> None:
    (server.directory / "accounts").write_text("alice@@example.org:x\n")
    assert "accounts:1" in complaint(server)


def test_alias_loop(server: Mailsrv) -> None:
    (server.directory / "aliases").write_text("a@example.org: b@example.org\nb@example.org: a@example.org\n")
    sentence = complaint(server)
    assert "aliases:" in sentence
    assert "loop" in sentence


def test_state_that_cannot_be_made(server: Mailsrv) -> None:
    (server.directory / "file").touch()
    change(server, state=str(server.directory / "file/state"))
    assert "file/state" in complaint(server)


def test_a_second_server_on_the_same_state(server: Mailsrv, template: Template, tmp_path: Path) -> None:
    server.start()
    second = Mailsrv(template, tmp_path / "second", {"state": str(server.state)})
    second.port = {name: free_port() for name in second.port}
    second.write_config()
    try:
        sentence = complaint(second)
    finally:
        second.running.kill()
    assert str(server.state) in sentence
    server.stop()
    assert server.ended_in_order()
