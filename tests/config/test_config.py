import re
from ipaddress import ip_network
from pathlib import Path

import pytest

from mailsrv.cli.template import configuration
from mailsrv.config import Config, ConfigError, KeyPair, Route, duration, load, parse, size

LEAST = 'hostname = "mx.example.org"\ndomains = ["example.org"]\n'


def read(text: str) -> Config:
    return parse(LEAST + text, "/etc/mailsrv/mailsrv.toml")


def complaint(text: str, least: str = LEAST) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(least + text, "/etc/mailsrv/mailsrv.toml")
    message = str(caught.value)
    assert message.startswith("/etc/mailsrv/mailsrv.toml:")
    assert "\n" not in message
    return message.removeprefix("/etc/mailsrv/mailsrv.toml:")


def test_two_keys_are_enough() -> None:
    config = read("")
    assert config.hostname == "mx.example.org"
    assert config.domains == ("example.org",)
    assert config.state == "/var/lib/mailsrv"
    assert config.accounts == "/etc/mailsrv/accounts"
    assert config.aliases == "/etc/mailsrv/aliases"
    assert config.trusted_networks == ()
    assert config.listen.smtp == ("tcp:25", "tcp6:25")
    assert config.listen.submission == ("tcp:587", "tcp6:587")
    assert config.listen.submissions == ("tcp:465", "tcp6:465")
    assert config.listen.pop3 == ("tcp:110", "tcp6:110")
    assert config.listen.pop3s == ("tcp:995", "tcp6:995")
    assert config.listen.lmtp == ()
    assert config.listen.proxies == ()
    assert config.tls.certificate == "/etc/mailsrv/tls/cert.pem"
    assert config.tls.key == "/etc/mailsrv/tls/key.pem"
    assert config.tls.names == {}
    assert config.tls.authorities == ""
    assert config.auth.cleartext == "never"
    assert (config.limits.over_cap, config.limits.first_time_recipients) == ("refuse", 30)
    assert config.submission.mend_lines is False
    assert config.dns.servers == ()
    assert config.checks.dns is True
    assert config.checks.blocklists == ()
    assert config.checks.observe == ()
    assert config.checks.first_contact == 0.0
    assert config.limits.message_size == 50 * 1024 * 1024
    assert config.limits.recipients == 1000
    assert config.limits.connections == 10000
    assert config.limits.connections_per_client == 50
    assert config.limits.penalties is True
    assert config.limits.quota_warning == 0.9
    assert config.outbound.routes == {}
    assert config.outbound.connect_timeout == 30
    assert config.queue.retry == (60, 300, 900, 1800, 3600, 7200, 14400)
    assert config.queue.warn == 4 * 3600
    assert config.queue.expire == 5 * 86400


