"""Replies as values and as octets."""

from __future__ import annotations

import re

import pytest

from mailsrv.smtp import replies
from mailsrv.smtp.replies import Reply, reply


def test_lines_and_codes() -> None:
    assert reply(250, "2.1.5", "OK").encode() == b"250 2.1.5 OK\r\n"
    assert reply(250, "", "mx.example.org", "SIZE 1").encode() == b"250-mx.example.org\r\n250 SIZE 1\r\n"
    assert reply(550, "5.1.1", "a", "b").encode() == b"550-5.1.1 a\r\n550 5.1.1 b\r\n"
    assert str(reply(550, "5.1.1", "a", "b")) == "550 5.1.1 a b"
    assert reply(354, "", "go on").positive
    assert not reply(450, "4.2.0", "later").positive


@pytest.mark.parametrize(
    ("code", "status", "texts"),
    [
        (250, "2.0.0", ("a\r\n250 b",)),
        (250, "2.0.0", ("a\0",)),
        (250, "2.0.0", ("ü",)),
        (250, "2.0.0", ("x" * 481,)),
        (250, "2.0.0", ()),
        (250, "5.0.0", ("class and code differ",)),
        (250, "2.0", ("not a status",)),
        (99, "", ("not a code",)),
        (600, "", ("not a code",)),
    ],
)
def test_what_cannot_be_a_reply_is_refused(code: int, status: str, texts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError):
        Reply(code, status, texts)


def test_every_usual_reply_with_a_status_has_one_of_its_class() -> None:
    usual = [value for value in vars(replies).values() if isinstance(value, Reply)]
    assert len(usual) > 40
    for each in usual:
        # RFC 2034 4: all but 3xx carry one.
        assert bool(re.fullmatch(r"[245]\.\d\.\d{1,2}", each.status)) == (each.code != 354)
