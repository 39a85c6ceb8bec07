"""Enhanced status codes (RFC 3463 and its registry) in plain words: what one means, and what a sender can do about it.

A code is ``class.subject.detail``.  Class 2 is success, 4 trouble that may pass, 5 a final no; the subject says what it
is about.  Servers choose codes loosely, so a meaning is written to be true of what they usually mean by it, and an
unknown code falls back to what its subject says.
"""

from __future__ import annotations

import re

_CODE = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})")

# Subject and detail, as sentences without their final dot.
_MEANINGS = {
    # RFC 3463 3.2: the address
    "1.0": "There is something wrong with the address",
    "1.1": "There is no mailbox of that name at this domain",
    "1.2": "The domain of the address does not exist or cannot be reached by mail",
    "1.3": "The address is not written correctly",
    "1.4": "The address stands for more than one mailbox",
    "1.5": "The address is valid",
    "1.6": "The mailbox has moved and left no new address",
    "1.7": "The sender's address is not written correctly",
    "1.8": "The domain of the sender's address does not exist or cannot receive mail",
    "1.9": "The message was passed on to a server that gives no delivery notices",  # RFC 3886
    "1.10": "The domain of the address says that it receives no mail",  # RFC 7505
    # RFC 3463 3.3: the mailbox
    "2.0": "There is something wrong with the mailbox",
    "2.1": "The mailbox does not take mail now",
    "2.2": "The mailbox is full",
    "2.3": "The message is larger than this mailbox takes",
    "2.4": "The mailing list could not be expanded",
    # RFC 3463 3.4: the receiving system
    "3.0": "There is trouble at the receiving server",
    "3.1": "The receiving server has no space left",
    "3.2": "The receiving server does not take mail now",
    "3.3": "The receiving server lacks something that the message needs",
    "3.4": "The message is larger than the receiving server takes",
    "3.5": "The receiving server is not set up correctly",
    "3.6": "The receiving server took the message with another priority than asked for",  # RFC 6710
    # RFC 3463 3.5: the network and the way
    "4.0": "There is trouble on the way to the receiving server",
    "4.1": "The receiving server did not answer",
    "4.2": "The connection to the receiving server was lost or the server broke off",
    "4.3": "A directory that the way depends on, most likely DNS, gave no answer",
    "4.4": "There is no way to the receiving server",
    "4.5": "The receiving server is too busy",
    "4.6": "The message goes round in circles between servers",
    "4.7": "The message could not be delivered within the time allowed",
    # RFC 3463 3.6: the protocol
    "5.0": "The servers did not understand each other",
    "5.1": "The receiving server did not accept a command",
    "5.2": "The receiving server did not understand a command",
    "5.3": "There are too many recipients",
    "5.4": "The receiving server did not accept the parameters of a command",
    "5.5": "The servers speak different versions of the protocol",
    "5.6": "A response in the login was too long",  # RFC 4954
    # RFC 3463 3.7: the content
    "6.0": "The receiving server objects to the content of the message",
    "6.1": "The receiving server does not take content of this kind",
    "6.2": "The content would have to be converted, which is not allowed",
    "6.3": "The content would have to be converted, which is not possible",
    "6.4": "The content was converted and something was lost",
    "6.5": "The content could not be converted",
    "6.6": "The content could not be fetched",  # RFC 4468
    "6.7": "The address has letters beyond ASCII and the receiving server does not take such addresses",  # RFC 6531
    "6.8": "An answer would need letters beyond ASCII, which is not allowed here",  # RFC 6531
    "6.9": "The header has letters beyond ASCII and could not be converted",  # RFC 6531
    "6.10": "An encoding in the message could not be converted",
    # RFC 3463 3.8: security and policy
    "7.0": "A policy of the receiving server forbids it",
    "7.1": "The receiving server does not take mail from this sender to this address",
    "7.2": "The sender may not write to this mailing list",
    "7.3": "The message would have to be converted in a way that is not secure",
    "7.4": "A security feature that the message asks for is not supported",
    "7.5": "A cryptographic check could not be made",
    "7.6": "A cryptographic method is not supported",
    "7.7": "The message was damaged or changed on the way",
    "7.8": "The user name or the password is wrong",  # RFC 4954
    "7.9": "The way of logging in is too weak",  # RFC 4954
    "7.10": "The connection has to be encrypted",  # RFC 5248
    "7.11": "This way of logging in needs an encrypted connection",  # RFC 4954
    "7.12": "The password has to be changed to another form first",  # RFC 4954
    "7.13": "The account is disabled",  # RFC 5248
    "7.14": "The server and this sender have no agreement",  # RFC 5248
    "7.15": "The priority of the message is too low now",  # RFC 6710
    "7.16": "The message is too large for its priority",  # RFC 6710
    "7.17": "The mailbox has a new owner since the time that the message names",  # RFC 7293
    "7.18": "The domain has a new owner since the time that the message names",  # RFC 7293
    "7.19": "It cannot be checked since when the mailbox has its owner",  # RFC 7293
    "7.20": "No DKIM signature of the message is valid",  # RFC 7372
    "7.21": "No DKIM signature of the message is acceptable",  # RFC 7372
    "7.22": "No valid DKIM signature belongs to the author's domain",  # RFC 7372
    "7.23": "The sending server is not allowed to send for the domain of the sender's address (SPF)",  # RFC 7372
    "7.24": "The check who may send for the domain of the sender's address (SPF) failed",  # RFC 7372
    "7.25": "The sending server's address has no valid name in DNS (PTR)",  # RFC 7372
    "7.26": "The message failed several checks of where it comes from",  # RFC 7372
    "7.27": "The domain of the sender's address says that it receives no mail",  # RFC 7505
    "7.28": "Too much mail of this kind is coming in",
    "7.29": "A seal of a server on the way is broken (ARC)",  # RFC 8617
    "7.30": "The receiving server cannot keep the promise of encryption that the message asks for",  # RFC 8689
}

