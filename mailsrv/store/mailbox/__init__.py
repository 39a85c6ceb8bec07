"""Maildirs: written, listed, read, counted, kept tidy; beside other programs that do the same."""
