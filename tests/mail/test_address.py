"""The grammar of addresses and their one canonical form (RFC 5321 4.1.2, 6531)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailsrv.mail import address as module
from mailsrv.mail.address import POSTMASTER, Address, AddressError, domain_a_label

ACCEPTED = [
    # text, local part, domain, canonical form
    ("alice@example.org", "alice", "example.org", "alice@example.org"),
    ("Alice.B@EXAMPLE.Org", "Alice.B", "example.org", "Alice.B@example.org"),
    ("!#$%&'*+-/=?^_`{|}~@x.org", "!#$%&'*+-/=?^_`{|}~", "x.org", "!#$%&'*+-/=?^_`{|}~@x.org"),
    ("a@b", "a", "b", "a@b"),
    ("a@1.org", "a", "1.org", "a@1.org"),
    ("a@x1", "a", "x1", "a@x1"),
    ("user%other@x.org", "user%other", "x.org", "user%other@x.org"),
    ("other.example!user@x.org", "other.example!user", "x.org", "other.example!user@x.org"),
    # Quoted strings: needless quotes and backslashes go, needed ones stay.
    ('"alice"@x.org', "alice", "x.org", "alice@x.org"),
    (r'"al\ice"@x.org', "alice", "x.org", "alice@x.org"),
    ('"al ice"@x.org', "al ice", "x.org", '"al ice"@x.org'),
    ('"a..b"@x.org', "a..b", "x.org", '"a..b"@x.org'),
    ('".a"@x.org', ".a", "x.org", '".a"@x.org'),
    ('""@x.org', "", "x.org", '""@x.org'),
    (r'"a\"b\\c"@x.org', r'a"b\c', "x.org", r'"a\"b\\c"@x.org'),
    ('"user@other.org"@x.org', "user@other.org", "x.org", '"user@other.org"@x.org'),
    (r'"a\@b"@x.org', "a@b", "x.org", '"a@b"@x.org'),
    ('"<a>,b;c"@x.org', "<a>,b;c", "x.org", '"<a>,b;c"@x.org'),
    # Literals.
    ("a@[192.0.2.1]", "a", "[192.0.2.1]", "a@[192.0.2.1]"),
    ("a@[IPv6:2001:DB8:0:0::1]", "a", "[IPv6:2001:db8::1]", "a@[IPv6:2001:db8::1]"),
    ("a@[ipv6:::1]", "a", "[IPv6:::1]", "a@[IPv6:::1]"),
    ("a@[IPv6:::ffff:c000:201]", "a", "[IPv6:::ffff:192.0.2.1]", "a@[IPv6:::ffff:192.0.2.1]"),
    # Beyond ASCII (RFC 6531, 5891).
    ("jörg@example.org", "jörg", "example.org", "jörg@example.org"),
    ('"jörg b"@example.org', "jörg b", "example.org", '"jörg b"@example.org'),
    ("a@bücher.example", "a", "xn--bcher-kva.example", "a@xn--bcher-kva.example"),
    ("a@BÜCHER.Example", "a", "xn--bcher-kva.example", "a@xn--bcher-kva.example"),
    ("a@XN--Bcher-KVA.example", "a", "xn--bcher-kva.example", "a@xn--bcher-kva.example"),
    ("a@faß.example", "a", "xn--fa-hia.example", "a@xn--fa-hia.example"),
    ("用户@例子.example", "用户", "xn--fsqu00a.example", "用户@xn--fsqu00a.example"),
]

REFUSED = [
    "",
    "@",
    "a",
    "a@",
    "@b",
    "a b@x.org",
    ".a@x.org",
    "a.@x.org",
    "a..b@x.org",
    "a@b@x.org",
    "a,b@x.org",
    "(c)a@x.org",
    "<a@x.org>",
    "@x.org,@y.org:a@z.org",
    "user@other@",
    'a"b"@x.org',
    '"a"b@x.org',
    '"a"."b"@x.org',
    '"a@x.org',
    '"a\\"@x.org',
    '"a"b"@x.org',
    '"\\ö"@x.org',
    "a@x.org.",
    "a@.x.org",
    "a@x..org",
    "a@-x.org",
    "a@x-.org",
    "a@x_y.org",
    "a@x y.org",
    "a@x.org ",
    " a@x.org",
    "a@x.org\n",
    "a@192.0.2.1",
    "a@x.123",
    "a@[192.0.2.1",
    "a@192.0.2.1]",
    "a@[192.0.2]",
    "a@[192.0.2.256]",
    "a@[192.000.002.001]",
    "a@[192.0.2.1].org",
    "a@[2001:db8::1]",
    "a@[IPv6:2001:db8::1%eth0]",
    "a@[IPv6:2001:db8::g]",
    "a@[IPv6:]",
    "a@[]",
    "a@[tag:content]",
    "a@[١٩٢.0.2.1]",
    "a@\u212aernel.org",  # the Kelvin sign
    "a@\uff45xample.org",  # full-width e
    "a@x\u3002org",  # ideographic full stop
    "a@\u0130.org",
    "a@u\u0308.org",  # not in NFC
    "a@x\u200b.org",
    "a@\U0001f4e7.org",
]


@pytest.mark.parametrize(("text", "local", "domain", "canonical"), ACCEPTED)
def test_accepts(text: str, local: str, domain: str, canonical: str) -> None:
    address = Address.parse(text)
    assert (address.local, address.domain) == (local, domain)
    assert str(address) == canonical
    assert Address.parse(canonical) == address


@pytest.mark.parametrize("text", REFUSED)
def test_refuses(text: str) -> None:
    with pytest.raises(AddressError):
        Address.parse(text)


# What turns the direction of writing (Unicode's Bidi_Control).
DIRECTIONS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@pytest.mark.parametrize(
    "character", [*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), "\u2028", "\ud800", *DIRECTIONS]
)
def test_control_characters_are_refused_everywhere(character: str) -> None:
    forms = ["a{}@x.org", '"a{}"@x.org', '"a\\{}"@x.org', "a@x{}.org", "a@x.org{}", "{}a@x.org", "a@[192.0.2.1{}]"]
    for form in forms:
        with pytest.raises(AddressError):
            Address.parse(form.format(character))


def test_limits_are_octets() -> None:
    assert Address.parse("a" * 64 + "@x.org").local == "a" * 64
    assert Address.parse("ö" * 32 + "@x.org").local == "ö" * 32
    assert Address.parse('"' + "a" * 61 + ' "@x.org').local == "a" * 61 + " "
    for local in ["a" * 65, "ö" * 33, '"' + "a" * 62 + ' "']:
        with pytest.raises(AddressError, match="64 octets"):
            Address.parse(local + "@x.org")
    domain = ".".join(["d" * 63, "d" * 63, "d" * 63])
    assert len(str(Address.parse("a" * 62 + "@" + domain))) == 254
    with pytest.raises(AddressError, match="254 octets"):
        Address.parse("a" * 63 + "@" + domain)


def test_the_limits_hold_for_the_canonical_form() -> None:
    assert Address.parse('"' + r"\a" * 64 + '"@x.org').local == "a" * 64


def test_domain_limits() -> None:
    assert domain_a_label("D" * 63 + ".org") == "d" * 63 + ".org"
    longest = ".".join(["d" * 63, "d" * 63, "d" * 63, "d" * 61])
    assert domain_a_label(longest) == longest
    for text in ["d" * 64 + ".org", longest + "d", "", ".", "x.", "[192.0.2.1]", "ü" * 63 + ".org", "ü" * 64]:
        with pytest.raises(AddressError):
            domain_a_label(text)


def test_endless_text_is_refused_at_once() -> None:
    for text in ["a" * 1_000_000 + "@x.org", "a@" + "x." * 500_000 + "org", "a.@" * 300_000, '"' * 1_000_000]:
        with pytest.raises(AddressError, match="too long"):
            Address.parse(text)


def test_key_folds_ascii_case_only() -> None:
    assert Address.parse("Alice+Tag@Example.ORG").key == "alice+tag@example.org"
    assert Address.parse("JÖrg@example.org").key == "jÖrg@example.org"
    assert Address.parse("\u212aate@example.org").key == "\u212aate@example.org"
    assert Address.parse('"Al ice"@x.org').key == "al ice@x.org"


def test_text_is_for_people() -> None:
    assert Address.parse("jörg@xn--bcher-kva.example").text == "jörg@bücher.example"
    assert Address.parse('"a b"@x.org').text == '"a b"@x.org'
    assert Address.parse("a@[192.0.2.1]").text == "a@[192.0.2.1]"
    # No U-label, or not the one that would be encoded so: shown as it is.
    assert Address.parse("a@xn--zzzzzz-.x.org".replace("-.x", "-x")).text == "a@xn--zzzzzz-xorg".replace(
        "xorg", "x.org"
    )
    assert Address.parse("a@xn--ls8h.example").text == "a@xn--ls8h.example"


def test_is_ascii() -> None:
    assert Address.parse("a@bücher.example").is_ascii
    assert not Address.parse("jörg@example.org").is_ascii


@pytest.mark.parametrize("text", ["postmaster", "Postmaster", "POSTMASTER"])
def test_postmaster_needs_no_domain(text: str) -> None:
    assert Address.parse(text) == POSTMASTER
    assert str(POSTMASTER) == POSTMASTER.text == "postmaster"
    assert POSTMASTER.key == "postmaster@"


def test_messages_do_not_echo_the_text() -> None:
    for text in REFUSED:
        with pytest.raises(AddressError) as caught:
            Address.parse(text)
        assert str(caught.value).isascii()
        assert str(caught.value).isprintable()


locals_ = st.text(st.sampled_from('abZ09.!%+-_ @"\\<>()[]:;,ö\x00\t\x7f'), max_size=12)
domains = st.text(st.sampled_from("abZ09.-_xn[]:@ ü\u212a\n"), max_size=14)


@given(local=locals_, domain=domains, quoted=st.booleans())
@settings(max_examples=600, deadline=None)
def test_fast_path_agrees_with_the_whole_grammar(local: str, domain: str, quoted: bool) -> None:
    text = f'"{local}"@{domain}' if quoted else f"{local}@{domain}"
    try:
        whole = module._parse_any(text)
    except AddressError:
        with pytest.raises(AddressError):
            Address.parse(text)
    else:
        assert Address.parse(text) == whole
        assert Address.parse(str(whole)) == whole
        assert Address.parse(whole.text) == whole
        assert not re.search("[\x00-\x1f\x7f]", str(whole))
        assert len(str(whole).encode()) <= 254


@given(
    local=st.text(st.sampled_from("aZ0.!%+-_"), min_size=1, max_size=70), domain=st.from_regex(r"[a-zA-Z0-9.-]{1,80}")
)
@settings(max_examples=300, deadline=None)
def test_fast_path_agrees_on_usual_addresses(local: str, domain: str) -> None:
    text = f"{local}@{domain}"
    try:
        whole = module._parse_any(text)
    except AddressError:
        with pytest.raises(AddressError):
            Address.parse(text)
    else:
        assert Address.parse(text) == whole


@given(st.text(max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_gives_an_address_or_an_address_error(text: str) -> None:
    try:
        address = Address.parse(text)
    except AddressError:
        return
    assert Address.parse(str(address)) == address
