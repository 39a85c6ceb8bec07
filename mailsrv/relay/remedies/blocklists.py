"""Public block lists, as servers of any make quote them: by the zone asked, or by the page that explains a listing.

A list's name counts only as a host name or beside a word that says what it did, and only in an answer about policy: not
in one that says that a mailbox does not exist.
"""

from __future__ import annotations

from typing import Final

from mailsrv.relay.remedies.remedy import NOTHING, OTHER_FAMILY, POLICY, Row, row

_DID = r"(?:block|list|reject|using|found|accepted|denied|refus|see|by)\w*\b[^.;]{0,80}"


def _list(name: str, words: str, cause: str, look_up: str, more: str = "") -> Row:
    return row(
        POLICY,
        words,
        cause,
        OTHER_FAMILY,
        f"The other server asks the block list of {name}, and the address of this server, or its network, is on it.",
        f"Look the address up at {look_up}, which says why it is listed and how it comes off. Make sure first that "
        f"nothing "
        f"is sent that should not be (`mailsrv queue list`).{more} `mailsrv check` looks at the large lists.",
    )


ROWS: Final = (
    row(
        POLICY,
        r"\bdbl\.spamhaus\.org\b|\bspamhaus\.org/(?:query/)?(?:dbl|domain)\b|\bSpamhaus DBL\b"
        r"|\b(?:multi\.)?(?:surbl|uribl)\.(?:org|com)\b",
        "domain-list",
        NOTHING,
        "A domain that the message names, in an address or a link, is on a block list.",
        "Look your own domain up at https://check.spamhaus.org and https://surbl.org/surbl-analysis. If it is not "
        "listed, take "
        "the links out of the message.",
    ),
    row(
        POLICY,
        r"\bpbl\.spamhaus\.org\b|\bspamhaus\.org/(?:query/)?pbl\b|\bSpamhaus PBL\b|\blisted by PBL\b",
        "spamhaus-pbl",
        OTHER_FAMILY,
        "Spamhaus lists the network of this server as one whose machines should not send mail directly, as those of "
        "homes.",
        "Look the address up at https://check.spamhaus.org and take it off there if it is yours alone and has a PTR "
        "record of "
        'its own. Otherwise send through a smarthost: [outbound] routes, "*" = '
        '"smtps://user:password@smart.example:465".',
    ),
    _list(
        "Spamhaus",
        r"\b(?:zen|sbl|xbl|css|sbl-xbl|dq|cbl)\.spamhaus\.(?:org|net)\b|\b(?:www|check)\.spamhaus\.org/"
        rf"|\bcbl\.abuseat\.org\b"
        rf"|\b{_DID}\bSpamhaus\b",
        "spamhaus",
        "https://check.spamhaus.org",
    ),
    _list(
        "Barracuda",
        r"\b(?:b|bb)\.barracudacentral\.(?:org|com)\b|\bbarracudacentral\.org/|\bbarracudanetworks\.com/reputation"
        rf"|\b{_DID}\bBarracuda\b",
        "barracuda",
        "https://www.barracudacentral.org/lookups",
    ),
    _list(
        "SpamCop",
        rf"\bbl\.spamcop\.net\b|\bspamcop\.net/|\b{_DID}\bSpamCop\b",
        "spamcop",
        "https://www.spamcop.net/bl.shtml",
        " A listing ends by itself a day after the last report.",
    ),
    _list(
        "Abusix",
        rf"\bmail\.abusix\.zone\b|\b(?:lookup|app)\.abusix\.com\b|\b{_DID}\bAbusix\b",
        "abusix",
        "https://lookup.abusix.com",
    ),
    _list(
        "UCEPROTECT",
        rf"\b(?:dnsbl-[0-3]|ips)\.uceprotect\.net\b|\buceprotect\.net\b|\b{_DID}\bUCEPROTECT\b",
        "uceprotect",
        "https://www.uceprotect.net/en/rblcheck.php",
        " Its levels 2 and 3 list whole providers for what others did: pay nothing, ask your provider, or the other "
        "server's "
        "postmaster not to use them.",
    ),
    _list(
        "SORBS",
        rf"\b(?:dnsbl|spam|dul|problems)\.sorbs\.net\b|\bsorbs\.net/|\b{_DID}\bSORBS\b",
        "sorbs",
        "https://multirbl.valli.org (SORBS ended in 2024; the other server should no longer ask it)",
    ),
    _list("PSBL", r"\bpsbl\.surriel\.com\b|\bpsbl\.org\b", "psbl", "https://psbl.org"),
    _list(
        "Mailspike",
        r"\b(?:bl|rep|z)\.mailspike\.(?:net|org)\b|\bmailspike\.(?:org|io)/",
        "mailspike",
        "https://mailspike.io",
    ),
    _list("NiX Spam", r"\bix\.dnsbl\.manitu\.net\b|\bdnsbl\.manitu\.net/", "nixspam", "https://www.nixspam.net"),
    _list(
        "SpamRATS",
        r"\b(?:all|dyna|noptr|spam|auth)\.spamrats\.com\b|\bspamrats\.com/",
        "spamrats",
        "https://www.spamrats.com/lookup.php",
        " It lists addresses whose PTR record is missing or looks like a home's.",
    ),
    _list(
        "Invaluement",
        r"\b(?:ivmSIP|ivmSIP24|ivmURI)\b|\binvaluement\.com/",
        "invaluement",
        "https://www.invaluement.com/lookup/",
    ),
    _list("0spam", r"\b(?:bl|rbl|nbl)\.0spam\.org\b", "0spam", "https://0spam.org"),
    _list("DroneBL", r"\bdnsbl\.dronebl\.org\b|\bdronebl\.org/", "dronebl", "https://dronebl.org/lookup"),
    _list(
        "backscatterer.org",
        r"\b(?:ips\.)?backscatterer\.org\b",
        "backscatterer",
        "https://www.backscatterer.org",
        " It lists servers that send bounces to strangers.",
    ),
    row(
        POLICY,
        r"\b(?:block|black)[ -]?list(?:ed|ing)?\b|\b(?:DNSBL|RBL)\b|\b(?:client host|IP|address"
        r"|server)\b[^;]{0,80}\bis (?:listed|blocked)\b",
        "block-list",
        OTHER_FAMILY,
        "The other server has the address of this server on a block list.",
        "See with `mailsrv check` whether one of the large lists has it. If not, the list is the other server's own: "
        "ask its "
        "postmaster, in another way, to take the address off.",
    ),
)
