"""The text of a new configuration file: every key, with its default where it is not given, and what it is for.

``etc/mailsrv.toml`` is this text for example.org; tests keep both the same and the defaults true.
"""

from __future__ import annotations

import json

_TEXT = """\
# mailsrv: the configuration, in TOML.
#
# A line that begins with "#key =" shows the default of that key; take the "#" away to change it.  A change is taken up
# within two seconds, without a restart; what is wrong is reported with its line, and the old settings stay in force.
# Durations are "90s", "5m", "4h", "5d" or a number of seconds; sizes "50 MiB", "10 MB" or a number of octets.
# Paths may be relative to this file.

# The name by which this machine greets others, in EHLO and in Received.  It should be what the PTR record of the
# machine's address says, and a name in the certificate.
hostname = {hostname}

# Mail for these domains ends here.  The first is that of a bare "postmaster".
domains = [{domain}]

# Mail, queue, ledger and keys are kept here.
state = {state}

# Who has a mailbox: Dovecot's passwd-file, written by "mailsrv account".
#accounts = "accounts"

# Addresses that stand for others, "address: target, target", written by "mailsrv alias".
#aliases = "aliases"

# Clients that may send anywhere without a login, such as ["192.168.7.0/24", "2001:db8:7::/64"].
#trusted_networks = []

# Where to listen: Twisted server endpoint strings, such as "tcp:25:interface=192.0.2.1".  [] turns a service off.
# tcp6: is IPv6 only, so that both can stand side by side.
[listen]

# Mail from other servers; STARTTLS is offered.
#smtp = ["tcp:25", "tcp6:25"]

# Mail from our own users: STARTTLS, then a login.
#submission = ["tcp:587", "tcp6:587"]

# The same with TLS from the first octet.  mailsrv wraps it, so this is tcp: as well.
#submissions = ["tcp:465", "tcp6:465"]

# Fetching mail; STLS is offered.
#pop3 = ["tcp:110", "tcp6:110"]

# The same with TLS from the first octet.
#pop3s = ["tcp:995", "tcp6:995"]

# LMTP for another mail server on this machine, such as ["unix:/run/mailsrv/lmtp"] or ["tcp:24:interface=127.0.0.1"]:
# mail for our own domains, without questions.  Who may open the socket is decided by the permissions of its folder.
#lmtp = []

# Proxies in front of this machine that say by the PROXY protocol who the client is, such as ["10.0.0.1/32"].  From
# them a connection without that header is dropped; of all others a header is not believed.
#proxies = []

[tls]

# PEM files: the certificate with its chain, and its private key.  New ones are taken up when the files change.
#certificate = "tls/cert.pem"
#key = "tls/key.pem"

# The same for clients that ask for another name (SNI); "*." stands for any one label, such as
# names = {{ "mail.example.net" = {{ certificate = "tls/net.pem", key = "tls/net-key.pem" }} }}
#names = {{}}

# A PEM bundle that is trusted besides the system's when the certificates of other servers are verified.
#authorities = ""

[auth]

# Passwords without TLS: "never", or "loopback" from this machine only.
#cleartext = "never"

[submission]

# true: a line that ends in LF alone in a message of a user is made whole; else the message is refused.
#mend_lines = false

[dns]

# Name servers to ask, such as ["127.0.0.1:53", "[::1]:53"]; [] is the system's.
#servers = []

[checks]

# false: nothing is looked up in DNS for incoming mail.
#dns = true

# DNS lists of clients to refuse, such as ["zen.spamhaus.org"].  Read a list's terms of use first.
#blocklists = []

# Checks that only watch: what they would have refused is told by `mailsrv why`, and the mail goes on.  Their names:
# hop_limit, blocklists, reverse_name, sanity, first_contact.
#observe = []

# How long a sender that nobody here knows has to wait, once, when something else about it is doubtful; "" is never.
#first_contact = ""

[limits]

# The largest message.  It is announced to clients as SIZE.
#message_size = "50 MiB"

# Recipients of one message.
#recipients = 1000

# Recipients that one account may write to: in an hour and in a day.  A stolen password then does little harm.
#recipients_per_hour = 1000
#recipients_per_day = 5000

# What happens to mail over these: "refuse" it for now, or "hold" it until `mailsrv queue release`.
#over_cap = "refuse"

# Recipients that an account may write to for the first time, in an hour, from a network that is new to it; mail to more
# of them is held, and its owner and the postmaster are told.  0 is never.
#first_time_recipients = 30

# Connections at once: in all, and from one client address.
#connections = 10000
#connections_per_client = 50

# How slowly a client may send a message: octets per second, after the first minute.
#minimum_rate = 100

# How long one message may take in all, from MAIL to its end.
#transaction_time = "1h"

# How long an account has to wait after a login by POP3 until the next, such as "1m"; "" is no time.
#login_delay = ""

# Delays after failed logins and errors, for each client address.
#penalties = true

# From which share of its quota on an account is warned by mail; "" is never.
#quota_warning = "90%"

[outbound]

# Next hops by domain, instead of their MX; "*" is for all others but our own domains, such as
# routes = {{ "example.net" = "smtp://192.0.2.1:2525", "*" = "smtps://user:password@smart.example:465" }}
#routes = {{}}

# How long to wait for a connection to another server.
#connect_timeout = "30s"

# What is demanded of TLS, by destination, by host of a route, or "*" for all others: "opportunistic" (TLS where it
# works), "required" (TLS with any certificate, or the mail waits), "verified" (a certificate for the server's name):
# tls = {{ "example.net" = "verified", "*" = "required" }}
#tls = {{}}

[queue]

# How long to wait between attempts to deliver; the last one repeats.
#retry = ["1m", "5m", "15m", "30m", "1h", "2h", "4h"]

# After this time the sender is told that a message is late ...
#warn = "4h"

# ... and after this that it could not be delivered.
#expire = "5d"
"""


def configuration(domain: str, hostname: str, state: str) -> str:
    """The text for a domain (A-label), a host name and an absolute path."""
    return _TEXT.format(domain=_quoted(domain), hostname=_quoted(hostname), state=_quoted(state))


def _quoted(text: str) -> str:
    # A JSON string without control characters is a basic string of TOML.
    return json.dumps(text, ensure_ascii=False)
