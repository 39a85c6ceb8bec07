"""Programs that are not ours log in by SCRAM, with and without channel binding; others by app passwords."""

from __future__ import annotations

import ctypes
import json
import poplib
import shutil
import smtplib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL

from mailsrv.store.accounts.app_passwords import LIMIT
from tests.peers import dovecot
from tests.peers.conftest import StartMailsrv, missing
from tests.peers.dovecot import Dovecot
from tests.peers.gsasl import Channel, library
from tests.peers.mailbox import count, messages, pop3, submission
from tests.peers.programs import wait_until
from tests.peers.samples import small
from tests.peers.server import ALICE, ALICE_PASSWORD, BOB, BOB_PASSWORD, Mailsrv, Template, tool
from tests.peers.test_fetch import mpop_fetch
from tests.peers.test_send import msmtp_send, run, succeed
from tests.worlds.scram import ScramClient

Need = Callable[[str], str]

PLUS, SCRAM = "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"


@pytest.fixture
def gsasl() -> ctypes.CDLL:
    found = library()
    if found is None:
        missing("libgsasl is not installed (Debian: libgsasl18)")
    assert found is not None
    return found


def smtp(server: Mailsrv, version: int = SSL.TLS1_3_VERSION) -> Channel:
    """A client of the submission port with TLS from the start, after EHLO."""
    channel = Channel(server.port["submissions"], version)
    channel.line()
    line = channel.say("EHLO laptop.example.org")
    while line.startswith("250-"):
        line = channel.line()
    return channel


def pop3s(server: Mailsrv, version: int = SSL.TLS1_3_VERSION) -> Channel:
    channel = Channel(server.port["pop3s"], version)
    channel.line()
    return channel


def own(name: str) -> bytes:
    """A letter by alice."""
    return small(name).replace(b"From: sender@example.net", f"From: {ALICE}".encode())


def listed(server: Mailsrv, address: str = ALICE) -> dict[str, Any]:
    done = server.tool("account", "list", address, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)[0]
    return found


@pytest.mark.parametrize(("connect", "yes", "no"), [(smtp, "235 ", "535 "), (pop3s, "+OK ", "-ERR [AUTH]")])
def test_libgsasl(
    gsasl: ctypes.CDLL, server: Mailsrv, connect: Callable[[Mailsrv, int], Channel], yes: str, no: str
) -> None:
    for mechanism, bound in ((PLUS, True), (SCRAM, False)):
        for password, answer in (("wrong", no), (ALICE_PASSWORD, yes)):
            with connect(server, SSL.TLS1_3_VERSION) as channel:
                assert channel.log_in(gsasl, mechanism, ALICE, password, bound).startswith(answer)
    # Before TLS 1.3 there is no channel binding.
    with connect(server, SSL.TLS1_2_VERSION) as channel:
        assert not channel.log_in(gsasl, PLUS, ALICE, ALICE_PASSWORD, True).startswith(yes)
        assert channel.log_in(gsasl, SCRAM, ALICE, ALICE_PASSWORD, False).startswith(yes)


def test_strangers_salts_survive_a_restart(start_mailsrv: StartMailsrv) -> None:
    server = start_mailsrv({"limits.penalties": False})
    login = ScramClient("nobody@example.org", "wrong")
    salts = set()
    for _ in range(2):
        with smtp(server) as channel:
            salts.add(login.salt(channel.say(f"AUTH {SCRAM} {login.first()}")[4:]))
        server.stop()
        server.start()
    assert len(salts) == 1


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


def test_a_hash_from_elsewhere_has_keys_after_a_login(gsasl: ctypes.CDLL, start_mailsrv: StartMailsrv) -> None:
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
        with smtp(server) as channel:
            return not channel.log_in(gsasl, PLUS, ALICE, ALICE_PASSWORD, True).startswith("235 ")

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


def test_dovecot_reads_the_same_accounts_file(template: Template, open_folder: Path) -> None:
    why = dovecot.unavailable()
    if why:
        missing(why)
    template.copy(open_folder)
    config = open_folder / "mailsrv.toml"
    shutil.copy(template.directory / "mailsrv.toml", config)
    for n in range(LIMIT):
        name = f"a-program-with-a-name-of-32-{n:02}"
        made = tool("account", "passwd", ALICE, "--app", name, "--for", "smtp,pop3", config=config)
        assert made.returncode == 0, made.stderr
    peer = Dovecot(open_folder / "dovecot", accounts=open_folder / "accounts")
    (open_folder / "accounts").chmod(0o644)
    try:
        peer.start()
        for user, password in ((ALICE, ALICE_PASSWORD), (BOB, BOB_PASSWORD)):
            client = poplib.POP3("127.0.0.1", peer.port, timeout=30)
            client.user(user)
            assert client.pass_(password).startswith(b"+OK")
            client.quit()
    finally:
        peer.stop()
