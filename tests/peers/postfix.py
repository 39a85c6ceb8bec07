"""A Postfix of our own: private configuration, queue and mail folders, one port of loopback; /etc/postfix is only read.

``Postfix`` takes mail for one domain into Maildirs written by an unprivileged user, or passes it on along routes.  As
Postfix's master must be root, so must be whoever starts it.  Two settings of performance: as Debian ships it ("stock",
with Debian's own master.cf), and "tuned": no chroot, no delay for fast senders, more processes, no counting of clients.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.peers.programs import ProgramError, find, free_port, listens, wait_until

# What Debian copies into the queue folder for the processes that it confines there.
_CHROOT_FILES = ("etc/hosts", "etc/resolv.conf", "etc/nsswitch.conf", "etc/services", "etc/host.conf", "etc/localtime")

_TUNED = {
    "in_flow_delay": "0",
    "default_process_limit": "200",
    "smtpd_client_connection_count_limit": "0",
    "smtpd_client_connection_rate_limit": "0",
    "smtpd_client_message_rate_limit": "0",
    "smtpd_peername_lookup": "no",
    "default_destination_concurrency_limit": "100",
    "default_destination_recipient_limit": "100",
    "initial_destination_concurrency": "20",
    "qmgr_message_active_limit": "50000",
    "qmgr_message_recipient_limit": "50000",
}


def unavailable() -> str:
    """Why no Postfix can be started here, in a few words; "" when one can."""
    if find("postfix") is None:
        return "postfix is not installed"
    if os.geteuid() != 0:
        return "postfix can only be started by root"
    return ""


def _setting(name: str) -> str:
    postconf = find("postconf") or "postconf"
    return subprocess.run([postconf, "-d", "-h", name], check=True, capture_output=True, text=True).stdout.strip()


def reachable(directory: Path) -> bool:
    """Whether any user may pass into this folder."""
    return all(folder.stat().st_mode & 0o001 for folder in [directory, *directory.parents])


@dataclass
class Postfix:
    """``directory`` is made when missing, and must be reachable for everybody.

    Mail for ``domain`` goes to the Maildir ``maildir`` whatever the recipient, unless ``routes`` (domain or "*" to
    "host:port") sends it elsewhere.  ``settings`` go to main.cf last.  With ``log`` there is a ``log`` file.
    """

    directory: Path
    domain: str = "example.org"
    routes: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    tuned: bool = False
    log: bool = True
    user: str = "nobody"
    port: int = field(default_factory=free_port)
    interface: str = "127.0.0.1"  # "" is all that inet_interfaces has

    @property
    def maildir(self) -> Path:
        return self.directory / "mail" / "box"

    @property
    def log_text(self) -> str:
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def processes(self) -> list[int]:
        """Process ids of the master and its children."""
        master = int((self.directory / "queue/pid/master.pid").read_text())
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        return [master, *map(int, children)]

    def start(self) -> None:
        self._write_folders()
        self._write_main()
        self._write_master()
        self._postfix("start")
        wait_until(lambda: listens(self.port), 20, f"Postfix on port {self.port}: {self.log_text[-2000:]}")

    def stop(self) -> None:
        """End it and wait; no error when it does not run."""
        pid_file = self.directory / "queue/pid/master.pid"
        if not pid_file.exists():
            return
        pid = int(pid_file.read_text())
        subprocess.run(self._command("stop"), check=False, capture_output=True, text=True)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), 20, "the end of Postfix")

    def flush(self) -> None:
        """Try everything in the queue now."""
        self._postfix("flush")

    def queued(self) -> int:
        """Messages in the queue."""
        return sum(
            len(files)
            for name in ("maildrop", "incoming", "active", "deferred")
            for _, _, files in os.walk(self.directory / "queue" / name)
        )

    def _command(self, verb: str) -> list[str]:
        return [find("postfix") or "postfix", "-c", str(self.directory / "config"), verb]

    def _postfix(self, verb: str) -> None:
        done = subprocess.run(self._command(verb), check=False, capture_output=True, text=True)
        if done.returncode:
            raise ProgramError(f"postfix {verb}: {done.stderr}{done.stdout}{self.log_text}")

    def _write_folders(self) -> None:
        for name in ("config", "queue/etc", "data", "mail"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        if not reachable(self.directory):
            raise ProgramError(f"{self.directory}: its own user cannot come here; choose a folder open to all")
        owner = pwd.getpwnam("postfix")
        os.chown(self.directory / "data", owner.pw_uid, owner.pw_gid)
        user = pwd.getpwnam(self.user)
        os.chown(self.directory / "mail", user.pw_uid, user.pw_gid)
        for name in _CHROOT_FILES:
            if os.path.exists(f"/{name}"):
                shutil.copyfile(f"/{name}", self.directory / "queue" / name)

    def _write_main(self) -> None:
        user = pwd.getpwnam(self.user)
        routes = ", ".join(f"{{{domain} = smtp:[{host}]:{port}}}" for domain, host, port in self._routes())
        settings = {
            "compatibility_level": "3.6",
            "queue_directory": str(self.directory / "queue"),
            "data_directory": str(self.directory / "data"),
            "command_directory": _setting("command_directory"),
            "daemon_directory": _setting("daemon_directory"),
            "mail_owner": "postfix",
            "setgid_group": "postdrop",
            "myhostname": f"postfix.{self.domain}",
            "myorigin": self.domain,
            "mydestination": "",
            "inet_interfaces": "127.0.0.1",
            "inet_protocols": "ipv4",
            "mynetworks": "127.0.0.0/8",
            "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination",
            "smtp_dns_support_level": "disabled",
            "alias_maps": "",
            "alias_database": "",
            "local_recipient_maps": "",
            "virtual_mailbox_domains": self.domain,
            "virtual_mailbox_base": str(self.directory / "mail"),
            "virtual_mailbox_maps": "static:box/",
            "virtual_mailbox_limit": "0",
            "virtual_uid_maps": f"static:{user.pw_uid}",
            "virtual_gid_maps": f"static:{user.pw_gid}",
            "message_size_limit": str(50 * 1024 * 1024),
        }
        if routes:
            settings["transport_maps"] = f"inline:{{{routes}}}"
        if self.log:
            settings["maillog_file"] = str(self.directory / "log")
            settings["maillog_file_prefixes"] = str(self.directory)
        if self.tuned:
            settings |= _TUNED
        settings |= self.settings
        text = "".join(f"{name} = {value}\n" for name, value in settings.items())
        (self.directory / "config/main.cf").write_text(text)

    def _routes(self) -> list[tuple[str, str, str]]:
        found = []
        for domain, target in self.routes.items():
            host, port = target.rsplit(":", 1)
            found.append((domain, host, port))
        return found

    def _write_master(self) -> None:
        """Debian's own table of services, with another port; when tuned without chroot."""
        lines = []
        for line in Path("/usr/share/postfix/master.cf.dist").read_text().splitlines():
            fields = line.split()
            if not fields or line.startswith("#"):
                continue
            if not line[0].isspace():
                if fields[:2] == ["smtp", "inet"]:
                    fields[0] = f"{self.interface}:{self.port}" if self.interface else str(self.port)
                if self.tuned:
                    fields[4] = "n"
            lines.append(("  " if line[0].isspace() else "") + " ".join(fields))
        (self.directory / "config/master.cf").write_text("\n".join(lines) + "\n")
