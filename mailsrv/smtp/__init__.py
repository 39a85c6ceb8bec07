"""SMTP (RFC 5321): pure server and client, the session that decides, the Twisted shell."""
