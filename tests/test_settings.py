"""The configuration, the accounts and the certificate in force, and how changes to their files are taken up."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mailsrv.config import ConfigError
from mailsrv.mail.address import Address
from mailsrv.settings import FileSettings
from mailsrv.store import key_states, keys
from mailsrv.store.accounts.accounts import AccountsError
from mailsrv.store.accounts.passwords import hash_password
from mailsrv.store.keys import KeyFileError
from mailsrv.tap import Options, makeService
from mailsrv.tls import CertificateError
from tests.peers import certificate as peer_certificate

CONFIG = """\
hostname = "mx.example.org"
domains = ["example.org"]
state = "state"
tls.certificate = "cert.pem"
tls.key = "key.pem"
"""
HASH = hash_password("tulip and thyme", bytes)
MOST_RECENT = 4_000_000_000
NOW = 1_795_975_200.0  # 2026-11-29


class Installation:
    """Files as an operator edits them, and what the settings say about them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._at = MOST_RECENT
        self.write("mailsrv.toml", CONFIG)
        self.accounts("alice")
        peer_certificate.write(folder)
        self.changed = 0
        self.refused: list[str] = []

    def write(self, name: str, text: str) -> None:
        """In place, as some editors do."""
        path = self.folder / name
        path.write_text(text)
        # File systems tell times in steps as coarse as some milliseconds; an operator is not that fast.
        self._at += 1
        os.utime(path, (self._at, self._at))

    def accounts(self, *names: str) -> None:
        self.write("accounts", "".join(f"{name}@example.org:{HASH}\n" for name in names))

    def start(self) -> FileSettings:
        settings = FileSettings(str(self.folder / "mailsrv.toml"))
        settings.changed = self._changed
        settings.refused = self.refused.append
        return settings

    def _changed(self) -> None:
        self.changed += 1


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def serves(settings: FileSettings, *names: str) -> bool:
    """Whether these, and nobody else, have accounts."""
    return {account.address for account in settings.directory.accounts} == {
        Address.parse(f"{name}@example.org") for name in names
    }


def test_everything_is_read_at_the_start(installation: Installation) -> None:
    installation.write("aliases", "sales@example.org: alice@example.org\n")
    settings = installation.start()
    assert settings.config.hostname == "mx.example.org"
    assert serves(settings, "alice")
    assert "sales@example.org" in settings.directory.aliases


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("mailsrv.toml", "hostname = 5\n", ConfigError),
        ("accounts", "alice@example.net:!\n", AccountsError),
        ("aliases", "sales@example.org\n", AccountsError),
        ("cert.pem", "", CertificateError),
        ("key.pem", "", CertificateError),
    ],
)
def test_what_cannot_be_read_at_the_start_is_one_sentence(
    installation: Installation, name: str, text: str, error: type[Exception]
) -> None:
    installation.write(name, text)
    with pytest.raises(error) as caught:
        installation.start()
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_state_folder_waits_for_a_restart(installation: Installation) -> None:
    settings = installation.start()
    before = settings.config.state
    installation.write("mailsrv.toml", CONFIG.replace('"state"', '"elsewhere"') + "limits.recipients = 7\n")
    settings.look()
    assert (settings.config.state, settings.config.limits.recipients) == (before, 7)
    assert installation.start().config.state == str(installation.folder / "elsewhere")


def test_nothing_is_read_while_nothing_changes(installation: Installation) -> None:
    settings = installation.start()
    before = settings.config, settings.directory
    for _ in range(5):
        settings.look()
    assert installation.changed == 0
    assert settings.config is before[0]
    assert settings.directory is before[1]


def test_each_file_is_taken_up_when_it_changes(installation: Installation) -> None:
    settings = installation.start()
    installation.accounts("alice", "bob")
    settings.look()
    assert serves(settings, "alice", "bob")
    installation.write("aliases", "sales@example.org: bob@example.org\n")  # which was not there
    settings.look()
    assert settings.directory.resolve(Address.parse("sales@example.org"))
    installation.write("mailsrv.toml", CONFIG + "limits.recipients = 7\n")
    settings.look()
    assert settings.config.limits.recipients == 7
    (installation.folder / "aliases").unlink()
    settings.look()
    assert settings.directory.aliases == {}
    assert installation.changed == 4
    assert installation.refused == []


