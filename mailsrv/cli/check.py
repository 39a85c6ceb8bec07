"""``mailsrv check``: whether the server can do its work, one line for each thing looked at, with the remedy.

Looks at the configuration, accounts and aliases, files and their permissions, the mailboxes, the certificates, the keys
that sign, the ports, the queue and what other servers have refused lately, the ways out, and what DNS says about us.
It changes nothing.  Exit status 1 when something is wrong; warnings alone are 0.  It may run while the server does: a
port that mailsrv itself answers on is in order.
"""

from __future__ import annotations

import argparse
import datetime
import os
import socket
import ssl
import stat
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from mailsrv.cli import check_dns, check_mailboxes, check_queue, check_route
from mailsrv.cli.command import add_common, config_of, print_json, wants_json
from mailsrv.cli.endpoint import Place, place, socket_path
from mailsrv.cli.finding import Finding, ok, warning, wrong
from mailsrv.cli.wording import now
from mailsrv.config import Config, ConfigError, Network
from mailsrv.store import key_states, keys
from mailsrv.store.accounts.accounts import AccountsError, load_directory
from mailsrv.store.keys import KeyFileError

_TIMEOUT_S = 5.0
_SOON = datetime.timedelta(days=14)
_PRIVATE_4 = tuple(IPv4Network(each) for each in ("10.0.0.0/8", "127.0.0.0/8", "172.16.0.0/12", "100.64.0.0/10"))
_PRIVATE_6 = IPv6Network("fc00::/7")
_ENCODINGS = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    text = "say what is in order and what is not, with the remedy"
    verb = subparsers.add_parser("check", help=text, description="Look at everything and " + text + ".")
    add_common(verb, json=True)
    verb.add_argument("--no-dns", action="store_true", help="ask nothing of DNS")
    verb.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    findings = []
    for finding in _findings(arguments):
        findings.append(finding)
        if not wants_json(arguments):
            print(finding, flush=True)
    if wants_json(arguments):
        print_json(findings)
    return 1 if any(finding.verdict == "wrong" for finding in findings) else 0


def _findings(arguments: argparse.Namespace) -> Iterator[Finding]:
    try:
        config = config_of(arguments)
    except ConfigError as error:
        remedy = "mend it; until then a running server keeps what was in force, and none starts"
        yield wrong("configuration", str(error).removesuffix("."), remedy)
        return
    yield ok("configuration", "every key is understood")
    yield from sense(config)
    yield from directory(config)
    yield from files(config)
    yield from _mailboxes(config)
    yield from certificates(config, datetime.datetime.now(datetime.UTC))
    yield from signing_keys(config)
    for service, endpoints in _services(config):
        for endpoint in endpoints:
            yield port(config, service, endpoint)
    yield from check_queue.findings(config, now())
    yield from check_route.routes(config)
    if not arguments.no_dns:
        ask = check_dns.lookup(config.dns.servers)
        yield from check_route.direct(config, ask)
        yield from check_dns.records(config, ask)


def sense(config: Config) -> Iterator[Finding]:
    """What is understood, and hardly meant."""
    for network in config.trusted_networks:
        if _is_large(network):
            text = f"{network} holds strangers, who may send anywhere and under any name"
            yield wrong("trusted_networks", text, "name only networks of your own; others log in")
    if config.queue.warn >= config.queue.expire:
        text = "queue.warn is not before queue.expire, so no sender hears that a message is late"
        yield warning("queue", text, "make it less")


def _is_large(network: Network) -> bool:
    """Whether no single operator has so many addresses, nor are they for private use (RFC 1918, 4193)."""
    if isinstance(network, IPv4Network):
        return network.prefixlen < 16 and not any(network.subnet_of(own) for own in _PRIVATE_4)
    return network.prefixlen < 32 and not network.subnet_of(_PRIVATE_6)


def directory(config: Config) -> Iterator[Finding]:
    """Accounts and aliases."""
    try:
        found = load_directory(config)
    except AccountsError as error:
        if os.path.exists(config.accounts):
            yield wrong("accounts", str(error).removesuffix("."), "mend that line")
        else:
            remedy = f"mailsrv account add postmaster@{config.domains[0]}, or name the right file"
            yield wrong("accounts", f"{config.accounts} does not exist", remedy)
        return
    if not found.accounts:
        yield warning("accounts", "there are none", f"mailsrv account add postmaster@{config.domains[0]}")
    else:
        yield ok("accounts", f"{len(found.accounts)}, and {len(found.aliases)} aliases")
    if not os.path.exists(config.aliases):
        yield warning("aliases", f"{config.aliases} does not exist, so there are none", f"touch {config.aliases}")
    for alias, target in found.dangling():
        yield warning(
            "aliases", f"{alias} names {target}, who is nobody", f"mailsrv account add {target}, or alias remove"
        )


