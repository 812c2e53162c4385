"""Rank 2: the backtest, order by order."""
