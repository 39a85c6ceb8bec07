"""Changes are taken up by the running server, without a restart and without dropping a connection."""

from __future__ import annotations

import signal
import smtplib
import ssl
from pathlib import Path

from tests.peers import certificate
from tests.peers.conftest import StartMailsrv
from tests.peers.mailbox import messages, pop3, send_in
from tests.peers.programs import wait_until
from tests.peers.samples import small
from tests.peers.server import Mailsrv

DAVE, DAVE_PASSWORD = "dave@example.org", "third man"


def _offered_size(server: Mailsrv) -> str:
    with smtplib.SMTP("127.0.0.1", server.port["smtp"], timeout=10) as client:
        client.ehlo()
        return client.esmtp_features["size"]


def _works(server: Mailsrv) -> bool:
    try:
        with pop3(server, DAVE, DAVE_PASSWORD):
            return True
    except Exception:
        return False


def test_a_verb_is_in_force_within_a_second(start_mailsrv: StartMailsrv) -> None:
    server = start_mailsrv()
    done = server.tool("account", "add", DAVE, "--password-stdin", stdin=DAVE_PASSWORD + "\n")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: _works(server), 1, "a login of the new account")
    done = server.tool("alias", "add", "info@example.org", DAVE)
    assert done.returncode == 0, done.stderr

    def accepted() -> bool:
        try:
            send_in(server, small("alias"), "info@example.org")
        except smtplib.SMTPRecipientsRefused:
            return False
        return True

    wait_until(accepted, 1, "the alias")
    messages(server, 1, DAVE, DAVE_PASSWORD)
    done = server.tool("account", "remove", DAVE)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: not _works(server), 1, "the end of the account")


def test_an_edited_configuration_is_in_force_within_three_seconds(start_mailsrv: StartMailsrv) -> None:
    server = start_mailsrv()
    with smtplib.SMTP("127.0.0.1", server.port["smtp"], timeout=10) as kept:
        kept.ehlo()
        server.settings = {"limits.message_size": 123_456}
        server.write_config()
        wait_until(lambda: _offered_size(server) == "123456", 3, "the new size", every_s=0.1)

        server.settings = {"limits.message_size": 234_567, "limits.mistake": 1}
        server.write_config()
        wait_until(lambda: "limits.mistake" in server.running.output(), 3, "a report of the mistake", every_s=0.1)
        assert _offered_size(server) == "123456"

        server.settings = {"limits.message_size": 345_678}
        server.write_config()
        server.running.signal(signal.SIGHUP)
        wait_until(lambda: _offered_size(server) == "345678", 1, "the new size at once", every_s=0.05)
        assert kept.noop()[0] == 250


def test_a_new_certificate_is_used(start_mailsrv: StartMailsrv, tmp_path: Path) -> None:
    server = start_mailsrv()
    certificate.write(server.directory)
    expected = ssl.PEM_cert_to_DER_cert(server.certificate.read_text())

    def presented() -> bytes:
        pem = ssl.get_server_certificate(("127.0.0.1", server.port["pop3s"]), timeout=10)
        return ssl.PEM_cert_to_DER_cert(pem)

    wait_until(lambda: presented() == expected, 4, "the new certificate", every_s=0.1)
