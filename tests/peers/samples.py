"""Messages that tell a careful server from a careless one.  All with CRLF line ends, as on the wire."""

from __future__ import annotations

import base64
import random

_HEADER = (
    b"From: sender@example.net\r\n"
    b"To: alice@example.org\r\n"
    b"Subject: %s\r\n"
    b"Date: Mon, 23 Nov 2026 12:00:00 +0000\r\n"
    b"Message-ID: <%s@example.net>\r\n"
)


def _plain(name: str, body: bytes, encoding: bytes = b"8bit") -> bytes:
    header = _HEADER % (name.encode(), name.replace(" ", ".").encode())
    mime = (
        b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: %s\r\n" % encoding
    )
    return header + mime + b"\r\n" + body


def _large() -> bytes:
    """20 MB with two binary attachments."""
    chance = random.Random(5321)
    parts = [b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=edge\r\n\r\n"]
    for number in range(2):
        binary = chance.randbytes(7_500_000)
        encoded = base64.encodebytes(binary).replace(b"\n", b"\r\n")
        parts.append(
            b"--edge\r\nContent-Type: application/octet-stream; name=part%d.bin\r\n"
            b"Content-Transfer-Encoding: base64\r\n\r\n" % number + encoded + b"\r\n"
        )
    parts.append(b"--edge--\r\n")
    return _HEADER % (b"large", b"large") + b"".join(parts)


def _dots() -> bytes:
    """Every line begins with dots, some are nothing else, and the last is a lone dot."""
    lines = [b"." * (1 + number % 7) + (b"" if number % 3 else b" text") for number in range(20_000)]
    return b"\r\n".join([*lines, b"..", b"."]) + b"\r\n"


def _utf8() -> bytes:
    text = "Grüße aus Köln, 北京, Ελλάδα, עברית, 😀\r\n"
    return (text * 500).encode()


def _long_lines() -> bytes:
    """998 octets a line (RFC 5321 4.5.3.1.6: 1000 with CRLF)."""
    return b"".join(bytes([65 + number % 26]) * 998 + b"\r\n" for number in range(2000))


SAMPLES = {
    "short": _plain("short", b"Hello.\r\n", b"7bit"),
    "long lines": _plain("long lines", _long_lines(), b"7bit"),
    "dots": _plain("dots", _dots(), b"7bit"),
    "utf8": _plain("utf8", _utf8()),
    "large": _large(),
}


def small(name: str) -> bytes:
    """A short message with its own Message-ID."""
    return _plain(name, b"Hello.\r\n", b"7bit")


def written_by(user: str, content: bytes) -> bytes:
    """The same message from one of our own users, who may only write under their own address."""
    return content.replace(b"From: sender@example.net\r\n", b"From: " + user.encode() + b"\r\n", 1)


def check_received(received: bytes, sent: bytes) -> None:
    """``received`` is ``sent`` to the octet, behind trace headers and nothing else."""
    assert received.endswith(sent), _difference(received, sent)
    names = {line.split(b":")[0] for line in received[: -len(sent)].split(b"\r\n") if line and line[:1] not in b" \t"}
    assert b"Received" in names
    assert names <= {b"Return-Path", b"Delivered-To", b"Received"}, names


def _difference(received: bytes, sent: bytes) -> str:
    """Said in short: a comparison of 20 MB by pytest takes minutes."""
    start = received.find(sent[:60])
    body = received[start:] if start >= 0 else received
    for at, (one, other) in enumerate(zip(body, sent, strict=False)):
        if one != other:
            return f"differs at octet {at}: {body[at - 20 : at + 20]!r}, sent {sent[at - 20 : at + 20]!r}"
    return f"{len(body)} octets for {len(sent)}; ends {body[-60:]!r}"
