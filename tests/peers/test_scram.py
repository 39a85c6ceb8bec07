"""Programs that are not ours log in by SCRAM, with and without channel binding; others by app passwords."""

from __future__ import annotations

import json
import smtplib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.peers.conftest import StartMailsrv
from tests.peers.mailbox import count, messages, pop3, submission
from tests.peers.programs import wait_until
from tests.peers.samples import small
from tests.peers.server import ALICE, ALICE_PASSWORD, BOB, BOB_PASSWORD, Mailsrv
from tests.peers.test_fetch import mpop_fetch
from tests.peers.test_send import msmtp_send, run, succeed

Need = Callable[[str], str]


def gsasl(need: Need, server: Mailsrv, mechanism: str, password: str, *options: str) -> list[str]:
    return [
        *(need("gsasl"), "--smtp", "--starttls", "--quiet", "--mechanism", mechanism),
        *("--authentication-id", ALICE, "--password", password, "--x509-ca-file", str(server.certificate)),
        *(*options, "localhost", str(server.port["submission"])),
    ]


def own(name: str) -> bytes:
    """A letter by alice."""
    return small(name).replace(b"From: sender@example.net", f"From: {ALICE}".encode())


def listed(server: Mailsrv, address: str = ALICE) -> dict[str, Any]:
    done = server.tool("account", "list", address, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)[0]
    return found


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"])
def test_gsasl(need: Need, server: Mailsrv, mechanism: str) -> None:
    options = [] if mechanism.endswith("PLUS") else ["--no-cb"]
    succeed(*gsasl(need, server, mechanism, ALICE_PASSWORD, *options))
    done = run(*gsasl(need, server, mechanism, "wrong", *options))
    assert done.returncode != 0, done.stdout


def test_gsasl_takes_tls_1_2_without_channel_binding(need: Need, server: Mailsrv) -> None:
    tls = ("--priority", "NORMAL:-VERS-ALL:+VERS-TLS1.2")
    assert run(*gsasl(need, server, "SCRAM-SHA-256-PLUS", ALICE_PASSWORD, *tls)).returncode != 0
    succeed(*gsasl(need, server, "SCRAM-SHA-256", ALICE_PASSWORD, "--no-cb", *tls))


def with_scram(command: list[str]) -> list[str]:
    """The same, with the configuration's mechanism changed."""
    config = Path(command[1].partition("=")[2])
    lines = [line for line in config.read_text().splitlines() if not line.startswith("auth ")]
    config.write_text("\n".join([*lines, "auth scram-sha-256", ""]))
    return command


def test_msmtp(need: Need, server: Mailsrv, tmp_path: Path) -> None:
    for port, tls in (("submission", "on"), ("submissions", "off")):
        command = with_scram(msmtp_send(need, server, tmp_path, port, tls, ALICE_PASSWORD))
        succeed(*command, stdin=own(port).replace(b"\r\n", b"\n"))
    messages(server, 2, BOB, BOB_PASSWORD)
    wrong = run(*with_scram(msmtp_send(need, server, tmp_path, "submission", "on", "wrong")), stdin=own("wrong"))
    assert wrong.returncode == 77, wrong.stderr  # EX_NOPERM


def test_mpop(need: Need, server: Mailsrv, tmp_path: Path) -> None:
    with submission(server) as client:
        client.sendmail(ALICE, [ALICE], own("fetched"))
    wait_until(lambda: count(server) == 1, 30, "the message", every_s=0.05)
    succeed(*with_scram(mpop_fetch(need, server, tmp_path, "pop3", "on", ALICE_PASSWORD)))
    assert len(list((tmp_path / "box/new").iterdir())) == 1
    wrong = run(*with_scram(mpop_fetch(need, server, tmp_path, "pop3s", "off", "wrong")))
    assert wrong.returncode == 77, wrong.stderr  # EX_NOPERM


def test_a_hash_from_elsewhere_has_keys_after_a_login(need: Need, start_mailsrv: StartMailsrv) -> None:
    server = start_mailsrv({"limits.penalties": False})
    accounts = server.directory / "accounts"
    # openssl passwd -6 -salt mailsrvtest "correct horse battery"
    crypted = (
        "{SHA512-CRYPT}$6$mailsrvtest$"
        "15UncF6w2I6WiQuO.jZNEtRBWKchxRrZnENC2RBtgfz6O2Zi8rafFg49tajkkDnuHKfuV3/6DKq5REwbHImmA1"
    )
    line = f"{ALICE}:{crypted}:5000:5000::/home/alice::quota=5G\n"
    accounts.write_text(line + "".join(accounts.read_text().splitlines(keepends=True)[1:]))
    wait_until(lambda: not listed(server)["scram"], 5, "the file")

    def refused() -> bool:
        return run(*gsasl(need, server, "SCRAM-SHA-256-PLUS", ALICE_PASSWORD)).returncode != 0

    wait_until(refused, 10, "the server to take the file up")
    with submission(server) as client:
        wait_until(lambda: bool(listed(server)["scram"]), 10, "SCRAM keys in the accounts file")
        wait_until(lambda: not refused(), 10, "the server to take the file up")
        # Nobody is thrown out by it.
        client.sendmail(ALICE, [BOB], own("still here"))
    text = accounts.read_text()
    assert text.startswith(f"{ALICE}:{{ARGON2ID}}")
    assert ":5000:5000::/home/alice::quota=5G scram-sha-256=" in text


def test_app_passwords(start_mailsrv: StartMailsrv) -> None:
    server = start_mailsrv({"limits.penalties": False})
    made = server.tool("account", "passwd", ALICE, "--app", "phone", "--for", "smtp")
    assert made.returncode == 0, made.stderr
    password = made.stdout.split()[1]

    def opens() -> bool:
        try:
            with submission(server, ALICE, password):
                return True
        except smtplib.SMTPAuthenticationError:
            return False

    wait_until(opens, 10, "the app password to be in force")
    with pytest.raises(Exception, match=r"\[AUTH\]"), pop3(server, ALICE, password):
        pass
    wait_until(lambda: bool(listed(server)["app_passwords"][0]["last_login"]), 10, "its use to be noted")
    found = listed(server)
    assert found["app_passwords"][0]["last_login"]["service"] == "smtp"
    assert found["app_passwords"][0]["last_login"]["client"] == "127.0.0.1"
    assert found["last_login"] is None
    with pop3(server):
        pass
    wait_until(lambda: bool(listed(server)["last_login"]), 10, "the use of the main password to be noted")
    assert server.tool("account", "passwd", ALICE, "--remove-app", "phone").returncode == 0
    wait_until(lambda: not opens(), 10, "the app password to be gone")
