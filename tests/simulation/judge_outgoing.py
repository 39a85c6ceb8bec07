"""What a world is asked in which mail goes out to many domains, well and sick.

7. Mail for a domain that is well, or recovers in time, is delivered, never bounced; mail that the DNS or the time rules
   out is bounced.
8. Whoever is well gets its mail promptly, however sick the others are.
9. Where TLS is demanded nothing goes in clear.
10. Connections and places are given back, and there are never many at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tests.simulation import elsewhere, scenario

if TYPE_CHECKING:
    from tests.simulation.clients import Message
    from tests.simulation.world import World

PROMPT_S = 120.0  # from the 250 for the sender to the last dot at the recipient's server, when nothing is in the way
MOST_OPEN = 250  # connections at once to all the world


def at_the_end(world: World) -> list[str]:
    """What is broken, as sentences."""
    arrived = _arrived(world)
    complaints = list(_ends(world, arrived))
    if _undisturbed(world):
        complaints += _prompt(world, arrived)
    complaints += _secret(world)
    complaints += _given_back(world)
    return complaints


def _arrived(world: World) -> dict[tuple[str, str], float]:
    """When each message first arrived for each recipient."""
    from tests.simulation.judge import identifier

    arrived: dict[tuple[str, str], float] = {}
    for sink in world.sinks.values():
        for received in sink.messages:
            for recipient in received.recipients:
                key = (identifier(received.content), recipient)
                arrived[key] = min(received.at, arrived.get(key, received.at))
    return arrived


def _accepted(world: World) -> Iterator[tuple[Message, str, elsewhere.Domain]]:
    for message in world.sent:
        for recipient in {recipient for recipients in message.accepted for recipient in recipients}:
            domain = world.elsewhere.domain_of(recipient)
            if domain is not None:
                yield message, recipient, domain


def _ends(world: World, arrived: dict[tuple[str, str], float]) -> Iterator[str]:
    for message, recipient, domain in _accepted(world):
        end = elsewhere.BOUNCED if recipient.startswith("nobody@") else domain.end
        there = (message.id, recipient) in arrived
        # How long a machine was off only the wall clock knows: then mail may have waited for days.
        if end == elsewhere.DELIVERED and not there and not world.time_lost:
            yield f"{message.id} did not arrive for {recipient}, though nothing ruled that out"
        if end == elsewhere.BOUNCED and there:
            yield f"{message.id} arrived for {recipient}, who cannot be reached"


def _undisturbed(world: World) -> bool:
    """Whether speed is a question here: the machine, its network and its DNS were well."""
    faults = world.faults
    return (
        not world.ends
        and not world.incidents.lasted
        and not faults.jumps
        and not faults.resolver
        and faults.weather == scenario.CALM_FAULTS.weather
    )


def _prompt(world: World, arrived: dict[tuple[str, str], float]) -> Iterator[str]:
    for message, recipient, domain in _accepted(world):
        at = arrived.get((message.id, recipient))
        if domain.well and at is not None and at > message.accepted_at[-1] + PROMPT_S:
            waited = at - message.accepted_at[-1]
            yield f"SLOW: {message.id} took {waited:.0f} s to {recipient}, where everything is well"


def _secret(world: World) -> Iterator[str]:
    for sink in world.sinks.values():
        for received in sink.messages:
            for recipient in received.recipients:
                domain = world.elsewhere.domain_of(recipient)
                if domain is not None and domain.secret and not received.tls:
                    yield f"mail for {recipient} went to {sink.name} in clear"


def _given_back(world: World) -> Iterator[str]:
    for sink in world.sinks.values():
        if sink.open:
            yield f"{sink.open} connections to {sink.name} are still open"
    if world.most_open > MOST_OPEN:
        yield f"there were {world.most_open} connections at once"
