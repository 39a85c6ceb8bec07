"""What Yahoo and AOL, Apple, GMX and web.de, T-Online and filters that many domains use say.

Yahoo and Apple put a code in brackets right behind the status: ``421 4.7.0 [TSS04] Messages from``.
"""

from __future__ import annotations

from typing import Final

from mailsrv.relay.remedies.remedy import ANY, NOTHING, OTHER_FAMILY, PERMANENT, POLICY, SLOW_DOWN, TEMPORARY, row, same

_YAHOO = "See https://senders.yahooinc.com/smtp-error-codes/; its Complaint Feedback Loop tells who complains."
_APPLE = "If that does not help, write to icloudadmin@apple.com with the whole answer."

_YAHOO_SLOW = row(
    r"4\d\d 4\.7\.[01]",
    r"^\[TSS?0[1245]\] ",
    "yahoo-slow",
    SLOW_DOWN,
    "Yahoo takes little mail from this server for now: there was more than usual, or its users complained.",
    "See with `mailsrv queue list` that nothing is sent that should not be, forwarded spam included. If all is in "
    "order it "
    f"passes within hours; publish SPF, DKIM and DMARC (`mailsrv dns`). {_YAHOO}",
)
_APPLE_POLICY = row(
    POLICY,
    r"^\[(?:CS|HM|HME)\d{1,2}\] ",
    "apple-policy",
    NOTHING,
    "Apple refuses the message by a rule that it does not name: the address or the domain of this server is not "
    "trusted, "
    "or the message looks like spam.",
    "Publish SPF, DKIM and DMARC (`mailsrv dns`), set the PTR record (`mailsrv check`), and write without shortened "
    "links. " + _APPLE,
)
_GMX_PTR = row(
    r"554 (?:5\.\d\.\d)?",
    r"\bNemesis ESMTP .*\bBad DNS PTR resource record",
    "gmx-no-ptr",
    OTHER_FAMILY,
    "GMX and web.de take no mail from an address without a name in DNS, or with a name that looks like a home's.",
    "Have whoever gave you the address set its PTR record to the host name of this server. `mailsrv check` shows "
    "what is "
    "there.",
)

