"""Mail fetched by POP3 programs that are not ours is what was sent, to the octet."""

from __future__ import annotations

import poplib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.peers.mailbox import context, count, messages, pop3, send_in, submission
from tests.peers.programs import wait_until
from tests.peers.samples import SAMPLES, check_received, small, written_by
from tests.peers.server import ALICE, ALICE_PASSWORD, BOB, BOB_PASSWORD, Mailsrv
from tests.peers.test_send import run, succeed

Need = Callable[[str], str]


def deliver(server: Mailsrv, *contents: bytes) -> None:
    for content in contents:
        send_in(server, content)
    wait_until(lambda: count(server) == len(contents), 30, "delivery", every_s=0.05)


def curl_fetch(need: Need, server: Mailsrv, url: str, password: str, *options: str) -> list[str]:
    login = ("--user", f"{ALICE}:{password}")
    return [need("curl"), "--silent", "--show-error", "--cacert", str(server.certificate), *login, *options, url]


def fetchmail_fetch(need: Need, server: Mailsrv, folder: Path, port: str, tls: str, password: str) -> list[str]:
    config = folder / "fetchmailrc"
    config.touch(mode=0o600)
    config.write_text(
        "set invisible\n"
        f'poll localhost protocol POP3 port {server.port[port]} user "{ALICE}" password "{password}"\n'
        f'{tls} sslcertfile "{server.certificate}" fetchall no rewrite mda "/usr/bin/tee {folder}/fetched"\n'
    )
    idfile = ("--idfile", str(folder / "ids"), "--pidfile", str(folder / "pid"))
    return ["env", f"FETCHMAILHOME={folder}", need("fetchmail"), "--silent", *idfile, "-f", str(config)]


def mpop_fetch(need: Need, server: Mailsrv, folder: Path, port: str, tls: str, password: str) -> list[str]:
    for name in ("new", "cur", "tmp"):
        (folder / "box" / name).mkdir(parents=True, exist_ok=True)
    config = folder / "mpoprc"
    config.touch(mode=0o600)
    config.write_text(
        f"account default\nhost localhost\nport {server.port[port]}\ntls on\ntls_starttls {tls}\n"
        f"tls_trust_file {server.certificate}\nuser {ALICE}\npassword {password}\nauth on\n"
        f"uidls_file {folder}/uidls\ndelivery maildir {folder}/box\nreceived_header off\nkeep off\n"
    )
    return [need("mpop"), f"--file={config}"]


@pytest.mark.parametrize("name", SAMPLES)
def test_poplib_over_stls(server: Mailsrv, name: str) -> None:
    deliver(server, SAMPLES[name])
    client = poplib.POP3("localhost", server.port["pop3"], timeout=30)
    client.stls(context=context(server))
    client.user(ALICE)
    client.pass_(ALICE_PASSWORD)
    _, lines, _ = client.retr(1)
    client.quit()
    check_received(b"".join(line + b"\r\n" for line in lines), SAMPLES[name])


@pytest.mark.parametrize("name", SAMPLES)
def test_curl(need: Need, server: Mailsrv, name: str) -> None:
    deliver(server, SAMPLES[name])
    done = run(*curl_fetch(need, server, f"pop3://localhost:{server.port['pop3']}/1", ALICE_PASSWORD, "--ssl-reqd"))
    assert done.returncode == 0, done.stderr
    check_received(done.stdout, SAMPLES[name])


def test_curl_over_implicit_tls(need: Need, server: Mailsrv) -> None:
    deliver(server, SAMPLES["short"])
    done = run(*curl_fetch(need, server, f"pop3s://localhost:{server.port['pop3s']}/1", ALICE_PASSWORD))
    assert done.returncode == 0, done.stderr
    check_received(done.stdout, SAMPLES["short"])


@pytest.mark.parametrize("name", SAMPLES)
def test_fetchmail(need: Need, server: Mailsrv, tmp_path: Path, name: str) -> None:
    deliver(server, SAMPLES[name])
    tls = "sslproto 'TLS1.2+' sslcertck"
    succeed(*fetchmail_fetch(need, server, tmp_path, "pop3", tls, ALICE_PASSWORD))
    fetched = (tmp_path / "fetched").read_bytes()
    check_received(fetched.replace(b"\n", b"\r\n"), SAMPLES[name])
    assert count(server) == 0


