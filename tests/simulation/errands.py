"""The people of a simulated world: they send what they have to send, and fetch now and then."""

from __future__ import annotations

import functools
import random
from typing import TYPE_CHECKING

from twisted.internet.ssl import CertificateOptions

from tests.simulation import scenario
from tests.simulation.clients import Login, Manner, Pop3Client, SmtpClient
from tests.simulation.lines import Gone
from tests.simulation.scenario import Errand

if TYPE_CHECKING:
    from tests.simulation.world import World

TRIES = 12  # a client gives up after so many
PORTS = {"smtp": 25, "submission": 587, "submissions": 465, "pop3": 110, "pop3s": 995}


@functools.cache
def _client_context() -> CertificateOptions:
    return CertificateOptions()


async def send(world: World, errand: Errand) -> None:
    """Send the messages of an errand, again and again until each is answered for good or the client is tired of it."""
    await world.pause(errand.begins_s)
    address = errand.address
    reactor = world.reactor(scenario.HOSTNAME if address == "127.0.0.1" else address, (address,))
    rng = random.Random(f"{world.seed}: {address} {errand.begins_s}")
    host = address if address == "127.0.0.1" else scenario.ADDRESSES[0]
    manner = Manner(
        pipelining=errand.pipelining,
        login=Login(errand.login, scenario.PASSWORD) if errand.login else None,
        context=_client_context() if errand.tls else None,
        implicit_tls=errand.service == "submissions",
    )
    client = SmtpClient(reactor, host, PORTS[errand.service], manner, "client.example")
    for n in range(TRIES):
        left = [message for message in errand.messages if not message.done]
        if not left:
            return
        await client.send(left)
        await world.pause(rng.uniform(5, 60) * (n + 1))
    for message in errand.messages:
        if not message.done and world.healed:
            world.complaints.append(f"{message.id} could not be sent: {message.told} {message.answers}")


async def fetch_now_and_then(world: World, mailbox: str) -> None:
    rng = random.Random(f"{world.seed}: {mailbox}")
    while not world.healed:
        await world.pause(rng.uniform(5, 250))
        try:
            await fetch(world, mailbox, delete=rng.random() < 0.3)
        except Gone:
            pass


async def fetch(world: World, mailbox: str, delete: bool = False) -> dict[str, bytes]:
    """All messages of a mailbox through POP3, from the machine itself (``Gone``)."""
    reactor = world.reactor(scenario.HOSTNAME, ("127.0.0.1",))
    manner = Manner(login=Login(mailbox, scenario.PASSWORD))
    client = Pop3Client(reactor, "127.0.0.1", PORTS["pop3"], manner)
    earlier = world.fetched[mailbox]
    found = await client.fetch(tuple(earlier) if delete else ())
    world.complaints += [f"POP3 of {mailbox}: {complaint}" for complaint in client.complaints]
    for name, content in found.items():
        if earlier.setdefault(name, content) != content:
            world.complaints.append(f"POP3 of {mailbox}: {name} has changed")
    return found


async def fetch_at_last(world: World, mailbox: str) -> dict[str, bytes]:
    """The same, as soon as no other session holds the mailbox (RFC 1939 8)."""
    while True:
        try:
            return await fetch(world, mailbox)
        except Gone:
            await world.pause(30.0)
