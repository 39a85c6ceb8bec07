"""A Dovecot of our own: POP3 without TLS on one port of loopback, Maildirs below a folder.

Users have one password together, or those of an accounts file.

As Dovecot starts processes of several users, whoever starts it must be root.  /etc/dovecot is not read.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass, field
from pathlib import Path

from tests.peers.programs import Program, find, free_port

PASSWORD = "secret"


def unavailable() -> str:
    """Why no Dovecot can be started here, in a few words; "" when one can."""
    if find("dovecot") is None or not Path("/usr/lib/dovecot/pop3").exists():
        return "dovecot with POP3 is not installed"
    if os.geteuid() != 0:
        return "dovecot can only be started by root"
    return ""


@dataclass
class Dovecot:
    """``directory`` must be reachable for everybody; the Maildir of user x is ``mail/x`` in it."""

    directory: Path
    user: str = "nobody"
    port: int = field(default_factory=free_port)
    program: Program | None = None
    accounts: Path | None = None

    @property
    def mail(self) -> Path:
        return self.directory / "mail"

    def start(self) -> None:
        self.mail.mkdir(parents=True, exist_ok=True)
        user = pwd.getpwnam(self.user)
        os.chown(self.mail, user.pw_uid, user.pw_gid)
        if self.accounts is None:
            passwords = f"driver = static\n  args = password={PASSWORD}"
        else:
            passwords = f"driver = passwd-file\n  args = {self.accounts}"
        config = self.directory / "dovecot.conf"
        config.write_text(f"""\
base_dir = {self.directory}/run
state_dir = {self.directory}/lib
log_path = /dev/stderr
protocols = pop3
ssl = no
disable_plaintext_auth = no
first_valid_uid = 1
mail_location = maildir:{self.mail}/%n
passdb {{
  {passwords}
}}
userdb {{
  driver = static
  args = uid={user.pw_uid} gid={user.pw_gid} home={self.mail}/%n
}}
service pop3-login {{
  inet_listener pop3 {{
    address = 127.0.0.1
    port = {self.port}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
""")
        self.program = Program([find("dovecot") or "dovecot", "-F", "-c", str(config)], self.directory / "log")
        self.program.wait_for_ports(self.port)

    def stop(self) -> None:
        if self.program is not None:
            self.program.stop()
