"""What servers of any make say, by the status codes of RFC 3463, 5248 and 7372, and by the words that are usual."""

from __future__ import annotations

from typing import Final

from mailsrv.relay.remedies.remedy import (
    ANY,
    NOTHING,
    OTHER_FAMILY,
    PERMANENT,
    POLICY,
    SLOW_DOWN,
    TEMPORARY,
    WAIT,
    row,
    same,
)

_DNS = "`mailsrv dns` prints the records to publish, `mailsrv check` compares them with what is published."

_GREYLIST = row(
    TEMPORARY,
    r"\bgr[ae]y[- ]?list",
    "greylist",
    NOTHING,
    "The other server lets senders that it does not know wait, since spam is seldom tried a second time.",
    "Nothing: the mail is tried again and then let in.",
    tell=False,
)
_FULL = row(
    r"[45]\d\d [45]\.2\.2",
    r"",
    "mailbox-full",
    NOTHING,
    "The recipient's mailbox is full.",
    "Nothing here: the recipient has to make room.",
    tell=False,
)
_NO_PTR = row(
    r"[45]\d\d [45]\.7\.25",
    r"",
    "no-ptr",
    OTHER_FAMILY,
    "The other server takes no mail from an address without a name in DNS, or whose name does not lead back to it.",
    "Have whoever gave you the address set its PTR record to the host name of this server, for IPv4 and for IPv6, "
    "and let "
    "that name have both addresses. `mailsrv check` shows what is there.",
)
_SPF = row(
    r"[45]\d\d [45]\.7\.2[34]",
    r"",
    "spf",
    OTHER_FAMILY,
    "The SPF record of the sender's domain does not allow this server to send for it.",
    "If the domain is yours, publish the SPF record that `mailsrv dns` prints: it has to cover IPv4 and IPv6. If it "
    "is not, "
    "send with an address of your own domain.",
)
_DKIM = row(
    r"[45]\d\d [45]\.7\.2[0-2]",
    r"",
    "dkim",
    NOTHING,
    "The other server wants a valid DKIM signature of the author's domain, and found none.",
    f"Publish the DKIM record. {_DNS}",
)
_DMARC = row(
    r"[45]\d\d [45]\.7\.26",
    r"",
    "dmarc",
    NOTHING,
    "The mail failed the checks of where it comes from (SPF, DKIM), and the domain in From: asks to refuse it then.",
    f"For mail from your own domain: {_DNS} For forwarded mail nothing can be done here.",
)
_TLS = row(
    r"[45]\d\d [45]\.7\.10",
    r"",
    "tls-required",
    NOTHING,
    "The other server takes mail only over TLS, and it came in clear.",
    "`mailsrv why ADDRESS` says why TLS failed; a firewall or a provider that takes STARTTLS out of the way is the "
    "usual "
    "reason.",
)
_RELAY = r"\b(?:relay(?:ing)? (?:access )?denied|unable to relay|relaying (?:not permitted|not allowed|prohibited))"

