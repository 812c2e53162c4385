"""Rank 1: what a venue's bytes mean. Pure: no socket, no clock, no path."""
