"""Refusals: a ``Reply`` for the peer and an ``Event`` for the ledger; the two do not say the same."""

from __future__ import annotations

from collections.abc import Iterable

from mailsrv.checks.clients import network_of
from mailsrv.mail.address import Address
from mailsrv.smtp import replies
from mailsrv.smtp.replies import Reply
from mailsrv.store import ledger
from mailsrv.store.ledger import Event
from mailsrv.store.recorder import Recorder


class Refusals:
    """Those of one client."""

    __slots__ = ("_client", "_recorder")

    def __init__(self, recorder: Recorder, client: str) -> None:
        self._recorder = recorder
        self._client = client

    def refuse(
        self,
        command: str,
        answer: Reply,
        *,
        reason: str,
        rule: str,
        address: Address | None = None,
        sender: Address | None = None,
    ) -> Reply:
        """Record that ``command`` is refused; gives ``answer`` back."""
        self._recorder.record(
            Event(
                ledger.REFUSED,
                address=str(address) if address else "",
                sender=str(sender) if sender else "",
                client=self._client,
                status=answer.status,
                reason=reason,
                rule=rule,
                detail=command,
            )
        )
        return answer

    def refuse_content(
        self, recipients: Iterable[Address], answer: Reply, reason: str, rule: str, *, sender: Address | None
    ) -> Reply:
        """The same at the end of the content, for each recipient."""
        for recipient in recipients:
            self.refuse("DATA", answer, address=recipient, sender=sender, reason=reason, rule=rule)
        return answer

    def turned_away(self, reason: str) -> None:
        """The client did not get a session at all."""
        status = replies.TOO_MANY_ERRORS.status
        event = Event(ledger.CONNECTION, client=self._client, status=status, reason=reason, rule="limits.connections")
        self._recorder.record_seldom(event, network_of(self._client))
