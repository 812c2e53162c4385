"""Rank 2: the lake on disk, run folders and SQL over both. The only room that knows a path's layout."""
