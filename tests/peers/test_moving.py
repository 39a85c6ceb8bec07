"""Moving in from a real Dovecot and out to it: POP3 clients see the same messages under the same unique-ids."""

from __future__ import annotations

import poplib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.peers import dovecot, mailbox
from tests.peers.conftest import StartMailsrv, missing
from tests.peers.dovecot import Dovecot
from tests.peers.programs import wait_until
from tests.peers.server import ALICE, BOB, Mailsrv

PASSWORD = "tulip and thyme"


@pytest.fixture
def peer(open_folder: Path) -> Iterator[Dovecot]:
    why = dovecot.unavailable()
    if why:
        missing(why)
    made = Dovecot(open_folder / "dovecot")
    made.directory.mkdir()
    made.directory.chmod(0o755)
    made.start()
    yield made
    made.stop()


def listed(client: poplib.POP3) -> list[tuple[bytes, bytes]]:
    """Unique-id and content of all messages."""
    _, lines, _ = client.uidl()
    return [(line.split()[1], mailbox.retrieve(client, int(line.split()[0]))) for line in lines]


def at_dovecot(peer: Dovecot, user: str) -> list[tuple[bytes, bytes]]:
    client = poplib.POP3("127.0.0.1", peer.port, timeout=30)
    try:
        client.user(user)
        client.pass_(dovecot.PASSWORD)
        found = listed(client)
        client.quit()
        return found
    finally:
        client.close()


def test_from_dovecot_and_back(peer: Dovecot, start_mailsrv: StartMailsrv, need: Callable[[str], str]) -> None:
    doveadm = need("doveadm")

    def admin(*arguments: str, stdin: bytes = b"") -> bytes:
        command = [doveadm, "-c", str(peer.directory / "dovecot.conf"), *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, check=True, timeout=60).stdout

    for n in range(30):
        admin("save", "-u", "alice", stdin=b"Subject: message %d\n\nFrom a line\n.\n%b\n" % (n, b"x" * n))
    admin("mailbox", "create", "-u", "alice", "Sent")
    admin("save", "-u", "alice", "-m", "Sent", stdin=b"Subject: sent\n\n")
    admin("flags", "add", "-u", "alice", r"\Seen \Flagged Important", "mailbox", "INBOX", "subject", "message 7")
    admin("expunge", "-u", "alice", "mailbox", "INBOX", "uid", "5:9")
    there = at_dovecot(peer, "alice")
    assert len(there) == 25

    server = start_mailsrv()
    ran = server.tool("import", ALICE, str(peer.mail / "alice"))
    assert (ran.returncode, ran.stderr) == (0, "")
    with mailbox.pop3(server) as client:
        assert listed(client) == there
    assert [path.read_bytes() for path in server.maildir().glob(".Sent/*/*,S=*")] == [b"Subject: sent\n\n"]
    assert server.tool("import", ALICE, str(peer.mail / "alice")).returncode == 0
    assert mailbox.count(server) == 25

    # Out again, for another user there, who gets them as they were.
    out = peer.mail / "bob"
    assert server.tool("export", ALICE, str(out)).returncode == 0
    subprocess.run(["chown", "-R", "--reference", str(peer.mail), str(out)], check=True)
    assert at_dovecot(peer, "bob") == there
    assert b"sent" in admin("fetch", "-u", "bob", "hdr", "mailbox", "Sent")


def test_a_password_of_dovecot_is_good_and_then_replaced(
    start_mailsrv: StartMailsrv, need: Callable[[str], str], tmp_path: Path
) -> None:
    made = subprocess.run(
        [need("doveadm"), "pw", "-s", "SSHA512", "-p", PASSWORD], capture_output=True, text=True, check=True, timeout=60
    )
    server = start_mailsrv()
    (tmp_path / "users").write_text(f"carol@example.org:{made.stdout.strip()}::::::\n{BOB}:{{PLAIN}}other\n")
    ran = server.tool("account", "import", str(tmp_path / "users"))
    assert (ran.returncode, ran.stderr) == (0, "")
    accounts = server.directory / "accounts"
    wait_until(lambda: _logs_in(server), 10, "the account to be in force", every_s=0.1)
    wait_until(lambda: "SSHA512" not in accounts.read_text(), 10, "the hash to be replaced")
    assert "carol@example.org:{ARGON2ID}$argon2id$" in accounts.read_text()
    wait_until(lambda: _logs_in(server), 10, "the new hash to be in force", every_s=0.1)


def _logs_in(server: Mailsrv) -> bool:
    try:
        with mailbox.pop3(server, "carol@example.org", PASSWORD):
            return True
    except poplib.error_proto:
        return False
