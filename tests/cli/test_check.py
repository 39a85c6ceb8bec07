import datetime
import json
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mailsrv.cli import check, check_dns, check_queue, check_route
from mailsrv.cli import dns as published
from mailsrv.cli.finding import Finding
from mailsrv.cli.init import self_signed
from mailsrv.config import Config, load, parse
from mailsrv.store import notices, queue
from mailsrv.store.notices import Notice
from tests.worlds.rows import START, Rows

NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture
def config(folder: Path) -> Config:
    """Everything in order: certificate, accounts, state; nothing listens."""
    (folder / "state").mkdir()
    (folder / "tls").mkdir()
    key, certificate = self_signed("mx.example.org", NOW)
    (folder / "tls" / "key.pem").write_bytes(key)
    (folder / "tls" / "key.pem").chmod(0o600)
    (folder / "tls" / "cert.pem").write_bytes(certificate)
    (folder / "accounts").write_text("alice@example.org:!\n")
    (folder / "accounts").chmod(0o600)
    with (folder / "mailsrv.toml").open("a") as file:
        file.write("[listen]\n")
        for service in ("smtp", "submission", "submissions", "pop3", "pop3s"):
            file.write(f'{service} = ["tcp:0:interface=127.0.0.1"]\n')
    return load(str(folder / "mailsrv.toml"))


def verdicts(findings: Any) -> dict[str, str]:
    return {finding.subject: finding.verdict for finding in findings}


def test_all_in_order(tool: Any, config: Config) -> None:
    ran = tool("check", "--no-dns")
    assert ran.status == 0
    assert "wrong" not in ran.out
    assert len(ran.out.splitlines()) >= 10
    findings = json.loads(tool("check", "--no-dns", "--json").out)
    assert {finding["verdict"] for finding in findings} == {"ok", "warning"}
    for finding in findings:
        assert bool(finding["remedy"]) == (finding["verdict"] != "ok")


def test_a_wrong_configuration(tool: Any, folder: Path) -> None:
    (folder / "mailsrv.toml").write_text("hostnam = 1\n")
    ran = tool("check")
    assert ran.status == 1
    assert ran.out.startswith("wrong    configuration: ")
    assert len(ran.out.splitlines()) == 1


def test_accounts(config: Config) -> None:
    Path(config.aliases).write_text("sales@example.org: carol@example.org\n")
    assert verdicts(check.directory(config)) == {"accounts": "ok", "aliases": "warning"}
    Path(config.aliases).unlink()
    found = {one.subject: one for one in check.directory(config)}
    assert "does not exist" in found["aliases"].text
    Path(config.accounts).write_text("")
    assert verdicts(check.directory(config))["accounts"] == "warning"
    Path(config.accounts).write_text("x\n")
    assert verdicts(check.directory(config)) == {"accounts": "wrong"}
    Path(config.accounts).unlink()
    (missing,) = check.directory(config)
    assert (missing.verdict, missing.remedy[:19]) == ("wrong", "mailsrv account add")


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ('trusted_networks = ["0.0.0.0/0"]', {"trusted_networks": "wrong"}),
        ('trusted_networks = ["::/0"]', {"trusted_networks": "wrong"}),
        ('trusted_networks = ["198.50.0.0/15"]', {"trusted_networks": "wrong"}),
        ('trusted_networks = ["10.0.0.0/8", "192.0.2.0/24", "fd00::/8", "2001:db8::/32"]', {}),
        ('queue.warn = "5d"', {"queue": "warning"}),
        ("", {}),
    ],
)
def test_what_is_hardly_meant(key: str, expected: dict[str, str]) -> None:
    config = parse(f'hostname = "mx.example.org"\ndomains = ["example.org"]\n{key}\n', "mailsrv.toml")
    assert verdicts(check.sense(config)) == expected


def test_authorities(config: Config, folder: Path) -> None:
    with (folder / "mailsrv.toml").open("a") as file:
        file.write('[tls]\nauthorities = "more.pem"\n')
    config = load(str(folder / "mailsrv.toml"))
    assert verdicts(check.certificates(config, NOW))["tls.authorities"] == "wrong"
    (folder / "more.pem").write_text("no certificate\n")
    assert verdicts(check.certificates(config, NOW))["tls.authorities"] == "wrong"
    (folder / "more.pem").write_bytes(Path(config.tls.certificate).read_bytes())
    assert verdicts(check.certificates(config, NOW))["tls.authorities"] == "ok"


