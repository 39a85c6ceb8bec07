"""Starting and ending programs beside us, on loopback.

Readiness is seen by connecting, never by sleeping for a guess; a program that ends early is reported with what it
wrote.  Only programs started here are ever signalled.  Nothing here needs pytest: the benchmark uses it too.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
_SYSTEM_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/local/sbin"])


class ProgramError(Exception):
    """A program did not start, or did not do its work; says which and shows what it wrote."""


def find(name: str) -> str | None:
    """Where a program is, in the folders of root's PATH too; None when it is not installed."""
    return shutil.which(name, path=_SYSTEM_PATH)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str, every_s: float = 0.02) -> None:
    """Ask ``condition`` until it is true; ProgramError naming ``what`` when time is up."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise ProgramError(f"waited {timeout_s:g} s in vain for {what}")
        time.sleep(every_s)


def listens(port: int) -> bool:
    """Whether a connection to this port of 127.0.0.1 is taken."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class Program:
    """A child with its output in a file.  SIGTERM ends it; what does not end is killed and reported."""

    def __init__(
        self,
        argv: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = os.path.basename(argv[0])
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else {**os.environ, **env},
                cwd=cwd,
                # A shell that puts the tests into the background lets them ignore SIGINT, and so would the program.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for_ports(self, *ports: int, timeout_s: float = 30) -> None:
        """Return when all ports take connections; ProgramError when the program ends or time is up first."""
        deadline = time.monotonic() + timeout_s
        for port in ports:
            while not listens(port):
                if self.process.poll() is not None:
                    raise ProgramError(f"{self.name} ended with status {self.process.returncode}:\n{self.output()}")
                if time.monotonic() > deadline:
                    raise ProgramError(f"{self.name} did not listen on {port} in {timeout_s:g} s:\n{self.output()}")
                time.sleep(0.02)

    def wait(self, timeout_s: float) -> int:
        """The exit status; ProgramError when the program goes on for longer."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ProgramError(f"{self.name} still runs after {timeout_s:g} s:\n{self.output()}") from None

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self, timeout_s: float = 25) -> int:
        """SIGTERM, and wait for the end; the exit status.  A program that has ended already is no error."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.wait(timeout_s)
            except ProgramError:
                self.kill()
                raise
        return self.process.returncode

    def kill(self) -> None:
        """SIGKILL: no chance to tidy up."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
