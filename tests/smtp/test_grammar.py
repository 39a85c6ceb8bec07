"""Arguments of commands: what they mean, and what is refused with which reply."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailsrv.mail.address import Address
from mailsrv.mail.envelope import Envelope, Recipient
from mailsrv.smtp import grammar, replies
from mailsrv.smtp.events import Mail
from mailsrv.smtp.grammar import CommandError

ALL = frozenset({"SIZE", "8BITMIME", "SMTPUTF8", "DSN", "AUTH", "FUTURERELEASE"})
BOB = Address("bob", "example.org")


def mail(text: str | bytes, extensions: frozenset[str] = ALL) -> Mail | str:
    try:
        return grammar.mail(text if isinstance(text, bytes) else text.encode(), extensions)
    except CommandError as error:
        return str(error.reply)


def rcpt(text: str, *, smtputf8: bool = False) -> Recipient | str:
    try:
        return grammar.rcpt(text.encode(), ALL, smtputf8)
    except CommandError as error:
        return str(error.reply)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("TO:<bob@example.org>", BOB),
        ("to:  <bob@EXAMPLE.org>", BOB),
        ("TO:<Bob@example.org>", Address("Bob", "example.org")),
        ('TO:<"bob"@example.org>', BOB),
        ('TO:<"b > b\\""@example.org>', Address('b > b"', "example.org")),
        ('TO:<"user@other"@example.org>', Address("user@other", "example.org")),
        ("TO:<user%other@example.org>", Address("user%other", "example.org")),
        ("TO:<bob@[192.0.2.1]>", Address("bob", "[192.0.2.1]")),
        ("TO:<@a.example,@b.example:bob@example.org>", BOB),
        ("TO:<@[IPv6:2001:db8::1]:bob@example.org>", BOB),
        ("TO:<postMASTER>", Address("postmaster", "")),
    ],
)
def test_paths(text: str, address: Address) -> None:
    assert rcpt(text) == Recipient(address)


@pytest.mark.parametrize(
    "path",
    [
        "bob",
        "bob@",
        "@example.org",
        "bob@example.org.",
        "user@other@example.org",
        "bob@exa_mple.org",
        "@a.example bob@example.org",
        "@a..example:bob@example.org",
        "@:bob@example.org",
        "@a.example:@b.example:bob@example.org",
        "@a.example:",
        '"bob@example.org',
        "bob @example.org",
        "bob@example.org ",
        "<bob@example.org>",
        "bob@[192.0.2.999]",
        "b" * 65 + "@example.org",
    ],
)
def test_bad_paths(path: str) -> None:
    assert rcpt(f"TO:<{path}>") in (str(replies.BAD_RECIPIENT), str(replies.RCPT_SYNTAX))
    assert mail(f"FROM:<{path}>") in (str(replies.BAD_SENDER), str(replies.MAIL_SYNTAX))


@pytest.mark.parametrize(
    "text", ["", "FROM", "FROM:", "FROM:<", "FROM:bob@example.org", "FROM :<>", "FROM:<>SIZE=1", "TO:<>"]
)
def test_bad_mail(text: str) -> None:
    assert mail(text) == str(replies.MAIL_SYNTAX)


def test_octets_above_127_in_parameters_need_smtputf8() -> None:
    assert mail("FROM:<> AUTH=jürg@example.org") == str(replies.NEEDS_SMTPUTF8)
    assert mail("FROM:<> SMTPUTF8 AUTH=jürg@example.org") == Mail(
        Envelope(None, smtputf8=True), submitter="jürg@example.org"
    )


def test_bare_postmaster_sends_nothing() -> None:
    assert mail("FROM:<postmaster>") == str(replies.BAD_SENDER)


def test_octets_that_are_not_utf8() -> None:
    assert mail(b"FROM:<\xff@example.org>") == str(replies.NEEDS_SMTPUTF8)
    assert mail(b"FROM:<\xff@example.org> SMTPUTF8") == str(replies.BAD_SENDER)
    assert mail(b"FROM:<a\xc2\x85@example.org> SMTPUTF8") == str(replies.BAD_SENDER)


def test_all_parameters_of_mail() -> None:
    text = (
        "FROM:<bob@example.org>  size=12  body=8bitmime SMTPUTF8 RET=hdrs ENVID=a+3Db AUTH=bob@example.org HOLDFOR=60"
    )
    assert mail(text) == Mail(
        Envelope(BOB, "8BITMIME", True, "HDRS", "a=b", 12), submitter="bob@example.org", hold_for_s=60
    )
    assert mail("FROM:<> AUTH=<> HOLDUNTIL=1970-01-02T00:00:01Z") == Mail(
        Envelope(None), submitter="<>", hold_until=86_401.0
    )


@pytest.mark.parametrize(
    "parameter",
    [
        "SIZE",
        "SIZE=",
        "SIZE=-1",
        "SIZE=+1",
        "SIZE=1_0",
        "SIZE=0x1",
        "SIZE=" + "1" * 21,
        "SIZE=1=2",
        "=1",
        "-SIZE=1",
        "BODY",
        "BODY=9BIT",
        "SMTPUTF8=yes",
        "RET=ALL",
        "ENVID",
        "ENVID=a+0Ab",
        "ENVID=a+zz",
        "ENVID=a+0",
        "ENVID=a+C3+A4",
        "ENVID=" + "x" * 101,
        "AUTH=alice",
        "AUTH=a+0D@example.org",
        "HOLDFOR=1234567890",
        "HOLDFOR=1s",
        "HOLDUNTIL=2027-02-30T00:00:00Z",
        "HOLDUNTIL=2027-01-01T00:00:00",
        "HOLDUNTIL=2027-01-01T00:00:00+01:00",
        "HOLDFOR=1 HOLDUNTIL=2027-01-01T00:00:00Z",
        "SIZE=1 size=1",
        "SMTPUTF8 SIZE=\u0661",
    ],
)
def test_bad_parameters_of_mail(parameter: str) -> None:
    assert mail(f"FROM:<bob@example.org> {parameter}") == str(replies.BAD_PARAMETER)


@pytest.mark.parametrize(
    "parameter",
    ["SIZE=1", "BODY=7BIT", "SMTPUTF8", "RET=FULL", "ENVID=x", "AUTH=<>", "HOLDFOR=1", "HOLDUNTIL=x", "X=1", "SIZE=x"],
)
def test_parameters_that_are_not_offered(parameter: str) -> None:
    assert mail(f"FROM:<bob@example.org> {parameter}", frozenset()) == str(replies.UNKNOWN_PARAMETER)


@pytest.mark.parametrize(
    ("parameter", "original"),
    [
        ("ORCPT=rfc822;bob@example.org", "rfc822;bob@example.org"),
        ("ORCPT=RFC822;b+2Bob+20x@example.org", "rfc822;b+ob x@example.org"),
        ("ORCPT=utf-8;j\\x{FC}rg@example.org", "utf-8;jürg@example.org"),
        ("ORCPT=x-custom;1234", "x-custom;1234"),
    ],
)
def test_original_recipients(parameter: str, original: str) -> None:
    assert rcpt(f"TO:<bob@example.org> {parameter}") == Recipient(BOB, original)


def test_original_recipients_in_utf8_need_smtputf8() -> None:
    assert rcpt("TO:<bob@example.org> ORCPT=utf-8;jürg@example.org") == str(replies.NEEDS_SMTPUTF8)
    assert rcpt("TO:<bob@example.org> ORCPT=utf-8;jürg@example.org", smtputf8=True) == Recipient(
        BOB, "utf-8;jürg@example.org"
    )


@pytest.mark.parametrize(
    "parameter",
    [
        "ORCPT=bob@example.org",
        "ORCPT=;x",
        "ORCPT=rfc822;",
        "ORCPT=rfc822;a+0D+0Ab",
        "ORCPT=utf-8;a\\x{A}b",
        "ORCPT=utf-8;a\\x{85}b",
        "ORCPT=utf-8;a\\x{2028}b",
        "ORCPT=utf-8;a\\x{202E}b",
        "ORCPT=utf-8;a\\x{D800}b",
        "ORCPT=utf-8;a\\x{FFFFFF}b",
        "ORCPT=rf(c;x",
        "ORCPT=rfc822;" + "x" * 500,
        "NOTIFY",
        "NOTIFY=NEVER,SUCCESS",
        "NOTIFY=SUCCESS,SUCCESS",
        "NOTIFY=SUCCESS,",
        "NOTIFY=ALWAYS",
    ],
)
def test_bad_parameters_of_rcpt(parameter: str) -> None:
    assert rcpt(f"TO:<bob@example.org> {parameter}") == str(replies.BAD_PARAMETER)


def test_parameters_of_mail_are_none_of_rcpt() -> None:
    assert rcpt("TO:<bob@example.org> SIZE=1") == str(replies.UNKNOWN_PARAMETER)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"0", (0, False)),
        (b"12 LAST", (12, True)),
        (b"12  last", (12, True)),
        (b"9" * 20, (10**20 - 1, False)),
        (b"9" * 21, None),
        (b"", None),
        (b"LAST", None),
        (b"-1", None),
        (b"+1", None),
        (b"1_0", None),
        (b"1 FIRST", None),
        (b"1 LAST LAST", None),
        ("\u0661".encode(), None),
    ],
)
def test_chunks(text: bytes, expected: tuple[int, bool] | None) -> None:
    if expected is None:
        with pytest.raises(CommandError):
            grammar.chunk(text)
    else:
        assert grammar.chunk(text) == expected


@pytest.mark.parametrize(
    ("text", "ok"), [(b"mx.example.org", True), (b"[IPv6:::1]", True), (b"my_pc", True), (b"a b", False)]
)
@pytest.mark.parametrize("evil", [b"", b"(", b"\\", b'"', b"\xc3\xa4", b";"])
def test_hello_names_are_safe_in_a_header(text: bytes, ok: bool, evil: bytes) -> None:
    if ok and not evil:
        assert grammar.hello(text) == text.decode()
    else:
        with pytest.raises(CommandError):
            grammar.hello(text + evil)


def test_backtracking_is_bounded() -> None:
    for nasty in ('"' + '\\"' * 700, '"a"' * 500, "@a," * 500, "@[" * 700, "+2" * 300):
        assert isinstance(mail(f"FROM:<{nasty}>"), str)
        assert isinstance(mail(f"FROM:<a@b.example> AUTH={nasty}"), str)


# The usual forms are read by a shorter way; both ways have to agree.

_WORDS = st.sampled_from(
    ["bob", "b.b", "a+b", "example.org", "@", ".", "EXAMPLE.org", "[192.0.2.1]", "x-", "1", ":", "%", "!"]
)
_PATHS = st.lists(_WORDS, max_size=5).map("".join) | st.just("bob@example.org")
_TAILS = st.sampled_from(
    ["", " ", " SIZE=12", " SIZE=", " BODY=8BITMIME", " BODY=7BIT", " SIZE=1 BODY=8BITMIME", " BODY=7BIT SIZE=1", "x"]
)


@settings(deadline=None)
@given(_PATHS, _TAILS, st.sampled_from([ALL, frozenset({"SIZE"})]))
def test_the_short_way_gives_what_the_whole_grammar_gives(path: str, tail: str, extensions: frozenset[str]) -> None:
    usual = mail(f"FROM:<{path}>{tail}", extensions)
    # Lower case is beyond the short way.
    assert usual == mail(f"from:<{path}>{tail}", extensions)