_SUBJECTS = {
    "0": "The receiving server gave no particular reason",
    "1": _MEANINGS["1.0"],
    "2": _MEANINGS["2.0"],
    "3": _MEANINGS["3.0"],
    "4": _MEANINGS["4.0"],
    "5": _MEANINGS["5.0"],
    "6": _MEANINGS["6.0"],
    "7": _MEANINGS["7.0"],
}

_CHECK_ADDRESS = "Check the address for typing errors, and ask the recipient in another way whether it is still in use."
_SMALLER = "Send a smaller message, or put large attachments somewhere for downloading and send the link."
_LATER = "Send the message again later."
OUR_POSTMASTER = "Tell the postmaster of your own mail server; it cannot be mended by writing differently."
_THEIR_POSTMASTER = "Ask the recipient, in another way, to tell the people who run their mail server."
_ADVICE = {
    "1.0": _CHECK_ADDRESS,
    "1.1": _CHECK_ADDRESS,
    "1.2": "Check the part of the address after the @ for typing errors.",
    "1.3": "Check how the address is written.",
    "1.6": "Ask the recipient in another way for the new address.",
    "1.7": "Check your own address in the settings of your mail program.",
    "1.8": "Check your own address in the settings of your mail program; if it is right, tell your postmaster.",
    "1.10": "Use another address of the recipient.",
    "2.1": "Ask the recipient in another way whether the mailbox is still in use.",
    "2.2": "Send the message again later, or tell the recipient in another way that the mailbox is full.",
    "2.3": _SMALLER,
    "3.4": _SMALLER,
    "3.5": _THEIR_POSTMASTER,
    "4.6": "Tell the postmaster; most likely two servers forward this address to each other.",
    "4.7": "Send the message again later, or ask the recipient for another address.",
    "5.3": "Send the message to fewer recipients at a time.",
    "6.7": "Ask the recipient for an address in plain ASCII letters.",
    "7.1": "Ask the recipient, in another way, to allow your mail.",
    "7.2": "Ask the owner of the list, or write from the address that is subscribed.",
    "7.17": "Ask the recipient in another way for the new address.",
    "7.18": "Ask the recipient in another way for the new address.",
}
_ADVICE |= {f"7.{detail}": OUR_POSTMASTER for detail in (20, 21, 22, 23, 24, 25, 26, 27, 28, 29)}

_SUBJECT_ADVICE = {
    "0": "See what the server said; if that does not help, ask its postmaster.",
    "1": _CHECK_ADDRESS,
    "2": "Ask the recipient in another way whether the mailbox is still in use.",
    "3": _LATER,
    "4": _LATER,
    "5": OUR_POSTMASTER,
    "6": "Send the message in a simpler form, without attachments or unusual formatting.",
    "7": "See what the server said; if the message is not at fault, tell your postmaster.",
}

_LOOSELY_USED = {"1.0", "7.1"}

# Words in answers of servers that use general codes for particular things.
_TELLING = (
    (re.compile(r"mailbox (?:is )?full|quota|over ?quota|insufficient storage", re.I), "2.2"),
    (
        re.compile(r"block ?list|black ?list|spamhaus|\bDNSBL\b|\bRBL\b|poor reputation|\blisted (?:at|by|in)\b", re.I),
        "7.28",
    ),
    (re.compile(r"\bPTR\b|reverse (?:dns|hostname)", re.I), "7.25"),
    (re.compile(r"\bDMARC\b", re.I), "7.26"),
    (re.compile(r"\bSPF\b", re.I), "7.23"),
    (re.compile(r"too (?:large|big)|exceeds? (?:the )?(?:maximum )?size", re.I), "3.4"),
    (
        re.compile(
            r"(?:user|recipient|mailbox|account|address)\b[^.;]{0,40} (?:unknown|not found|does(?: not|n't) exist)"
            r"|(?:unknown|no such|invalid) (?:user|recipient|mailbox|address)",
            re.I,
        ),
        "1.1",
    ),
)


def meaning(status: str) -> str:
    """One sentence, without its final dot, for an enhanced status code such as "5.1.1"; any string is understood."""
    code = _CODE.fullmatch(status)
    if not code:
        return _SUBJECTS["0"]
    kind, subject, detail = code.groups()
    if kind == "2":
        return "All is well"
    return _MEANINGS.get(f"{subject}.{detail}") or _SUBJECTS.get(subject) or _SUBJECTS["0"]


def advice(status: str, answer: str = "") -> str:
    """What the sender can do: a sentence or two.  ``answer`` is what the server said, "" when it said nothing.

    For trouble that may pass it is: nothing, the server goes on trying.
    """
    code = _CODE.fullmatch(status)
    if code and code[1] == "2":
        return "There is nothing to do."
    if code and code[1] == "4":
        return "There is nothing to do: delivery will be tried again."
    particular = f"{code[2]}.{code[3]}" if code else "0.0"
    if particular not in _ADVICE or particular in _LOOSELY_USED:
        particular = next((told for words, told in _TELLING if words.search(answer)), particular)
    return _ADVICE.get(particular) or _SUBJECT_ADVICE.get(particular.partition(".")[0]) or _SUBJECT_ADVICE["0"]
