"""A real Postfix as the next hop, and as the server that sends to us."""

from __future__ import annotations

import json
import smtplib
from pathlib import Path

import pytest

from tests.peers import certificate
from tests.peers.conftest import StartMailsrv, StartPostfix
from tests.peers.mailbox import messages, submission
from tests.peers.postfix import Postfix
from tests.peers.programs import free_port, wait_until
from tests.peers.samples import SAMPLES, small, written_by
from tests.peers.server import ALICE, Mailsrv

CAROL = "carol@example.net"


def delivered(peer: Postfix, expected: int) -> list[bytes]:
    """What Postfix put into its Maildir, with CRLF."""
    new = peer.maildir / "new"
    wait_until(lambda: new.exists() and len(list(new.iterdir())) >= expected, 60, f"Postfix: {peer.log_text[-3000:]}")
    found = [path.read_bytes().replace(b"\n", b"\r\n") for path in new.iterdir()]
    assert len(found) == expected
    return found


def without_trace(content: bytes) -> bytes:
    """Postfix adds X-Original-To and the like in front: from our sample's first header on."""
    return content[content.index(b"\nFrom: ") + 1 :]


def queue(server: Mailsrv) -> list[dict[str, object]]:
    done = server.tool("queue", "list", "--json")
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, object]] = json.loads(done.stdout)
    return rows


@pytest.mark.parametrize("name", SAMPLES)
def test_users_send_through_postfix(start_mailsrv: StartMailsrv, start_postfix: StartPostfix, name: str) -> None:
    peer = start_postfix(domain="example.net")
    server = start_mailsrv({"outbound.routes": {"*": f"smtp://127.0.0.1:{peer.port}"}})
    with submission(server) as client:
        client.sendmail(ALICE, [CAROL], written_by(ALICE, SAMPLES[name]), mail_options=("BODY=8BITMIME",))
    (content,) = delivered(peer, 1)
    assert without_trace(content) == written_by(ALICE, SAMPLES[name])
    wait_until(lambda: queue(server) == [], 10, "an empty queue", every_s=0.2)


@pytest.mark.parametrize("name", SAMPLES)
def test_postfix_sends_to_us(start_mailsrv: StartMailsrv, start_postfix: StartPostfix, name: str) -> None:
    server = start_mailsrv()
    peer = start_postfix(domain="example.net", routes={"example.org": f"127.0.0.1:{server.port['smtp']}"})
    with smtplib.SMTP("127.0.0.1", peer.port, "client.example.net", timeout=60) as client:
        client.sendmail("sender@example.net", [ALICE], SAMPLES[name], mail_options=("BODY=8BITMIME",))
    (content,) = messages(server, 1)
    assert without_trace(content) == SAMPLES[name]


def test_starttls_with_postfix_both_ways(
    start_mailsrv: StartMailsrv, start_postfix: StartPostfix, open_folder: Path
) -> None:
    chain, key = certificate.write(open_folder, "postfix.example.net")
    in_port = free_port()
    server = start_mailsrv(
        {"outbound.routes": {"example.net": f"smtp://127.0.0.1:{in_port}"}}, directory=open_folder / "mailsrv"
    )
    peer = start_postfix(
        domain="example.net",
        port=in_port,
        routes={"example.org": f"127.0.0.1:{server.port['smtp']}"},
        settings={
            "smtpd_tls_security_level": "encrypt",
            "smtpd_tls_cert_file": str(chain),
            "smtpd_tls_key_file": str(key),
            "smtpd_tls_received_header": "yes",
            "smtp_tls_security_level": "encrypt",
            "smtp_tls_loglevel": "1",
        },
    )
    with submission(server) as client:
        client.sendmail(ALICE, [CAROL], written_by(ALICE, small("outward")))
    (content,) = delivered(peer, 1)
    assert b"(using TLSv1.3" in content

    with smtplib.SMTP("127.0.0.1", peer.port, "client.example.net", timeout=60) as client:
        client.starttls()
        client.sendmail("sender@example.net", [ALICE], small("inward"))
    (content,) = messages(server, 1)
    first_received = content[content.index(b"Received:") :].split(b"Received:")[1]
    assert b"with ESMTPS" in first_received


def test_a_refusal_comes_back_as_a_bounce(start_mailsrv: StartMailsrv, start_postfix: StartPostfix) -> None:
    peer = start_postfix(domain="example.net", settings={"virtual_mailbox_maps": f"inline:{{{CAROL}=box/}}"})
    server = start_mailsrv({"outbound.routes": {"*": f"smtp://127.0.0.1:{peer.port}"}})
    with submission(server) as client:
        client.sendmail(ALICE, [CAROL, "nobody@example.net"], written_by(ALICE, small("half")))
    delivered(peer, 1)
    (bounce,) = messages(server, 1)
    assert b"Return-Path: <>" in bounce
    assert b"multipart/report" in bounce
    assert b"Final-Recipient: rfc822; nobody@example.net" in bounce.replace(b"rfc822;nobody", b"rfc822; nobody")
    assert b"Status: 5.1.1" in bounce
    assert CAROL.encode() not in bounce.partition(b"message/delivery-status")[2].partition(b"\r\n--")[0]


def test_mail_waits_for_a_next_hop_that_is_down(start_mailsrv: StartMailsrv, start_postfix: StartPostfix) -> None:
    port = free_port()
    server = start_mailsrv({"outbound.routes": {"*": f"smtp://127.0.0.1:{port}"}, "queue.retry": ["1h"]})
    with submission(server) as client:
        client.sendmail(ALICE, [CAROL], written_by(ALICE, small("patience")))
    wait_until(lambda: "refused" in json.dumps(queue(server)).lower(), 20, "a first attempt", every_s=0.2)
    peer = start_postfix(domain="example.net", port=port)
    done = server.tool("queue", "retry", "--all")
    assert done.returncode == 0, done.stderr
    delivered(peer, 1)
