"""Bytes on the wire: bounded lines and dot transparency, both ways, a chunk at a time."""
