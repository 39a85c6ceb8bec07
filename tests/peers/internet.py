"""A small Internet: mailsrv, a name server, and other servers' software as receivers, each on a host of its own.

mailsrv runs as it would at home: port 25, MX records from a real name server, no routes.  What all the domains are
there for says ``ZONES``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from typing import Any

from tests.peers import exim, nameserver, namespaces, postfix
from tests.peers.certificate import Authority
from tests.peers.exim import Exim
from tests.peers.mailbox import submission
from tests.peers.nameserver import NameServer
from tests.peers.namespaces import Host, Wire
from tests.peers.postfix import Postfix
from tests.peers.programs import wait_until
from tests.peers.samples import small, written_by
from tests.peers.server import ALICE, Mailsrv, Template

US = ("192.0.2.1", "2001:db8::1")
POSTFIX = ("198.51.100.25", "2001:db8:25::1")
EXIM = ("198.51.100.26", "2001:db8:26::1")
DNS = "192.0.2.53"

# At NOBODY no host is, and at DNS a host that does not listen on port 25.
NOBODY = ("198.51.100.99", "2001:db8:99::1")

ZONES: dict[str, str | None] = {
    "example.org": f"@ MX 10 mx\nmx A {US[0]}\nmx AAAA {US[1]}\n",
    "example.net": f"""