def test_files(config: Config) -> None:
    assert {finding.verdict for finding in check.files(config)} == {"ok"}
    Path(config.tls.key).chmod(0o644)
    found = [finding for finding in check.files(config) if finding.verdict != "ok"]
    assert [finding.verdict for finding in found] == ["wrong"]
    assert config.tls.key in found[0].remedy
    Path(config.state).rmdir()
    assert verdicts(check.files(config)) == {"state": "warning"}


def test_certificate(config: Config, folder: Path) -> None:
    def problems(now: datetime.datetime = NOW) -> list[Finding]:
        return [one for one in check.certificates(config, now) if one.verdict == "wrong"]

    assert problems() == []
    assert "self-signed" in next(one for one in check.certificates(config, NOW) if one.verdict == "warning").text
    assert problems(NOW + datetime.timedelta(days=360)) == []
    assert "ended" in problems(NOW + datetime.timedelta(days=366))[0].text
    assert "begins" in problems(NOW - datetime.timedelta(days=2))[0].text
    key, certificate = self_signed("other.example.org", NOW)
    (folder / "tls" / "key.pem").write_bytes(key)
    assert "is not the key" in problems()[0].text
    (folder / "tls" / "cert.pem").write_bytes(certificate)
    assert "is for other.example.org" in problems()[0].text
    (folder / "tls" / "cert.pem").write_bytes(b"nonsense")
    assert "not usable PEM" in problems()[0].text
    (folder / "tls" / "cert.pem").unlink()
    assert "No such file" in problems()[0].text


def greet(listener: socket.socket, greeting: bytes) -> None:
    with listener.accept()[0] as connection:
        connection.sendall(greeting)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """With a short name, for the path of a socket has at most 107 octets."""
    with tempfile.TemporaryDirectory(prefix="mailsrv-") as folder:
        yield Path(folder)


