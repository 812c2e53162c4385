"""Rank 4: parse, call one flow, print what was written."""