ROWS: Final = (
    _YAHOO_SLOW,
    row(
        ANY,
        r"^\[TSS?(?:03|09|1\d)\] ",
        "yahoo-blocked",
        OTHER_FAMILY,
        "Yahoo takes no mail from the address of this server, and says that trying again does not help.",
        "Publish SPF, DKIM and DMARC (`mailsrv dns`), see that nothing is sent that should not be (`mailsrv queue "
        "list`), then "
        f"ask with the form at https://senders.yahooinc.com/contact/. {_YAHOO}",
    ),
    row(
        TEMPORARY,
        r"^\[GL01\] ",
        "yahoo-greylist",
        NOTHING,
        "Yahoo lets servers that it does not know wait.",
        "Nothing: the mail is tried again.",
        tell=False,
    ),
    row(
        PERMANENT,
        r"^(?:Message not allowed - )?\[PH01\] ",
        "yahoo-policy",
        NOTHING,
        "Yahoo refuses the message by a rule that it does not name, most likely because of a link or an attachment.",
        "Write it differently, without links to domains of bad repute. " + _YAHOO,
        tell=False,
    ),
    row(
        r"55\d 5\.7\.9",
        r"(?:authenticat|not accepted for policy reasons)",
        "yahoo-authentication",
        NOTHING,
        "Yahoo could not see that the mail comes from its domain, or the domain asks to refuse mail of this kind.",
        "Publish SPF, DKIM and DMARC as `mailsrv dns` prints them. " + _YAHOO,
    ),
    row(
        PERMANENT,
        r"^\[BL\d\d\] ",
        "yahoo-block-list",
        OTHER_FAMILY,
        "Yahoo takes no mail from the address of this server, because Spamhaus lists it.",
        "Look it up at https://check.spamhaus.org, which says why and takes it off.",
    ),
    row(
        r"451 (?:4\.\d\.\d)?",
        r"^Message temporarily deferred due to unresolvable RFC\.?5321 from domain",
        "yahoo-sender-domain",
        NOTHING,
        "Yahoo does not find the domain of the sender's address in DNS.",
        "See that your zone answers from everywhere and that the domain has an MX record (`mailsrv check`).",
    ),
    _APPLE_POLICY,
    row(
        POLICY,
        r"^\[HCM\d\] ",
        "apple-address",
        OTHER_FAMILY,
        "Apple takes no mail from the address of this server.",
        "See that nothing is sent that should not be (`mailsrv queue list`), and that `mailsrv check` finds nothing "
        "wrong. " + _APPLE,
    ),
    same(r"554 5\.7\.1", r"^\[?Message rejected due to local policy", _APPLE_POLICY),
    row(
        r"421 4\.7\.1",
        r"^Messages to .{0,300}deferred due to excessive volume",
        "apple-slow",
        SLOW_DOWN,
        "Apple takes mail for this recipient more slowly.",
        "Nothing: fewer connections are made, and the mail is tried again.",
        tell=False,
    ),
    row(
        POLICY,
        r"https://(?:ipcheck|support)\.proofpoint\.com/",
        "proofpoint",
        OTHER_FAMILY,
        "Proofpoint, which filters for Apple and many companies, has the address of this server on its list.",
        "Look it up at https://ipcheck.proofpoint.com and ask there to have it taken off.",
    ),
    _GMX_PTR,
    row(
        r"554 (?:5\.\d\.\d)?",
        r"\bNemesis ESMTP .*\b(?:black ?listed|block ?listed)",
        "gmx-block-list",
        OTHER_FAMILY,
        "GMX and web.de have the address of this server on their block list.",
        "Ask with the form at https://postmaster.gmx.net/en/contact, naming the address and the whole answer.",
    ),
    row(
        r"554 ",
        r"^IP=\S+ - (?:None/bad reputation|A problem occurred)",
        "t-online-unknown",
        OTHER_FAMILY,
        "T-Online takes mail only from servers that it knows, and it does not know this one.",
        "Write to tobr@rx.t-online.de, naming the address and the host name, and ask to be let in. They want a web "
        "page under "
        "that host name, or under its domain, that says who runs it.",
    ),
    row(
        ANY,
        r"\bAUP#\w",
        "cloudfilter",
        OTHER_FAMILY,
        "Cloudfilter, which filters for access providers in North America, has a bad opinion of the address of this "
        "server.",
        "See that the PTR record is right (`mailsrv check`), then write to the postmaster of the recipient's provider.",
    ),
    row(
        PERMANENT,
        r"https?://csi\.cloudmark\.com/",
        "cloudmark",
        OTHER_FAMILY,
        "Cloudmark, which filters for many providers, has a bad opinion of the address of this server.",
        "Look it up at https://csi.cloudmark.com and ask there to have it reset.",
    ),
    row(
        PERMANENT,
        r"https?://postmaster\.comcast\.net/|^\S+ \S+ Comcast BL\d",
        "comcast-blocked",
        OTHER_FAMILY,
        "Comcast has blocked the address of this server.",
        "See that the PTR record is right (`mailsrv check`), then ask at https://spa.xfinity.com.",
    ),
    row(
        PERMANENT,
        r"rejected due to the sending MTA's poor reputation|\bsenderscore\b|\btalosintelligence\.com\b",
        "cisco-reputation",
        OTHER_FAMILY,
        "Cisco Talos, which filters for many companies, has a bad opinion of the address of this server.",
        "Look it up at https://talosintelligence.com/reputation_center and ask there to have it corrected.",
    ),
    row(
        r"[45]\d\d .*",
        r"\b(?:community|csi)\.mimecast\.(?:com|org)\b|\bPoor Reputation Sender\b",
        "mimecast",
        NOTHING,
        "Mimecast, which filters for many companies, refuses the message or lets servers that it does not know wait.",
        "A wait passes by itself. For a refusal, ask the recipient's postmaster to allow this server; Mimecast "
        "serves its "
        "customers only.",
        tell=False,
    ),
)
