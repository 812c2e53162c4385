"""The 15-minute grid for perpetual futures: signals, ladder, guards, one step for backtest and live, search."""
