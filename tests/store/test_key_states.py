"""The change of keys: states on disk, crashes in between, what may be withdrawn when."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from mailsrv.config import Config, parse
from mailsrv.smtp.protocol import HOLD_LIMIT_S
from mailsrv.store import key_states, keys
from mailsrv.store.key_states import NEXT, RETIRED, SIGNING, KeyState
from mailsrv.store.keys import KeyFileError

ORG, NET = "example.org", "example.net"
NOW = 1_795_975_200.0  # 2026-11-29T18:00:00Z
DAY_S = 86400.0
FIRST = ["ed25519-20261129", "rsa-20261129"]
WEAK = """\
-----BEGIN PRIVATE KEY-----
MIIBVQIBADANBgkqhkiG9w0BAQEFAASCAT8wggE7AgEAAkEAzg4FNuK8JTYOZNkT
eziVPESzJ+ttKhgS0t3nKl/l4deFfoAAhIFxh8ZYtrzUflMLpIP+mzaAnnA5idYq
x29elwIDAQABAkAG7F2sfG3J6kkNhmWrLDmHbt9+JeDjGy/2udH8kIBO2DmIXZes
Gf263V8vlDrI/HdFfIzIB0v6f1TtiG8S1nHBAiEA7hhUoyQ2+YdE05yA5VsimAyO
oZsrpKoc+B9Ad0GVEycCIQDdjN5lyEO+0d/qXm3h+afvTC3VYEt/b98QfMuTDim/
EQIhANKpkGlwZ3vMpacd+CX2xtsFcUWnx6vAIDWhYSajTkVNAiB4lyyWiiMVwnb2
wt9cmN9nyTdJZViyzNnFx6enK5ZdgQIhAL6OPnEi+HQSdpL36UainTe+Yd7/Ho3u
6U3i93NLANJN
-----END PRIVATE KEY-----
"""
SECOND = ["ed25519-20261130", "rsa-20261130"]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    text = 'hostname = "mx.example.org"\ndomains = ["example.org", "example.net"]\nstate = "state"\n'
    return parse(text, str(tmp_path / "mailsrv.toml"))


def states(config: Config, domain: str = ORG) -> dict[str, str]:
    return {key.selector: key.state for key in key_states.of_domain(config.state, domain)}


def selectors(found: tuple[KeyState, ...]) -> list[str]:
    return [key.selector for key in found]


def signing(config: Config, domain: str = ORG) -> list[str]:
    return [key.selector for key in key_states.load(config).signing.get(domain, ())]


def lines(config: Config) -> list[str]:
    return Path(key_states.path(config.state)).read_text().splitlines()


def test_the_first_keys_sign_at_once_the_rsa_one_first(config: Config) -> None:
    assert selectors(key_states.begin(config.state, ORG, NOW)) == FIRST
    assert states(config) == dict.fromkeys(FIRST, SIGNING)
    assert signing(config) == ["rsa-20261129", "ed25519-20261129"]
    assert key_states.load(config).next == {}
    assert states(config, NET) == {}
    for path in key_states.files(config)[2:]:
        assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.stat(keys.folder(config.state)).st_mode & 0o777 == 0o700


def test_a_whole_change_of_keys(config: Config) -> None:
    key_states.begin(config.state, ORG, NOW)
    assert selectors(key_states.begin(config.state, ORG, NOW + DAY_S)) == SECOND
    assert states(config) == {**dict.fromkeys(FIRST, SIGNING), **dict.fromkeys(SECOND, NEXT)}
    loaded = key_states.load(config)
    assert [key.selector for key in loaded.signing[ORG]] == FIRST[::-1]
    assert [key.selector for key in loaded.next[ORG]] == SECOND[::-1]
    # Once more makes no third pair.
    assert selectors(key_states.begin(config.state, ORG, NOW + 2 * DAY_S)) == SECOND

    assert selectors(key_states.activate(config.state, ORG, NOW + 3 * DAY_S)) == SECOND
    assert states(config) == {**dict.fromkeys(FIRST, RETIRED), **dict.fromkeys(SECOND, SIGNING)}
    assert lines(config) == [
        "ed25519-20261129._domainkey.example.org retired 2026-12-02T18:00:00Z",
        "ed25519-20261130._domainkey.example.org signing 2026-12-02T18:00:00Z",
        "rsa-20261129._domainkey.example.org retired 2026-12-02T18:00:00Z",
        "rsa-20261130._domainkey.example.org signing 2026-12-02T18:00:00Z",
    ]
    assert signing(config) == SECOND[::-1]
    # There is no next pair now.
    assert selectors(key_states.activate(config.state, ORG, NOW + 4 * DAY_S)) == SECOND

    end = NOW + 3 * DAY_S + key_states.kept_s(config)
    assert key_states.withdraw(config.state, ORG, lambda key: key_states.is_over(key, config, end)) == ()
    gone = key_states.withdraw(config.state, ORG, lambda key: key_states.is_over(key, config, end + 1))
    assert selectors(gone) == FIRST
    assert states(config) == dict.fromkeys(SECOND, SIGNING)
    assert len(lines(config)) == 2


def test_a_key_is_published_as_long_as_mail_that_it_signed_may_be_under_way(config: Config) -> None:
    assert key_states.LONGEST_HELD_S == HOLD_LIMIT_S
    assert key_states.kept_s(config) == 5 * DAY_S + HOLD_LIMIT_S + key_states.MARGIN_S


def test_two_changes_on_one_day(config: Config) -> None:
    for _ in range(3):
        key_states.begin(config.state, ORG, NOW)
        key_states.activate(config.state, ORG, NOW)
    assert signing(config) == ["rsa-20261129-3", "ed25519-20261129-3"]
    assert list(states(config).values()).count(RETIRED) == 4


def test_domains_do_not_touch_each_other(config: Config) -> None:
    for domain in (ORG, NET):
        key_states.begin(config.state, domain, NOW)
        key_states.begin(config.state, domain, NOW + DAY_S)
    key_states.activate(config.state, ORG, NOW + DAY_S)
    assert signing(config) == SECOND[::-1]
    assert signing(config, NET) == FIRST[::-1]
    assert states(config, NET) == {**dict.fromkeys(FIRST, SIGNING), **dict.fromkeys(SECOND, NEXT)}


def test_a_key_that_somebody_put_there_signs(config: Config) -> None:
    key_states.begin(config.state, ORG, NOW)
    Path(keys.path(config.state, ORG, "a.b")).write_bytes(keys.generate("rsa"))
    assert signing(config) == ["a.b", "rsa-20261129", "ed25519-20261129"]
    key_states.begin(config.state, ORG, NOW + DAY_S)
    key_states.activate(config.state, ORG, NOW + DAY_S)
    assert signing(config) == SECOND[::-1]


# -- crashes


@pytest.mark.parametrize("missing", [SECOND, SECOND[:1], SECOND[1:]])
def test_a_crash_while_the_next_keys_are_made(config: Config, missing: list[str]) -> None:
    key_states.begin(config.state, ORG, NOW)
    key_states.begin(config.state, ORG, NOW + DAY_S)
    for selector in missing:
        Path(keys.path(config.state, ORG, selector)).unlink()
    assert signing(config) == FIRST[::-1]
    assert selectors(key_states.begin(config.state, ORG, NOW + 2 * DAY_S)) == SECOND
    assert states(config) == {**dict.fromkeys(FIRST, SIGNING), **dict.fromkeys(SECOND, NEXT)}


def test_half_a_pair_that_signs_is_followed_by_a_whole_one(config: Config) -> None:
    key_states.begin(config.state, ORG, NOW)
    key_states.begin(config.state, ORG, NOW + DAY_S)
    Path(keys.path(config.state, ORG, SECOND[0])).unlink()
    key_states.activate(config.state, ORG, NOW + DAY_S)
    assert signing(config) == SECOND[1:]
    assert selectors(key_states.begin(config.state, ORG, NOW + 2 * DAY_S)) == ["ed25519-20261201", "rsa-20261201"]


def test_a_crash_while_old_keys_are_removed(config: Config) -> None:
    key_states.begin(config.state, ORG, NOW)
    key_states.begin(config.state, ORG, NOW + DAY_S)
    key_states.activate(config.state, ORG, NOW + DAY_S)
    Path(keys.path(config.state, ORG, FIRST[0])).unlink()
    assert signing(config) == SECOND[::-1]
    assert selectors(key_states.withdraw(config.state, ORG, lambda key: key.state == RETIRED)) == FIRST[1:]
    assert signing(config) == SECOND[::-1]


def test_new_keys_after_all_files_were_taken_away(config: Config) -> None:
    key_states.begin(config.state, ORG, NOW)
    key_states.begin(config.state, ORG, NOW)
    key_states.activate(config.state, ORG, NOW)
    for path in Path(keys.folder(config.state)).glob("*.pem"):
        path.unlink()
    with pytest.raises(KeyFileError, match="is to sign, but its file is not there"):
        key_states.load(config)
    key_states.begin(config.state, ORG, NOW)
    assert signing(config) == FIRST[::-1]


def test_a_failed_writing_leaves_what_was(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    key_states.begin(config.state, ORG, NOW)
    key_states.begin(config.state, ORG, NOW + DAY_S)
    before = states(config)

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="No space"):
        key_states.activate(config.state, ORG, NOW + DAY_S)
    assert states(config) == before
    assert {name for name in os.listdir(keys.folder(config.state)) if not name.endswith(".pem")} == {"states"}


# -- what is wrong


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x", ":1: expected the name of a key, one of next, signing, retired, and a time"),
        ("# ours\n\nrsa._domainkey.example.org going 2026-11-23T18:04:00Z", ":3: expected"),
        ("rsa._domainkey.example.org next 2026-11-23", ":1: expected"),
        ("rsa._domainkey.example.org next 2026-11-23T18:04:00Z more", ":1: expected"),
        ("grün", "not ASCII text"),
        ("rsa._domainkey.example.org signing 2026-11-23T18:04:00Z", "is to sign, but its file is not there."),
    ],
)
def test_states_that_make_no_sense(config: Config, text: str, problem: str) -> None:
    os.makedirs(keys.folder(config.state))
    Path(key_states.path(config.state)).write_text(text)
    with pytest.raises(KeyFileError) as caught:
        key_states.load(config)
    assert str(caught.value).startswith(key_states.path(config.state))
    assert problem in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"nonsense", keys.generate("ed25519")[:60]])
def test_key_files_that_make_no_sense(config: Config, content: bytes) -> None:
    key_states.begin(config.state, ORG, NOW)
    place = keys.path(config.state, ORG, FIRST[0])
    Path(place).write_bytes(content)
    with pytest.raises(KeyFileError) as caught:
        key_states.load(config)
    assert str(caught.value) == f"{place}: not a private key in PEM without a password."


@pytest.mark.parametrize("selector", ["a b", "größe", "-a", "a..b", "a;b"])
def test_names_that_no_record_can_have(config: Config, selector: str) -> None:
    os.makedirs(keys.folder(config.state))
    place = Path(keys.path(config.state, ORG, selector))
    place.write_bytes(keys.generate("ed25519"))
    with pytest.raises(KeyFileError) as caught:
        key_states.load(config)
    assert str(caught.value) == f"{place}: its name does not begin with a selector."


def test_weak_keys(config: Config) -> None:
    os.makedirs(keys.folder(config.state))
    place = Path(keys.path(config.state, ORG, "old"))
    place.write_text(WEAK)
    with pytest.raises(KeyFileError) as caught:
        key_states.load(config)
    assert str(caught.value) == f"{place}: an RSA key of 512 bits; other servers ignore less than 1024."


def test_keys_whose_halves_do_not_belong_together(config: Config) -> None:
    made = serialization.load_pem_private_key(keys.generate("rsa"), None)
    assert isinstance(made, rsa.RSAPrivateKey)
    numbers = made.private_numbers()
    damaged = rsa.RSAPrivateNumbers(
        numbers.p,
        numbers.q,
        numbers.d,
        numbers.dmp1,
        numbers.dmq1,
        numbers.iqmp,
        rsa.RSAPublicNumbers(3, numbers.public_numbers.n),
    ).private_key(unsafe_skip_rsa_key_validation=True)
    pem = damaged.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(KeyFileError) as caught:
        keys.parse(pem, ORG, "damaged", "FILE")
    assert str(caught.value) == "FILE: the parts of the key do not belong together."


def test_a_folder_that_cannot_be_read(config: Config) -> None:
    os.makedirs(config.state)
    Path(keys.folder(config.state)).write_text("no folder")
    with pytest.raises(KeyFileError, match="cannot be read"):
        key_states.load(config)


def test_a_broken_key_that_has_retired_is_nobodys_trouble(config: Config) -> None:
    key_states.begin(config.state, ORG, NOW)
    key_states.begin(config.state, ORG, NOW + DAY_S)
    key_states.activate(config.state, ORG, NOW + DAY_S)
    Path(keys.path(config.state, ORG, FIRST[0])).write_bytes(b"")
    assert signing(config) == SECOND[::-1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_files_get_the_owner_of_the_folder_above(config: Config) -> None:
    os.makedirs(config.state)
    os.chown(config.state, 12345, 23456)
    key_states.begin(config.state, ORG, NOW)
    key_states.begin(config.state, ORG, NOW + DAY_S)
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in Path(config.state).rglob("*")}
    assert owners == {(12345, 23456)}
