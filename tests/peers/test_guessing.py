"""Guessing passwords from many places at once, and an owner who wants to send meanwhile."""

from __future__ import annotations

import base64
import contextlib
import smtplib
import socket
import time

from tests.peers.conftest import StartMailsrv
from tests.peers.server import ALICE, ALICE_PASSWORD, Mailsrv

HOME = "127.0.0.5"
STRANGERS = 250  # more than the places for passwords that wait
GUESSES = 3


def log_in(server: Mailsrv) -> float:
    """How long the owner's login takes; smtplib's error when it fails."""
    port = server.port["submission"]
    with smtplib.SMTP("127.0.0.1", port, timeout=20, source_address=(HOME, 0)) as client:
        client.ehlo()
        begun = time.monotonic()
        client.login(ALICE, ALICE_PASSWORD)
        return time.monotonic() - begun


def guess(server: Mailsrv, n: int) -> socket.socket:
    """A stranger who has sent its guesses all at once."""
    port = server.port["submission"]
    stranger = socket.create_connection(("127.0.0.1", port), 20, source_address=(f"127.1.{n // 250}.{n % 250 + 1}", 0))
    guesses = (base64.b64encode(f"\0{ALICE}\0{n} {guess}".encode()).decode() for guess in range(GUESSES))
    stranger.sendall(b"EHLO stranger.example\r\n" + "".join(f"AUTH PLAIN {guess}\r\n" for guess in guesses).encode())
    return stranger


def test_an_owner_logs_in_while_strangers_guess_from_everywhere(start_mailsrv: StartMailsrv) -> None:
    server = start_mailsrv({"auth.cleartext": "loopback"})
    log_in(server)
    # What was right is remembered for five minutes; after a restart only the place is.
    server.stop()
    server.start()
    with contextlib.ExitStack() as stack:
        strangers = [stack.enter_context(guess(server, n)) for n in range(STRANGERS)]
        assert log_in(server) < 2.0
        # There was something to compete with: most guesses still wait for an answer, or were turned away.
        answered = 0
        for stranger in strangers:
            stranger.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                answered += stranger.recv(4096).count(b"535 5.7.8 ")
        assert answered < STRANGERS * GUESSES / 2
