"""AUTHORIZATION: TLS, languages, and all the ways to log in (RFC 1939 4 and 7, 2595 4, 5034, 6856).

Refused: passwords where they may not be used, more than ``LOGINS_LIMIT`` failed logins, anything sent in clear text
behind STLS.  APOP is not offered, as passwords are kept as one-way hashes.
"""

from __future__ import annotations

from dataclasses import dataclass

from mailsrv.pop3 import events, languages, replies
from mailsrv.pop3.dialog import Dialog
from mailsrv.pop3.grammar import SyntaxProblem, no_argument, parse_auth
from mailsrv.pop3.replies import Refusal
from mailsrv.sasl import base64, exchange, mechanisms
from mailsrv.sasl.scram import Scram, ServerFirst

LOGINS_LIMIT = 5


@dataclass(frozen=True, slots=True)
class Service:
    """What is offered on a connection.  ``cleartext``: passwords may be used without TLS.

    Of ``mechanisms``, those with channel binding are offered only where there is a channel to bind to.
    ``login_delay_s`` is a whole number, 0 for none.
    """

    hostname: str
    stls: bool = False
    cleartext: bool = False
    mechanisms: tuple[str, ...] = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN")
    login_delay_s: int = 0


class Authorization(Dialog):
    """A connection before its maildrop is open; ``secure`` says that it is under TLS.

    ``exporter`` is what that TLS has for channel bindings (RFC 9266), None when it has nothing; to be set once the
    handshake is done.
    """

    __slots__ = (
        "_exchange",
        "_failed_logins",
        "_mechanism",
        "_service",
        "_username",
        "_utf8",
        "exporter",
        "secure",
    )

    def __init__(self, service: Service, secure: bool = False) -> None:
        super().__init__()
        self.secure = secure
        self.exporter: bytes | None = None
        self._service = service
        self._failed_logins = 0
        self._username = ""
        self._mechanism = ""
        self._exchange: exchange.Exchange | None = None
        self._utf8 = False

    # -- answers to events

    def greet(self) -> None:
        """Answer ``Connected``."""
        if self._happened("greeted"):
            self._ok("{} POP3 server ready", self._service.hostname)

    def give_keys(self, first: ServerFirst) -> None:
        """Answer ``Keys``."""
        if self._happened("keys"):
            assert isinstance(self._exchange, Scram)
            self._challenge(self._exchange.keys(first).data)

    def tls_started(self) -> None:
        """TLS is on: everything said before is forgotten (RFC 2595 4)."""
        if self._happened("secured"):
            self.secure = True
            self.exporter = None
            self._username = ""
            self._utf8 = False
            self._language = languages.DEFAULT
            self._lines.clear()
            self._last = b""

    # -- within

    @property
    def _may_log_in(self) -> bool:
        return self.secure or self._service.cleartext

    @property
    def _mechanisms(self) -> tuple[str, ...]:
        return mechanisms.usable(self._service.mechanisms, self.exporter is not None)

    def _check_may_log_in(self) -> None:
        if not self._may_log_in:
            raise SyntaxProblem("passwords are taken under TLS only, use STLS first")

    def _login_failed(self, refusal: Refusal) -> None:
        self._happened("failed")
        self._username = ""
        self._err(refusal)
        if refusal == replies.BAD_LOGIN:
            self._failed_logins += 1
        if self._failed_logins >= LOGINS_LIMIT:
            self.close(None, "too many failed logins")

    # -- commands

    def _stls(self, argument: str) -> None:
        no_argument(argument)
        if self.secure:
            raise SyntaxProblem("TLS is on already")
        if not self._service.stls:
            raise SyntaxProblem("STLS is not offered")
        if len(self._lines) or self._bare_lf:
            self._spoke_in_clear()
            return
        self._happened("STLS")
        self._ok("begin TLS")
        self._events.append(events.TlsWanted())

    def _utf8_on(self, argument: str) -> None:
        # RFC 6856 2.1
        no_argument(argument)
        self._happened("UTF8")
        self._utf8 = True
        self._ok("UTF-8 is on")

    def _lang(self, argument: str) -> None:
        # RFC 6856 3
        if not argument:
            self._ok("languages follow")
            listing = [f"{language.tag} {language.name}\r\n" for language in languages.LANGUAGES]
            self._write("".join(listing).encode() + b".\r\n")
            return
        language = languages.find(argument)
        if language is None:
            raise SyntaxProblem("there is no such language here")
        self._language = language
        self._write(b"+OK %b %b\r\n" % (language.tag.encode(), language.say("the language is English").encode()))

    def _user(self, argument: str) -> None:
        self._check_may_log_in()
        if not argument:
            raise SyntaxProblem("USER needs a name")
        self._happened("USER")
        self._username = argument
        # RFC 1939 7: the same answer whether there is such a user or not.
        self._ok("now the password")

    def _pass(self, argument: str) -> None:
        self._check_may_log_in()
        if not argument:
            raise SyntaxProblem("PASS needs a password")
        self._happened("PASS")
        self._events.append(events.Login("USER", self._username, argument))

    def _auth(self, argument: str) -> None:
        self._check_may_log_in()
        mechanism, initial = parse_auth(argument)
        if mechanism not in self._mechanisms:
            raise SyntaxProblem("this mechanism is not offered")
        try:
            decoded = None if initial is None else base64.decode_initial(initial)
        except ValueError:
            raise SyntaxProblem("the initial response is not base64") from None
        self._happened("AUTH")
        self._mechanism = mechanism
        self._exchange = mechanisms.exchange(mechanism, decoded, self.exporter)
        self._step(None)

    def _response(self, line: bytes) -> None:
        if line == b"*":  # RFC 5034 4
            self._refuse_command("authentication was cancelled")
            return
        try:
            response = base64.decode(line)
        except ValueError:
            self._refuse_command("the response is not base64")
            return
        self._step(response)

    def _step(self, response: bytes | None) -> None:
        assert self._exchange is not None
        match self._exchange.step(response):
            case exchange.Challenge(data):
                self._challenge(data)
            case exchange.Credentials(username, password):
                self._happened("credentials")
                self._events.append(events.Login(self._mechanism, username, password))
                self._exchange = None
            case exchange.NeedKeys(username):
                self._happened("name")
                self._events.append(events.Keys(self._mechanism, username))
            case exchange.Proof(username, fault):
                self._happened("proof")
                self._events.append(events.Proof(self._mechanism, username, fault))
                self._exchange = None
            case exchange.Refused(reason):
                self._refuse_command(reason)

    def _challenge(self, data: bytes) -> None:
        self._write(b"+ " + base64.encode(data) + b"\r\n")
