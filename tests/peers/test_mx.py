"""Mail finds its server by the records of a real name server, and comes back where they say that there is none."""

from __future__ import annotations

import pytest

from tests.peers.internet import EXIM, US, ZONES, Internet
from tests.peers.programs import wait_until


@pytest.mark.parametrize("domain", ["example.com", "bare.example.net", "alias.example.net", "first.example.net"])
def test_the_server_that_the_records_name(internet: Internet, domain: str) -> None:
    """By MX, by address alone, by an alias of one, and the most preferred of two."""
    name = f"to {domain}"
    internet.send(name, [f"carol@{domain}"])
    internet.arrived(internet.exim, name)
    assert "postfix" not in internet.why(name)


def test_a_host_with_only_ipv6(internet: Internet) -> None:
    internet.send("six", ["carol@bare6.example.net"])
    internet.arrived(internet.postfix, "six")
    assert US[1] in str(internet.trace(internet.postfix, "six")["Received"])


@pytest.mark.parametrize(
    ("domain", "peer"), [("second.example.net", "exim"), ("third.example.net", "postfix")], ids=["refuses", "is away"]
)
def test_the_next_server_when_the_first(internet: Internet, domain: str, peer: str) -> None:
    internet.send(f"{domain} next", ["carol@" + domain])
    internet.arrived(internet.exim if peer == "exim" else internet.postfix, f"{domain} next")


def test_equal_servers_share_the_mail(internet: Internet) -> None:
    names = [f"equal.{number}" for number in range(24)]
    for name in names:
        internet.send(name, ["carol@equal.example.net"])
    wait_until(lambda: all(internet.has(name) for name in names), 30, "all messages")
    at_exim = sum(internet.has(name, internet.exim) for name in names)
    assert 0 < at_exim < len(names)
    assert sum(internet.has(name, internet.postfix) for name in names) == len(names) - at_exim


@pytest.mark.parametrize("literal", [EXIM[0], f"IPv6:{EXIM[1]}"], ids=["IPv4", "IPv6"])
def test_an_address_literal(internet: Internet, literal: str) -> None:
    name = f"literal.{len(literal)}"
    internet.send(name, [f"carol@[{literal}]"])
    internet.arrived(internet.exim, name)


@pytest.mark.parametrize("address", ["carol@half.example.net", "carol@silent.example.net"])
def test_a_broken_ipv6_is_passed_over(internet: Internet, address: str) -> None:
    """No host has the address, or it has and its answers get lost."""
    internet.exim_host.ignore(US[1])
    try:
        internet.send(f"over four to {address}", [address])
        peer = internet.postfix if "half" in address else internet.exim
        internet.arrived(peer, f"over four to {address}")
    finally:
        internet.exim_host.heed(US[1])


@pytest.mark.parametrize(
    ("domain", "status"),
    [
        ("null.example.net", "5.1.10"),
        ("gone.example", "5.1.2"),
        ("dangling.example.net", "5.4.4"),
        ("text.example.net", "5.4.4"),
    ],
)
def test_what_the_dns_denies_comes_back(internet: Internet, domain: str, status: str) -> None:
    internet.send(f"denied {domain}", [f"carol@{domain}"])
    assert internet.status(f"denied {domain}") == status


def test_a_zone_that_cannot_be_looked_up_is_waited_for(internet: Internet) -> None:
    internet.send("patience", ["carol@mended.example"])
    wait_until(lambda: "SERVFAIL" in internet.why("patience"), 20, "a first attempt", every_s=0.2)
    assert [recipient["state"] for recipient in internet.waiting("patience")] == ["queued"]
    internet.names.change("mended.example", f"@ MX 10 mail\nmail A {EXIM[0]}\n")
    try:
        internet.arrived(internet.exim, "patience")
    finally:
        internet.names.change("mended.example", ZONES["mended.example"])


def test_a_name_server_that_is_gone_is_waited_for(internet: Internet) -> None:
    internet.names.host.unplug()
    try:
        internet.send("nobody to ask", ["carol@example.com"])
        wait_until(lambda: "no answer about" in internet.why("nobody to ask"), 30, "a first attempt", every_s=0.2)
    finally:
        internet.names.host.plug_in()
    internet.arrived(internet.exim, "nobody to ask")