@pytest.mark.parametrize("greeting", [b"220 mx.example.org ESMTP\r\n", b"220 other.example ESMTP\r\n"])
def test_a_port_in_use(config: Config, greeting: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        greeter = threading.Thread(target=greet, args=(listener, greeting))
        greeter.start()
        endpoint = f"tcp:{listener.getsockname()[1]}:interface=127.0.0.1"
        finding = check.port(config, "smtp", endpoint)
        greeter.join(10)
    assert finding.verdict == ("ok" if b"mx.example.org" in greeting else "wrong")
    assert check.port(config, "smtp", endpoint).text.endswith("is free")
    assert check.port(config, "smtp", "systemd:index=0").text.endswith("is not looked at")


def test_further_certificates(config: Config, folder: Path) -> None:
    for name in ("net", "wild"):
        key, certificate = self_signed({"net": "mail.example.net", "wild": "*.example.com"}[name], NOW)
        (folder / "tls" / f"{name}.key").write_bytes(key)
        (folder / "tls" / f"{name}.pem").write_bytes(certificate)
    text = (folder / "mailsrv.toml").read_text() + (
        '[tls.names]\n"mail.example.net" = { certificate = "tls/net.pem", key = "tls/net.key" }\n'
        '"*.example.com" = { certificate = "tls/wild.pem", key = "tls/wild.key" }\n'
        '"*.example.net" = { certificate = "tls/net.pem", key = "tls/net.key" }\n'
    )
    several = parse(text, str(folder / "mailsrv.toml"))
    found = [str(one) for one in check.certificates(several, NOW) if one.verdict == "wrong"]
    assert found == [
        'wrong    certificate of "*.example.net": is for mail.example.net, not for *.example.net'
        " -> get one that names *.example.net"
    ]
    later = check.certificates(several, NOW + datetime.timedelta(days=366))
    assert sum(one.text.startswith("ended on") for one in later) == 4
    (folder / "tls" / "net.key").chmod(0o644)
    (folder / "tls" / "wild.key").chmod(0o600)
    open_to_all = [one.text for one in check.files(several) if one.verdict == "wrong"]
    assert open_to_all == [f"{folder}/tls/net.key is open to every user of this machine"]


def test_a_local_socket(config: Config, open_folder: Path) -> None:
    path = open_folder / "lmtp"
    endpoint = f"unix:{path}:mode=660"
    assert check.port(config, "lmtp", endpoint) == Finding("ok", "listen.lmtp", f"{endpoint} is free")
    for greeting, verdict in ((b"220 mx.example.org LMTP\r\n", "ok"), (b"220 other.example LMTP\r\n", "wrong")):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            greeter = threading.Thread(target=greet, args=(listener, greeting))
            greeter.start()
            finding = check.port(config, "lmtp", endpoint)
            greeter.join(10)
        assert finding.verdict == verdict
        assert "the next start replaces" in check.port(config, "lmtp", endpoint).text
        path.unlink()
    path.touch()
    assert "is no socket" in check.port(config, "lmtp", endpoint).text
    assert "there is no folder" in check.port(config, "lmtp", f"unix:{path}er/lmtp").text


def test_it_introduces_itself_where_it_is_taken_for_a_proxy(folder: Path) -> None:
    config = parse('hostname = "a.org"\ndomains = ["b.org"]\nlisten.proxies = ["127.0.0.1"]\n', str(folder / "m"))
    heard: list[bytes] = []

    def answer(listener: socket.socket) -> None:
        with listener.accept()[0] as connection:
            heard.append(connection.recv(100))
            connection.sendall(b"220 a.org\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listening = threading.Thread(target=answer, args=(listener,))
        listening.start()
        finding = check.port(config, "smtp", f"tcp:{listener.getsockname()[1]}:interface=127.0.0.1")
        listening.join(10)
    assert finding.verdict == "ok"
    assert heard == [b"PROXY UNKNOWN\r\n"]


def test_routes(config: Config) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        routed = parse(
            f'hostname = "a.org"\ndomains = ["b.org"]\n[outbound]\nroutes = {{ "*" = "smtp://127.0.0.1:{port}" }}\n',
            "/c/m",
        )
        assert [finding.verdict for finding in check_route.routes(routed)] == ["ok"]
    assert [finding.verdict for finding in check_route.routes(routed)] == ["wrong"]


def test_the_queue(config: Config) -> None:
    def found(now: float = START) -> list[str]:
        return [str(finding) for finding in check_queue.findings(config, now)]

    assert found() == []
    rows = Rows(f"{config.state}/mailsrv.db")
    assert found() == [
        f"ok       database: {config.state}/mailsrv.db can be read",
        "ok       queue: 0 recipients waiting",
    ]
    rows.accept(["bob@example.com"])
    kept = rows.accept(["carol@example.com"])
    assert found()[1:] == ["ok       queue: 2 recipients waiting"]
    late = START + config.queue.warn + 3600
    assert found(late)[1:] == [
        "warning  queue: 2 recipients waiting, one for 5 hours -> 'mailsrv queue list' tells why"
    ]
    queue.hold(rows.connection, START, kept)
    assert found()[1:] == [
        "ok       queue: 1 recipient waiting",
        "warning  queue: 1 message held until you decide -> 'mailsrv queue list --held', then release or remove",
    ]
    rows.connection.execute("PRAGMA user_version = 1")
    assert [finding.verdict for finding in check_queue.findings(config, START)] == ["warning"]
    rows.connection.close()
    Path(f"{config.state}/mailsrv.db").write_bytes(b"no database at all" * 1000)
    assert [finding.verdict for finding in check_queue.findings(config, START)] == ["wrong"]


class World(dict[str, bool]):
    """Servers by address, and whether they take connections; ``tried`` are those that were asked."""

    def __init__(self, **families: bool) -> None:
        super().__init__()
        self.tried: list[str] = []
        self.zone = Zone()
        for n, domain in enumerate(("gmail.com", "outlook.com", "yahoo.com")):
            self.zone[domain, "MX"] = [f"20 second.{domain}.", f"5 first.{domain}."]
            self.zone[f"first.{domain}", "A"] = [f"192.0.2.{n}"]
            self.zone[f"first.{domain}", "AAAA"] = [f"2001:db8::{n}"]
            self[f"192.0.2.{n}"], self[f"2001:db8::{n}"] = families["v4"], families["v6"]

    def dial(self, address: str, port: int, timeout_s: float) -> None:
        self.tried.append(address)
        if port != 25 or not self[address]:
            raise ConnectionRefusedError(111, "Connection refused")


def test_a_way_out(config: Config) -> None:
    world = World(v4=True, v6=True)
    assert verdicts(check_route.direct(config, world.zone.ask, world.dial)) == {"route out": "ok"}
    assert world.tried == ["192.0.2.0"]
    world["192.0.2.0"] = False
    assert verdicts(check_route.direct(config, world.zone.ask, world.dial)) == {"route out": "ok"}


def test_ipv6_is_tried_where_we_have_it(config: Config) -> None:
    world = World(v4=True, v6=False)
    world.zone["mx.example.org", "AAAA"] = ["2001:db8::25"]
    assert [finding.verdict for finding in check_route.direct(config, world.zone.ask, world.dial)] == ["ok", "warning"]


def test_no_way_out(config: Config) -> None:
    world = World(v4=False, v6=True)
    (finding,) = check_route.direct(config, world.zone.ask, world.dial)
    assert str(finding) == (
        "wrong    route out: no server can be reached by IPv4: 192.0.2.2 port 25: Connection refused"
        ' -> ask your provider to open port 25, or send through another server: [outbound] routes, "*"'
    )


def test_a_way_out_is_not_looked_for_where_all_mail_has_a_route_or_there_is_no_dns(
    folder: Path, config: Config
) -> None:
    def silent(name: str, kind: str) -> list[str]:
        raise check_dns.LookupFailed("no answer")

    assert list(check_route.direct(config, silent, World(v4=True, v6=True).dial)) == []
    text = (folder / "mailsrv.toml").read_text() + '[outbound]\nroutes = { "*" = "smtp://smart.example" }\n'
    world = World(v4=False, v6=False)
    assert list(check_route.direct(parse(text, str(folder / "mailsrv.toml")), world.zone.ask, world.dial)) == []


class Zone(dict[tuple[str, str], list[str]]):
    def ask(self, name: str, kind: str) -> list[str]:
        return self.get((name.rstrip("."), kind), [])


def good_zone(config: Config) -> Zone:
    zone = Zone({("mx.example.org", "A"): ["192.0.2.1"], ("1.2.0.192.in-addr.arpa", "PTR"): ["MX.example.org."]})
    for record in published.records(config):
        if record.type in ("MX", "TXT"):
            zone[record.name, record.type] = [record.value]
    return zone


def test_dns_in_order(config: Config) -> None:
    findings = list(check_dns.records(config, good_zone(config).ask))
    assert {finding.verdict for finding in findings} == {"ok"}
    assert {finding.subject for finding in findings} == {"PTR", "MX", "TXT"}


def test_dns_out_of_order(config: Config) -> None:
    def problems(zone: Zone) -> list[str]:
        return [str(finding) for finding in check_dns.records(config, zone.ask) if finding.verdict != "ok"]

    zone = good_zone(config)
    zone["1.2.0.192.in-addr.arpa", "PTR"] = ["host7.example.com."]
    zone["example.net", "MX"] = ["10 mx.example.com."]
    zone["example.org", "TXT"] = ["something else"]
    zone["_dmarc.example.org", "TXT"] = ["v=DMARC1; p=reject"]
    found = problems(zone)
    assert len(found) == 3
    assert "192.0.2.1 is host7.example.com -> ask who gave you the address to name it mx.example.org" in found[0]
    assert "example.net names mx.example.com" in found[1]
    assert "example.org has no v=spf1" in found[2]
    del zone["mx.example.org", "A"]
    assert any("has no address" in problem for problem in problems(zone))


def test_blocklists(folder: Path, config: Config) -> None:
    text = (folder / "mailsrv.toml").read_text() + '[checks]\nblocklists = ["list.example"]\n'
    listed = parse(text, str(folder / "mailsrv.toml"))
    zone = good_zone(listed)
    for answer, verdict in (
        ([], "ok"),
        (["127.0.0.2"], "wrong"),
        (["127.255.255.254"], "warning"),
        (["192.0.2.9"], "ok"),
    ):
        zone["1.2.0.192.list.example", "A"] = answer
        assert verdicts(check_dns.records(listed, zone.ask))["blocklist"] == verdict


def test_no_answer_is_one_warning(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_dns, "_TIMEOUT_S", 0.2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        server = f"127.0.0.1:{closed.getsockname()[1]}"
    findings = list(check_dns.records(config, check_dns.lookup([server])))
    assert [finding.verdict for finding in findings] == ["warning"]


def test_what_other_servers_refuse(tool: Any, config: Config) -> None:
    at = NOW.timestamp()
    assert list(check_queue.findings(config, at)) == [], "there is no database yet"
    rows = Rows(str(Path(config.state) / "mailsrv.db"))
    rows.connection.execute("BEGIN")
    notices.accept(rows.connection, at - 3600, [Notice("google-no-ptr", times=12), Notice("greylist")])
    notices.accept(rows.connection, at - 8 * 86400, [Notice("yahoo-slow")])
    rows.connection.execute("COMMIT")
    *_, finding = check_queue.findings(config, at)
    assert (finding.verdict, finding.subject) == ("warning", "refused elsewhere")
    assert finding.text.startswith("google-no-ptr, 12 times, the last one on ")
    assert finding.remedy.startswith("Have whoever gave you the address")
    ran = tool("check", "--no-dns")
    assert ran.status == 0
    assert "refused elsewhere: google-no-ptr" in ran.out
    rows.connection.close()
