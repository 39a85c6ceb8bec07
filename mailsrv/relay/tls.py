"""TLS to other servers: what is demanded of which, and the two sides' part of a handshake (RFC 3207, 7435, 8314, 6125).

``tls_policy`` is the one place that decides; MTA-STS and DANE will join there.  Mail to the world is opportunistic: any
certificate is better than clear text, and what the certificate was worth is written down.  ``[outbound.tls]`` can
demand more of a destination, or of the host of a route; a route with a password demands a certificate that proves the
host's name.  The handshake itself never fails because of a certificate: it is judged afterwards, before any octet of
SMTP.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

import service_identity
from OpenSSL import SSL
from service_identity import pyopenssl as identity
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from mailsrv.config import Config, Route
from mailsrv.relay.mx import Hop
from mailsrv.relay.route import is_loopback

log = Logger()


class Demand(enum.Enum):
    CLEAR = "no TLS"  # it failed a short while ago
    OPPORTUNISTIC = "TLS when it works, any certificate"
    ENCRYPTED = "TLS, any certificate"
    VERIFIED = "TLS with a certificate for the name"


@dataclass(frozen=True, slots=True)
class TlsPolicy:
    """``implicit``: TLS from the first octet.  ``name``: what the certificate has to prove.  ``rule``: who says so."""

    demand: Demand
    implicit: bool
    name: str
    rule: str

    @property
    def needed(self) -> bool:
        return self.demand in (Demand.ENCRYPTED, Demand.VERIFIED)


def tls_policy(
    hop: Hop, route: Route | None, destination: str, demands: Mapping[str, str], *, failed_lately: bool
) -> TlsPolicy:
    """What to demand of ``hop``, reached by ``route`` or, when None, by its MX, for mail to ``destination``.

    ``demands`` is ``[outbound.tls]``: "opportunistic", "required" or "verified" by destination, host of a route, or
    "*", the first of these that is there.  What a route itself demands is never less for that.
    """
    implicit = route is not None and route.scheme == "smtps"
    demand, rule = _configured(route, destination, demands)
    if route is not None:
        floor = _demand_of(route)
        if _STRICTNESS.index(floor) >= _STRICTNESS.index(demand):
            demand, rule = floor, "outbound.routes"
    if demand is Demand.OPPORTUNISTIC and failed_lately:
        demand = Demand.CLEAR
    return TlsPolicy(demand, implicit, hop.name, rule)


_STRICTNESS: Final = (Demand.OPPORTUNISTIC, Demand.ENCRYPTED, Demand.VERIFIED)
_CONFIGURED: Final = {
    "opportunistic": Demand.OPPORTUNISTIC,
    "required": Demand.ENCRYPTED,
    "verified": Demand.VERIFIED,
}


def _configured(route: Route | None, destination: str, demands: Mapping[str, str]) -> tuple[Demand, str]:
    for name in (destination, route.host if route is not None else "", "*"):
        if name in demands:
            return _CONFIGURED[demands[name]], f'outbound.tls."{name}"'
    return Demand.OPPORTUNISTIC, "opportunistic TLS (RFC 7435)"


def _demand_of(route: Route) -> Demand:
    if route.username and not is_loopback(route):
        return Demand.VERIFIED
    return Demand.ENCRYPTED if route.scheme == "smtps" else Demand.OPPORTUNISTIC


# OpenSSL's numbers for what may be wrong with a certificate (x509_vfy.h); the usual ones in words.
_PROBLEMS: Final = {
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is self-signed",
    19: "its issuer is not trusted",
    20: "its issuer is not known",
    21: "its issuer is not known",
    23: "it has been revoked",
    26: "it is not for servers",
}


def client_context(authorities: str, *, strict: bool) -> SSL.Context:
    """A context for connections to other servers; ``authorities`` is a PEM bundle trusted beside the system's, or "".

    ``strict`` is for where a certificate counts.  Otherwise weak keys and old ciphers pass: weak is better than clear.
    OSError when the bundle cannot be read.
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_default_verify_paths()
    if not strict:
        context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
    if authorities:
        try:
            context.load_verify_locations(authorities)
        except SSL.Error as error:
            raise OSError(f"{authorities}: not a bundle of certificates that can be read") from error
    return context


class ClientContexts:
    """The contexts that the present configuration needs, each made once."""

    def __init__(self) -> None:
        self._config: Config | None = None
        self._contexts: dict[bool, SSL.Context] = {}

    def get(self, config: Config, *, strict: bool) -> SSL.Context:
        if self._config is not config:
            self._config = config
            self._contexts.clear()
        if strict not in self._contexts:
            try:
                self._contexts[strict] = client_context(config.tls.authorities, strict=strict)
            except OSError as error:
                log.warn("[tls] authorities is not used: {error}", error=str(error))
                self._contexts[strict] = client_context("", strict=strict)
        return self._contexts[strict]


@implementer(IOpenSSLClientConnectionCreator)
class ClientTls:
    """Our side of one handshake with the server called ``name``: a host name or an address."""

    def __init__(self, context: SSL.Context, name: str) -> None:
        self._chain_problem = ""
        self._context = context
        self._name = name.strip("[]").removeprefix("IPv6:")
        self._connection: SSL.Connection | None = None

    def clientConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        connection.set_verify(SSL.VERIFY_PEER, self._noted)
        if not self._is_address():
            connection.set_tlsext_host_name(self._name.encode("ascii"))  # RFC 6066 3: never an address
        self._connection = connection
        return connection

    def problem(self) -> str:
        """What is wrong with the certificate of the server, "" when it proves the name.  After the handshake."""
        if self._connection is None or self._connection.get_peer_certificate() is None:
            return "the server showed no certificate"
        if self._chain_problem:
            return self._chain_problem
        try:
            if self._is_address():
                identity.verify_ip_address(self._connection, self._name)
            else:
                identity.verify_hostname(self._connection, self._name)
        except (service_identity.VerificationError, service_identity.CertificateError):
            return f"it is not for {self._name}"
        return ""

    def description(self) -> str:
        """Such as ``"TLSv1.3 TLS_AES_256_GCM_SHA384, unverified: it is self-signed"``.  After the handshake."""
        if self._connection is None:
            return ""
        problem = self.problem()
        verdict = f"unverified: {problem}" if problem else "verified"
        return f"{self._connection.get_protocol_version_name()} {self._connection.get_cipher_name()}, {verdict}"

    def _noted(self, connection: SSL.Connection, certificate: object, number: int, depth: int, passed: int) -> bool:
        """Called by OpenSSL for each certificate of the chain: note what is wrong first and go on."""
        if not passed and not self._chain_problem:
            self._chain_problem = _PROBLEMS.get(number, f"OpenSSL's error {number}")
        return True

    def _is_address(self) -> bool:
        try:
            ip_address(self._name)
        except ValueError:
            return False
        return True