def test_a_file_that_is_replaced_is_noticed_whatever_its_size_and_time(installation: Installation) -> None:
    settings = installation.start()
    path = installation.folder / "accounts"
    status = path.stat()
    other = path.with_name("accounts.new")
    other.write_text(path.read_text().replace("alice", "bobby"))
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert other.stat().st_size == status.st_size
    other.rename(path)
    settings.look()
    assert serves(settings, "bobby")


def test_files_behind_symbolic_links_as_a_certificate_often_is(installation: Installation) -> None:
    live = installation.folder
    for number in ("1", "2"):
        (live / number).mkdir()
        peer_certificate.write(live / number)
    for name in ("cert.pem", "key.pem"):
        (live / name).unlink()
        (live / name).symlink_to(live / "1" / name)
    settings = installation.start()
    for name in ("cert.pem", "key.pem"):
        (live / name).unlink()
        (live / name).symlink_to(live / "2" / name)
    settings.look()
    assert installation.changed == 1
    assert installation.refused == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mailsrv.toml", "hostname = \n"),
        ("mailsrv.toml", CONFIG + 'acounts = "x"\n'),
        ("mailsrv.toml", CONFIG + 'accounts = "nowhere"\n'),
        ("accounts", "alice\n"),
        ("aliases", "a@example.org: b@example.org\nb@example.org: a@example.org\n"),
        ("key.pem", "no key\n"),
    ],
)
def test_what_does_not_parse_is_reported_once_and_the_old_stays(
    installation: Installation, name: str, text: str
) -> None:
    settings = installation.start()
    path = installation.folder / name
    before = path.read_text() if path.exists() else ""
    config, directory = settings.config, settings.directory
    installation.write(name, text)
    for _ in range(5):
        settings.look()
    assert len(installation.refused) == 1
    assert installation.changed == 0
    assert settings.config is config
    assert settings.directory is directory
    installation.write(name, before)
    settings.look()
    assert installation.changed == 1
    assert len(installation.refused) == 1


def test_changes_are_taken_up_as_a_whole_or_not_at_all(installation: Installation) -> None:
    settings = installation.start()
    installation.write("mailsrv.toml", CONFIG + "limits.recipients = 7\n")
    installation.write("accounts", "nonsense\n")
    settings.look()
    assert settings.config.limits.recipients == 1000
    assert serves(settings, "alice")
    installation.accounts("bob")
    shutil.copy(installation.folder / "key.pem", installation.folder / "key.old")
    installation.write("key.pem", "no key\n")
    settings.look()
    assert settings.config.limits.recipients == 1000
    assert serves(settings, "alice")
    (installation.folder / "key.old").rename(installation.folder / "key.pem")
    settings.look()
    assert settings.config.limits.recipients == 7
    assert serves(settings, "bob")
    assert (installation.changed, len(installation.refused)) == (1, 2)


def test_a_certificate_renewed_in_two_steps(installation: Installation) -> None:
    settings = installation.start()
    (installation.folder / "new").mkdir()
    certificate, key = peer_certificate.write(installation.folder / "new")
    certificate.rename(installation.folder / "cert.pem")
    settings.look()
    assert len(installation.refused) == 1  # it does not belong to the old key
    key.rename(installation.folder / "key.pem")
    settings.look()
    assert installation.changed == 1


def test_a_file_under_another_path_is_watched_from_then_on(installation: Installation) -> None:
    settings = installation.start()
    installation.write("people", f"carol@example.org:{HASH}\n")
    installation.write("mailsrv.toml", CONFIG + 'accounts = "people"\n')
    settings.look()
    assert serves(settings, "carol")
    installation.write("people", f"dave@example.org:{HASH}\n")
    settings.look()
    assert serves(settings, "dave")
    installation.accounts("alice", "bob")  # of no interest any more
    settings.look()
    assert installation.changed == 2


