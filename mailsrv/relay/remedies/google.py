"""What Gmail and Google Workspace say (their list "Gmail SMTP errors and codes"): every answer ends with ``gsmtp``."""

from __future__ import annotations

from typing import Final

from mailsrv.relay.remedies.remedy import NOTHING, OTHER_FAMILY, SLOW_DOWN, WAIT, row, same


def _words(words: str) -> str:
    return rf"^(?=.*\bgsmtp$).*?(?:{words})"


_END = r"\bgsmtp$"
_SEE = "How Google sees your domain stands in its Postmaster Tools (https://postmaster.google.com)."

_NO_PTR = row(
    r"550 5\.7\.25|4\d\d 4\.7\.23",
    _END,
    "google-no-ptr",
    OTHER_FAMILY,
    "Google takes no mail from an address without a name in DNS, or whose name does not lead back to it.",
    "Have whoever gave you the address set its PTR record to the host name of this server, for IPv4 and for IPv6, and "
    "let that name have both addresses. `mailsrv check` shows what is there.",
)
_UNAUTHENTICATED = row(
    r"550 5\.7\.26|4\d\d 4\.7\.26",
    _END,
    "google-unauthenticated",
    OTHER_FAMILY,
    "Google could not see that the mail comes from its domain: neither SPF nor DKIM passed.",
    "Publish the records that `mailsrv dns` prints; the SPF record has to cover every address this server sends from, "
    "IPv4 and IPv6. `mailsrv check` compares them with what is published.",
)
_RATE = row(
    r"4\d\d 4\.7\.(?:0|28)",
    _words(r"unusual rate of (?:unsolicited )?mail"),
    "google-rate",
    SLOW_DOWN,
    "Google sees more mail from this server or its domain than it is used to, and takes it more slowly.",
    "Look with `mailsrv queue list` for what is being sent: an account whose password was guessed, a forwarded mailbox "
    f"full of spam, a mailing. If all is in order, wait: the limit rises with good mail. {_SEE}",
)
_REPUTATION = row(
    r"550 5\.7\.1|4\d\d 4\.7\.0",
    _words(r"very low reputation of the sending IP"),
    "google-address-reputation",
    OTHER_FAMILY,
    "Google trusts the address of this server little: it is new, or spam came from it or from its neighbours.",
    "Make sure that nothing is sent that should not be (`mailsrv queue list`), and that `mailsrv check` finds nothing "
    f"wrong. Reputation grows over weeks with mail that is wanted; until then a smarthost helps. {_SEE}",
)

