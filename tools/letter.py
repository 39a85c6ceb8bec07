"""Sends and fetches a message on this machine, with Python's own clients: for trying a server where there is no curl.

The server's certificate is not verified: for loopback only, as it connects nowhere else.
"""

from __future__ import annotations

import argparse
import poplib
import smtplib
import ssl
import sys
import time
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

HOST = "127.0.0.1"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog="letter.py")
    verbs = parser.add_subparsers(required=True, metavar="send | fetch")
    send = verbs.add_parser("send", help="send a short message; with --user over TLS and after logging in")
    send.add_argument("--from", dest="sender", required=True)
    send.add_argument("--to", action="append", required=True)
    send.add_argument("--subject", default="Hello")
    send.set_defaults(run=_send)
    fetch = verbs.add_parser("fetch", help="print a message from a mailbox, by POP3 over TLS")
    fetch.add_argument("--number", type=int, default=1)
    fetch.set_defaults(run=_fetch)
    for verb in (send, fetch):
        verb.add_argument("--port", type=int, required=True)
        verb.add_argument("--user", required=verb is fetch)
        verb.add_argument("--password", default="")
    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
    except (OSError, smtplib.SMTPException, poplib.error_proto) as error:
        print(f"letter.py: {error}", file=sys.stderr)
        return 1
    return 0


def _any_certificate() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _send(arguments: argparse.Namespace) -> None:
    message = EmailMessage()
    message["From"] = arguments.sender
    message["To"] = ", ".join(arguments.to)
    message["Subject"] = arguments.subject
    message["Date"] = formatdate(localtime=True)
    message["Message-ID"] = make_msgid(domain=arguments.sender.rpartition("@")[2])
    message.set_content("How are you?\n")
    if arguments.user:
        with smtplib.SMTP_SSL(HOST, arguments.port, timeout=30, context=_any_certificate()) as client:
            client.login(arguments.user, arguments.password)
            client.send_message(message, arguments.sender, arguments.to)
    else:
        with smtplib.SMTP(HOST, arguments.port, timeout=30) as client:
            client.send_message(message, arguments.sender, arguments.to)
    print(f"Sent to {', '.join(arguments.to)}.")


def _fetch(arguments: argparse.Namespace) -> None:
    # A message that was sent a moment ago may not be in the mailbox yet.
    for _ in range(5):
        client = poplib.POP3_SSL(HOST, arguments.port, timeout=30, context=_any_certificate())
        try:
            client.user(arguments.user)
            client.pass_(arguments.password)
            there = client.stat()[0] >= arguments.number
            for line in client.retr(arguments.number)[1] if there else []:
                print(line.decode(errors="replace"))
            client.quit()
        finally:
            client.close()
        if there:
            return
        time.sleep(1)
    raise OSError(f"there is no message {arguments.number} in the mailbox")


if __name__ == "__main__":
    sys.exit(main())
