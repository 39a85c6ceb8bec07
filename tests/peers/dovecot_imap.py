"""A Dovecot of our own that serves by IMAP the Maildirs that a mailsrv delivers into, with the same accounts file.

It keeps ``maildirsize`` (its maildir quota) and takes each user's quota from that file.  /etc/dovecot is not read.  As
Dovecot starts processes of several users, whoever starts it must be root; the mail is that of ``user``.
"""

from __future__ import annotations

import imaplib
import os
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.peers.programs import Program, find, free_port


def unavailable() -> str:
    """Why no Dovecot can be started here, in a few words; "" when one can."""
    if find("dovecot") is None or not Path("/usr/lib/dovecot/imap").exists():
        return "dovecot with IMAP is not installed"
    if os.geteuid() != 0:
        return "dovecot can only be started by root"
    return ""


@dataclass
class DovecotImap:
    """``directory`` must be reachable for everybody; ``mail`` is the folder ``state/mail`` of the mailsrv."""

    directory: Path
    mail: Path
    accounts: Path
    user: str
    port: int = field(default_factory=free_port)
    program: Program | None = None

    @property
    def config(self) -> Path:
        return self.directory / "dovecot.conf"

    def start(self) -> None:
        self.directory.mkdir(mode=0o755)
        user = pwd.getpwnam(self.user)
        ids = f"uid={user.pw_uid} gid={user.pw_gid}"
        self.config.write_text(f"""\
base_dir = {self.directory}/run
state_dir = {self.directory}/lib
log_path = /dev/stderr
protocols = imap
ssl = no
disable_plaintext_auth = no
first_valid_uid = 1
first_valid_gid = 1
default_login_user = {self.user}
default_internal_user = {self.user}
mail_location = maildir:{self.mail}/%d/%n
mail_plugins = quota
passdb {{
  driver = passwd-file
  args = username_format=%u {self.accounts}
}}
userdb {{
  driver = passwd-file
  args = username_format=%u {self.accounts}
  default_fields = {ids} home={self.mail}/%d/%n
}}
plugin {{
  quota = maildir:User quota
}}
protocol imap {{
  mail_plugins = quota imap_quota
}}
service imap-login {{
  inet_listener imap {{
    address = 127.0.0.1
    port = {self.port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
""")
        self.program = Program([find("dovecot") or "dovecot", "-F", "-c", str(self.config)], self.directory / "log")
        self.program.wait_for_ports(self.port)

    def stop(self) -> None:
        if self.program is not None:
            self.program.stop()

    def admin(self, *arguments: str) -> str:
        """What ``doveadm`` prints."""
        command = [find("doveadm") or "doveadm", "-c", str(self.config), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout

    def quota(self, user: str) -> dict[str, tuple[int, str]]:
        """STORAGE (KiB) and MESSAGE as Dovecot has them: value and limit."""
        lines = [line.split("\t") for line in self.admin("-f", "tab", "quota", "get", "-u", user).splitlines()[1:]]
        return {kind: (int(value), limit) for _, kind, value, limit, _ in lines}

    @contextmanager
    def session(self, user: str, password: str) -> Iterator[imaplib.IMAP4]:
        """A client that has logged in."""
        with imaplib.IMAP4("127.0.0.1", self.port, timeout=30) as client:
            client.login(user, password)
            yield client
