"""Hosts of their own on this machine: network namespaces on one wire, with addresses that no real network has.

Each ``Host`` has its loopback and one interface; every address is on the wire, so a host that nobody has is a host that
does not answer.  ``with host.inside():`` puts the thread into the host: sockets made there, and programs started there,
are the host's, and stay so.

The names carry the process id of the tests.  What a run that was killed has left behind is removed by the next.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.peers.programs import ProgramError, find

_PREFIX = "mailsrv-test"
_NAMESPACES = Path("/run/netns")
_CLONE_NEWNET = 0x40000000  # sched.h


def unavailable() -> str:
    """Why there can be no namespaces here, in a few words; "" when there can."""
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    for program in ("ip", "unshare", "mount"):
        if find(program) is None:
            return f"{program} is not installed"
    name = f"{_PREFIX}-{os.getpid()}-probe"
    made = _ip("netns", "add", name, check=False)
    if made.returncode:
        return f"network namespaces cannot be made here: {made.stderr.strip()}"
    wired = _ip("-n", name, "link", "add", "probe", "type", "veth", "peer", "name", "other", check=False)
    _ip("netns", "delete", name)
    return f"no virtual interfaces here: {wired.stderr.strip()}" if wired.returncode else ""


def _ip(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([find("ip") or "ip", *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise ProgramError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done


class Host:
    """A network namespace.  ``addresses`` may be of both families."""

    def __init__(self, namespace: str, addresses: tuple[str, ...]) -> None:
        self.namespace = namespace
        self.addresses = addresses

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """The calling thread is on this host for as long as it lasts."""
        with open("/proc/thread-self/ns/net") as home, (_NAMESPACES / self.namespace).open() as away:
            _enter(away.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())

    def ignore(self, address: str) -> None:
        """Answers to ``address`` go nowhere: who connects from there waits in vain."""
        self.change("route", "add", "blackhole", address)

    def heed(self, address: str) -> None:
        self.change("route", "delete", "blackhole", address)

    def change(self, *arguments: str) -> None:
        """Run ``ip`` with these arguments on this host."""
        family = ("-6",) if any(":" in word for word in arguments) else ()
        _ip("-n", self.namespace, *family, *arguments)

    def wired(self) -> None:
        """The interface ``wire`` is here: give it the addresses."""
        self.change("link", "set", "lo", "up")
        self.plug_in()

    def unplug(self) -> None:
        """No way to anybody."""
        self.change("link", "set", "wire", "down")

    def plug_in(self) -> None:
        """The interface is up, with all addresses and the way to everybody else."""
        self.change("link", "set", "wire", "up")
        _ip("-n", self.namespace, "address", "flush", "dev", "wire", "scope", "global")
        for address in self.addresses:
            self._add(address)
        for family in ("-4", "-6"):
            _ip("-n", self.namespace, family, "route", "replace", "default", "dev", "wire")

    def _add(self, address: str) -> None:
        # Nobody else can have the address, so nobody waits until that is known.
        more = ("nodad",) if ":" in address else ()
        self.change("address", "add", self._with_length(address), "dev", "wire", *more)

    def _with_length(self, address: str) -> str:
        return f"{address}/128" if ":" in address else f"{address}/32"

    def end(self) -> None:
        """Kill what still runs here and remove the namespace."""
        for pid in _ip("netns", "pids", self.namespace, check=False).stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        _ip("netns", "delete", self.namespace, check=False)


class Wire:
    """A switch with hosts on it.  ``end`` removes all of them."""

    def __init__(self) -> None:
        _remove_leftovers()
        self._name = f"{_PREFIX}-{os.getpid()}"
        self._switch = Host(f"{self._name}-wire", ())
        self.hosts: list[Host] = []
        _ip("netns", "add", self._switch.namespace)
        self._switch.change("link", "add", "switch", "type", "bridge", "stp_state", "0", "forward_delay", "0")
        self._switch.change("link", "set", "switch", "up")

    def host(self, name: str, *addresses: str) -> Host:
        """A new host."""
        host = Host(f"{self._name}-{name}", addresses)
        self.hosts.append(host)
        _ip("netns", "add", host.namespace)
        port = f"port{len(self.hosts)}"
        self._switch.change("link", "add", port, "type", "veth", "peer", "name", "wire", "netns", host.namespace)
        self._switch.change("link", "set", port, "master", "switch")
        self._switch.change("link", "set", port, "up")
        host.wired()
        return host

    def end(self) -> None:
        for host in (*self.hosts, self._switch):
            host.end()


def _remove_leftovers() -> None:
    """Namespaces of runs that are over."""
    for name in os.listdir(_NAMESPACES) if _NAMESPACES.exists() else ():
        found = re.fullmatch(rf"{_PREFIX}-([0-9]+)-[a-z0-9]+", name)
        if found and not Path(f"/proc/{found.group(1)}").exists():
            Host(name, ()).end()


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def with_files(mounts: dict[Path, Path], argv: list[str]) -> list[str]:
    """The command for ``argv`` that sees other files and folders (the values) in the usual places (the keys).

    Only this program and its children see it so.
    """
    script = "".join(f'mount --bind "{source}" "{place}" && ' for place, source in mounts.items())
    unshare, shell = find("unshare") or "unshare", shutil.which("sh") or "/bin/sh"
    return [unshare, "--mount", "--propagation", "private", shell, "-c", f'{script}exec "$@"', shell, *argv]
