"""A mailsrv of our own: the real ``twistd`` as a child, on free ports of loopback, in a folder of its own.

The configuration is written here; the accounts are made by the operator's tool, once, and then copied.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.peers import certificate
from tests.peers.programs import ROOT, Program, ProgramError, free_port

ALICE, ALICE_PASSWORD = "alice@example.org", "correct horse battery"
BOB, BOB_PASSWORD = "bob@example.org", 'daily:"bread" \\ 1'
SERVICES = ("smtp", "submission", "submissions", "pop3", "pop3s")

# The checkout goes first, so that its own code runs whether or not it is installed.
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
BIN = Path(sys.executable).parent


def tool(*arguments: str, config: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the verb of ``mailsrv`` that ``arguments`` name; the caller looks at the status."""
    return subprocess.run(
        [sys.executable, "-m", "mailsrv.cli.main", *arguments, "--config", str(config)],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **ENVIRONMENT},
        cwd=ROOT,
    )


def toml(value: Any) -> str:
    """A value as TOML; a dictionary as an inline table."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {toml(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class Template:
    """A certificate and an accounts file with alice and bob, made once and copied to each server."""

    directory: Path

    @classmethod
    def make(cls, directory: Path) -> Template:
        certificate.write(directory)
        config = directory / "mailsrv.toml"
        config.write_text(
            'hostname = "mx.example.org"\ndomains = ["example.org"]\nstate = "state"\n'
            '[tls]\ncertificate = "cert.pem"\nkey = "key.pem"\n'
        )
        for name in ("accounts", "aliases"):
            (directory / name).touch(mode=0o600)
        for address, password in ((ALICE, ALICE_PASSWORD), (BOB, BOB_PASSWORD)):
            done = tool("account", "add", address, "--password-stdin", config=config, stdin=password + "\n")
            if done.returncode:
                raise ProgramError(f"mailsrv account add {address}: {done.stderr}{done.stdout}")
        return cls(directory)

    def copy(self, directory: Path) -> None:
        for name in ("cert.pem", "key.pem", "accounts", "aliases"):
            shutil.copy(self.directory / name, directory / name)


@dataclass
class Mailsrv:
    """``settings`` are configuration keys with dots, such as ``{"limits.message_size": 1000}``; they win."""

    template: Template
    directory: Path
    settings: dict[str, Any] = field(default_factory=dict)
    twistd: tuple[str, ...] = ()  # further options of twistd
    port: dict[str, int] = field(default_factory=lambda: {name: free_port() for name in SERVICES})
    program: Program | None = None

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.template.copy(self.directory)
        self.write_config()

    @property
    def config(self) -> Path:
        return self.directory / "mailsrv.toml"

    @property
    def state(self) -> Path:
        return Path(self.settings.get("state", self.directory / "state"))

    @property
    def certificate(self) -> Path:
        return self.directory / "cert.pem"

    @property
    def smtp(self) -> int:
        return self.port["smtp"]

    def maildir(self, address: str = ALICE) -> Path:
        local, domain = address.split("@")
        return self.state / "mail" / domain / local

    def write_config(self) -> None:
        values: dict[str, Any] = {
            "hostname": "mx.example.org",
            "domains": ["example.org"],
            "state": str(self.directory / "state"),
            **{f"listen.{name}": [f"tcp:{port}:interface=127.0.0.1"] for name, port in self.port.items()},
            "tls.certificate": "cert.pem",
            "tls.key": "key.pem",
            "checks.dns": False,
            "limits.penalties": False,
            "dns.servers": ["127.0.0.1:9"],  # nobody: tests ask no real name server
            **self.settings,
        }
        tables: dict[str, dict[str, Any]] = {"": {}}
        for name, value in values.items():
            table, _, key = name.rpartition(".")
            tables.setdefault(table, {})[key] = value
        lines = []
        for table, keys in tables.items():
            if table:
                lines.append(f"[{table}]")
            lines += [f"{key} = {toml(value)}" for key, value in keys.items()]
        self.config.write_text("\n".join(lines) + "\n")

    def spawn(self) -> Program:
        """Start twistd and return at once."""
        argv = [
            str(BIN / "twistd"),
            "--nodaemon",
            "--pidfile=",
            *self.twistd,
            "mailsrv",
            "--config",
            str(self.config),
        ]
        self.program = Program(argv, self.directory / "output", env=ENVIRONMENT, cwd=self.directory)
        return self.program

    def start(self) -> None:
        """Start, and return when it greets: ports are bound before it has become another user and can be signalled."""
        program = self.spawn()
        try:
            program.wait_for_ports(*self.port.values())
            with socket.create_connection(("127.0.0.1", self.port["smtp"]), 20) as client:
                if not client.recv(512).startswith(b"220 "):
                    raise ProgramError("no greeting")
        except (OSError, ProgramError) as error:
            program.kill()
            raise ProgramError(f"mailsrv did not start: {error}\n{program.output()}") from error

    @property
    def running(self) -> Program:
        if self.program is None:
            raise ProgramError("this mailsrv was never started")
        return self.program

    def stop(self) -> int:
        return 0 if self.program is None else self.program.stop()

    def ended_in_order(self) -> bool:
        """Whether it shut down; twistd then ends by the signal that it was sent, or with status 0."""
        status = self.running.process.poll()
        return status in (0, -signal.SIGTERM, -signal.SIGINT) and "Server Shut Down." in self.running.output()

    def kill(self) -> None:
        self.running.kill()

    def tool(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return tool(*arguments, config=self.config, stdin=stdin)
