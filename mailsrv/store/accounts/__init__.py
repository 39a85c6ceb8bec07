"""Who has a mailbox, how they log in, and what is known of where from."""