def test_a_file_that_is_away_for_a_moment(installation: Installation) -> None:
    settings = installation.start()
    path = installation.folder / "accounts"
    path.rename(path.with_name("accounts~"))
    settings.look()
    assert serves(settings, "alice")
    assert len(installation.refused) == 1
    installation.accounts("alice", "bob")
    settings.look()
    assert serves(settings, "alice", "bob")


def test_reload_reads_again_whatever_the_files_look_like(installation: Installation) -> None:
    settings = installation.start()
    settings.reload()
    assert installation.changed == 1


def test_the_certificate_object_stays_the_same(installation: Installation) -> None:
    """Listeners hold it: a new certificate must reach them."""
    settings = installation.start()
    held = settings.certificate
    peer_certificate.write(installation.folder, "new.example.org")
    settings.look()
    assert installation.changed == 1
    assert settings.certificate is held


# -- keys


def signing(settings: FileSettings) -> list[str]:
    return [key.selector for key in settings.keys.signing.get("example.org", ())]


@pytest.fixture
def state(installation: Installation) -> str:
    """The state folder, with a pair of keys."""
    state = str(installation.folder / "state")
    key_states.begin(state, "example.org", NOW)
    return state


def test_keys_are_taken_up_whenever_they_change(installation: Installation, state: str) -> None:
    settings = installation.start()
    assert signing(settings) == ["rsa-20261129", "ed25519-20261129"]
    key_states.begin(state, "example.org", NOW + 86400)
    settings.look()
    assert signing(settings) == ["rsa-20261129", "ed25519-20261129"]
    assert [key.selector for key in settings.keys.next["example.org"]] == ["rsa-20261130", "ed25519-20261130"]
    key_states.activate(state, "example.org", NOW + 86400)
    settings.look()
    assert signing(settings) == ["rsa-20261130", "ed25519-20261130"]
    for selector in signing(settings):
        (installation.folder / keys.path("state", "example.org", selector)).unlink()
    (installation.folder / key_states.path("state")).unlink()
    settings.look()
    assert signing(settings) == ["rsa-20261129", "ed25519-20261129"]
    assert installation.refused == []


def test_the_first_keys_are_noticed(installation: Installation) -> None:
    settings = installation.start()
    assert signing(settings) == []
    key_states.begin(str(installation.folder / "state"), "example.org", NOW)
    settings.look()
    assert signing(settings) == ["rsa-20261129", "ed25519-20261129"]


@pytest.mark.parametrize("name", ["rsa-20261129._domainkey.example.org.pem", "states"])
def test_broken_keys_are_refused_and_the_old_ones_go_on_signing(
    installation: Installation, state: str, name: str
) -> None:
    settings = installation.start()
    path = installation.folder / "state" / "keys" / name
    before = path.read_text() if path.exists() else ""
    installation.write(f"state/keys/{name}", "nonsense\n")
    for _ in range(3):
        settings.look()
    (refusal,) = installation.refused
    assert refusal.startswith(str(path))
    assert signing(settings) == ["rsa-20261129", "ed25519-20261129"]
    with pytest.raises(KeyFileError):
        installation.start()
    installation.write(f"state/keys/{name}", before)
    settings.look()
    assert installation.changed == 1


def test_the_server_takes_the_configuration_that_the_tool_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """``--config``, else MAILSRV_CONFIG, else the default."""
    monkeypatch.setenv("MAILSRV_CONFIG", "/nowhere/elsewhere")
    options = Options()  # type: ignore[no-untyped-call]
    with pytest.raises(SystemExit, match="/nowhere/elsewhere: cannot be read"):
        makeService(options)
    options.parseOptions(["--config", "/nowhere/named"])  # type: ignore[no-untyped-call]
    with pytest.raises(SystemExit, match="/nowhere/named: cannot be read"):
        makeService(options)
