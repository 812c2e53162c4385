"""Rank 0: nouns, table contracts, ledger, errors. Imports nothing of mmlab but itself."""
