"""What lasts: the door to the disk, the database, the spool, the ledger, Maildirs, accounts."""