def _mailboxes(config: Config) -> Iterator[Finding]:
    try:
        accounts = load_directory(config).accounts
    except AccountsError:
        return  # told before
    yield from check_mailboxes.mailboxes(config, accounts, now())


def files(config: Config) -> Iterator[Finding]:
    """Whether folders and files are there, whose they are, and who else could read them."""
    state = config.state
    if not os.path.isdir(state):
        yield warning("state", f"{state} is not there yet", "the server makes it if it may; else make it, and chown it")
        return
    if not os.access(state, os.W_OK | os.X_OK):
        yield wrong("state", f"{state} cannot be written by this user", "run as root, or chown it to the server's user")
    else:
        yield ok("state", f"{state} can be written")
    owner = os.stat(state).st_uid
    tls = config.tls
    found = {config.accounts: True, config.aliases: False, tls.key: True, tls.certificate: False}
    for pair in tls.names.values():
        found |= {pair.key: True, pair.certificate: False}
    found |= dict.fromkeys((path for path in key_states.files(config) if path.endswith(".pem")), True)
    for path, secret in found.items():
        try:
            status = os.stat(path)
        except OSError:
            continue  # told of where it is needed
        mode = stat.S_IMODE(status.st_mode)
        if secret and mode & 0o007:
            yield wrong("permissions", f"{path} is open to every user of this machine", f"chmod o= {path}")
        elif owner != 0 and status.st_uid != owner and not mode & 0o044:
            yield warning(
                "permissions", f"the owner of {state} cannot read {path}", f"chown --reference={state} {path}"
            )
        else:
            yield ok("permissions", path)


def signing_keys(config: Config) -> Iterator[Finding]:
    """Whether the mail of each domain is signed, and what becomes of the keys."""
    try:
        found = key_states.load(config)
        all_keys = [key for domain in config.domains for key in key_states.of_domain(config.state, domain)]
        for key in all_keys:
            keys.read(config.state, key.domain, key.selector)
    except KeyFileError as error:
        yield wrong("keys", str(error).removesuffix("."), "put the right file there, or move it away")
        return
    for domain in config.domains:
        signing = found.signing.get(domain, ())
        selectors = " and ".join(key.selector for key in signing)
        if not signing:
            yield warning("keys", f"{domain} has none, so its mail is not signed", f"mailsrv dkim rotate {domain}")
        elif signing[0].kind != "rsa":
            text = f"{domain} signs with {selectors} alone, and many servers understand RSA only"
            yield warning("keys", text, f"mailsrv dkim rotate {domain}")
        else:
            yield ok("keys", f"{domain} signs with {selectors}")
    for key in all_keys:
        if key.state == key_states.NEXT:
            yield ok("keys", f"{key.name} signs when DNS has shown it for a while")
        elif key_states.is_over(key, config, now()):
            yield warning("keys", f"{key.name} signs no more and may go", "mailsrv dkim remove")


def certificates(config: Config, now: datetime.datetime) -> Iterator[Finding]:
    """The usual one, and those for further names."""
    yield from _certificate("certificate", config.tls.certificate, config.tls.key, config.hostname, now)
    for name, pair in config.tls.names.items():
        yield from _certificate(f'certificate of "{name}"', pair.certificate, pair.key, name, now)
    if config.tls.authorities:
        yield _authorities(config.tls.authorities)


def _authorities(path: str) -> Finding:
    """As the server reads it (``relay/tls.py``)."""
    what, remedy = "tls.authorities", "put certificates in PEM form there, or name the right file"
    try:
        with open(path, "rb") as file:
            found = x509.load_pem_x509_certificates(file.read())
    except OSError as error:
        return wrong(what, f"{path}: {error.strerror}", remedy)
    except ValueError:
        return wrong(what, f"{path} holds no certificate in PEM form", remedy)
    return ok(what, f"{len(found)} in {path}")


