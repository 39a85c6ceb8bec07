"""Mail servers elsewhere in a simulated world: they take mail, remember it, and misbehave as the seed says.

What a server is like at the moment is its ``Behaviour``; the world may give it another at any time, also in the middle
of an answer.  The dialogue itself is in ``sink_session.py``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from tests.simulation.behaviour import HEALTHY, Behaviour, Received
from tests.simulation.lines import Conversation, Conversations, Gone
from tests.simulation.reactor import SimulatedReactor
from tests.simulation.sink_session import SinkSession

_logger = Logger()


class Sink:
    """A server on every address of ``reactor``: with STARTTLS when it has a ``context``, with TLS from the first octet
    on when ``implicit_tls``.

    ``refused`` names recipients that never exist.  ``most_recipients`` and ``most_messages`` are what it takes in a
    transaction and over a connection.  ``login`` is the user and the password that it asks for.  ``complaints`` are of
    what RFC 5321 does not allow it to be sent; ``connections`` counts those so far.
    """

    def __init__(
        self,
        name: str,
        reactor: SimulatedReactor,
        rng: random.Random,
        port: int = 25,
        *,
        context: Any = None,
        implicit_tls: bool = False,
    ) -> None:
        self.name = name
        self.reactor = reactor
        self.port = port
        self.rng = rng
        self.behaviour: Behaviour = HEALTHY
        self.refused: set[str] = set()
        self.most_recipients = 1000
        self.most_messages = 1000
        self.login: tuple[str, str] | None = None
        self.extensions = ["PIPELINING", "8BITMIME", "SIZE 10000000", "ENHANCEDSTATUSCODES"]
        self.context = context
        self.implicit_tls = implicit_tls
        self.messages: list[Received] = []
        self.complaints: list[str] = []
        self.happened: list[str] = []  # the faults, in order
        self.connections = 0
        self._open: set[Conversation] = set()
        self.on_connected: Callable[[], None] = lambda: None
        for interface in ("", "::"):
            factory: IProtocolFactory = Conversations(self._conversation)
            if implicit_tls:
                factory = TLSMemoryBIOFactory(context, False, factory, clock=reactor)
            reactor.listenTCP(port, factory, interface=interface)  # type: ignore[arg-type]

    def _conversation(self) -> Conversation:
        self.connections += 1
        conversation = Conversation(self.reactor, on_lost=lambda: self._open.discard(conversation))
        self._open.add(conversation)
        self.on_connected()
        conversation.made().addCallback(lambda made: Deferred.fromCoroutine(self._serve(made)))
        return conversation

    @property
    def open(self) -> int:
        """Connections that the other side has not closed."""
        return sum(not conversation.abandoned for conversation in self._open)

    async def _serve(self, conversation: Conversation) -> None:
        session = SinkSession(self, conversation)
        try:
            await session.run()
        except Gone:
            pass
        except Exception:
            _logger.failure("a sink failed")
        session.over()
        conversation.close()

    def strikes(self, place: tuple[str, ...]) -> str:
        """The fault that happens at this place, "" for none."""
        for fault in place:
            probability = self.behaviour.faults.get(fault, 0.0)
            if probability and self.rng.random() < probability:
                self.happened.append(fault)
                return fault.partition(" ")[2]
        return ""