@           MX 10 postfix
postfix     A {POSTFIX[0]}
postfix     AAAA {POSTFIX[1]}
exim        A {EXIM[0]}
exim        AAAA {EXIM[1]}
down        A {NOBODY[0]}
closed      A {DNS}
first       MX 10 exim
first       MX 20 postfix
second      MX 10 closed
second      MX 20 exim
third       MX 10 down
third       MX 20 closed
third       MX 30 postfix
equal       MX 10 exim
equal       MX 10 postfix
bare        A {EXIM[0]}
bare6       AAAA {POSTFIX[1]}
alias       CNAME bare
null        MX 0 .
dangling    MX 10 nothing
text        TXT "no mail here"
half        MX 10 half-host
half-host   AAAA {NOBODY[1]}
half-host   A {POSTFIX[0]}
silent      MX 10 silent-host
silent-host AAAA {EXIM[1]}
silent-host A {EXIM[0]}
restarted   MX 10 postfix
many        MX 10 postfix
many        MX 10 exim
""",
    "example.com": f"@ MX 10 exim\nexim A {EXIM[0]}\nexim AAAA {EXIM[1]}\n",
    "example": "www A 192.0.2.80\n",
    "mended.example": None,
}


def unavailable() -> str:
    """Why there can be no such Internet here, in a few words; "" when there can."""
    missing = namespaces.unavailable() or nameserver.unavailable() or postfix.unavailable()
    return missing or ("" if exim.program() else "exim4 is not installed")


class Internet:
    """Call ``start``, and ``end`` whatever happens.  ``directory`` must be reachable for everybody."""

    def __init__(self, directory: Path, template: Template) -> None:
        self._directory = directory
        self._template = template
        self._ends: list[Callable[[], object]] = []
        self.wire: Wire
        self.names: NameServer
        self.postfix: Postfix
        self.exim: Exim
        self.mailsrv: Mailsrv
        self.host: Host  # of mailsrv
        self.postfix_host: Host
        self.exim_host: Host

    def start(self) -> None:
        self.wire = Wire()
        self._ends.append(self.wire.end)
        self.host = self.wire.host("mx", *US)
        self.postfix_host = self.wire.host("postfix", *POSTFIX)
        self.exim_host = self.wire.host("exim", *EXIM)
        authority = Authority(self._directory)
        self.names = NameServer(self._directory / "nsd", self.wire.host("dns", DNS), ZONES)
        self._ends.append(self.names.stop)
        self.names.start()
        self._start_postfix(authority)
        self.exim = Exim(
            self._directory / "exim", self.exim_host, "exim.example.net", authority.issue("exim.example.net")
        )
        self._ends.append(self.exim.stop)
        self.exim.start()
        self._start_mailsrv(authority)

    def end(self) -> None:
        while self._ends:
            self._ends.pop()()

    def _start_postfix(self, authority: Authority) -> None:
        chain, key = authority.issue("postfix.example.net")
        settings = {
            "inet_interfaces": "all",
            "inet_protocols": "all",
            "smtpd_peername_lookup": "no",
            "virtual_mailbox_domains": "static:all",
            "smtpd_recipient_restrictions": "check_recipient_access regexp:{{/^nobody@/ 550 5.1.1 no such user here}}",
            "smtpd_tls_security_level": "may",
            "smtpd_tls_cert_file": str(chain),
            "smtpd_tls_key_file": str(key),
            "smtpd_tls_received_header": "yes",
        }
        self.postfix = Postfix(
            self._directory / "postfix",
            "example.net",
            routes={"example.org": f"{US[0]}:25"},
            settings=settings,
            tuned=True,
            port=25,
            interface="",
        )
        self._ends.append(lambda: self.in_postfix(self.postfix.stop))
        self.in_postfix(self.postfix.start)

    def in_postfix(self, work: Callable[[], object]) -> None:
        with self.postfix_host.inside():
            work()

    def _start_mailsrv(self, authority: Authority) -> None:
        settings: dict[str, Any] = {
            "listen.smtp": ["tcp:25", "tcp6:25"],
            "dns.servers": [f"{DNS}:53"],
            "tls.authorities": str(authority.path),
            "outbound.connect_timeout": "2s",
            "queue.retry": ["1s"],
        }
        ports = {"smtp": 25, "submission": 587, "submissions": 465, "pop3": 110, "pop3s": 995}
        self.mailsrv = Mailsrv(self._template, self._directory / "mailsrv", settings, port=ports)
        self._ends.append(self.mailsrv.stop)
        with self.host.inside():
            self.mailsrv.start()

    # What a test does and asks.

    def send(self, name: str, recipients: Sequence[str], content: bytes = b"", options: Sequence[str] = ()) -> bytes:
        """alice sends a message called ``name``; what she sent."""
        sent = written_by(ALICE, content or small(name))
        with self.host.inside(), submission(self.mailsrv) as client:
            refused = client.sendmail(ALICE, recipients, sent, ("BODY=8BITMIME",), options)
        assert not refused
        return sent

    def arrived(self, peer: Postfix | Exim, name: str, copies: int = 1) -> list[bytes]:
        """What ``peer`` has of a message, from its first own header on, once it has as many copies; no more."""
        wait_until(lambda: len(self._copies(peer, name)) >= copies, 30, f"{name}: {peer.log_text[-3000:]}")
        found = self._copies(peer, name)
        assert len(found) == copies
        return [content[content.index(b"\nFrom: ") + 1 :] for content in found]

    def has(self, name: str, peer: Postfix | Exim | None = None) -> bool:
        """Whether a receiver, or any, has a message."""
        return any(self._copies(each, name) for each in ((peer,) if peer else (self.postfix, self.exim)))

    def copies(self, name: str) -> int:
        """How many there are at all receivers."""
        return len(self._copies(self.postfix, name)) + len(self._copies(self.exim, name))

    def settled(self) -> bool:
        """Whether nothing waits in the queue."""
        done = self.mailsrv.tool("queue", "list", "--json")
        assert done.returncode == 0, done.stderr
        return bool(json.loads(done.stdout) == [])

    def kill(self) -> None:
        self.mailsrv.kill()

    def stop(self) -> None:
        self.mailsrv.stop()
        assert self.mailsrv.ended_in_order()

    def restart(self) -> None:
        with self.host.inside():
            self.mailsrv.start()

    def trace(self, peer: Postfix | Exim, name: str) -> Message:
        """The header of the one copy."""
        (content,) = self._copies(peer, name)
        return BytesParser().parsebytes(content, headersonly=True)

    def _copies(self, peer: Postfix | Exim, name: str) -> list[bytes]:
        marker = f"Message-ID: <{name.replace(' ', '.')}@example.net>".encode()
        files = (peer.maildir / "new").glob("*")
        contents = (path.read_bytes() for path in files)
        return [content.replace(b"\n", b"\r\n") for content in contents if marker in content]

    def report(self, name: str, action: str = "failed") -> Message:
        """The one report to alice about the message, once it is there."""
        wait_until(lambda: bool(self._reports(name, action)), 30, f"a report about {name}")
        (found,) = self._reports(name, action)
        return found

    def _reports(self, name: str, action: str) -> list[Message]:
        marker = f"<{name.replace(' ', '.')}@example.net>".encode()
        files = (self.mailsrv.maildir(ALICE) / "new").glob("*")
        contents = (path.read_bytes() for path in files)
        return [
            BytesParser().parsebytes(content)
            for content in contents
            if marker in content and f"\nAction: {action}".encode() in content
        ]

    def told(self, name: str) -> list[Message]:
        """All reports to alice about a message."""
        return [
            report for action in ("failed", "delayed", "delivered", "relayed") for report in self._reports(name, action)
        ]

    def status(self, name: str) -> str:
        """The enhanced status code in the report about a message that failed for one recipient."""
        report = self.report(name)
        fields = report.get_payload(1)
        assert isinstance(fields, Message)
        last = fields.get_payload(-1)
        assert isinstance(last, Message)
        return str(last["Status"])

    def waiting(self, name: str) -> list[dict[str, Any]]:
        """The recipients of a message that are still in the queue."""
        done = self.mailsrv.tool("queue", "list", "--json")
        assert done.returncode == 0, done.stderr
        identifier = f"{name.replace(' ', '.')}@example.net"
        return [
            recipient
            for row in json.loads(done.stdout)
            if row["message_id"] == identifier
            for recipient in row["recipients"]
            if recipient["state"] == "queued"
        ]

    def why(self, name: str) -> str:
        done = self.mailsrv.tool("why", f"{name.replace(' ', '.')}@example.net")
        assert done.returncode == 0, done.stderr
        return done.stdout
