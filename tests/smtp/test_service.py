"""What a service offers, and when."""

from __future__ import annotations

import pytest

from mailsrv.smtp.server import Service
from tests.smtp.driver import SUBMISSION


def test_replies_to_hello_are_made_once() -> None:
    assert SUBMISSION.hello_in_clear is SUBMISSION.hello_in_clear
    assert SUBMISSION.hello_under_tls is SUBMISSION.hello_under_tls


@pytest.mark.parametrize(
    ("in_clear", "secure", "offered"), [(False, False, False), (False, True, True), (True, False, True)]
)
def test_auth_is_offered_only_where_it_is_accepted(in_clear: bool, secure: bool, offered: bool) -> None:
    service = Service("mx.example.org", starttls=True, mechanisms=("PLAIN",), auth_in_clear=in_clear)
    hello = service.hello_under_tls if secure else service.hello_in_clear
    assert ("AUTH PLAIN" in hello.lines) == offered
    assert ("STARTTLS" in hello.lines) == (not secure)


def test_nothing_is_offered_that_was_not_asked_for() -> None:
    service = Service("mx.example.org", extensions=frozenset(), size_limit=0)
    assert service.hello_in_clear.lines == ("mx.example.org", "SIZE 0")


@pytest.mark.parametrize(
    "wrong", [{"kind": "imap"}, {"extensions": frozenset({"BINARYMIME"})}, {"hold_until": "tomorrow"}]
)
def test_an_impossible_service_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Service("mx.example.org", **wrong)  # type: ignore[arg-type]
