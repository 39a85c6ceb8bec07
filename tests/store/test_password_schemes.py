"""Every scheme against hashes that Dovecot and libcrypt made (``data/passwords.txt``)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from mailsrv.store.accounts.password_schemes import SCHEMES, UnknownScheme, scheme_of
from mailsrv.store.accounts.passwords import check_stored, hash_password, is_old, verify_stored

PASSWORD = "tulip and thyme"
OTHER = "пароль:🔑 "


def vectors() -> list[tuple[str, str]]:
    """Password and hash of each row."""
    found = []
    password = PASSWORD
    for line in (Path(__file__).parent / "data" / "passwords.txt").read_text().splitlines():
        if line.startswith("#"):
            password = OTHER if OTHER in line else PASSWORD
        else:
            found.append((password, line))
    return found


@pytest.mark.parametrize(("password", "stored"), vectors(), ids=lambda value: value[:20])
def test_what_others_made_is_verified(password: str, stored: str) -> None:
    check_stored(stored)
    assert verify_stored(stored, password)
    assert not verify_stored(stored, password[1:])


def test_every_scheme_has_a_vector() -> None:
    assert {scheme_of(stored) for _, stored in vectors()} == set(SCHEMES)


SPOILABLE = [stored for _, stored in vectors() if not stored.startswith(("{PLAIN", "{ARGON2", "{CRYPT}$sha1"))]


@pytest.mark.parametrize("stored", SPOILABLE)
def test_a_hash_that_was_cut_or_changed_is_no_match(stored: str) -> None:
    name, _, rest = stored.partition("}")
    rest = rest.rstrip("=")
    for spoilt in (rest[:-4], rest + "AAAA", rest[:-4] + "AAAA"):
        assert not verify_stored(f"{name}}}{spoilt}", PASSWORD)


@pytest.mark.parametrize(
    "stored",
    [
        "{CRYPT}*0",
        "{CRYPT}",
        "{CRYPT}x",
        "{CRYPT}$y$jZT$/6k.2IU/5UE08g.1Bsk1E2V2HEF3KQ/4Ncl4QoV5T.0$Y1ydOIttZyW76RevmQirJTrZnW2bK.dwsfGWNDJ1068",
        "{CRYPT}$sha1$26163100$5ME/8Y.0Bkk0EwU1H6F2KI/3NUl3QgV4TsF5$siSrSWOA/f54DQ37JMJIlH/RR9B.",
        "{CRYPT}$9$abc$defdefdefdefdefdefdefdef",
        "{SHA512-CRYPT}$5$EXqjMejCAWJWToEW$bt0jwxXKOJTCjv8GM7fbzrp4jOYyXU0ON.haR6HZZYD",
        "{SHA512-CRYPT}$6$rounds=999999999$qhYmS5iH71yRd4MA$lLwF6LwVR49Bm6ok8BrPx1PIHTvRG3qxuwmAnmQP"
        ".uUs7FGE7u1vf/f8fqNDLxmw6BRN0LpXBojZ1XDfKM3t01",
        "{BLF-CRYPT}$2y$31$.vqo731/p/VWhuuDC9aA7uv7eLW97ybIJUfCnHD.E1PKMGfcicmcm",
        "{ARGON2ID}$argon2id$v=19$m=99999999,t=3,p=1$I/dnuxH5OnFuvC9UAVFJdg$Hhylfg7j8Hv+rUocEyjyTp+S3zNuJrSXAP/PIuraEJo",
        "{ARGON2I}$argon2id$v=19$m=65536,t=3,p=1$I/dnuxH5OnFuvC9UAVFJdg$Hhylfg7j8Hv+rUocEyjyTp+S3zNuJrSXAP/PIuraEJo",
        "{SSHA}Bbx7i+X72fOBYscEqBOradXeyIY=",
        "{SHA}F6CbDX+mf7rPNqHFnemIKOiBPoy8uJyN",
        "{SHA256}???",
        "{SHA256.hex}zz",
        "{SHA256.rot13}mRevFJy0kKk72Y9L8glhW6lH+LJCx+CrANZkvkGlH1g=",
        "{PLAIN}",
        "{CRAM-MD5}abc",
        "{}x",
        "plain",
        "",
    ],
)
def test_what_is_not_well_formed_or_would_take_minutes_is_refused(stored: str) -> None:
    with pytest.raises(UnknownScheme) as refused:
        check_stored(stored)
    hashed = stored.partition("}")[2]
    assert len(hashed) < 5 or hashed not in str(refused.value)
    assert not verify_stored(stored, PASSWORD)


def test_names_in_any_case_and_bare_hexadecimal() -> None:
    assert verify_stored("{sha256.HEX}9917af149cb490a93bd98f4bf209615ba947f8b242c7e0ab00d664be41a51f58", PASSWORD)
    assert verify_stored("{Sha256}9917af149cb490a93bd98f4bf209615ba947f8b242c7e0ab00d664be41a51f58", PASSWORD)
    assert verify_stored("{ssha}F6CbDX+mf7rPNqHFnemIKOiBPoy8uJyN", PASSWORD)
    assert verify_stored("{SHA}Bbx7i+X72fOBYscEqBOradXeyIY", PASSWORD)  # without its padding


def test_nul_is_not_the_end_of_a_password() -> None:
    for stored in ("{MD5-CRYPT}$1$tj5GAQ5y$MFSeUOMxRd0vyuodG9P0Q1", "{PLAIN}tulip and thyme"):
        assert not verify_stored(stored, f"{PASSWORD}\0x")


def test_only_argon2id_is_not_old() -> None:
    assert not is_old(hash_password(PASSWORD, os.urandom))
    assert all(is_old(stored) for _, stored in vectors() if "ARGON2ID" not in stored)


@pytest.mark.parametrize("scheme", ["SHA512-CRYPT", "BLF-CRYPT", "SSHA256", "ARGON2I", "SHA512.hex"])
def test_doveadm_as_it_is_installed_here(scheme: str) -> None:
    doveadm = shutil.which("doveadm")
    if doveadm is None:
        assert os.environ.get("MAILSRV_REQUIRE_PEERS") != "1", "doveadm is not installed"
        pytest.skip("doveadm is not installed")
    made = subprocess.run([doveadm, "pw", "-s", scheme, "-p", OTHER], capture_output=True, text=True, check=True)
    assert verify_stored(made.stdout.strip("\n"), OTHER)
