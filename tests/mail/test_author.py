"""From fields as clients write them, and as those write them who want to be somebody else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.mail.author import AUTHORS, LONGEST, AuthorError, authors


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        (b"alice@example.org", ["alice@example.org"]),
        (b"Alice <alice@example.org>", ["alice@example.org"]),
        (b'"Alice, who <is> bob@example.net" <alice@example.org>', ["alice@example.org"]),
        (b"=?utf-8?q?Al=C3=AFce?= <alice@example.org>", ["alice@example.org"]),
        (b"alice@example.org (bob@example.net)", ["alice@example.org"]),
        (b"alice@example.org, Bob <bob@example.net>", ["alice@example.org", "bob@example.net"]),
        (b"friends: alice@example.org, bob@example.net;", ["alice@example.org", "bob@example.net"]),
        (b'"a b"@example.org', ['"a b"@example.org']),
        ("zoë@example.org".encode(), ["zoë@example.org"]),
        (b"( nested ( comment ) ) alice@example.org", ["alice@example.org"]),
        (b"(\\) \\( \\\\) alice@example.org (:-\\))", ["alice@example.org"]),
        # Quotes mean nothing in a comment: what stands between two of them is not quoted.
        (b'(") bob@example.net, (") alice@example.org', ["bob@example.net", "alice@example.org"]),
        (b"alice . w (a comment) @ example (another) . org", ["alice.w@example.org"]),
        (b"Alice Wonder < alice@example.org > (home)", ["alice@example.org"]),
    ],
)
def test_addresses_are_found(value: bytes, addresses: list[str]) -> None:
    assert [str(address) for address in authors(value)] == addresses


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"undisclosed:;",
        b"Alice",
        b"<>",
        b"alice@example.org <bob@example.net>",  # which one do people see?
        b"<alice@example.org> <bob@example.net>",
        b"<alice@example.org> bob@example.net",
        b"alice@example.org>",
        b'"Alice <alice@example.org>',
        b"(alice@example.org",
        b"alice@example.org)",
        b"postmaster",
        b"alice@example.org\xff",
        b"a@b@example.org",
        b"alice bob@example.org",
        b"alice(bob)w@example.org",
        b'(") bob@example.net (") <alice@example.org>',
        b"bob@example.net: alice@example.org;",  # the name of a group, for who knows groups
        b"bob@[x: alice@example.org;",
        b"(never ends \\) alice@example.org",
        b"(never ends \\",
        b",".join([b"a@example.org"] * (AUTHORS + 1)),
        b"(" + b"x" * LONGEST + b") alice@example.org",
    ],
)
def test_what_is_not_certain_is_refused(value: bytes) -> None:
    with pytest.raises(AuthorError):
        authors(value)


@given(st.binary(max_size=200))
def test_nothing_else_is_raised(value: bytes) -> None:
    try:
        found = authors(value)
    except AuthorError:
        return
    assert found
