"""Rank 2: tables in, metrics, figures and one HTML page out."""
