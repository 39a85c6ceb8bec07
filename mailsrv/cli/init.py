"""``mailsrv init``: everything that a new domain needs before the first start.

Writes a commented configuration, and beside it a self-signed certificate, an empty accounts file and an empty aliases
file; DKIM keys under the state folder; then prints the DNS records to publish.  Nothing that exists is overwritten: the
verb refuses before it has written anything, and takes back what it wrote when it fails on the way.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from mailsrv.cli import dns
from mailsrv.cli.command import Failure, add_common, config_path
from mailsrv.cli.template import configuration
from mailsrv.config import DEFAULT_PATH, load
from mailsrv.mail.address import AddressError, domain_a_label
from mailsrv.store import keys
from mailsrv.store.accounts.account_files import own_as_folder

_CERTIFICATE_DAYS = 365
_SKEW = datetime.timedelta(hours=1)  # clocks of others may be behind ours

_ACCOUNTS = """\
# Who has a mailbox: address:{SCHEME}hash::::::  ("mailsrv account add ADDRESS" writes it).
"""
_ALIASES = """\
# Addresses that stand for others: address: target, target  ("mailsrv alias add ADDRESS TARGET" writes it).
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    verb = subparsers.add_parser(
        "init",
        help="set a new domain up",
        description="Write a configuration, a self-signed certificate, DKIM keys and empty accounts and aliases files.",
    )
    add_common(verb)
    verb.add_argument("domain", metavar="DOMAIN", help="mail for this domain ends here")
    verb.add_argument("--hostname", metavar="HOST", help="the name of this machine (default: mx.DOMAIN)")
    verb.add_argument(
        "--state", metavar="DIR", default="/var/lib/mailsrv", help="where mail is kept (default: %(default)s)"
    )
    verb.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    domain = _domain(arguments.domain)
    hostname = _domain(arguments.hostname or f"mx.{domain}")
    path = os.path.abspath(config_path(arguments))
    state = os.path.abspath(arguments.state)
    if not state.isprintable():
        raise Failure("the path of the state folder holds control characters.")
    folder = os.path.dirname(path)
    now = datetime.datetime.now(datetime.UTC)
    key, certificate = self_signed(hostname, now)
    files = {
        os.path.join(folder, "tls", "key.pem"): (key, 0o600),
        os.path.join(folder, "tls", "cert.pem"): (certificate, 0o644),
        os.path.join(folder, "accounts"): (_ACCOUNTS.encode(), 0o600),
        os.path.join(folder, "aliases"): (_ALIASES.encode(), 0o644),
    }
    if not keys.of_domain(state, domain):
        for kind in keys.KINDS:
            files[keys.path(state, domain, f"{kind}-{now:%Y%m%d}")] = keys.generate(kind), 0o600
    # Last, for with it the rest counts.
    files[path] = configuration(domain, hostname, state).encode(), 0o600
    _write(files, state)
    config = load(path)
    print(f"Wrote {path}, and beside it tls/, accounts and aliases; DKIM keys are in {os.path.join(state, 'keys')}.")
    print(
        f"The certificate is self-signed, for {hostname}, and ends in {_CERTIFICATE_DAYS} days; put a real one there."
    )
    print("If the server is to run as another user, give that user these files and folders (chown -R).")
    print("\nPublish in DNS:\n")
    print(dns.zone(config, dns.records(config)))
    named = "" if path == DEFAULT_PATH else f" --config {path}"
    print(f"\nNext: mailsrv account add you@{domain}{named}")
    print(f"      twistd --nodaemon mailsrv{named}")
    return 0


def self_signed(hostname: str, now: datetime.datetime) -> tuple[bytes, bytes]:
    """A new P-256 key and its certificate for a host name, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, hostname[:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + datetime.timedelta(days=_CERTIFICATE_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(hostname)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)


def _domain(text: str) -> str:
    try:
        return domain_a_label(text)
    except AddressError as error:
        raise Failure(f'"{text}" is not a domain: {error}.') from None


def _write(files: dict[str, tuple[bytes, int]], state: str) -> None:
    existing = [path for path in reversed(files) if os.path.lexists(path)]
    if existing:
        raise Failure(f"{existing[0]} exists already, and init overwrites nothing; move it away first.")
    written: list[str] = []
    _make_folder(state, 0o700)
    try:
        for path, (data, mode) in files.items():
            folder = os.path.dirname(path)
            _make_folder(folder, 0o700 if os.path.basename(folder) == "keys" else 0o755)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
            written.append(path)
            with os.fdopen(descriptor, "wb") as file:
                own_as_folder(descriptor, folder)
                file.write(data)
                file.flush()
                os.fsync(descriptor)
    except BaseException:
        for path in written:
            with contextlib.suppress(OSError):
                os.unlink(path)
        raise


def _make_folder(folder: str, mode: int = 0o755) -> None:
    """Make a folder of that mode, and those above it, with the owner of the first that exists."""
    if os.path.isdir(folder):
        return
    parent = os.path.dirname(folder)
    _make_folder(parent)
    os.mkdir(folder, mode)
    own_as_folder(folder, parent)
