"""What Outlook.com (Hotmail, Live, MSN) and Microsoft 365 say.

The codes in brackets stand at the end of a sentence, ``... on our block list (S3140).``; the older ones of Hotmail
right behind the reply code, ``550 SC-001 (BAY004-...) Unfortunately, messages from``.
"""

from __future__ import annotations

from typing import Final

from mailsrv.relay.remedies.remedy import NOTHING, OTHER_FAMILY, POLICY, SLOW_DOWN, WAIT, row, same

_SEE = "See https://sendersupport.olc.protection.outlook.com/pm/ and enrol your address with its SNDS."

_BLOCKED = row(
    r"550 5\.7\.1",
    r"^Unfortunately, messages from \S+ weren't sent\. .*\bon our block list \(S\d{2,6}\)",
    "microsoft-block-list",
    OTHER_FAMILY,
    "Outlook.com has the address of this server, or the network around it, on its own block list.",
    "Ask for it to be taken off with the form at https://olcsupport.office.com, naming the address and the whole "
    "answer; "
    f"ask again if the first reply says that nothing was found. {_SEE} Until then a smarthost or another address "
    f"helps.",
)
_BUSY = row(
    r"451 4\.7\.500",
    r"^Server busy\. Please try again later from ",
    "microsoft-busy",
    SLOW_DOWN,
    "Outlook.com takes less mail from this server for now: it does not know it well, or has too much to do.",
    "Nothing, if it passes: fewer connections are made. If it stays for days, ask at https://olcsupport.office.com. "
    f"{_SEE}",
)
_LIMITED = row(
    r"451 4\.7\.65\d",
    r"^The mail server \S+ has been temporarily rate limited due to IP reputation\.",
    "microsoft-rate",
    SLOW_DOWN,
    "Outlook.com takes little mail from this server, because its address is new or has a bad reputation.",
    "See with `mailsrv queue list` that nothing is sent that should not be. If all is in order, ask for help with "
    "the form "
    f"at https://olcsupport.office.com. {_SEE}",
)
_AUTHENTICATION = row(
    r"550 5\.7\.515",
    r"^Access denied, sending domain ",
    "microsoft-authentication",
    NOTHING,
    "Outlook.com wants SPF, DKIM and DMARC of the domain in From:, and at least one of them did not pass.",
    "Publish all records that `mailsrv dns` prints; `mailsrv check` compares them with what is published. The answer "
    "tells "
    "which one failed.",
)
_BANNED = row(
    r"550 5\.7\.(?:60[6-9]|6[1-4]\d)",
    r"^Access denied, banned sending IP",
    "microsoft-banned-address",
    OTHER_FAMILY,
    "Microsoft 365 has banned the address of this server.",
    "Take it off the list at https://sender.office.com, after making sure that nothing is sent that should not be "
    "(`mailsrv queue list`).",
)

ROWS: Final = (
    _BLOCKED,
    same(r"550 ", r"^(?:SC|DY|OU)-00\d \(", _BLOCKED),
    _BUSY,
    _LIMITED,
    same(r"421 ", r"^RP-00\d \(", _LIMITED),
    _AUTHENTICATION,
    _BANNED,
    row(
        r"550 5\.7\.511",
        r"^Access denied, banned sender",
        "microsoft-banned-sender",
        OTHER_FAMILY,
        "Microsoft 365 has banned the address of this server.",
        "Forward the whole report to delist@microsoft.com; the portal for other bans does not serve this one.",
    ),
    row(
        r"550 5\.7\.508",
        r"^Access denied, \S+ has exceeded permitted limits",
        "microsoft-range-limit",
        OTHER_FAMILY,
        "Microsoft 365 has had too much mail from the IPv6 network around this server.",
        "Nothing where IPv4 is there too, which is tried at once. Otherwise wait, and ask your provider for a "
        "network of "
        "your own (a /64).",
    ),
    row(
        r"550 5\.7\.510",
        r"does not accept email over IPv6",
        "microsoft-no-ipv6",
        OTHER_FAMILY,
        "The recipient's domain takes no mail over IPv6.",
        "Nothing where this server has IPv4, which is tried at once.",
        tell=False,
    ),
    row(
        r"4\d\d 4\.7\.26|550 5\.7\.26",
        r"\bIPv6\b.{0,100}\beither SPF or DKIM\b",
        "microsoft-ipv6-authentication",
        OTHER_FAMILY,
        "Microsoft wants SPF or DKIM of everything that comes over IPv6, and neither passed.",
        "Publish the SPF record that `mailsrv dns` prints, which has to cover IPv6, and the DKIM record.",
    ),
    row(
        r"[45]\d\d [45]\.7\.25",
        r"must have a reverse DNS record",
        "microsoft-no-ptr",
        OTHER_FAMILY,
        "Microsoft takes no mail over IPv6 from an address without a name in DNS.",
        "Have whoever gave you the address set its PTR record to the host name of this server. `mailsrv check` shows "
        "what "
        "is there.",
    ),
    row(
        r"550 5\.7\.506",
        r"^Access denied, bad HELO",
        "microsoft-helo",
        NOTHING,
        "Microsoft does not accept the name by which this server introduces itself.",
        "Set `hostname` to the full name of this server in DNS, which its PTR record names too. `mailsrv check` "
        "shows it.",
    ),
    row(
        r"550 5\.7\.(?:507|513)",
        r"^(?:Access denied, rejected by recipient|Service unavailable, Client host)",
        "microsoft-customer-block",
        OTHER_FAMILY,
        "The recipient's organisation has blocked the address of this server itself.",
        "Ask its postmaster, in another way, to allow it; Microsoft cannot help.",
    ),
    row(
        r"550 5\.7\.509",
        r"does not pass DMARC",
        "microsoft-dmarc",
        NOTHING,
        "The domain in From: asks by its DMARC policy to refuse mail that fails SPF and DKIM, and this mail failed "
        "both.",
        "For mail from your own domain publish the records that `mailsrv dns` prints. For forwarded mail nothing can "
        "be "
        "done here.",
    ),
    row(
        r"550 5\.7\.512",
        r"^Access denied, message must be RFC 5322",
        "microsoft-format",
        NOTHING,
        "The message has no usable From: field.",
        "The program that wrote it has to be mended.",
        tell=False,
    ),
    row(
        r"550 5\.7\.350",
        r"spam",
        "microsoft-passed-on",
        NOTHING,
        "Microsoft took the message but the server it passed it on to refused it as spam.",
        "Ask the recipient, in another way, to have mail from you allowed there.",
        tell=False,
    ),
    row(
        r"451 4\.7\.(?:[56]\d\d|8[5-9]\d)",
        r"^Access denied, please try again later",
        "microsoft-watched",
        WAIT,
        "Microsoft has stopped mail from this server for a time, to look at it.",
        "See with `mailsrv queue list` that nothing is sent that should not be, and wait: it ends within a day or two.",
    ),
    row(
        r"451 4\.7\.700",
        r"^PFA agent busy",
        "microsoft-agent-busy",
        NOTHING,
        "A server of Microsoft is too busy.",
        "Nothing: the mail is tried again.",
        tell=False,
    ),
    row(
        POLICY,
        r"^Requested action not taken.{0,40}\(AS\d{3,8}\)",
        "microsoft-policy",
        NOTHING,
        "Microsoft refuses the message by a policy that it does not name.",
        "Write it differently, and see that `mailsrv check` finds nothing wrong.",
        tell=False,
    ),
)
