"""Mail that a real server has signed, as OpenDKIM sees it: submissions, reports, and a change of keys on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.peers import opendkim
from tests.peers.conftest import Outside, StartMailsrv
from tests.peers.mailbox import messages, submission
from tests.peers.programs import wait_until
from tests.peers.samples import SAMPLES, small, written_by
from tests.peers.server import ALICE, BOB, Mailsrv

BOTH = ["pass rsa-sha256", "pass ed25519-sha256"]


class Installation:
    """A server whose mail for others goes to ``outside``, and OpenDKIM behind it."""

    def __init__(self, server: Mailsrv, outside: Outside, program: str, folder: Path) -> None:
        self.server = server
        self.outside = outside
        self._program = program
        self._folder = folder

    def dkim(self, *arguments: str) -> str:
        done = self.server.tool("dkim", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def send(self, content: bytes) -> bytes:
        """The message as the next server got it."""
        before = len(self.outside)
        with submission(self.server) as client:
            client.sendmail(ALICE, ["carol@example.net"], written_by(ALICE, content), mail_options=["BODY=8BITMIME"])
        wait_until(lambda: len(self.outside) > before, 30, "the message")
        return self.outside[before].content

    def verdicts(self, message: bytes) -> list[str]:
        """What OpenDKIM says when exactly the records of ``mailsrv dns`` are published."""
        done = self.server.tool("dns", "--json")
        records = {one["name"]: one["value"] for one in json.loads(done.stdout) if "_domainkey" in one["name"]}
        found = opendkim.verdicts(self._program, self._folder, message, records)
        assert all(" example.org " in verdict for verdict in found)
        return [verdict.replace(" example.org", "") for verdict in found]

    def selectors(self) -> list[str]:
        """Those that sign a message now, the one by RSA first."""
        return [verdict.split()[2] for verdict in self.verdicts(self.send(small("which keys")))]


def without_selectors(verdicts: list[str]) -> list[str]:
    return [" ".join(verdict.split()[:2]) for verdict in verdicts]


@pytest.fixture
def installation(
    start_mailsrv: StartMailsrv, outside: Outside, need: Callable[[str], str], tmp_path: Path
) -> Installation:
    program = need("opendkim")
    server = start_mailsrv({"outbound.routes": {"*": f"smtp://127.0.0.1:{outside.port}"}})
    return Installation(server, outside, program, tmp_path)


def test_submissions_verify(installation: Installation) -> None:
    installation.dkim("rotate")
    wait_until(lambda: b"DKIM-Signature" in installation.send(small("first")), 1.5, "the first signature")
    for content in SAMPLES.values():
        message = installation.send(content)
        assert without_selectors(installation.verdicts(message)) == BOTH
    altered = installation.send(SAMPLES["short"]).replace(b"Hello", b"Hullo")
    assert [verdict.split()[0] for verdict in installation.verdicts(altered)] == ["fail", "fail"]
    added = installation.send(b"Bcc: x@example.net\r\nSubject: \t no  From \r\n\r\n\r\nhi \r\n\r\n")
    assert without_selectors(installation.verdicts(added)) == BOTH


def test_reports_verify(installation: Installation) -> None:
    installation.dkim("rotate")
    wait_until(lambda: b"DKIM-Signature" in installation.send(small("first")), 1.5, "the first signature")
    with submission(installation.server) as client:
        client.sendmail(ALICE, [BOB], written_by(ALICE, small("told")), rcpt_options=["NOTIFY=SUCCESS"])
    (stored,) = messages(installation.server, 1)
    assert b"multipart/report" in stored
    assert without_selectors(installation.verdicts(stored)) == BOTH


def test_a_change_of_keys_beside_the_running_server(installation: Installation) -> None:
    assert b"DKIM-Signature" not in installation.send(small("unsigned"))
    installation.dkim("rotate")
    wait_until(lambda: bool(installation.selectors()), 1.5, "the first keys")
    first = installation.selectors()
    before = installation.send(small("before"))
    installation.dkim("rotate")
    assert installation.selectors() == first
    installation.dkim("activate", "--unseen")
    wait_until(lambda: installation.selectors() != first, 1.5, "the next keys")
    assert installation.selectors() == [f"{selector}-2" for selector in first]
    # What is under way verifies all the same.
    assert without_selectors(installation.verdicts(before)) == BOTH
    assert "Traceback" not in installation.server.running.output()
