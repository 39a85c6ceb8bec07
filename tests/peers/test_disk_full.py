"""A full disk: 452 before a message is accepted, nothing lost, reading goes on, and it passes when there is room."""

from __future__ import annotations

import smtplib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.peers.conftest import StartMailsrv, missing
from tests.peers.mailbox import messages, pop3, send_in
from tests.peers.programs import wait_until
from tests.peers.samples import check_received, small
from tests.peers.server import ALICE, ALICE_PASSWORD, Mailsrv

_LIMIT = 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path, need_root: Callable[[str], None]) -> Iterator[Path]:
    """A file system of 12 MiB."""
    need_root("mount a small disk")
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)], check=False, capture_output=True, text=True
    )
    if done.returncode:
        missing(f"no tmpfs can be mounted: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def full_soon(start_mailsrv: StartMailsrv, small_disk: Path) -> Mailsrv:
    return start_mailsrv({"state": str(small_disk / "state"), "limits.message_size": _LIMIT})


def sized(name: str, octets: int) -> bytes:
    line = b"0123456789abcdef" * 4 + b"\r\n"
    return small(name) + line * (octets // len(line))


def refused_with(server: Mailsrv, content: bytes) -> tuple[int, bytes] | None:
    """The error that this message meets; None when it is accepted."""
    try:
        send_in(server, content)
    except smtplib.SMTPRecipientsRefused as error:
        return next(iter(error.recipients.values()))
    except smtplib.SMTPResponseException as error:
        text = error.smtp_error
        return error.smtp_code, text if isinstance(text, bytes) else text.encode()
    return None


def test_452_and_nothing_lost(full_soon: Mailsrv) -> None:
    server = full_soon
    accepted: list[bytes] = []
    refusal = None
    for number in range(100):
        content = sized(f"fill{number}", 300_000)
        refusal = refused_with(server, content)
        if refusal:
            break
        accepted.append(content)
    assert refusal is not None, "the disk never became full"
    assert refusal[0] == 452, refusal
    assert refusal[1].startswith(b"4.3.1 "), refusal
    assert len(accepted) > 5

    found = messages(server, len(accepted))
    for received, sent in zip(sorted(found, key=len), sorted(accepted, key=len), strict=True):
        assert len(received) > len(sent)
    for sent in accepted:
        (received,) = [content for content in found if content.endswith(sent)]
        check_received(received, sent)

    with pop3(server) as client:  # reading goes on, and deleting makes room again
        for number in range(len(accepted)):
            client.dele(number + 1)
    wait_until(lambda: refused_with(server, small("again")) is None, 15, "room for mail", every_s=0.5)


def test_no_octet_left(full_soon: Mailsrv, small_disk: Path) -> None:
    """Somebody else fills the disk to the last octet while the server runs."""
    server = full_soon
    send_in(server, small("before"))
    messages(server, 1)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(b"x" * 65536)
    refusal = refused_with(server, small("during"))
    assert refusal is not None
    assert refusal[0] in (451, 452), refusal

    with pop3(server, ALICE, ALICE_PASSWORD) as client:
        assert client.stat()[0] == 1
        client.retr(1)

    filler.unlink()
    wait_until(lambda: refused_with(server, small("after")) is None, 15, "room for mail", every_s=0.5)
    messages(server, 2)
    assert server.running.process.poll() is None
