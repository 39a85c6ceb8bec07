import base64
import json
import re
from pathlib import Path
from typing import Any

import dns.rdata
import dns.zone
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from mailsrv.store import keys


def with_keys(folder: Path) -> None:
    (folder / "state" / "keys").mkdir(parents=True)
    for kind in ("rsa", "ed25519"):
        Path(keys.path(str(folder / "state"), "example.org", f"{kind}-1")).write_bytes(keys.generate(kind))


def test_json(tool: Any, folder: Path) -> None:
    with_keys(folder)
    records = json.loads(tool("dns", "--json").out)
    by_name = {(record["name"], record["type"]): record["value"] for record in records}
    assert by_name["example.org", "MX"] == by_name["example.net", "MX"] == "10 mx.example.org."
    assert by_name["example.org", "TXT"].startswith("v=spf1 ")
    assert by_name["_dmarc.example.net", "TXT"].startswith("v=DMARC1; ")
    assert by_name["_submission._tcp.example.org", "SRV"].endswith(" 587 mx.example.org.")
    assert by_name["_submissions._tcp.example.org", "SRV"].endswith(" 465 mx.example.org.")
    assert by_name["_pop3s._tcp.example.org", "SRV"].endswith(" 995 mx.example.org.")
    key = by_name["rsa-1._domainkey.example.org", "TXT"]
    assert key.startswith("v=DKIM1; k=rsa; p=")
    assert isinstance(load_der_public_key(base64.b64decode(key.partition("p=")[2])), rsa.RSAPublicKey)
    ed25519 = by_name["ed25519-1._domainkey.example.org", "TXT"]
    assert len(base64.b64decode(ed25519.partition("p=")[2])) == 32
    assert ("rsa-1._domainkey.example.net", "TXT") not in by_name


def test_the_text_is_a_zone(tool: Any, folder: Path) -> None:
    with_keys(folder)
    text = tool("dns").out
    zone = dns.zone.from_text(text, origin=".", relativize=False, check_origin=False)
    record = zone.get_rdataset("rsa-1._domainkey.example.org.", "TXT")
    assert record is not None
    strings = record[0].strings
    assert len(strings) == 2
    assert all(len(string) <= 255 for string in strings)
    assert b"".join(strings).startswith(b"v=DKIM1; k=rsa; p=MII")
    assert re.search(r"(?m)^; mx\.example\.org\. +3600 IN A ", text)
    assert re.search(r"(?m)^; PTR: .* mx\.example\.org\.$", text)


def test_only_services_that_are_on_and_their_true_ports(tool: Any, folder: Path) -> None:
    with (folder / "mailsrv.toml").open("a") as file:
        file.write('[listen]\nsubmission = []\npop3 = []\npop3s = ["unix:/x", "tcp6:1995:interface=\\\\:\\\\:1"]\n')
    found = {r["name"]: r["value"] for r in json.loads(tool("dns", "--json").out) if r["type"] == "SRV"}
    assert sorted(name for name in found if name.endswith(".example.org")) == [
        "_pop3s._tcp.example.org",
        "_submissions._tcp.example.org",
    ]
    assert found["_pop3s._tcp.example.org"] == "0 1 1995 mx.example.org."


def test_a_broken_key_is_one_sentence(tool: Any, folder: Path) -> None:
    with_keys(folder)
    path = keys.path(str(folder / "state"), "example.org", "rsa-1")
    Path(path).write_text("nonsense")
    ran = tool("dns")
    assert ran.status == 1
    assert ran.err == f"mailsrv: {path}: not a private key in PEM without a password.\n"
