"""Header sections that are refused, those that are not, and the hop limit."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailsrv.checks.hop_limit import HOPS, HopLimit
from mailsrv.checks.interfaces import Facts, Kind, Stage
from mailsrv.checks.sanity import Sanity
from mailsrv.mail import header

FROM = b"From: dave@example.net\r\n"
SINGLE = ["From", "Date", "Message-ID", "Subject", "To", "Cc", "Reply-To", "Sender"]


def problem(section: bytes, *, whole: bool = True) -> str:
    """What is wrong, "" when nothing is: two of a field are refused, the rest is a doubt."""
    verdict = Sanity().ask(Stage.DATA, Facts("192.0.2.99", header=section, whole=whole))
    if verdict is None:
        return ""
    if verdict.kind is Kind.DOUBT:
        return verdict.reason
    assert (verdict.code, verdict.status) == (550, "5.6.0")
    assert verdict.text.startswith("The message has more than one ")
    return verdict.text


@pytest.mark.parametrize(
    "section",
    [
        FROM + b"\r\n",
        FROM,  # no body, and no empty line
        b"from : dave@example.net\r\n\r\n",
        FROM + b"To: a,\r\n\tb\r\n c\r\nX-From: x\r\nResent-From: a\r\nResent-From: b\r\n\r\n",
        FROM + b"Received: a\r\nReceived: b\r\nComments: a\r\nComments: b\r\n\r\n",
        FROM + b"Subject: From: From:\r\n From: x\r\n\r\n",
        FROM + b"X!#$%&'*+-^_`{|}~: odd, but a name\r\n\r\n",
    ],
)
def test_what_is_a_header_section(section: bytes) -> None:
    assert problem(section) == ""


@pytest.mark.parametrize(
    "section", [b"", b"\r\n", b"Subject: x\r\n\r\n", b"X-From: a\r\n\r\n", b"Subject: a\r\n From: b\r\n"]
)
def test_without_from(section: bytes) -> None:
    assert problem(section) == "the message has no From field"


@pytest.mark.parametrize("name", SINGLE)
def test_a_field_that_comes_twice_is_named(name: str) -> None:
    field = f"{name}: dave@example.net\r\n".encode()
    first = b"" if name == "From" else FROM
    assert problem(first + field + b"\r\n") == ""
    for second in (field, field.upper(), field.replace(b":", b" \t:")):
        assert problem(first + field + b"X: y\r\n" + second + b"\r\n") == f"The message has more than one {name} field"


@pytest.mark.parametrize(
    "line",
    [
        *(b"no field", b": empty", b"two words: x", b"na\x7fme: x", b"\xc3\xa4: x", b"\x01: x", b"-"),
        *(b"From dave@example.net  Mon", b">From x"),
    ],
)
def test_a_line_that_is_no_field(line: bytes) -> None:
    assert problem(FROM + line + b"\r\nTo: x\r\n\r\n") == "the header section has a line that is no field"


@pytest.mark.parametrize("start", [b" ", b"\t"])
def test_a_continuation_of_nothing(start: bytes) -> None:
    assert problem(start + b"x\r\n" + FROM + b"\r\n") == "the header section has a line that is no field"


def test_of_a_cut_header_section_only_what_is_there_is_judged() -> None:
    assert problem(b"Subject: x\r\nX-Cut: a\r\nFr", whole=False) == ""
    assert problem(b"Subject: x\r\nSubject: y\r\nFr", whole=False) == "The message has more than one Subject field"
    assert problem(b"garbage\r\nFr", whole=False) == "the header section has a line that is no field"


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from([*SINGLE, "X", "Received"]), st.sampled_from([b" a", b" a\r\n b", b""]))))
def test_the_count_is_that_of_the_slow_way(fields: list[tuple[str, bytes]]) -> None:
    section = b"".join(name.encode() + b":" + value + b"\r\n" for name, value in fields) + b"\r\n"
    names = [name.decode() for name, _ in header.fields(section)]
    good = names.count("From") == 1 and all(names.count(name) <= 1 for name in SINGLE)
    assert (problem(section) == "") == good


@pytest.mark.parametrize("count", [0, HOPS, HOPS + 1])
def test_hops(count: int) -> None:
    section = b"Received: from a by b\r\n\tfor c;\r\n" * count + FROM + b"\r\n"
    verdict = HopLimit().ask(Stage.DATA, Facts("192.0.2.99", scan=header.scan(section)))
    assert (verdict is None) == (count <= HOPS)
    if verdict is not None:
        assert (verdict.code, verdict.status, verdict.rule) == (554, "5.4.6", "RFC 5321 6.3")


@pytest.mark.parametrize("field", [b"a:\r\n", b"fro:\r\n", b"junk\r\n", b" a\r\n"])
def test_many_fields_cost_no_object_each(field: bytes) -> None:
    """A quarter of a million of them come in a header section of the size that is taken, and strangers send it."""
    section = b"From: dave@example.net\r\n" + field * (header.HEADER_LIMIT // len(field) - 10) + b"\r\n"
    tracemalloc.start()
    try:
        problem(section)
        assert tracemalloc.get_traced_memory()[1] < 4 * header.HEADER_LIMIT
    finally:
        tracemalloc.stop()
