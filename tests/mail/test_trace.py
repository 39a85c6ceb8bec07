"""Trace fields, for friends and for strangers."""

from __future__ import annotations

import email
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsrv.mail import trace
from mailsrv.mail.address import Address

ALICE = Address("alice", "example.org")
USUAL: dict[str, Any] = {
    "hostname": "mx.example.org",
    "helo": "out.example.net",
    "client": "192.0.2.1",
    "queue_id": "0000-A",
    "at": 1795457040.5,
    "protocol": "ESMTP",
}


def received(**changes: Any) -> bytes:
    return trace.received(**{**USUAL, **changes})


def test_received() -> None:
    assert received() == (
        b"Received: from out.example.net ([192.0.2.1])\r\n\tby mx.example.org with ESMTP id 0000-A;\r\n"
        b"\tMon, 23 Nov 2026 18:04:00 +0000\r\n"
    )
    assert received(
        client_name="a.example.net", client="2001:db8::1", tls="TLSv1.3 TLS_AES_256_GCM_SHA384", recipient=ALICE
    ) == (
        b"Received: from out.example.net (a.example.net [IPv6:2001:db8::1])\r\n"
        b"\tby mx.example.org with ESMTP (TLSv1.3) id 0000-A\r\n\tfor <alice@example.org>\r\n"
        b"\ttls TLS_AES_256_GCM_SHA384;\r\n\tMon, 23 Nov 2026 18:04:00 +0000\r\n"
    )


def test_cipher_without_iana_name_is_a_comment() -> None:
    assert b"with ESMTP (TLSv1.2 ECDHE-RSA-AES256-GCM-SHA384) id" in received(tls="TLSv1.2 ECDHE-RSA-AES256-GCM-SHA384")


def test_clients_can_be_hidden() -> None:
    hidden = received(hide_client=True, client_name="home.example.net", protocol="ESMTPSA")
    assert hidden == b"Received: by mx.example.org with ESMTPSA id 0000-A;\r\n\tMon, 23 Nov 2026 18:04:00 +0000\r\n"
    assert received(client="", helo="").startswith(b"Received: by mx.example.org")


def test_a_client_on_a_local_socket_has_only_its_name() -> None:
    assert received(client="", protocol="LMTP").startswith(
        b"Received: from out.example.net\r\n\tby mx.example.org with LMTP id "
    )


def test_helo_literals_stay() -> None:
    assert received(helo="[192.0.2.1]").startswith(b"Received: from [192.0.2.1] ([192.0.2.1])")
    assert received(helo="[IPv6:2001:db8::1]").startswith(b"Received: from [IPv6:2001:db8::1] ([192.0.2.1])")
    assert received(helo="").startswith(b"Received: from unknown ([192.0.2.1])")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"extended": False}, "SMTP"),
        ({"extended": False, "tls": True}, "SMTP"),
        ({}, "ESMTP"),
        ({"tls": True}, "ESMTPS"),
        ({"authenticated": True}, "ESMTPA"),
        ({"tls": True, "authenticated": True}, "ESMTPSA"),
        ({"utf8": True}, "UTF8SMTP"),
        ({"utf8": True, "tls": True}, "UTF8SMTPS"),
        ({"utf8": True, "tls": True, "authenticated": True}, "UTF8SMTPSA"),
        ({"lmtp": True}, "LMTP"),
        ({"lmtp": True, "tls": True, "authenticated": True}, "LMTPSA"),
        ({"lmtp": True, "utf8": True, "tls": True}, "UTF8LMTPS"),
    ],
)
def test_protocol_names(arguments: dict[str, bool], expected: str) -> None:
    assert trace.protocol(**arguments) == expected


def test_return_path_and_delivered_to() -> None:
    assert trace.return_path(None) == b"Return-Path: <>\r\n"
    assert trace.return_path(ALICE) == b"Return-Path: <alice@example.org>\r\n"
    assert trace.delivered_to(Address("a b", "example.org")) == b'Delivered-To: "a b"@example.org\r\n'
    assert trace.delivered_to(Address("jörg", "example.org")) == "Delivered-To: jörg@example.org\r\n".encode()


evil = st.text(max_size=30) | st.text(st.sampled_from('ab\r\n\0\t ():;<>,"\\ö\u2028\x85\ud800'), max_size=30)


@given(
    st.fixed_dictionaries({name: evil for name in USUAL if name != "at"} | {"tls": evil, "client_name": evil}),
    evil,
    evil,
)
def test_one_field_whatever_is_in_it(strings: dict[str, str], local: str, domain: str) -> None:
    address = Address(local, domain)
    field = received(**strings, recipient=address)
    assert re.fullmatch(rb"Received: [^\r\n]+(\r\n\t[^\r\n]+)*\r\n", field)
    assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", field)
    for field in [trace.return_path(address), trace.delivered_to(address)]:
        assert re.fullmatch(rb"[A-Z][A-Za-z-]+: [^\x00-\x1f\x7f]*\r\n", field)
        assert len(email.message_from_bytes(field + b"\r\n")) == 1


def test_comments_cannot_be_closed() -> None:
    field = received(helo="a) (b", client_name="c) for <x@y", tls="TLSv1.3) id 1 (x", hostname="h (", queue_id="1;2")
    assert field.count(b"(") == field.count(b")") == 2
    assert field.count(b";") == 1
    assert b"<" not in field


def test_lengths_are_bounded() -> None:
    long = "x" * 100_000
    assert max(map(len, received(helo=long, client_name=long, client=long, tls=long).split(b"\r\n"))) < 998
