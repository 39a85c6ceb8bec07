"""The servers that are compared, each started afresh in a folder of its own for every run."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.peers import postfix
from tests.peers.postfix import Postfix
from tests.peers.programs import ROOT, Program, find, wait_until
from tests.peers.server import ALICE, Mailsrv, Template

MAILSRV, STOCK, TUNED = "mailsrv", "Postfix stock", "Postfix tuned"
SERVERS = (MAILSRV, STOCK, TUNED)


class Peer(Protocol):
    """A server that takes mail on ``port`` of 127.0.0.1 for alice@example.org."""

    @property
    def port(self) -> int: ...

    @property
    def inbox(self) -> Path:
        """The folder where each delivered message becomes one file."""
        ...

    def processes(self) -> list[int]: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


@dataclass
class PostfixPeer:
    server: Postfix

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def inbox(self) -> Path:
        return self.server.maildir / "new"

    def processes(self) -> list[int]:
        return self.server.processes()

    def start(self) -> None:
        self.server.start()

    def stop(self) -> None:
        self.server.stop()


@dataclass
class MailsrvPeer:
    server: Mailsrv
    trace: Path | None = None  # where strace writes its count of system calls
    _tracer: Program | None = None

    @property
    def port(self) -> int:
        return self.server.port["smtp"]

    @property
    def inbox(self) -> Path:
        return self.server.maildir(ALICE) / "new"

    def processes(self) -> list[int]:
        return [self.server.running.pid]

    def start(self) -> None:
        self.server.start()
        if self.trace is not None:
            strace = [find("strace") or "strace", "-f", "-c", "-o", str(self.trace), "-p", str(self.server.running.pid)]
            tracer = self._tracer = Program(strace, self.server.directory / "strace")
            wait_until(lambda: "attached" in tracer.output(), 10, "strace")

    def stop(self) -> None:
        if self._tracer is not None:
            self._tracer.signal(signal.SIGINT)
            self._tracer.wait(10)
        self.server.stop()


def unavailable(name: str) -> str:
    """Why this server cannot be measured here; "" when it can."""
    if name == MAILSRV:
        return "" if (ROOT / "mailsrv/tap.py").exists() else "mailsrv/tap.py is not written yet"
    return postfix.unavailable()


@dataclass
class Bench:
    """Builds servers under ``place``.  ``route`` ("host:port") is where they send mail for other domains."""

    place: Path
    route: str = ""
    mailsrv_settings: dict[str, Any] = field(default_factory=dict)
    postfix_settings: dict[str, str] = field(default_factory=dict)
    twistd: tuple[str, ...] = ()
    trace: Path | None = None
    _template: Template | None = None

    def make(self, name: str) -> Peer:
        """One of ``SERVERS``, not yet started, with empty mailboxes and an empty queue."""
        folder = self.place / name.replace(" ", "-")
        shutil.rmtree(folder, ignore_errors=True)
        if name == MAILSRV:
            return MailsrvPeer(self._mailsrv(folder), self.trace)
        routes = {"*": self.route} if self.route else {}
        return PostfixPeer(
            Postfix(folder, routes=routes, settings=self.postfix_settings, tuned=name == TUNED, log=False)
        )

    def _mailsrv(self, folder: Path) -> Mailsrv:
        if self._template is None:
            directory = self.place / "template"
            directory.mkdir()
            self._template = Template.make(directory)
        settings: dict[str, Any] = {"limits.connections_per_client": 20_000, **self.mailsrv_settings}
        if self.route:
            settings |= {"trusted_networks": ["127.0.0.0/8"], "outbound.routes": {"*": f"smtp://{self.route}"}}
        return Mailsrv(self._template, folder, settings, self.twistd)


def processor_s(pids: list[int]) -> float:
    """Processor time used so far by these processes and by their children that ended."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_kib(pids: list[int]) -> int:
    """Memory of these processes, shared pages counted in proportion (PSS)."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total
