"""Signatures of domains (DKIM, RFC 6376): canonical forms, the field, who signs what, and the change of keys."""