def test_fetchmail_over_implicit_tls(need: Need, server: Mailsrv, tmp_path: Path) -> None:
    deliver(server, SAMPLES["short"])
    succeed(*fetchmail_fetch(need, server, tmp_path, "pop3s", "ssl sslcertck", ALICE_PASSWORD))
    check_received((tmp_path / "fetched").read_bytes().replace(b"\n", b"\r\n"), SAMPLES["short"])


@pytest.mark.parametrize("name", SAMPLES)
def test_mpop(need: Need, server: Mailsrv, tmp_path: Path, name: str) -> None:
    deliver(server, SAMPLES[name])
    succeed(*mpop_fetch(need, server, tmp_path, "pop3", "on", ALICE_PASSWORD))
    (fetched,) = (tmp_path / "box/new").iterdir()
    check_received(fetched.read_bytes().replace(b"\n", b"\r\n"), SAMPLES[name])
    assert count(server) == 0


def test_mpop_over_implicit_tls_fetches_many(need: Need, server: Mailsrv, tmp_path: Path) -> None:
    deliver(server, *[small(f"number{number}") for number in range(30)])
    succeed(*mpop_fetch(need, server, tmp_path, "pop3s", "off", ALICE_PASSWORD))
    assert len(list((tmp_path / "box/new").iterdir())) == 30
    assert count(server) == 0


def test_unique_ids_last(server: Mailsrv) -> None:
    deliver(server, small("first"), small("second"))
    with pop3(server) as client:
        before = client.uidl()[1]
        client.dele(1)
    with pop3(server) as client:
        after = client.uidl()[1]
    assert [line.split()[1] for line in after] == [line.split()[1] for line in before[1:]]


def test_what_was_not_quit_is_not_deleted(server: Mailsrv) -> None:
    deliver(server, small("kept"))
    client = poplib.POP3_SSL("localhost", server.port["pop3s"], context=context(server), timeout=30)
    client.user(ALICE)
    client.pass_(ALICE_PASSWORD)
    client.dele(1)
    client.close()

    def unlocked() -> bool:  # one session per mailbox: the server must have seen the end of the other
        try:
            return count(server) == 1
        except poplib.error_proto:
            return False

    wait_until(unlocked, 10, "the mailbox with its message")


def test_one_session_per_mailbox(server: Mailsrv) -> None:
    with pop3(server), pytest.raises(poplib.error_proto, match=r"\[IN-USE\]"), pop3(server):
        pass


def test_wrong_password(need: Need, server: Mailsrv, tmp_path: Path) -> None:
    deliver(server, small("secret"))
    with pytest.raises(poplib.error_proto, match=r"\[AUTH\]"), pop3(server, ALICE, "wrong"):
        pass
    curl = run(*curl_fetch(need, server, f"pop3s://localhost:{server.port['pop3s']}/1", "wrong"))
    assert curl.returncode == 67, curl.stderr  # CURLE_LOGIN_DENIED
    assert curl.stdout == b""
    fetchmail = run(*fetchmail_fetch(need, server, tmp_path, "pop3s", "ssl sslcertck", "wrong"))
    assert fetchmail.returncode == 3, fetchmail.stderr  # PS_AUTHFAIL
    mpop = run(*mpop_fetch(need, server, tmp_path, "pop3s", "off", "wrong"))
    assert mpop.returncode == 77, mpop.stderr  # EX_NOPERM
    assert count(server) == 1


def test_no_login_in_clear_text(server: Mailsrv) -> None:
    client = poplib.POP3("localhost", server.port["pop3"], timeout=30)
    assert "STLS" in client.capa()
    assert "USER" not in client.capa()
    with pytest.raises(poplib.error_proto):
        client.user(ALICE)
    client.quit()


def test_passwords_with_any_characters(server: Mailsrv) -> None:
    with submission(server, BOB, BOB_PASSWORD) as client:
        client.sendmail(BOB, [BOB], written_by(BOB, small("own")))
    messages(server, 1, BOB, BOB_PASSWORD)
