"""Whole sessions against the factory: whatever a client sends, cut anywhere, with or without an end.

``World.end`` is the judge: no connection, memory, file, timer or count is left over, and nothing went wrong in the log.
"""

from __future__ import annotations

import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.ssl import CertificateOptions

from mailsrv.store import queue_id
from mailsrv.store.accounts import scram_keys
from mailsrv.store.accounts.accounts import parse_directory
from tests.smtp.test_lmtp import LMTP
from tests.smtp.test_proxied import PROXIED, PROXIED_TLS, PROXY, ProxiedWorld
from tests.smtp.world import CLIENT, PASSWORD, Client, World, plain, stored
from tests.worlds.scram import ScramClient

LINES = [
    *("EHLO client.example.net", "HELO c", "LHLO c", "NOOP", "RSET", "HELP", "VRFY alice", "EXPN all", "QUIT", "DATA"),
    *("STARTTLS", "AUTH PLAIN", "AUTH LOGIN", "AUTH SCRAM-SHA-256", "*", "=", "AAAA", plain("alice@example.org"), ""),
    *("MAIL FROM:<>", "MAIL FROM:<dave@example.net>", "MAIL FROM:<alice@example.org> SIZE=10", "MAIL FROM:<a"),
    *("RCPT TO:<alice@example.org>", "RCPT TO:<nobody@example.org>", "RCPT TO:<carol@example.net> NOTIFY=NEVER"),
    *(
        "RCPT TO:<postmaster>",
        "RCPT TO:<@a,@b:alice@example.org>",
        "BDAT 4",
        "BDAT 0 LAST",
        "BDAT 99999999999999999999",
    ),
    *("From: alice@example.org", "Bcc: x", ".", "..", ". ", "x" * 600),
]
piece = st.one_of(
    st.sampled_from(LINES).map(lambda line: line.encode() + b"\r\n"),
    st.sampled_from([b"\r\n.\r\n", b"\n.\n", b"\r.\r", b"\r\n", b"\n", b"\r", b"\0", b"abcd"]),
    st.binary(max_size=40),
)
end = st.sampled_from(["end_sending", "vanish", "stop_reading"])


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from([25, 587]),
            st.lists(piece, max_size=25),
            st.lists(st.integers(1, 200), max_size=6),
            st.booleans(),
            end,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_no_session_leaves_anything_behind(
    sessions: list[tuple[int, list[bytes], list[int], bool, str]],
) -> None:
    world = World()
    for port, pieces, cuts, greeted, leave in sessions:
        client = world.greeted(port) if greeted else world.connect(port)
        octets = b"".join(pieces)
        for cut in cuts:
            if not client.gone:
                client.send(octets[:cut])
            octets = octets[cut:]
        if not client.gone:
            client.send(octets)
        for line in client.received.split(b"\r\n")[:-1]:
            assert line[:3].isdigit() and line[3:4] in (b" ", b"-"), line
            assert line.isascii() and line.decode().isprintable()
        if not client.gone:
            getattr(client, leave)()
    world.end()


# Sessions that get further: under TLS, logged in, by LMTP, behind a proxy.

EVERY_KIND = {
    "smtp": 25,
    "submission": 587,
    "submissions": 465,
    "lmtp": LMTP,
    "proxied": PROXIED,
    "proxied TLS": PROXIED_TLS,
}
LETTER = "From: alice@example.org\r\nSubject: x\r\n\r\nhello\r\n"
V2 = b"\r\n\r\n\x00\r\nQUIT\n"
HEADERS = [
    b"PROXY TCP4 198.51.100.7 192.0.2.1 40000 25\r\n",
    b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 25\r\n",
    b"PROXY UNKNOWN and whatever else\r\n",
    V2 + b"\x21\x11\x00\x0c" + bytes((198, 51, 100, 7, 192, 0, 2, 1, 1, 2, 0, 25)),
    V2 + b"\x21\x11\x00\x0f" + bytes((198, 51, 100, 7, 192, 0, 2, 1, 1, 2, 0, 25, 4, 0, 0)),
    V2 + b"\x20\x00\x00\x00",
    V2 + b"\x21\x00\x00\x00",
    # Refused.
    V2 + b"\x21\x31\x00\xd8" + bytes(216),
    V2 + b"\x21\x11\x00\x04" + bytes(4),
    V2 + b"\x21\x11\xff\xff",
    b"PROXY TCP4 198.51.100.7 192.0.2.1 040000 25\r\n",
    b"PROXY TCP4 2001:db8::7 192.0.2.1 40000 25\r\n",
    b"PROXY TCP4 " + b"x" * 200 + b"\r\n",
    b"EHLO client.example.net\r\n",
    b"",
]
KEYS = scram_keys.make(PASSWORD, stored(PASSWORD), lambda octets: bytes(octets))
STEPS = [
    *("<TLS>", "<PLAIN>", "<SCRAM>", "<wrong SCRAM>", "<transaction>", "<letter>", "<chunks>"),
    *("EHLO client.example.net", "LHLO client.example.net", "STARTTLS", "RSET", "QUIT", "*", "DATA", ".", "NOOP"),
    *("AUTH PLAIN", "AUTH LOGIN", "AUTH SCRAM-SHA-256", "AUTH SCRAM-SHA-256 =", "AUTH SCRAM-SHA-256-PLUS", "", "="),
    *("MAIL FROM:<alice@example.org>", "MAIL FROM:<bob@example.org> HOLDFOR=60", "MAIL FROM:<dave@example.net>"),
    *("RCPT TO:<alice@example.org>", "RCPT TO:<carol@example.net>", "RCPT TO:<nobody@example.org>"),
    *("BDAT 4", "BDAT 0", "BDAT 7 LAST", "BDAT x", "From: eve@example.net", "abcd", "a\rb", plain("alice@example.org")),
]


