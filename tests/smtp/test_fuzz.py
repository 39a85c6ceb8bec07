"""Whole sessions against the factory: whatever a client sends, cut anywhere, with or without an end.

``World.end`` is the judge: no connection, memory, file, timer or count is left over, and nothing went wrong in the log.
"""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.smtp.world import World, plain

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