def test_everything_can_be_set() -> None:
    config = parse(
        """
hostname = "MX.bücher.example"
domains = ["Bücher.example", "xn--bcher-kva.example", "example.net"]
state = "state"
accounts = "/srv/accounts"
aliases = "../aliases"
trusted_networks = ["192.168.7.0/24", "2001:db8::/32", "192.0.2.1"]
[listen]
smtp = ["tcp:0:interface=127.0.0.1", "tcp6:2525:interface=\\\\:\\\\:1", "unix:/run/m:mode=660", "systemd:index=0"]
pop3 = []
lmtp = ["unix:/run/mailsrv/lmtp:mode=660", "unix:address=/run/a\\\\:b", "tcp:24:interface=127.0.0.1"]
proxies = ["10.0.0.1", "2001:db8:1::/64"]
[tls]
certificate = "c.pem"
key = "/k.pem"
names = { "*.Example.NET" = { certificate = "n.pem", key = "/n-key.pem" } }
authorities = "more.pem"
[auth]
cleartext = "loopback"
[dns]
servers = ["127.0.0.1:5353", "127.0.0.1", "::1", "[::1]:5353"]
[checks]
dns = false
blocklists = ["zen.example"]
observe = ["sanity", "blocklists"]
first_contact = "5m"
[limits]
message_size = 4096
recipients = 1
connections = 20
connections_per_client = 2
penalties = false
quota_warning = ""
[outbound]
routes = { "Example.NET" = "smtp://192.0.2.1:2525", "*" = "smtps://user:password@smart.example" }
connect_timeout = 2.5
[queue]
retry = [5, "1m"]
warn = 10
expire = "20s"
""",
        "/home/me/conf/mailsrv.toml",
    )
    assert config.hostname == "mx.xn--bcher-kva.example"
    assert config.domains == ("xn--bcher-kva.example", "example.net")
    assert config.state == "/home/me/conf/state"
    assert config.accounts == "/srv/accounts"
    assert config.aliases == "/home/me/aliases"
    assert config.trusted_networks == (
        ip_network("192.168.7.0/24"),
        ip_network("2001:db8::/32"),
        ip_network("192.0.2.1/32"),
    )
    assert config.listen.smtp[1] == "tcp6:2525:interface=\\:\\:1"
    assert config.listen.pop3 == ()
    assert config.listen.lmtp[1:] == ("unix:address=/run/a\\:b", "tcp:24:interface=127.0.0.1")
    assert config.listen.proxies == (ip_network("10.0.0.1/32"), ip_network("2001:db8:1::/64"))
    assert config.tls.certificate == "/home/me/conf/c.pem"
    assert config.tls.key == "/k.pem"
    assert config.tls.names == {"*.example.net": KeyPair("/home/me/conf/n.pem", "/n-key.pem")}
    assert config.tls.authorities == "/home/me/conf/more.pem"
    assert config.auth.cleartext == "loopback"
    assert config.dns.servers == ("127.0.0.1:5353", "127.0.0.1:53", "[::1]:53", "[::1]:5353")
    assert config.checks.dns is False
    assert config.checks.blocklists == ("zen.example",)
    assert config.checks.observe == ("sanity", "blocklists")
    assert config.checks.first_contact == 300.0
    assert config.limits.message_size == 4096
    assert config.limits.penalties is False
    assert config.limits.quota_warning == 0.0
    assert config.outbound.routes == {
        "example.net": Route("smtp", "192.0.2.1", 2525),
        "*": Route("smtps", "smart.example", 465, "user", "password"),
    }
    assert config.outbound.connect_timeout == 2.5
    assert config.queue.retry == (5, 60)
    assert config.queue.warn == 10
    assert config.queue.expire == 20


