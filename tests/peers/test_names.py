"""Certificates for several names, as ``openssl s_client`` and Python see them."""

from __future__ import annotations

import smtplib
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.peers import certificate
from tests.peers.conftest import StartMailsrv
from tests.peers.programs import wait_until
from tests.peers.server import Mailsrv


def written(folder: Path, name: str) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    chain, key = certificate.write(folder, name)
    return {"certificate": str(chain), "key": str(key)}


@pytest.fixture
def server(start_mailsrv: StartMailsrv, tmp_path: Path) -> Mailsrv:
    net = written(tmp_path / "net", "mail.example.net")
    wild = written(tmp_path / "wild", "*.example.com")
    return start_mailsrv({"tls.names": {"mail.example.net": net, "*.example.com": wild}})


def test_openssl(server: Mailsrv, need: Callable[[str], str]) -> None:
    openssl = need("openssl")
    for service, begin in (("smtp", ["-starttls", "smtp"]), ("submissions", []), ("pop3", ["-starttls", "pop3"])):
        for name, subject in (
            ("mx.example.org", "mx.example.org"),
            ("mail.example.net", "mail.example.net"),
            ("a.example.com", "*.example.com"),
        ):
            done = subprocess.run(
                [openssl, "s_client", "-connect", f"127.0.0.1:{server.port[service]}", "-servername", name, *begin],
                input="QUIT\r\n",
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            assert f"CN = {subject}" in done.stdout or f"CN={subject}" in done.stdout, done.stdout + done.stderr
            assert "No client certificate CA names sent" in done.stdout


def test_a_client_that_names_nobody_and_a_client_that_verifies(server: Mailsrv, tmp_path: Path) -> None:
    presented = ssl.get_server_certificate(("127.0.0.1", server.port["pop3s"]), timeout=10)
    assert presented == server.certificate.read_text()
    context = ssl.create_default_context(cafile=str(tmp_path / "net" / "cert.pem"))
    with smtplib.SMTP("127.0.0.1", server.smtp, timeout=10) as client:
        client._host = "mail.example.net"  # type: ignore[attr-defined]
        assert client.starttls(context=context)[0] == 220
        assert client.ehlo()[0] == 250


def test_a_renewed_certificate_is_taken_up(server: Mailsrv, tmp_path: Path) -> None:
    """Until its key is there as well, the old pair stays, and the log says so."""
    path = tmp_path / "net" / "cert.pem"
    old, old_key = path.read_bytes(), (tmp_path / "net" / "key.pem").read_bytes()
    written(tmp_path / "net", "mail.example.net")
    new_key = (tmp_path / "net" / "key.pem").read_bytes()
    (tmp_path / "net" / "key.pem").write_bytes(old_key)
    wait_until(lambda: "net/key.pem: holds no private key" in server.running.output(), 4, "a report")
    assert presented(server, "mail.example.net") == ssl.PEM_cert_to_DER_cert(old.decode())
    (tmp_path / "net" / "key.pem").write_bytes(new_key)
    new = ssl.PEM_cert_to_DER_cert(path.read_text())
    wait_until(lambda: presented(server, "mail.example.net") == new, 4, "the new certificate", every_s=0.1)


def presented(server: Mailsrv, name: str) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", server.port["pop3s"]), 10) as plain,
        context.wrap_socket(plain, server_hostname=name) as client,
    ):
        return client.getpeercert(binary_form=True) or b""


def test_check_looks_at_all_of_them(server: Mailsrv, tmp_path: Path) -> None:
    checked = server.tool("check", "--no-dns").stdout
    assert 'certificate of "mail.example.net": valid until' in checked
    (tmp_path / "net" / "cert.pem").unlink()
    missing = server.tool("check", "--no-dns")
    assert missing.returncode == 1
    assert f'wrong    certificate of "mail.example.net": {tmp_path}/net/cert.pem: No such file' in missing.stdout


def test_no_tickets(server: Mailsrv, need: Callable[[str], str]) -> None:
    """Neither under TLS 1.2 nor under TLS 1.3, whether a client names us or not."""
    openssl = need("openssl")
    for service, begin in (("smtp", ["-starttls", "smtp"]), ("submissions", []), ("pop3s", [])):
        for version in ("-tls1_2", "-tls1_3"):
            for name in (["-noservername"], ["-servername", "mail.example.net"]):
                done = subprocess.run(
                    [
                        *(openssl, "s_client", "-connect", f"127.0.0.1:{server.port[service]}"),
                        *(version, *name, *begin, "-msg", "-ign_eof"),
                    ],
                    input="QUIT\r\n",
                    capture_output=True,
                    text=True,
                    timeout=30,
                    check=False,
                )
                assert "Handshake [length" in done.stdout, done.stderr
                # The answer to QUIT came behind everything that belongs to the handshake.
                assert "221 2.0.0" in done.stdout or "+OK" in done.stdout, done.stdout
                assert "NewSessionTicket" not in done.stdout
