"""What is asked of a client and of a message before it is accepted."""
