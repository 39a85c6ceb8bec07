"""LMTP on a local socket, as programs on this machine use it."""

from __future__ import annotations

import shutil
import smtplib
import socket
import stat
from pathlib import Path

import pytest

from tests.peers.conftest import StartMailsrv, StartPostfix
from tests.peers.mailbox import messages
from tests.peers.programs import wait_until
from tests.peers.samples import SAMPLES, check_received, small
from tests.peers.server import ALICE, BOB, BOB_PASSWORD, Mailsrv


@pytest.fixture
def lmtp(open_folder: Path) -> Path:
    """The socket's path; its folder is reachable for all."""
    return open_folder / "lmtp"


def subject(content: bytes) -> bytes:
    return content.partition(b"\r\nSubject: ")[2].partition(b"\r\n")[0]


def listening(start: StartMailsrv, lmtp: Path) -> Mailsrv:
    return start({"listen.lmtp": [f"unix:{lmtp}"], "trusted_networks": ["127.0.0.0/8"]})


def test_smtplib(start_mailsrv: StartMailsrv, lmtp: Path) -> None:
    server = listening(start_mailsrv, lmtp)
    with smtplib.LMTP(str(lmtp), timeout=30) as client:
        client.ehlo("mail.example.net")
        for sample in SAMPLES.values():
            client.sendmail("sender@example.net", [ALICE], sample, mail_options=("BODY=8BITMIME",))
    by_subject = {subject(sample): sample for sample in SAMPLES.values()}
    for content in messages(server, len(SAMPLES)):
        check_received(content, by_subject[subject(content)])
        assert b"Received: from mail.example.net\r\n\tby mx.example.org with LMTP id " in content
    told = server.tool("why", ALICE)
    assert "LMTP" in told.stdout, told.stderr


def test_a_reply_for_each_recipient_and_no_relaying(start_mailsrv: StartMailsrv, lmtp: Path) -> None:
    server = listening(start_mailsrv, lmtp)
    with smtplib.LMTP(str(lmtp), timeout=30) as client:
        client.ehlo("mail.example.net")
        client.mail("sender@example.net")
        assert [client.rcpt(to)[0] for to in (ALICE, "carol@example.net", BOB, "nobody@example.org")] == [
            *(250, 550, 250, 550)
        ]
        assert client.data(small("several"))[0] == 250
        assert client.getreply()[0] == 250
        assert client.noop()[0] == 250
    messages(server, 1)
    messages(server, 1, BOB, BOB_PASSWORD)


def test_the_socket_comes_and_goes(start_mailsrv: StartMailsrv, lmtp: Path) -> None:
    server = listening(start_mailsrv, lmtp)
    assert stat.S_IMODE(lmtp.stat().st_mode) == 0o666
    server.settings["listen.lmtp"] = [f"unix:{lmtp}:mode=600"]
    server.write_config()
    wait_until(lambda: lmtp.exists() and stat.S_IMODE(lmtp.stat().st_mode) == 0o600, 4, "the new mode")
    server.kill()
    assert lmtp.exists()
    server.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(lmtp))
        assert client.recv(100).startswith(b"220 mx.example.org LMTP")
    checked = server.tool("check", "--no-dns").stdout
    assert f"mailsrv answers on unix:{lmtp}" in checked
    server.stop()
    assert not lmtp.exists()


def test_postfix_delivers_to_us(start_mailsrv: StartMailsrv, start_postfix: StartPostfix) -> None:
    """As docs/operator/behind.rst has it: in a chroot, with the socket in a folder that only Postfix may enter."""
    peer = start_postfix(
        domain="example.org",
        settings={"virtual_transport": "lmtp:unix:mailsrv/lmtp", "virtual_mailbox_maps": ""},
    )
    folder = peer.directory / "queue" / "mailsrv"
    folder.mkdir()
    folder.chmod(0o710)
    shutil.chown(folder, group="postfix")
    server = listening(start_mailsrv, folder / "lmtp")
    with smtplib.SMTP("127.0.0.1", peer.port, "client.example.net", timeout=60) as client:
        for name, content in SAMPLES.items():
            if name != "large":
                client.sendmail("sender@example.net", [ALICE, BOB], content, mail_options=("BODY=8BITMIME",))
    count = len(SAMPLES) - 1
    for content in messages(server, count):
        assert b"with LMTP id " in content
    messages(server, count, BOB, BOB_PASSWORD)
    wait_until(lambda: peer.queued() == 0, 20, f"an empty queue: {peer.log_text[-2000:]}")
