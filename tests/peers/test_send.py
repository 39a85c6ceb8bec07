"""Mail sent in by programs that are not ours comes out of the mailbox to the octet."""

from __future__ import annotations

import smtplib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.peers.conftest import missing
from tests.peers.mailbox import context, messages, send_in, submission
from tests.peers.samples import SAMPLES, check_received, small, written_by
from tests.peers.server import ALICE, ALICE_PASSWORD, BOB, BOB_PASSWORD, Mailsrv

Need = Callable[[str], str]


def run(*command: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(list(map(str, command)), input=stdin, capture_output=True, check=False, timeout=120)


def succeed(*command: str | Path, stdin: bytes = b"") -> None:
    done = run(*command, stdin=stdin)
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")[-3000:]


def curl_send(need: Need, server: Mailsrv, content: Path, url: str, *options: str, sender: str = ALICE) -> list[str]:
    return [
        need("curl"),
        "--silent",
        "--show-error",
        *("--cacert", str(server.certificate)),
        *("--mail-from", sender, "--mail-rcpt", BOB, "--upload-file", str(content)),
        *options,
        url,
    ]


def msmtp_send(need: Need, server: Mailsrv, folder: Path, port: str, tls: str, password: str) -> list[str]:
    config = folder / "msmtprc"
    config.touch(mode=0o600)
    config.write_text(
        f"account default\nhost localhost\nport {server.port[port]}\ntls on\ntls_starttls {tls}\n"
        f"tls_trust_file {server.certificate}\nauth plain\nuser {ALICE}\npassword {password}\nfrom {ALICE}\n"
        "undisclosed_recipients off\nset_msgid_header off\n"
    )
    return [need("msmtp"), f"--file={config}", BOB]


def swaks_send(need: Need, server: Mailsrv, content: Path, *options: str, sender: str = ALICE) -> list[str]:
    swaks = need("swaks")
    if any(option.startswith("--tls") for option in options) and b"TLS supported" not in run(swaks, "--support").stdout:
        missing("swaks has no TLS (Debian: libnet-ssleay-perl)")
    return [
        swaks,
        *("--server", "localhost", "--from", sender, "--to", BOB, "--ehlo", "laptop.example.org"),
        *("--data", f"@{content}", "--no-data-fixup", "--timeout", "60", "--hide-all"),
        *options,
    ]


# What alice sends: the same, under her own address.
LETTERS = {name: written_by(ALICE, content) for name, content in SAMPLES.items()}
OUTSIDER = "sender@example.net"


def message_file(folder: Path, content: bytes) -> Path:
    path = folder / "message"
    path.write_bytes(content)
    return path


def swaks_file(folder: Path, content: bytes) -> Path:
    """Dots doubled and the final dot in place: left to itself, swaks takes a last line that is a dot for the end."""
    return message_file(folder, content.replace(b"\r\n.", b"\r\n..") + b".")


def check_bob_has(server: Mailsrv, sent: bytes) -> None:
    (received,) = messages(server, 1, BOB, BOB_PASSWORD)
    check_received(received, sent)


@pytest.mark.parametrize("name", SAMPLES)
def test_smtplib_from_outside(server: Mailsrv, name: str) -> None:
    send_in(server, SAMPLES[name])
    (received,) = messages(server, 1)
    check_received(received, SAMPLES[name])


@pytest.mark.parametrize("name", SAMPLES)
def test_smtplib_over_starttls(server: Mailsrv, name: str) -> None:
    with smtplib.SMTP("localhost", server.port["smtp"], "client.example.net", timeout=60) as client:
        client.starttls(context=context(server))
        client.sendmail("sender@example.net", [ALICE], SAMPLES[name])
    (received,) = messages(server, 1)
    check_received(received, SAMPLES[name])
    assert b" with ESMTPS " in received.replace(b"\r\n", b" "), "RFC 3848"


@pytest.mark.parametrize("name", SAMPLES)
def test_smtplib_submission(server: Mailsrv, name: str) -> None:
    with submission(server) as client:
        client.sendmail(ALICE, [BOB], LETTERS[name])
    check_bob_has(server, LETTERS[name])


def test_smtplib_submission_over_implicit_tls(server: Mailsrv) -> None:
    port = server.port["submissions"]
    with smtplib.SMTP_SSL("localhost", port, "laptop.example.org", timeout=60, context=context(server)) as client:
        client.login(ALICE, ALICE_PASSWORD)
        client.sendmail(ALICE, [BOB], LETTERS["short"])
    (received,) = messages(server, 1, BOB, BOB_PASSWORD)
    check_received(received, LETTERS["short"])
    assert b" with ESMTPSA " in received.replace(b"\r\n", b" "), "RFC 3848"


def test_smtplib_login_mechanisms(server: Mailsrv) -> None:
    for mechanism in ("PLAIN", "LOGIN"):
        with smtplib.SMTP("localhost", server.port["submission"], timeout=60) as client:
            client.starttls(context=context(server))
            client.ehlo()
            client.user, client.password = ALICE, ALICE_PASSWORD
            code, _ = client.auth(mechanism, getattr(client, f"auth_{mechanism.lower()}"))
            assert code == 235


@pytest.mark.parametrize("name", SAMPLES)
def test_curl_from_outside(need: Need, server: Mailsrv, tmp_path: Path, name: str) -> None:
    content = message_file(tmp_path, SAMPLES[name])
    succeed(*curl_send(need, server, content, f"smtp://localhost:{server.port['smtp']}", sender=OUTSIDER))
    check_bob_has(server, SAMPLES[name])


def test_curl_submission(need: Need, server: Mailsrv, tmp_path: Path) -> None:
    login = ("--user", f"{ALICE}:{ALICE_PASSWORD}")
    content = message_file(tmp_path, LETTERS["short"])
    url = f"smtp://localhost:{server.port['submission']}"
    succeed(*curl_send(need, server, content, url, "--ssl-reqd", *login))
    check_bob_has(server, LETTERS["short"])


def test_curl_submission_over_implicit_tls(need: Need, server: Mailsrv, tmp_path: Path) -> None:
    content = message_file(tmp_path, LETTERS["dots"])
    url = f"smtps://localhost:{server.port['submissions']}"
    succeed(*curl_send(need, server, content, url, "--user", f"{ALICE}:{ALICE_PASSWORD}"))
    check_bob_has(server, LETTERS["dots"])


@pytest.mark.parametrize("name", SAMPLES)
def test_msmtp_submission(need: Need, server: Mailsrv, tmp_path: Path, name: str) -> None:
    command = msmtp_send(need, server, tmp_path, "submission", "on", ALICE_PASSWORD)
    succeed(*command, stdin=LETTERS[name].replace(b"\r\n", b"\n"))
    check_bob_has(server, LETTERS[name])


def test_msmtp_submission_over_implicit_tls(need: Need, server: Mailsrv, tmp_path: Path) -> None:
    command = msmtp_send(need, server, tmp_path, "submissions", "off", ALICE_PASSWORD)
    succeed(*command, stdin=LETTERS["short"].replace(b"\r\n", b"\n"))
    check_bob_has(server, LETTERS["short"])


@pytest.mark.parametrize("name", SAMPLES)
def test_swaks_from_outside(need: Need, server: Mailsrv, tmp_path: Path, name: str) -> None:
    content = swaks_file(tmp_path, SAMPLES[name])
    succeed(*swaks_send(need, server, content, "--port", str(server.port["smtp"]), sender=OUTSIDER))
    check_bob_has(server, SAMPLES[name])


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize(("port", "tls"), [("submission", "--tls"), ("submissions", "--tls-on-connect")])
def test_swaks_submission(need: Need, server: Mailsrv, tmp_path: Path, port: str, tls: str, mechanism: str) -> None:
    login = ("--auth", mechanism, "--auth-user", ALICE, "--auth-password", ALICE_PASSWORD)
    content = swaks_file(tmp_path, LETTERS["short"])
    succeed(*swaks_send(need, server, content, "--port", str(server.port[port]), tls, *login))
    check_bob_has(server, LETTERS["short"])


def test_swaks_pipelined(need: Need, server: Mailsrv, tmp_path: Path) -> None:
    content = swaks_file(tmp_path, SAMPLES["dots"])
    succeed(*swaks_send(need, server, content, "--port", str(server.port["smtp"]), "--pipeline", sender=OUTSIDER))
    check_bob_has(server, SAMPLES["dots"])


def test_wrong_password(need: Need, server: Mailsrv, tmp_path: Path) -> None:
    with (
        pytest.raises(smtplib.SMTPAuthenticationError) as refused,
        submission(server, ALICE, "wrong"),
    ):
        pass
    assert refused.value.smtp_code == 535

    content = message_file(tmp_path, LETTERS["short"])
    url = f"smtp://localhost:{server.port['submission']}"
    curl = run(*curl_send(need, server, content, url, "--ssl-reqd", "--user", f"{ALICE}:wrong"))
    assert curl.returncode == 67, curl.stderr  # CURLE_LOGIN_DENIED

    msmtp = run(*msmtp_send(need, server, tmp_path, "submission", "on", "wrong"), stdin=LETTERS["short"])
    assert msmtp.returncode == 77, msmtp.stderr  # EX_NOPERM

    login = ("--auth", "PLAIN", "--auth-user", ALICE, "--auth-password", "wrong", "--tls")
    swaks = run(*swaks_send(need, server, content, "--port", str(server.port["submission"]), *login))
    assert swaks.returncode == 28, swaks.stdout + swaks.stderr  # authentication failed

    with submission(server):
        pass  # the right one still opens the door


def test_no_login_in_clear_text(server: Mailsrv) -> None:
    with smtplib.SMTP("localhost", server.port["submission"], timeout=30) as client:
        client.ehlo()
        assert not client.has_extn("auth")
        with pytest.raises(smtplib.SMTPNotSupportedError):
            client.login(ALICE, ALICE_PASSWORD)


def test_submission_is_for_users_only(server: Mailsrv) -> None:
    with (
        smtplib.SMTP("localhost", server.port["submission"], timeout=30) as client,
        pytest.raises(smtplib.SMTPSenderRefused) as refused,
    ):
        client.starttls(context=context(server))
        client.sendmail(ALICE, [BOB], small("stranger"))
    assert refused.value.smtp_code == 530  # RFC 4954 6


@pytest.mark.parametrize("recipient", ["carol@example.net", "alice%example.net@example.com", "nobody@example.org"])
def test_strangers_reach_known_recipients_only(server: Mailsrv, recipient: str) -> None:
    with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        send_in(server, small("relay"), recipient)
    code, text = refused.value.recipients[recipient]
    assert code == 550, text
    assert text.startswith(b"5.7.1" if "example.org" not in recipient else b"5.1.1")
