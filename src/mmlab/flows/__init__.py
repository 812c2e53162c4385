"""Rank 3: one function per command; the only rooms that join rooms."""
