"""mailsrv: mail for your own domain, in one Twisted program."""

__version__ = "0.1.0"
