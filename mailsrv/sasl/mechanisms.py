"""The SASL mechanisms that the servers know, by name.

Which of them are offered when (only under TLS, say) is the caller's decision, as is ``*``, by which a client gives up.
"""

from __future__ import annotations

from collections.abc import Iterable

from mailsrv.sasl.exchange import Exchange
from mailsrv.sasl.plain import Login, Plain
from mailsrv.sasl.scram import Scram

# In the order in which they are offered: the strongest first, since many clients take the first that they know.
NAMES = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN")

_PLUS = "-PLUS"  # RFC 5802 4: what the name of a mechanism with channel binding ends in


def usable(names: Iterable[str], bound: bool) -> tuple[str, ...]:
    """Those of ``names`` that can be used over a channel; ``bound``: it has something to bind to."""
    return tuple(name for name in names if bound or not name.endswith(_PLUS))


def exchange(name: str, initial: bytes | None, exporter: bytes | None = None) -> Exchange:
    """Begin an exchange of the mechanism ``name`` (in upper case); KeyError when there is none of that name.

    ``initial`` is the decoded initial response, None when the client sent none (b"" is an empty one).  ``exporter`` is
    the channel's binding (``mailsrv.sasl.scram.Scram``).
    """
    if name not in NAMES:
        raise KeyError(name)
    if name == "PLAIN":
        return Plain(initial)
    if name == "LOGIN":
        return Login(initial)
    return Scram(initial, plus=name.endswith(_PLUS), exporter=exporter)
