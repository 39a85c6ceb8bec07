"""What real receivers get, and what becomes of their answers: content, TLS, recipients one by one, DSN."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.peers.exim import Exim
from tests.peers.internet import Internet
from tests.peers.postfix import Postfix
from tests.peers.programs import wait_until
from tests.peers.samples import SAMPLES, written_by
from tests.peers.server import ALICE

_HEADER = (
    "From: sender@example.net\r\nTo: carol@example.net\r\nSubject: awkward\r\n"
    "Date: Mon, 23 Nov 2026 12:00:00 +0000\r\nMessage-ID: <%s@example.net>\r\n"
)
AWKWARD = {
    "no body": b"",
    "empty body": b"\r\n",
    "empty lines": b"\r\n\r\n\r\n\r\n",
    "no final line end": b"\r\nthe last line",
    "a last dot without line end": b"\r\n.",
    "dots": b"\r\n.\r\n..\r\n.x\r\n. \r\n\t.\r\nQUIT\r\n.\r\n",
    "from": b"\r\nFrom somebody\r\n>From somebody\r\n",
    "eight bits": b"\r\n" + bytes(range(0x80, 0x100)) + b"\r\n",
    "spaces": b"\r\n \r\n\t\t \r\nend \r\n",
    "a folded header": b"X-Long: a\r\n b\r\n\tc\r\n\r\nbody\r\n",
}


def _peer(internet: Internet, name: str) -> Postfix | Exim:
    return internet.exim if name == "exim" else internet.postfix


@pytest.fixture(params=["postfix", "exim"])
def peer(request: pytest.FixtureRequest, internet: Internet) -> Postfix | Exim:
    return _peer(internet, request.param)


def _domain(peer: Postfix | Exim) -> str:
    return "example.com" if isinstance(peer, Exim) else "example.net"


def _awkward(peer: Postfix | Exim, kind: str) -> tuple[str, bytes]:
    name = f"{kind} {_domain(peer)}"
    return name, (_HEADER % name.replace(" ", ".")).encode() + AWKWARD[kind]


@pytest.mark.parametrize("kind", AWKWARD)
def test_awkward_content_arrives_byte_for_byte(internet: Internet, peer: Postfix | Exim, kind: str) -> None:
    name, content = _awkward(peer, kind)
    sent = internet.send(name, [f"carol@{_domain(peer)}"], content)
    whole = sent if sent.endswith(b"\r\n") else sent + b"\r\n"
    if kind == "no body" and isinstance(peer, Exim):
        whole += b"\r\n"  # it ends every header
    assert internet.arrived(peer, name) == [whole]


@pytest.mark.parametrize("kind", ["dots", "long lines", "utf8", "large"])
def test_long_content_arrives_byte_for_byte(internet: Internet, peer: Postfix | Exim, kind: str) -> None:
    """ "large" has 20 MB."""
    name = f"long.{kind}.{_domain(peer)}"
    marker = b"<%s@" % kind.replace(" ", ".").encode()
    content = SAMPLES[kind].replace(marker, b"<%s@" % name.replace(" ", ".").encode(), 1)
    internet.send(name, [f"carol@{_domain(peer)}"], content)
    (received,) = internet.arrived(peer, name)
    assert received == written_by(ALICE, content), f"{len(received)} octets for {len(content)}"


def test_tls_is_used_and_told(internet: Internet, peer: Postfix | Exim) -> None:
    name = f"secret {_domain(peer)}"
    internet.send(name, [f"carol@{_domain(peer)}"])
    internet.arrived(peer, name)
    received = str(internet.trace(peer, name)["Received"])
    assert "TLSv1.3" in received or "TLS1.3" in received
    told = internet.why(name)
    assert "TLSv1.3" in told
    # The certificates of the test's authority name the hosts of example.net.
    assert ("verified" in told) and ("unverified" in told) == isinstance(peer, Exim)


def test_each_recipient_has_an_end_of_its_own(internet: Internet, peer: Postfix | Exim) -> None:
    name, domain = f"half {_domain(peer)}", _domain(peer)
    internet.send(name, [f"carol@{domain}", f"nobody@{domain}", f"dave@{domain}"])
    copies = internet.arrived(peer, name, 2)
    assert len(set(copies)) == 1
    assert internet.status(name) == ("5.1.1" if isinstance(peer, Postfix) else "5.0.0")  # Exim gives no status
    report = internet.report(name).as_string()
    assert f"nobody@{domain}" in report
    assert "no such user here" in report
    assert f"carol@{domain}" not in report.partition("message/delivery-status")[2].partition("\n--")[0]


def test_greylisting_is_waited_for(internet: Internet) -> None:
    internet.send("later", ["later@example.com", "carol@example.com"])
    internet.arrived(internet.exim, "later")
    wait_until(lambda: "greylisted" in internet.why("later"), 20, "a first attempt", every_s=0.2)
    assert [recipient["address"] for recipient in internet.waiting("later")] == ["later@example.com"]
    internet.exim.allow_later(True)
    try:
        internet.arrived(internet.exim, "later", 2)
    finally:
        internet.exim.allow_later(False)


@pytest.mark.parametrize("options", [("NOTIFY=SUCCESS,FAILURE",), ("NOTIFY=SUCCESS", "ORCPT=rfc822;carol@example.com")])
def test_success_is_reported_by_the_receiver(internet: Internet, options: Sequence[str]) -> None:
    """It knows DSN, so telling is its part (RFC 3461 5.2.2) and we are silent."""
    name = f"notify.{len(options)}"
    internet.send(name, ["carol@example.net"], options=options)
    internet.arrived(internet.postfix, name)
    internet.report(name, "delivered")
    (report,) = internet.told(name)
    assert "Reporting-MTA: dns; postfix.example.net" in report.as_string()


def test_failure_is_not_reported_to_who_does_not_want_it(internet: Internet) -> None:
    internet.send("never", ["nobody@example.net"], options=["NOTIFY=NEVER"])
    wait_until(lambda: internet.waiting("never") == [], 20, "the end", every_s=0.2)
    assert internet.told("never") == []