ROWS: Final = (
    row(
        r"550 5\.7\.26|4\d\d 4\.7\.26|550 5\.7\.1",
        _words(r"not accepted due to domain's DMARC policy"),
        "google-dmarc",
        NOTHING,
        "The domain in From: asks by its DMARC policy to refuse mail that fails SPF and DKIM, and this mail failed "
        "both.",
        "For mail from your own domain publish the records that `mailsrv dns` prints. For forwarded mail nothing can "
        "be "
        "done here: its author's server did not sign it, or it was changed on the way.",
    ),
    row(
        r"550 5\.7\.26",
        _words(r"has an SPF record with a hard fail policy"),
        "google-spf",
        OTHER_FAMILY,
        "The SPF record of the sender's domain does not name the address of this server, and asks to refuse the rest.",
        "Publish the SPF record that `mailsrv dns` prints: it has to cover IPv4 and IPv6.",
    ),
    _NO_PTR,
    same(r"550 5\.7\.1", _words(r"IPv6 sending guidelines regarding PTR records"), _NO_PTR),
    same(r"4\d\d 4\.7\.0", _words(r"does not have a PTR record"), _NO_PTR),
    _UNAUTHENTICATED,
    same(r"550 5\.7\.1", _words(r"fails? to pass authentication checks|Unauthenticated email"), _UNAUTHENTICATED),
    row(
        r"[45]\d\d [45]\.7\.24",
        _END,
        "google-spf-suspicious",
        NOTHING,
        "Google finds something in the SPF record of the sender's domain that it does not trust.",
        "Publish the SPF record that `mailsrv dns` prints, and nothing that allows large networks, such as +all.",
    ),
    row(
        r"[45]\d\d [45]\.7\.27",
        _END,
        "google-bulk-spf",
        OTHER_FAMILY,
        "Google asks whoever sends much for SPF, and it did not pass.",
        "Publish the SPF record that `mailsrv dns` prints: it has to cover IPv4 and IPv6.",
    ),
    row(
        r"[45]\d\d [45]\.7\.30",
        _END,
        "google-bulk-dkim",
        NOTHING,
        "Google asks whoever sends much for a DKIM signature, and there was none or it did not pass.",
        "Publish the DKIM record that `mailsrv dns` prints; `mailsrv check` compares it with what is published.",
    ),
    row(
        r"[45]\d\d [45]\.7\.(?:31|32|40)",
        _END,
        "google-bulk-dmarc",
        NOTHING,
        "Google asks whoever sends much for a DMARC record, and for SPF or DKIM of the domain in From:.",
        "Publish the DMARC record that `mailsrv dns` prints, and send with addresses of your own domains in From:.",
    ),
    row(
        r"[45]\d\d [45]\.7\.29|4\d\d 4\.7\.0",
        _words(r"TLS required|over a TLS connection|use TLS"),
        "google-tls",
        NOTHING,
        "Google wants this mail over TLS, and it came in clear.",
        "`mailsrv why ADDRESS` says why TLS failed; a firewall or a provider that takes STARTTLS out of the way is the "
        "usual reason.",
    ),
    row(
        r"4\d\d 4\.7\.28",
        _words(r"same Message-ID"),
        "google-same-message-id",
        WAIT,
        "Google has had too many messages with one Message-ID.",
        "Something sends the same message again and again: find it with `mailsrv queue list`.",
    ),
    _RATE,
    row(
        r"550 5\.7\.(?:1|28)",
        _words(r"unusual rate of (?:unsolicited )?mail"),
        "google-blocked",
        OTHER_FAMILY,
        "Google has blocked the address of this server because of unwanted mail.",
        "Stop what sends it (`mailsrv queue list`; a guessed password is changed with `mailsrv account passwd`), then "
        f"wait: the block ends by itself some days after the last of it. {_SEE}",
    ),
    _REPUTATION,
    row(
        r"550 5\.7\.1|4\d\d 4\.7\.0",
        _words(r"very low reputation of the sending domain"),
        "google-domain-reputation",
        WAIT,
        "Google trusts the sender's domain little: it is new, or mail from it was reported as spam.",
        "Publish all that `mailsrv dns` prints, DKIM and DMARC too, and send only what is wanted; reputation grows "
        "over "
        f"weeks. {_SEE}",
    ),
    row(
        r"550 5\.7\.1|4\d\d 4\.7\.0|552 5\.7\.0",
        _words(r"likely unsolicited mail|nature of the content|potential security issue"),
        "google-content",
        NOTHING,
        "Google takes this message for spam or for dangerous, because of what is in it.",
        "Write it differently: fewer links, no links to domains of bad repute, no archives or programs as attachments.",
        tell=False,
    ),
    row(
        r"550 5\.7\.1",
        _words(r"is not authorized to send email directly"),
        "google-dynamic",
        OTHER_FAMILY,
        "Google takes no mail directly from addresses of this kind, which are given to homes.",
        'Send through a smarthost: [outbound] routes, "*" = "smtps://user:password@smart.example:465".',
    ),
    row(
        r"550 5\.7\.1|554 5\.6\.0|553 5\.1\.7",
        _words(
            r"RFC 5322 compliant|missing a valid (?:address|Message-ID)|multiple addresses in From|malformed|"
            r"not a valid RFC.?5321 address"
        ),
        "google-format",
        NOTHING,
        "Google does not accept how the message is built: its From: or Message-ID field, or a field that is there "
        "twice.",
        "Look at the header of the message in the report; the program that wrote it has to be mended.",
        tell=False,
    ),
    row(
        r"4\d\d 4\.2\.1|550 5\.2\.1",
        _words(r"receiving mail (?:too quickly|at a rate)"),
        "google-busy-mailbox",
        WAIT,
        "This mailbox gets more mail than Google lets in at a time.",
        "Nothing: the mail is tried again later.",
        tell=False,
    ),
    row(
        r"4\d\d 4\.7\.0",
        _words(r"Try again later, closing connection"),
        "google-too-fast",
        SLOW_DOWN,
        "Google wants fewer connections from this server.",
        "Nothing, if it passes: fewer connections are made. If it stays, see what is sent with `mailsrv queue list`.",
    ),
)
