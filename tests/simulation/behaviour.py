"""What servers of a simulated world may be like, and what they remember of the mail that they took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# What may go wrong, and at which place of the dialogue: an answer, or what happens instead of one.  "drop" ends the
# connection, "half" ends it within the answer, "silence" says nothing for two hours, "garbage" is no SMTP, and
# "endless" is an answer with line upon line.
GREETING = (
    *("greeting 421", "greeting 554", "greeting garbage", "greeting silence", "greeting drop", "greeting endless"),
    *("greeting late", "greeting half"),
)
HELLO = ("hello 502", "hello 421", "hello 550", "hello garbage", "hello silence", "hello drop", "hello endless")
STARTTLS = ("starttls 454", "starttls 502", "starttls drop", "starttls silence", "starttls garbage")
HANDSHAKE = ("handshake drop", "handshake garbage", "handshake silence")
LOGIN = ("login 454", "login 535", "login drop")
MAIL = ("mail 451", "mail 421", "mail 550", "mail drop", "mail silence", "mail garbage", "mail endless")
RCPT = ("rcpt 450", "rcpt 452", "rcpt 421", "rcpt 550", "rcpt drop", "rcpt silence", "rcpt garbage")
DATA = ("data 451", "data 421", "data 554", "data drop", "data garbage", "data silence")
# While the content comes: the connection ends, or nothing is read any more, or an answer comes before its time.
CONTENT = ("content drop", "content stall", "content 451", "content 421")
DOT = ("dot 451", "dot 452", "dot 554", "dot 421", "dot drop", "dot half", "dot silence", "dot garbage", "dot endless")
QUIT = ("quit drop", "quit silence")
ALL = (*GREETING, *HELLO, *STARTTLS, *HANDSHAKE, *LOGIN, *MAIL, *RCPT, *DATA, *CONTENT, *DOT, *QUIT)
# After these a message has been refused for good, and its sender is told.
FINAL = ("mail 550", "rcpt 550", "data 554", "dot 554")


@dataclass(slots=True)
class Received:
    """A message that arrived whole.  ``answered``: the sender has read the 250.

    ``at`` is in seconds since the world began.  ``seven_bit``: 8BITMIME was not offered.
    """

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    answered: bool
    at: float
    tls: bool
    seven_bit: bool = False


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a server is like for a while.

    ``faults`` gives the probability of each fault when its place is reached.  Each answer takes up to ``tarpit_s``
    seconds, and each of its octets ``octet_s`` more.  "greeting late" means ``late_s``.
    """

    faults: Mapping[str, float] = field(default_factory=dict)
    tarpit_s: float = 0.0
    octet_s: float = 0.0
    late_s: float = 200.0


HEALTHY = Behaviour()
