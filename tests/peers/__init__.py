"""Tests with real sockets and software that is not ours; the benchmark starts the same programs."""
