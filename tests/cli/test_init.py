import datetime
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from mailsrv.cli import init
from mailsrv.config import load
from mailsrv.store import keys
from mailsrv.store.accounts.accounts import load_directory


def begin(tool: Any, folder: Path, *more: str) -> Any:
    path = str(folder / "etc" / "mailsrv.toml")
    return tool(
        "init", "example.org", "--hostname", "MX.example.org", "--state", str(folder / "s"), "--config", path, *more
    )


def test_what_it_writes_can_be_used(tool: Any, tmp_path: Path) -> None:
    ran = begin(tool, tmp_path)
    assert (ran.status, ran.err) == (0, "")
    config = load(str(tmp_path / "etc" / "mailsrv.toml"))
    assert (config.hostname, config.domains, config.state) == ("mx.example.org", ("example.org",), str(tmp_path / "s"))
    assert load_directory(config).accounts == ()
    certificate = x509.load_pem_x509_certificate(Path(config.tls.certificate).read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["mx.example.org"]
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    assert certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC) > datetime.timedelta(days=364)
    assert [name.split("-")[0] for name in keys.of_domain(config.state, "example.org")] == ["ed25519", "rsa"]
    for secret in (config.tls.key, config.accounts, tmp_path / "etc" / "mailsrv.toml"):
        assert os.stat(secret).st_mode & 0o077 == 0
    for text in ("example.org.", "MX   10 mx.example.org.", "v=spf1", "v=DKIM1; k=rsa;", "v=DMARC1", "PTR", "SRV"):
        assert text in ran.out


def test_verbs_work_right_after_it(tool: Any, tmp_path: Path) -> None:
    begin(tool, tmp_path)
    path = str(tmp_path / "etc" / "mailsrv.toml")
    ran = tool("account", "add", "alice@example.org", "--password-stdin", "--config", path, stdin=b"x\n")
    assert ran.status == 0
    assert tool("alias", "add", "sales@example.org", "alice@example.org", "--config", path).status == 0
    assert tool("dns", "--config", path).status == 0


@pytest.mark.parametrize("name", ["mailsrv.toml", "accounts", "aliases", "tls/key.pem", "tls/cert.pem"])
def test_nothing_is_overwritten(tool: Any, tmp_path: Path, name: str) -> None:
    there = tmp_path / "etc" / name
    there.parent.mkdir(parents=True)
    there.write_text("mine")
    ran = begin(tool, tmp_path)
    assert ran.status == 1
    assert f"{there} exists already" in ran.err
    assert there.read_text() == "mine"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [there]


def test_keys_of_an_earlier_state_are_kept(tool: Any, tmp_path: Path) -> None:
    folder = tmp_path / "s" / "keys"
    folder.mkdir(parents=True)
    (folder / "old._domainkey.example.org.pem").write_bytes(keys.generate("ed25519"))
    ran = begin(tool, tmp_path)
    assert ran.status == 0
    assert os.listdir(folder) == ["old._domainkey.example.org.pem"]
    assert "old._domainkey.example.org." in ran.out


def test_a_failure_on_the_way_leaves_nothing(tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(init, "load", fail)
    (tmp_path / "s").write_text("not a folder")
    ran = begin(tool, tmp_path)
    assert ran.status == 1
    assert ran.err.count("\n") == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "s"]


def test_defaults_and_names(tool: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "mailsrv.toml")
    assert tool("init", "Bücher.example", "--state", str(tmp_path / 's "q" \\ ü'), "--config", path).status == 0
    config = load(path)
    assert config.hostname == "mx.xn--bcher-kva.example"
    assert config.state == str(tmp_path / 's "q" \\ ü')
    assert tool("init", "exa mple", "--config", path + "2").status == 1
    assert tool("init", "--config", path + "2").status == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_files_and_folders_get_the_owner_of_the_folder_above(tool: Any, tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 23456)
    assert begin(tool, tmp_path).status == 0
    assert {(path.stat().st_uid, path.stat().st_gid) for path in tmp_path.rglob("*")} == {(12345, 23456)}
