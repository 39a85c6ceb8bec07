"""Moving in and out: what other servers leave behind, read; and our mailboxes, written for others."""
