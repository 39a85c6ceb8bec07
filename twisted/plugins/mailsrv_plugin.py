"""Tells twistd that there is a mailsrv.  It imports nothing of it, so ``twistd --help`` stays quick."""

from twisted.application.service import ServiceMaker

mailsrv = ServiceMaker(
    "mailsrv",
    "mailsrv.tap",
    "Mail for your own domain: ESMTP, submission, relay with a queue, Maildirs, POP3.",
    "mailsrv",
)
