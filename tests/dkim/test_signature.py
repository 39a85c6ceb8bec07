"""The DKIM-Signature field: what is signed, how it is written, and dkimpy's opinion of it."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.dkim import signature
from mailsrv.dkim.canonical import RelaxedBody, fields, relaxed_field
from mailsrv.store.keys import SigningKey
from tests.worlds import verifier
from tests.worlds.keys import pair, signing_key

AT = 1_790_000_000.9
HEADER = (
    b"From: Alice <alice@example.org>\r\nTo: bob@example.net\r\nSubject: hello\r\n"
    b"Date: Mon, 23 Nov 2026 18:04:00 +0000\r\nMessage-ID: <1@example.org>\r\n"
)

# RFC 8463 A.3, with the signature by Ed25519 alone.
FOOTBALL = (
    b"DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\n d=football.example.com; i=@football.example.com;\n"
    b" q=dns/txt; s=brisbane; t=1528637909; h=from : to :\n subject : date : message-id : from : subject : date;\n"
    b" bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\n"
    b" b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\n Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==\n"
    b"From: Joe SixPack <joe@football.example.com>\nTo: Suzie Q <suzie@shopping.example.net>\n"
    b"Subject: Is dinner ready?\nDate: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\n"
    b"Message-ID: <20030712040037.46341.5F8J@football.example.com>\n\n"
    b"Hi.\n\nWe lost the game.  Are you hungry yet?\n\nJoe.\n"
).replace(b"\n", b"\r\n")
BRISBANE = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="


def digest(body: bytes) -> bytes:
    made = hashlib.sha256()
    relaxed = RelaxedBody(made.update)
    relaxed.feed(body)
    relaxed.end()
    return made.digest()


def signed(header: bytes, body: bytes = b"hi\r\n", keys: Sequence[SigningKey] | None = None) -> bytes:
    """The fields for the front."""
    return signature.sign(pair() if keys is None else keys, header, digest(body), AT)


def verified(message: bytes, keys: Sequence[SigningKey] | None = None) -> list[bool]:
    return verifier.verified(message, pair() if keys is None else keys)


def tags(field: bytes) -> dict[str, str]:
    text = re.sub(rb"\s+", b"", field.partition(b":")[2]).decode()
    return dict(pair.split("=", 1) for pair in text.split(";"))


def split(front: bytes) -> list[bytes]:
    return [field.raw for field in fields(front)]


def sent(body: bytes) -> bytes:
    """A body as it goes over the wire, where the last line has an end."""
    return body if not body or body.endswith(b"\r\n") else body + b"\r\n"


def test_the_example_of_rfc_8463_is_understood() -> None:
    """The same functions that sign find the digest that another program has signed."""
    header, _, body = FOOTBALL.partition(b"\r\n\r\n")
    there = fields(header)
    own = tags(there[0].raw)
    assert base64.b64encode(digest(body)).decode() == own["bh"]
    hashed = hashlib.sha256()
    left = list(there)
    for name in own["h"].split(":"):
        found = next((field for field in reversed(left) if field.name == name.encode()), None)
        if found is not None:
            left.remove(found)
            hashed.update(relaxed_field(found.raw) + b"\r\n")
    hashed.update(relaxed_field(re.sub(rb"(?s)b=/.*", b"b=", there[0].raw)))
    key = ed25519.Ed25519PublicKey.from_public_bytes(base64.b64decode(BRISBANE))
    key.verify(base64.b64decode(own["b"]), hashed.digest())


def test_what_it_says() -> None:
    first, second = map(tags, split(signed(HEADER)))
    assert (first["a"], first["s"]) == ("rsa-sha256", "rsa")  # what all verifiers know comes first
    assert (second["a"], second["s"]) == ("ed25519-sha256", "ed25519")
    for field in (first, second):
        assert (field["v"], field["c"], field["d"], field["t"]) == ("1", "relaxed/relaxed", "example.org", "1790000000")
        assert set(field) == {"v", "a", "c", "d", "s", "t", "h", "bh", "b"}
    assert verified(signed(HEADER) + HEADER + b"\r\nhi\r\n") == [True, True]


def test_lines_are_short_and_folded_where_folding_is_allowed() -> None:
    front = signed(HEADER * 5)
    assert max(map(len, front.split(b"\r\n"))) <= 78
    assert front.endswith(b"=\r\n")
    assert front.isascii()


OVERSIGNED = [
    *("from", "subject", "date", "to", "cc", "message-id", "list-unsubscribe", "list-unsubscribe-post"),
    *("mime-version", "content-type", "content-transfer-encoding", "reply-to"),
]


@pytest.mark.parametrize("name", OVERSIGNED)
@pytest.mark.parametrize("times", [0, 1, 2])
def test_oversigned_fields_are_named_once_more_than_they_occur(name: str, times: int) -> None:
    header = b"Received: x\r\n" + f"{name.title()}: x\r\n".encode() * times
    front = signed(header)
    named = tags(split(front)[0])["h"].lower().split(":")
    assert named.count(name) == times + 1
    if name != "from":
        header += b"From: a@example.org\r\n"
        front = signed(header)
    if times == 1 or name != "from":
        assert verified(front + header + b"\r\nhi\r\n") == [True, True]
        for added in (front + f"{name}: y\r\n".encode() + header, front + header + f"{name}: y\r\n".encode()):
            assert verified(added + b"\r\nhi\r\n") == [False, False]


def test_what_others_may_add_is_signed_as_often_as_it_is_there() -> None:
    header = HEADER + b"List-Id: <a>\r\nReferences: <1>\r\n"
    front = signed(header)
    named = tags(split(front)[0])["h"].lower().split(":")
    assert (named.count("list-id"), named.count("references"), named.count("sender")) == (1, 1, 0)
    assert "received" not in named and "return-path" not in named
    rest = header + b"\r\nhi\r\n"
    assert verified(b"Received: from x\r\nSender: list@example.net\r\n" + front + rest) == [True, True]
    assert verified(front + rest.replace(b"<a>", b"<b>")) == [False, False]


def test_of_several_fields_the_last_ones_are_signed() -> None:
    header = HEADER + b"To: %d@example.net\r\n" * 30 % tuple(range(30))
    front = signed(header)
    assert tags(split(front)[0])["h"].split(":").count("To") == signature.MOST + 1
    assert verified(front + header + b"\r\nhi\r\n") == [True, True]
    assert verified(front + header.replace(b"29@", b"x@") + b"\r\nhi\r\n") == [False, False]


HEADERS = {
    "folded": HEADER + b"References: <1@example.org>\r\n\t<2@example.org>\r\n   <3@example.org> \t\r\n",
    "odd spaces": HEADER.replace(b"Subject: hello", b"Subject:\t : \t hello \t there  "),
    "empty fields": HEADER + b"Cc:\r\nReply-To: \r\n \r\n",
    "any case": HEADER.upper().replace(b"EXAMPLE", b"example"),
    "beyond ASCII": HEADER.replace(b"Alice", "Ålice Müller".encode()),
    "latin-1": HEADER.replace(b"hello", b"gr\xfc\xdfe"),
    "received twice": b"Received: a\r\n b\r\nReceived: c\r\n" + HEADER,
    "large": HEADER + b"X-Large: " + b" x" * 500_000 + b"\r\n",
    "many": HEADER + b"X: y\r\n" * 50_000,
}
BODIES = {
    "empty": b"",
    "empty lines": b"\r\n\r\n\r\n",
    "no last line end": b"hi",
    "empty lines at the end": b"hi\r\n\r\n \r\n\t\r\n",
    "spaces": b" hi \t  there \r\n\r\n \r\nend ",
    "dots": b".\r\n..\r\nhi\r\n",
    "eight bits": bytes(range(1, 10)) + bytes(range(14, 256)) + b"\r\n",
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("body", [BODIES["spaces"]], ids=["spaces"])
def test_dkimpy_verifies_odd_header_sections(header: bytes, body: bytes) -> None:
    assert verified(signed(header, body) + header + b"\r\n" + sent(body)) == [True, True]


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_dkimpy_verifies_odd_bodies(body: bytes) -> None:
    message = signed(HEADER, body) + HEADER + b"\r\n" + sent(body)
    assert verified(message) == [True, True]
    assert verified(message + b"more\r\n") == [False, False]


WORDS = st.lists(st.sampled_from([b"a", b" ", b"\t", b"\r\n", b"\r\n ", b"=", b"bc", b":", b"\xe4"]), max_size=12)


@given(WORDS, WORDS)
def test_dkimpy_verifies_whatever_is_a_message(subject: list[bytes], body: list[bytes]) -> None:
    # Continued lines only, none of which is empty.
    folded = re.sub(rb"(?:\r\n[ \t]*)+", b"\r\n x", b"".join(subject)).rstrip(b"\r\n")
    header = HEADER + b"Subject:" + folded + b"\r\nList-Help: x\r\n"
    text = b"".join(body)
    assert verified(signed(header, text) + header + b"\r\n" + sent(text)) == [True, True]


def test_long_names_still_fit_into_lines() -> None:
    domain = ".".join(["a" * 60] * 4)
    key = signing_key("ed25519", "s" * 60, domain)
    header = HEADER.replace(b"example.org", domain.encode())
    front = signed(header, keys=[key])
    assert max(map(len, front.split(b"\r\n"))) < 998
    assert verified(front + header + b"\r\nhi\r\n", [key]) == [True]


def test_a_signature_that_a_message_brings_along_changes_nothing() -> None:
    header = b"DKIM-Signature: v=1; a=rsa-sha256; d=example.net; s=x; h=from; bh=eA==; b=eA==\r\n" + HEADER
    assert verified(signed(header) + header + b"\r\nhi\r\n") == [True, True, False]


def test_no_key_no_field() -> None:
    assert signed(HEADER, keys=[]) == b""


def test_our_own_signatures_come_off_again() -> None:
    front = signed(HEADER)
    foreign = b"DKIM-Signature: v=1; d=example.net;\r\n\tb=\r\n"
    rest = b"Received: x\r\n" + foreign + HEADER + b"\r\nhi\r\n"
    assert signature.take_off(front + rest) == ("example.org", rest)
    assert signature.take_off(front) == ("example.org", b"")
    for unsigned in (rest, b"", b"\r\n", HEADER):
        assert signature.take_off(unsigned) == ("", unsigned)


def test_who_signed_is_told_as_soon_as_all_signatures_are_there() -> None:
    front = signed(HEADER)
    selectors = sorted(key.selector for key in pair())
    for end in range(len(front) + 1):
        assert signature.signers(front[:end]) is None
    found = signature.signers(front + b"Received: x\r\n")
    assert found is not None
    assert (found[0], sorted(found[1])) == ("example.org", selectors)
    assert signature.signers(b"Received: x\r\n" + front) == ("", [])
    assert signature.signers(b"\r\n") == ("", [])
    assert signature.signers(b"") is None
