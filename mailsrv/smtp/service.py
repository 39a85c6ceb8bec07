"""What one kind of port offers: an immutable value shared by all its connections, with its EHLO replies made once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from mailsrv.sasl import mechanisms
from mailsrv.smtp import states
from mailsrv.smtp.grammar import date_time
from mailsrv.smtp.replies import Reply

# What ``Service.extensions`` may hold, in the order in which EHLO lists it.  SIZE, STARTTLS and AUTH follow from
# other fields.
EXTENSIONS = (
    "PIPELINING",  # RFC 2920
    "8BITMIME",  # RFC 6152
    "SMTPUTF8",  # RFC 6531
    "ENHANCEDSTATUSCODES",  # RFC 2034
    "CHUNKING",  # RFC 3030
    "DSN",  # RFC 3461
    "LIMITS",  # RFC 9422
    "FUTURERELEASE",  # RFC 4865
)


@dataclass(frozen=True)
class Service:
    """One service.  Parameters and verbs of extensions that are not offered are refused.

    ``kind`` is ``smtp``, ``submission`` or ``lmtp``.  ``size_limit`` is in octets, 0 for none.  ``mechanisms`` are
    those of AUTH; without TLS they are offered and accepted only if ``auth_in_clear``, and those with channel binding
    only where there is a channel to bind to.  ``auth_required``: MAIL only after AUTH.  After ``max_errors`` refusals
    (5xx) without an accepted message in between the connection ends with 421.
    """

    hostname: str
    kind: str = "smtp"
    extensions: frozenset[str] = frozenset({"PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES"})
    size_limit: int = 50 * 1024 * 1024
    recipients_limit: int = 1000
    starttls: bool = False
    mechanisms: tuple[str, ...] = ()
    auth_in_clear: bool = False
    auth_required: bool = False
    max_errors: int = 20
    mend_lines: bool = False  # a bare LF in content is made CRLF; else it is refused
    hold_limit_s: int = 0  # RFC 4865: the longest HOLDFOR
    hold_until: str = "1970-01-01T00:00:00Z"  # RFC 4865: the latest HOLDUNTIL

    def __post_init__(self) -> None:
        if self.kind not in ("smtp", "submission", "lmtp"):
            raise ValueError(f"no such kind of service: {self.kind!r}")
        if not self.extensions <= frozenset(EXTENSIONS):
            raise ValueError(f"unknown extensions: {', '.join(sorted(self.extensions - frozenset(EXTENSIONS)))}")
        date_time(self.hold_until.encode())

    def auth_offered(self, secure: bool) -> bool:
        """Whether AUTH is possible on a connection, in clear or under TLS (RFC 4954 4)."""
        return bool(self.mechanisms) and (secure or self.auth_in_clear)

    @property
    def table(self) -> Mapping[str, states.Row]:
        return states.LMTP if self.kind == "lmtp" else states.SMTP

    @cached_property
    def parameters(self) -> frozenset[str]:
        """The extensions whose parameters of MAIL and RCPT are accepted."""
        return self.extensions | {"SIZE"} | ({"AUTH"} if self.mechanisms else set())

    @cached_property
    def latest_hold(self) -> float:
        """``hold_until`` as seconds since 1970."""
        return date_time(self.hold_until.encode())

    @cached_property
    def greeting(self) -> Reply:
        return Reply(220, "", (f"{self.hostname} {'LMTP' if self.kind == 'lmtp' else 'ESMTP'} mailsrv",))

    @cached_property
    def hello(self) -> Reply:
        """To HELO."""
        return Reply(250, "", (self.hostname,))

    @cached_property
    def hello_in_clear(self) -> Reply:
        """To EHLO or LHLO without TLS."""
        return self._extended_hello(secure=False)

    @cached_property
    def hello_under_tls(self) -> Reply:
        """Under a TLS that cannot be bound to."""
        return self._extended_hello(secure=True)

    @cached_property
    def hello_under_bound_tls(self) -> Reply:
        return self._extended_hello(secure=True, bound=True)

    def _extended_hello(self, secure: bool, bound: bool = False) -> Reply:
        values = {
            "LIMITS": f" RCPTMAX={self.recipients_limit}",
            "FUTURERELEASE": f" {self.hold_limit_s} {self.hold_until}",
        }
        lines = [self.hostname]
        lines += [keyword + values.get(keyword, "") for keyword in EXTENSIONS if keyword in self.extensions]
        lines.append(f"SIZE {self.size_limit}")  # RFC 1870 3: 0 says that there is no fixed limit
        if self.starttls and not secure:  # RFC 3207 4.2: not offered again
            lines.append("STARTTLS")
        if self.auth_offered(secure):
            lines.append(f"AUTH {' '.join(mechanisms.usable(self.mechanisms, bound))}")
        return Reply(250, "", tuple(lines))
