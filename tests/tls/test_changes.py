"""Certificates that change while the server runs: those for further names, too."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest

from mailsrv.settings import FileSettings
from mailsrv.tls import CertificateError
from tests.tls.test_certificates import meet, of, write

CONFIG = """
hostname = "mx.example.org"
domains = ["example.org"]
[tls]
certificate = "tls/mx.example.org.pem"
key = "tls/mx.example.org.key"
[tls.names]
"mail.example.net" = { certificate = "tls/mail.example.net.pem", key = "tls/mail.example.net.key" }
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    for name in ("mx.example.org", "mail.example.net", "mail.example.com"):
        write(tmp_path / "tls", name)
    (tmp_path / "accounts").touch()
    config = tmp_path / "mailsrv.toml"
    config.write_text(CONFIG)
    return config


def presented(settings: FileSettings, name: str | None) -> bytes:
    return meet(settings.certificate, name).presented


def replace(path: Path, text: str) -> None:
    """As careful tools do it, so that every look finds another file."""
    fresh = path.with_name("fresh")
    fresh.write_text(text)
    os.replace(fresh, path)


def test_a_further_certificate_is_taken_up_when_it_changes(path: Path) -> None:
    settings = FileSettings(str(path))
    told: list[str] = []
    settings.changed = lambda: told.append("changed")
    settings.refused = told.append
    tls = path.parent / "tls"
    before = ssl.PEM_cert_to_DER_cert((tls / "mail.example.net.pem").read_text())
    assert presented(settings, "mail.example.net") == before
    settings.look()
    assert told == []

    replace(tls / "mail.example.net.key", "nonsense")
    settings.look()
    settings.look()
    assert len(told) == 1, "reported once"
    assert "mail.example.net.key: holds no private key" in told.pop()
    assert presented(settings, "mail.example.net") == before

    replace(tls / "mail.example.net.key", (tls / "mail.example.com.key").read_text())
    replace(tls / "mail.example.net.pem", (tls / "mail.example.com.pem").read_text())
    settings.look()
    assert told == ["changed"]
    after = ssl.PEM_cert_to_DER_cert((tls / "mail.example.com.pem").read_text())
    assert presented(settings, "mail.example.net") == after != before


def test_names_come_and_go_with_the_configuration(path: Path) -> None:
    settings = FileSettings(str(path))
    replace(path, CONFIG.replace("mail.example.net", "mail.example.com"))
    settings.look()
    pair = settings.config.tls.names["mail.example.com"]
    assert presented(settings, "mail.example.com") == of(pair)
    assert presented(settings, "mail.example.net") == presented(settings, None)
    replace(path, CONFIG.partition("[tls.names]")[0])
    settings.look()
    assert presented(settings, "mail.example.com") == presented(settings, None)


def test_a_further_certificate_that_is_missing_keeps_it_from_starting(path: Path) -> None:
    (path.parent / "tls" / "mail.example.net.pem").unlink()
    with pytest.raises(CertificateError) as caught:
        FileSettings(str(path))
    assert str(caught.value) == f"{path.parent}/tls/mail.example.net.pem: cannot be read: No such file or directory."
