"""What a known refusal means and what helps: the shape of one row of the tables (``remedies.py`` reads them)."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass


class Action(enum.Enum):
    """What the server itself does about a refusal, in words."""

    NOTHING = "it goes on by the schedule; a refusal with a code from 500 on is final and the sender is told"
    WAIT = "what was not refused for good is tried again an hour later and not before"
    SLOW_DOWN = "it makes fewer connections there, and goes on by the schedule"
    OTHER_FAMILY = (
        "where this server and the other one have both IPv4 and IPv6, it tries the other of the two; else it goes on "
        "by the schedule"
    )


@dataclass(frozen=True, slots=True)
class Remedy:
    """``cause`` is a stable key such as ``"google-no-ptr"``: the ledger has it, and people ask for it.

    ``meaning`` and ``remedy`` are whole sentences for people: what the refusal says, and what whoever runs this server
    is to do.  ``tell``: whether the postmaster is to hear of it; not so where only one mailbox or a passing moment of
    another server is concerned.
    """

    cause: str
    action: Action
    meaning: str
    remedy: str
    tell: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """``head`` matches the whole of ``"CODE STATUS"`` (``"CODE "`` without a status), ``words`` is found in the
    text."""

    head: re.Pattern[str]
    words: re.Pattern[str]
    remedy: Remedy


# Heads that several rows share.
ANY = r"[45]\d\d .*"
TEMPORARY = r"4\d\d .*"
PERMANENT = r"5\d\d .*"
POLICY = r"[45]\d\d (?:[45]\.[07]\.\d{1,3})?"  # also what says nothing particular

NOTHING, WAIT, SLOW_DOWN, OTHER_FAMILY = Action.NOTHING, Action.WAIT, Action.SLOW_DOWN, Action.OTHER_FAMILY


def row(head: str, words: str, cause: str, action: Action, meaning: str, remedy: str, *, tell: bool = True) -> Row:
    return Row(re.compile(head), re.compile(words, re.IGNORECASE), Remedy(cause, action, meaning, remedy, tell))


def same(head: str, words: str, as_in: Row) -> Row:
    """Another wording of a refusal that has a row already."""
    return Row(re.compile(head), re.compile(words, re.IGNORECASE), as_in.remedy)