class EveryWorld(ProxiedWorld):
    """All kinds of ports; alice has SCRAM keys."""

    def __init__(self) -> None:
        super().__init__("limits.penalties = false")
        self.factories["lmtp"] = self._listen(LMTP, "lmtp")
        accounts = f"alice@example.org:{stored(PASSWORD)}::::::{scram_keys.FIELD}={KEYS}\nbob@example.org:!\n"
        self.settings.directory = parse_directory(self.settings.config, accounts, "")


def take(client: Client, step: str) -> None:
    """A line, or what the words in angle brackets stand for."""
    match step:
        case "<TLS>":
            if client.say("STARTTLS").startswith("220 "):
                client.wire.startTLS(CertificateOptions())
                client.send(b"EHLO client.example.net\r\n")
        case "<PLAIN>":
            client.say(plain("alice@example.org"))
        case "<SCRAM>" | "<wrong SCRAM>":
            scram = ScramClient("alice@example.org", "wrong" if "wrong" in step else PASSWORD)
            told = client.say(f"AUTH SCRAM-SHA-256 {scram.first()}")
            if told.startswith("334 ") and not client.gone:
                client.say(scram.final(told.splitlines()[0][4:]), "")
        case "<transaction>":
            client.say("MAIL FROM:<alice@example.org>", "RCPT TO:<bob@example.org>", "RCPT TO:<carol@example.net>")
        case "<letter>":
            client.say("DATA", f"{LETTER}.")
        case "<chunks>":
            client.send(f"BDAT {len(LETTER)}\r\n{LETTER}BDAT 0 LAST\r\n".encode())
        case line:
            client.send(line.encode() + b"\r\n")


def test_the_steps_lead_where_they_should() -> None:
    """Or what follows would look at nothing."""
    world = EveryWorld()
    for login in ("<PLAIN>", "<SCRAM>"):
        client = world.greeted(587)
        for step in ("<TLS>", login, "<transaction>", "<letter>", "<transaction>", "<chunks>"):
            take(client, step)
        assert client.received.count(b"Accepted as ") == 2
    client = world.greeted(587)
    for step in ("<TLS>", "<wrong SCRAM>"):
        take(client, step)
    assert b"\r\n535 5.7.8 Authentication failed\r\n" in client.received
    assert len(world.messages()) == 4
    world.end()


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(EVERY_KIND)),
            st.sampled_from(HEADERS) | st.binary(max_size=30),
            st.integers(0, 60),
            st.lists(st.sampled_from(STEPS), max_size=20),
            end,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_no_session_gets_what_it_may_not(sessions: list[tuple[str, bytes, int, list[str], str]]) -> None:
    """Nothing is relayed for who has not logged in, nobody sends as somebody else, and 250 means stored."""
    world = EveryWorld()
    for kind, header, cut, steps, leave in sessions:
        host = PROXY if kind.startswith("proxied") else "127.0.0.1" if kind == "lmtp" else CLIENT
        client = world.connect(EVERY_KIND[kind], host, tls=kind == "submissions")
        if kind.startswith("proxied"):
            assert client.received == b""
            for part in (header[:cut], header[cut:]):
                if not client.gone:
                    client.send(part)
            if kind == "proxied TLS" and not client.gone:
                client.wire.startTLS(CertificateOptions())
                world.run()
        for step in steps:
            if not client.gone:
                take(client, step)
        accepted = set(re.findall(rb"Accepted as ([0-9A-Z]+)", client.received))
        assert accepted <= {queue_id.text(number).encode() for number in world.ask("SELECT id FROM message")}
        if not client.gone:
            getattr(client, leave)()
    foreign = "SELECT account FROM message JOIN recipient ON message = id WHERE mailbox = ''"
    assert set(world.ask(foreign)) <= {"alice@example.org"}
    assert set(world.ask("SELECT DISTINCT sender FROM message WHERE account <> ''")) <= {"alice@example.org", ""}
    world.end()
