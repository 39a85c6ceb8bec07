"""Looking into a mailbox with Python's poplib, and sending with its smtplib."""

from __future__ import annotations

import poplib
import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from tests.peers.programs import wait_until
from tests.peers.server import ALICE, ALICE_PASSWORD, Mailsrv


def context(server: Mailsrv) -> ssl.SSLContext:
    """Trusts this server and nobody else."""
    return ssl.create_default_context(cafile=str(server.certificate))


@contextmanager
def pop3(server: Mailsrv, user: str = ALICE, password: str = ALICE_PASSWORD) -> Iterator[poplib.POP3]:
    """A session after login; QUIT at the end."""
    client = poplib.POP3_SSL("localhost", server.port["pop3s"], timeout=30, context=context(server))
    try:
        client.user(user)
        client.pass_(password)
        yield client
        client.quit()
    finally:
        client.close()


def count(server: Mailsrv, user: str = ALICE, password: str = ALICE_PASSWORD) -> int:
    with pop3(server, user, password) as client:
        return client.stat()[0]


def retrieve(client: poplib.POP3, number: int) -> bytes:
    """A message as it came, with CRLF; checks that its size was announced right."""
    _, lines, _ = client.retr(number)
    content = b"".join(line + b"\r\n" for line in lines)
    answer = cast(bytes, client.list(number))  # typeshed knows only the answer without an argument
    announced = int(answer.split()[2])
    assert announced == len(content), f"LIST says {announced}, RETR gave {len(content)} octets"
    return content


def messages(server: Mailsrv, expected: int, user: str = ALICE, password: str = ALICE_PASSWORD) -> list[bytes]:
    """All messages, once there are as many as ``expected``."""
    wait_until(lambda: count(server, user, password) >= expected, 30, f"{expected} messages for {user}", every_s=0.05)
    with pop3(server, user, password) as client:
        total = client.stat()[0]
        assert total == expected
        return [retrieve(client, number + 1) for number in range(total)]


def empty(server: Mailsrv, user: str, password: str) -> None:
    with pop3(server, user, password) as client:
        for number in range(client.stat()[0]):
            client.dele(number + 1)


def send_in(
    server: Mailsrv, content: bytes, recipient: str = ALICE, options: tuple[str, ...] = ("BODY=8BITMIME",)
) -> None:
    """As another server would: without logging in."""
    with smtplib.SMTP("127.0.0.1", server.port["smtp"], "client.example.net", timeout=60) as client:
        client.sendmail("sender@example.net", [recipient], content, mail_options=options)


@contextmanager
def submission(server: Mailsrv, user: str = ALICE, password: str = ALICE_PASSWORD) -> Iterator[smtplib.SMTP]:
    """A session on the submission port after STARTTLS and login."""
    with smtplib.SMTP("localhost", server.port["submission"], "laptop.example.org", timeout=60) as client:
        client.starttls(context=context(server))
        client.login(user, password)
        yield client
