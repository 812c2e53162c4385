"""Rank 2: recorded or made-up market data, turned into research-ready tables."""
