"""Rank 2: fill intensity by virtual probes: intervals, hits, points, fits, schedule."""