def test_a_configuration_never_changes_and_compares_by_value() -> None:
    config = read("")
    assert config == read("")
    assert config != read("[checks]\ndns = false\n")
    with pytest.raises(AttributeError):
        config.hostname = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hostnam = 1\n", '3: hostnam: unknown key (did you mean "hostname"?).'),
        ("\n[limits]\nrecipient = 1\n", '5: limits.recipient: unknown key (did you mean "recipients"?).'),
        ("message_size = 1\n", '3: message_size: unknown key (did you mean "message_size" in [limits]?).'),
        ("[limit]\nx = 1\n", '3: limit: unknown key (did you mean "limits"?).'),
        ("limits.penaltys = true\n", '3: limits.penaltys: unknown key (did you mean "penalties"?).'),
        ("queue = { warn = '1h', expires = '1d' }\n", '3: queue.expires: unknown key (did you mean "expire"?).'),
        ("listen = 1\n", "3: listen: expected a table [listen]."),
        ("state = 1\n", "3: state: expected a string."),
        ('state = ""\n', "3: state: must not be empty."),
        ("[limits]\npenalties = 1\n", "4: limits.penalties: expected true or false."),
        ('[limits]\nrecipients = "5"\n', "4: limits.recipients: expected a whole number."),
        ("[limits]\nrecipients = true\n", "4: limits.recipients: expected a whole number."),
        ("[limits]\nrecipients = 0\n", "4: limits.recipients: 0 is not between 1 and 1000000."),
        ('[limits]\nmessage_size = "50 Mb/s"\n', '4: limits.message_size: "50 Mb/s" is not a size'),
        ("[limits]\nmessage_size = 0\n", "4: limits.message_size: 0 is not between"),
        ("[limits]\nmessage_size = -1\n", "4: limits.message_size: -1 is not between"),
        ('[queue]\nretry = ["1m",\n"2x"]\n', '5: queue.retry: "2x" is not a duration'),
        ("[queue]\nretry = []\n", "4: queue.retry: must not be empty."),
        ('[queue]\nretry = "1m"\n', "4: queue.retry: expected an array of durations"),
        ("[queue]\nretry = [1, true]\n", "4: queue.retry: expected an array of durations"),
        ("[queue]\nwarn = inf\n", "4: queue.warn: inf is not more than 0 and at most 3650 days."),
        ("[queue]\nwarn = nan\n", '4: queue.warn: "nan" is not a duration'),
        ("[queue]\nwarn = 0\n", "4: queue.warn: 0 is not more than 0 and at most"),
        ("[queue]\nwarn = 99999999999999999999\n", "4: queue.warn: 99999999999999999999 is not more than 0"),
        ('trusted_networks = ["192.168.7.0/24", "x"]\n', '3: trusted_networks: "x" is not a network'),
        ('trusted_networks = ["192.168.7.1/24"]\n', 'write "192.168.7.0/24" or the address alone.'),
        ('trusted_networks = "10.0.0.0/8"\n', "3: trusted_networks: expected an array of strings."),
        ('[listen]\nsmtp = ["25"]\n', '4: listen.smtp: "25" is not an endpoint'),
        ('[listen]\nsmtp = ["tcp:65536"]\n', '4: listen.smtp: "65536" is not a port number.'),
        ('[listen]\nsmtp = ["tcp6:"]\n', '4: listen.smtp: "" is not a port number.'),
        ('[listen]\nsmtp = ["tcp:٢٥"]\n', "4: listen.smtp:"),
        ('[listen]\nsmtp = ["tpc:25"]\n', '(did you mean "tcp:"?).'),
        (
            '[listen]\nlmtp = ["unix:run/lmtp"]\n',
            '4: listen.lmtp: "unix:run/lmtp" does not name the socket by its whole path',
        ),
        ('[listen]\nlmtp = ["tcp:24"]\n', '4: listen.lmtp: "tcp:24" could be reached from elsewhere; name a socket, '),
        ('[listen]\nlmtp = ["tcp:24:interface=0.0.0.0"]\n', "4: listen.lmtp: "),
        ('[listen]\nlmtp = ["tcp6:24:interface=\\\\:\\\\:"]\n', "could be reached from elsewhere"),
        ('[listen]\nlmtp = ["systemd:domain=INET:index=0"]\n', "could be reached from elsewhere"),
        ('[listen]\nlmtp = ["lmtp"]\n', '4: listen.lmtp: "lmtp" is not an endpoint'),
        ('[listen]\nproxies = ["10.0.0.1/8"]\n', '4: listen.proxies: "10.0.0.1/8" is an address within a network'),
        ('[listen]\nproxies = ["0.0.0.0/0"]\n', '4: listen.proxies: "0.0.0.0/0" is everybody'),
        ('[listen]\nproxies = ["::/0"]\n', '4: listen.proxies: "::/0" is everybody'),
        (
            '[outbound.tls]\n"a.net" = "verify"\n',
            '4: outbound.tls."a.net": "verify" is none of opportunistic, required, verified (did you mean',
        ),
        ('[outbound.tls]\n"a net" = "required"\n', '4: outbound.tls."a net": '),
        ('[outbound.tls]\n"a.net" = true\n', "outbound.tls: expected a table of strings."),
        (
            '[outbound.tls]\n"a.net" = "required"\n"A.NET" = "verified"\n',
            '5: outbound.tls."A.NET": a second entry for "a.net".',
        ),
        ('[tls]\nnames = ["a.net"]\n', "4: tls.names: expected a table of tables with certificate and key."),
        ('[tls]\nnames = { "a.net" = "a.pem" }\n', '4: tls.names."a.net": expected a table [tls.names."a.net"].'),
        ('[tls.names."a.net"]\nkey = "k"\n', '3: tls.names."a.net".certificate: missing, and it has no default.'),
        ('[tls.names."a.net"]\nkey = "k"\ncert = "c"\n', 'cert: unknown key (did you mean "certificate"?).'),
        ('[tls.names]\n"*" = { key = "k", certificate = "c" }\n', '4: tls.names."*": "*" is not a domain'),
        ('[tls.names]\n"a.*.net" = { key = "k", certificate = "c" }\n', '4: tls.names."a.*.net": '),
        (
            '[tls.names]\n"a.net" = { key = "k", certificate = "c" }\n"A.net" = { key = "k", certificate = "c" }\n',
            '5: tls.names."A.net": a second entry for "a.net".',
        ),
        ('[limits]\nover_cap = "drop"\n', '4: limits.over_cap: "drop" is neither "refuse" nor "hold".'),
        ("[limits]\nfirst_time_recipients = -1\n", "4: limits.first_time_recipients: -1 is not between 0 and 1000000."),
        ('[auth]\ncleartext = "always"\n', '4: auth.cleartext: "always" is neither "never" nor "loopback".'),
        ('[dns]\nservers = ["ns.example"]\n', '4: dns.servers: "ns.example" is not an address'),
        ('[dns]\nservers = ["127.0.0.1:0"]\n', '4: dns.servers: "127.0.0.1:0" is not an address'),
        ('[checks]\nblocklists = ["a b"]\n', '4: checks.blocklists: "a b" is not a domain'),
        (
            '[checks]\nobserve = ["sanety"]\n',
            '4: checks.observe: "sanety" is no check (did you mean "sanity"?).',
        ),
        ('[checks]\nobserve = ["spf", "blocklist"]\n', '4: checks.observe: "spf" is no check (did you mean "'),
        ('[limits]\nquota_warning = "most"\n', '4: limits.quota_warning: "most" is not a share such as "90%".'),
        ('[limits]\nquota_warning = "101%"\n', '4: limits.quota_warning: "101%" is not a share such as "90%".'),
        ('[limits]\nquota_warning = "0%"\n', '4: limits.quota_warning: "0%" is not a share such as "90%".'),
        (
            "[limits]\nquota_warning = 0.9\n",
            '4: limits.quota_warning: expected a share such as "90%", or "" for never.',
        ),
        ('[checks]\nfirst_contact = "soon"\n', '4: checks.first_contact: "soon" is not a duration'),
        ("[checks]\nfirst_contact = -1\n", "4: checks.first_contact: -1 is not more than 0 and at most 3650 days."),
        ('[outbound]\nroutes = { "x y" = "smtp://a" }\n', '4: outbound.routes."x y": "x y" is not a domain'),
        ('[outbound.routes]\n\n"x.net" = "http://a"\n', '5: outbound.routes."x.net": a route begins with'),
        ('[outbound.routes]\n"x.net" = "smtp://a"\n"X.net" = "smtp://b"\n', 'a second entry for "x.net".'),
        ('[tls]\ncertificate = "a\\u0000b"\n', "4: tls.certificate: a path holds no control characters."),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, message: str) -> None:
    assert message in complaint(text)