def _certificate(what: str, path: str, key_path: str, host: str, now: datetime.datetime) -> Iterator[Finding]:
    """Dates, names, and whether the key belongs to it."""
    try:
        with open(path, "rb") as file:
            found = x509.load_pem_x509_certificates(file.read())[0]
        with open(key_path, "rb") as file:
            key = serialization.load_pem_private_key(file.read(), None)
    except OSError as error:
        yield wrong(what, f"{error.filename}: {error.strerror}", "name the right file in [tls], or mailsrv init")
        return
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        text = str(error).split("\n")[0].split(". ")[0]
        yield wrong(what, f"{path} or its key is not usable PEM: {text}", "put certificate and key there anew")
        return
    if key.public_key().public_bytes(*_ENCODINGS) != found.public_key().public_bytes(*_ENCODINGS):
        yield wrong(what, f"{key_path} is not the key of {path}", "put both there anew, of one issue")
    end = found.not_valid_after_utc
    if end <= now:
        yield wrong(what, f"ended on {end:%Y-%m-%d}", "renew it")
    elif found.not_valid_before_utc > now:
        yield wrong(what, f"begins on {found.not_valid_before_utc:%Y-%m-%d}", "set the clock of this machine")
    elif end - now < _SOON:
        yield warning(what, f"ends on {end:%Y-%m-%d}", "renew it")
    else:
        yield ok(what, f"valid until {end:%Y-%m-%d}")
    names = _names(found)
    if not any(_covers(name, host) for name in names):
        listed = ", ".join(names) or "nobody"
        yield wrong(what, f"is for {listed}, not for {host}", f"get one that names {host}")
    if found.issuer == found.subject:
        yield warning(what, "is self-signed; mail programs will ask their users", "get one from a public authority")


def _names(found: x509.Certificate) -> list[str]:
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in names.get_values_for_type(x509.DNSName)]


def _covers(name: str, host: str) -> bool:
    # RFC 9525 6.3: a wildcard stands for the leftmost label.
    return name == host or (name.startswith("*.") and name[2:] == host.partition(".")[2])


def _services(config: Config) -> list[tuple[str, tuple[str, ...]]]:
    listen = config.listen
    return [
        ("smtp", listen.smtp),
        ("submission", listen.submission),
        ("submissions", listen.submissions),
        ("pop3", listen.pop3),
        ("pop3s", listen.pop3s),
        ("lmtp", listen.lmtp),
    ]


def port(config: Config, service: str, endpoint: str) -> Finding:
    """Whether an endpoint can be listened on, or mailsrv answers there."""
    at = place(endpoint)
    what = f"listen.{service}"
    if at is None:
        path = socket_path(endpoint)
        return _local_socket(config, what, endpoint, path) if path else ok(what, f"{endpoint} is not looked at")
    try:
        with socket.socket(at.family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if at.family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((at.address, at.port))
            listener.listen(1)
    except PermissionError:
        return warning(what, f"{endpoint} needs root", "start twistd as root with --uid; run this check as root")
    except OSError as error:
        if _answers(config, service, at):
            return ok(what, f"mailsrv answers on {endpoint}")
        return wrong(what, f"{endpoint}: {error.strerror}", "stop what uses it ('ss -ltnp' tells), or change [listen]")
    return ok(what, f"{endpoint} is free")


def _local_socket(config: Config, what: str, endpoint: str, path: str) -> Finding:
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        return wrong(what, f"there is no folder {folder}", f"make {folder}, writable for the server's user")
    if not os.path.lexists(path):
        return ok(what, f"{endpoint} is free")
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return wrong(what, f"{path} is no socket", "move it away, or change [listen]")
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(_TIMEOUT_S)
            client.connect(path)
            if _is_ours(config, client.recv(512)):
                return ok(what, f"mailsrv answers on {endpoint}")
    except ConnectionRefusedError:
        return ok(what, f"{endpoint} is free; the next start replaces the socket that was left there")
    except OSError as error:
        return warning(what, f"{endpoint}: {error.strerror}", "run this check as root")
    return wrong(what, f"{endpoint}: another program listens there", "stop it, or change [listen]")


def _answers(config: Config, service: str, at: Place) -> bool:
    """Whether it is mailsrv, by its greeting, that holds a port."""
    everywhere = at.address in ("", "::")
    loopback = "::1" if at.family == socket.AF_INET6 else "127.0.0.1"
    try:
        with socket.create_connection((loopback if everywhere else at.address, at.port), _TIMEOUT_S) as plain:
            if service != "lmtp" and any(
                ip_address(plain.getsockname()[0]) in proxy for proxy in config.listen.proxies
            ):
                plain.sendall(b"PROXY UNKNOWN\r\n")
            if service in ("submissions", "pop3s"):
                context = ssl.create_default_context()
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
                with context.wrap_socket(plain) as wrapped:
                    greeting = wrapped.recv(512)
            else:
                greeting = plain.recv(512)
    except OSError:
        return False
    return _is_ours(config, greeting)


def _is_ours(config: Config, greeting: bytes) -> bool:
    return config.hostname.encode() in greeting or b"mailsrv" in greeting
