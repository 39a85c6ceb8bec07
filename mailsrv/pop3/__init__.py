"""POP3 (RFC 1939): pure server, the session that decides, the Twisted shell."""