def test_the_first_of_several_is_reported() -> None:
    assert complaint('[queue]\nwarn = "x"\n[limits]\nfoo = 1\nrecipients = 0\n').startswith("4: queue.warn: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('domains = ["example.org"]\n', "1: hostname: missing, and it has no default."),
        ('hostname = "mx.example.org"\n', "1: domains: missing, and it has no default."),
        ('hostname = "mx.example.org"\ndomain = ["x.org"]\n', '2: domain: unknown key (did you mean "domains"?).'),
        ('hostname = "mx.example.org"\ndomains = []\n', "2: domains: must not be empty."),
        ('hostname = "192.0.2.1"\ndomains = ["example.org"]\n', "1: hostname: "),
        ('hostname = "[192.0.2.1]"\ndomains = ["example.org"]\n', "1: hostname: "),
        ('hostname = "mx.example.org"\ndomains = ["example.org."]\n', "2: domains: "),
    ],
)
def test_host_name_and_domains_have_to_be_there(text: str, message: str) -> None:
    assert complaint(text, least="").startswith(message)


@pytest.mark.parametrize(
    ("text", "line"), [("a = 1\na = 2\n", 4), ("\n\nx =\n", 5), ("x = [1,\n", 3), ("[a\n", 3), ('x = "\n', 3)]
)
def test_a_syntax_error_names_its_line(text: str, line: int) -> None:
    assert complaint(text).startswith(f"{line}: not TOML: ")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(str(tmp_path / "nothing.toml"))
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b"# one\n# M\xfcller\n")
    with pytest.raises(ConfigError, match=r"latin\.toml:2: not UTF-8"):
        load(str(latin))