ROWS: Final = (
    _GREYLIST,
    same(TEMPORARY, r"\bpostgrey\b", _GREYLIST),
    _FULL,
    same(
        r"[45]5\d (?:[45]\.\d\.\d)?",
        r"\b(?:mailbox|inbox|account|user)\b[^.;]{0,30}\b(?:full|over quota)\b|\bquota exceeded\b",
        _FULL,
    ),
    _NO_PTR,
    same(
        POLICY,
        r"\b(?:no|missing|invalid|bad|without|cannot find|does not have|doesn't have|need)\b[^.;]{0,40}"
        r"\b(?:PTR|reverse (?:DNS|hostname|name|lookup|mapping)|rDNS)\b|\bcannot find your (?:reverse )?hostname\b"
        r"|\b(?:PTR|reverse DNS|rDNS)\b[^.;]{0,40}\b(?:fail|missing|required|not found|does not|doesn't|mismatch)",
        _NO_PTR,
    ),
    _SPF,
    same(POLICY, r"\b(?:SPF|Sender Policy Framework)\b[^.;]{0,60}\b(?:fail|violation|not allowed|reject|denied)", _SPF),
    _DMARC,
    same(POLICY, r"\bDMARC\b", _DMARC),
    _DKIM,
    same(POLICY, r"\bDKIM\b[^.;]{0,60}\b(?:fail|missing|invalid|required|reject)", _DKIM),
    _TLS,
    same(
        r"[45]\d\d (?:[45]\.7\.\d)?",
        r"\b(?:must issue a STARTTLS|TLS (?:is )?required|encryption (?:is )?(?:required|needed))",
        _TLS,
    ),
    row(
        r"[45]\d\d (?:[45]\.[07]\.\d|[45]\.1\.8)?",
        r"\b(?:dynamic (?:IP|address)|dial-?up|residential|generic (?:reverse|rDNS|PTR))",
        "dynamic-address",
        OTHER_FAMILY,
        "The other server takes no mail from addresses that look like those given to homes.",
        "Have whoever gave you the address set its PTR record to the host name of this server. Where that is not "
        "possible, "
        'send through a smarthost: [outbound] routes, "*" = "smtps://user:password@smart.example:465".',
    ),
    row(
        r"[45]\d\d [45]\.1\.8",
        r"",
        "sender-domain",
        NOTHING,
        "The other server does not find the domain of the sender's address in DNS, or no server for its mail.",
        f"See that your zone answers from everywhere. {_DNS}",
    ),
    row(
        PERMANENT,
        r"^(?:HELO|EHLO)\b|\b(?:bad|invalid|rejected|forged|unacceptable) (?:HELO|EHLO)\b|\b(?:HELO"
        r"|EHLO)\b[^.;]{0,80}\b(?:reject|invalid|resolve|not found)",
        "helo",
        NOTHING,
        "The other server does not accept the name by which this server introduces itself.",
        "Set `hostname` to the full name of this server in DNS, which its PTR record names too. `mailsrv check` "
        "shows it.",
    ),
    row(
        ANY,
        r"\b(?:sender (?:verify|verification|callout)|callback|sender address verification)\b[^.;]{0,60}\b(?:fail"
        r"|not|refus|in progress)",
        "sender-callback",
        NOTHING,
        "The other server asked this one whether the sender's address exists, and did not like or not get the answer.",
        "See with `mailsrv why ADDRESS` what its question was answered: it comes from the null reverse-path, and "
        "needs port 25 "
        "to be open to it.",
    ),
    row(
        POLICY,
        r"\b(?:poor|bad|low) (?:sender |IP )?reputation\b|\breputation (?:is )?(?:too )?(?:low|poor|bad)\b",
        "reputation",
        OTHER_FAMILY,
        "The other server has a bad opinion of the address of this server, or knows too little of it.",
        "Make sure that nothing is sent that should not be (`mailsrv queue list`), and that `mailsrv check` finds "
        "nothing "
        "wrong. Reputation grows over weeks with mail that is wanted.",
    ),
    row(
        r"4\d\d (?:4\.[0347]\.\d{1,3})?",
        r"\btoo many (?:concurrent |simultaneous |open )?(?:SMTP )?(?:connections|sessions)\b|\bconnection (?:rate"
        r"|limit)\b",
        "connections",
        SLOW_DOWN,
        "The other server wants fewer connections at a time.",
        "Nothing: fewer are made.",
        tell=False,
    ),
    row(
        r"4\d\d (?:4\.[02347]\.\d{1,3})?",
        r"\brate[- ]limit|\bthrottl|\btoo (?:many (?:messages|emails|mails)|fast|quickly|much mail)\b"
        r"|\bexcessive (?:volume|rate)\b",
        "rate",
        SLOW_DOWN,
        "The other server wants less mail at a time.",
        "Nothing, if it passes: fewer connections are made. If it stays, see what is sent with `mailsrv queue list`.",
        tell=False,
    ),
    row(
        r"4\d\d 4\.7\.28",
        r"",
        "flood",
        WAIT,
        "The other server has had too much mail of this kind.",
        "See with `mailsrv queue list` that nothing is sent that should not be.",
    ),
    row(
        r"55\d (?:5\.[014567]\.\d{1,3})?",
        _RELAY,
        "relay-denied",
        NOTHING,
        "The server to which the DNS directs mail of that domain does not take mail for it.",
        "Nothing here: the MX record of that domain, or its server, has to be put right. Where a route leads there "
        "([outbound] routes), its server wants a login.",
        tell=False,
    ),
    row(
        r"5\d\d (?:5\.[067]\.\d)?",
        r"\b(?:spam|junk|unsolicited|UBE)\b[^.;]{0,60}\b(?:detect|content|message|reject|suspect|refus|denied|score)"
        r"|\b(?:detect|reject|classif|identif|look)\w*\b[^.;]{0,40}\b(?:spam|junk|unsolicited)\b",
        "content",
        NOTHING,
        "The other server takes this message for spam.",
        "Write it differently: fewer links, plain text beside HTML, no archives or programs as attachments. If it "
        "says so of "
        "everything, see what `mailsrv check` finds.",
        tell=False,
    ),
    row(
        r"55\d 5\.7\.\d",
        r"\b(?:virus|malware|infected)\b",
        "malware",
        NOTHING,
        "The other server found malware in the message.",
        "Look for the machine that sent it; if somebody else did with that account, `mailsrv account passwd` changes "
        "the "
        "password.",
    ),
)
