"""Clients that send without pause and remember what they were promised."""

from __future__ import annotations

import itertools
import smtplib
import threading
import time

from tests.peers.samples import small

_CLIENTS = 8


class Senders:
    """Eight clients, each with a message to every recipient over and over, until ``stop``.

    ``promised``: names of the messages whose DATA was answered 250.  ``refused``: replies that were errors.
    ``unanswered``: names of messages whose final dot was sent and never answered.  A lost connection is opened again.
    """

    def __init__(self, port: int, recipients: list[str], name: str) -> None:
        self.promised: list[str] = []
        self.refused: list[tuple[int, bytes]] = []
        self.unanswered: list[str] = []
        self._port, self._recipients = port, recipients
        self._numbers = (f"{name}.{number}" for number in itertools.count())
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(_CLIENTS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a client waits for an answer for ever"

    def wait_for(self, promised: int) -> None:
        """Return when that many messages were promised; AssertionError after a minute."""
        deadline = time.monotonic() + 60
        while len(self.promised) < promised:
            assert time.monotonic() < deadline, f"{len(self.promised)} of {promised} messages accepted in a minute"
            time.sleep(0.01)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with smtplib.SMTP("127.0.0.1", self._port, "client.example.net", timeout=20) as client:
                    self._send(client)
            except (OSError, smtplib.SMTPException) as error:
                if isinstance(error, smtplib.SMTPResponseException) and error.smtp_code > 0:
                    self.refused.append((error.smtp_code, _octets(error.smtp_error)))
                self._stopping.wait(0.05)

    def _send(self, client: smtplib.SMTP) -> None:
        client.ehlo()
        while not self._stopping.is_set():
            with self._lock:
                name = next(self._numbers)
            client.mail("sender@example.net")
            for recipient in self._recipients:
                code, text = client.rcpt(recipient)
                if code != 250:
                    raise smtplib.SMTPResponseException(code, text)
            try:
                code, text = client.data(small(name))
            except smtplib.SMTPServerDisconnected:
                self.unanswered.append(name)
                raise
            if code != 250:
                raise smtplib.SMTPResponseException(code, text)
            self.promised.append(name)


def _octets(text: bytes | str) -> bytes:
    return text if isinstance(text, bytes) else text.encode()