def test_relative_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "m.toml").write_text(LEAST + 'state = "s"\n')
    monkeypatch.chdir(tmp_path)
    assert load("a/m.toml").state == str(tmp_path / "a" / "s")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("4h", 14400), ("5d", 432000), ("1.5 h", 5400), ("7", 7)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "5 w", "5m3s", "-5s", "1_0s", "٥s", "1e3", "inf", "nan", "5s\n"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        duration(text)


@pytest.mark.parametrize(
    ("text", "octets"),
    [("50 MiB", 52428800), ("10 MB", 10_000_000), ("4096", 4096), ("1KiB", 1024), ("2 gib", 2**31), ("1.5 kB", 1500)],
)
def test_sizes(text: str, octets: int) -> None:
    assert size(text) == octets


@pytest.mark.parametrize("text", ["", "MiB", "5 m", "0", "-1", "1_000", "999999 GiB", "0.5"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        size(text)


@pytest.mark.parametrize(
    ("text", "route"),
    [
        ("smtp://192.0.2.1:2525", Route("smtp", "192.0.2.1", 2525)),
        ("smtp://relay.example", Route("smtp", "relay.example", 25)),
        ("smtps://[2001:db8::1]", Route("smtps", "2001:db8::1", 465)),
        ("smtp://[::1]:25", Route("smtp", "::1", 25)),
        ("smtps://al@x.org:p@ss:w%20d@Smart.example:466", Route("smtps", "smart.example", 466, "al@x.org", "p@ss:w d")),
    ],
)
def test_routes(text: str, route: Route) -> None:
    assert Route.parse(text) == route


@pytest.mark.parametrize(
    "text",
    [
        *("", "relay.example", "smtp:relay.example", "lmtp://x", "SMTP://x", "smtp://", "smtp://x:", "smtp://x:0"),
        *("smtp://x:99999", "smtp://x/", "smtp://u@x", "smtp://:p@x", "smtp://u:@x", "smtp://[::1", "smtp://[x]"),
        *("smtp://u:p%0d@x", "smtp://u:%ff@x", "smtp://[fe80::1%eth0]"),
    ],
)
def test_what_is_no_route(text: str) -> None:
    with pytest.raises(ValueError):
        Route.parse(text)


def test_a_password_of_a_route_is_never_shown() -> None:
    config = read('[outbound]\nroutes = { "*" = "smtp://user:geheim@smart.example" }\n')
    assert "geheim" not in repr(config)
    assert "geheim" not in complaint('[outbound]\nroutes = { "*" = "smtp://user:geheim@smart..example" }\n')


def test_the_example_is_what_init_writes() -> None:
    example = Path(__file__).parents[2] / "etc" / "mailsrv.toml"
    assert example.read_text() == configuration("example.org", "mx.example.org", "/var/lib/mailsrv")
    assert load(str(example)) == parse(LEAST, str(example))


def test_the_example_shows_every_key_with_its_true_default() -> None:
    text = configuration("example.org", "mx.example.org", "/var/lib/mailsrv")
    shown = re.sub(r"(?m)^#(?=[a-z_0-9]+ = )", "", text)
    config = parse(shown, "/etc/mailsrv/mailsrv.toml")
    assert config == read("")
    written = set(re.findall(r"(?m)^([a-z_0-9]+) = ", shown))
    tables = [config, config.listen, config.tls, config.auth, config.dns, config.checks, config.limits]
    keys = {key for table in (*tables, config.outbound, config.queue) for key in table.__struct_fields__}
    assert keys - set(re.findall(r"(?m)^\[(.*)\]", shown)) <= written


def test_tls_that_is_demanded() -> None:
    text = '[outbound.tls]\n"*" = "required"\n"Gr\u00fcn.example" = "verified"\n"[2001:DB8::1]" = "opportunistic"\n'
    config = parse('hostname = "a.example"\ndomains = ["a.example"]\n' + text, "/x")
    assert config.outbound.tls == {"*": "required", "xn--grn-ioa.example": "verified", "2001:db8::1": "opportunistic"}
