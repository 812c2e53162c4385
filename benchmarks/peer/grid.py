"""A hedged grid of one level a side in backtesting.py, by the rules of docs/grid.md that it can express.

`grid.py FILE CALLS SPACING UNITS CASH FEE DRIFT WARM_UP`: candles from a CSV file; prints a JSON line of the seconds
of each call, the number of fills and the last equity.
"""

from __future__ import annotations

import json
import sys
import time
import warnings

import pandas as pd
from backtesting import Backtest, Strategy


def grid(spacing: float, units: int, drift: float, warm_up: int) -> type[Strategy]:
    """The strategy: entries at anchor -/+ spacing, take-profits on the other side, a new grid when one is due."""

    class Grid(Strategy):
        anchor = 0.0
        step = 0.0
        entered = 0

        def init(self) -> None:
            self.known: set[object] = set()

        def next(self) -> None:
            if len(self.data) <= warm_up:
                return
            close = self.data.Close[-1]
            opened = {(trade.entry_bar, trade.size) for trade in (*self.trades, *self.closed_trades[-4:])}
            self.entered += len(opened - self.known)
            self.known |= opened
            if self.anchor and self.entered < 2 and abs(close - self.anchor) <= drift * self.step:
                return
            self.anchor, self.step, self.entered = close, close * spacing, 0
            for order in self.orders:
                if not order.is_contingent:
                    order.cancel()
            held = {trade.is_long for trade in self.trades}
            for trade in self.trades:
                trade.tp = close + self.step if trade.is_long else close - self.step
            if True not in held:
                self.buy(size=units, limit=close - self.step, tp=close + self.step)
            if False not in held:
                self.sell(size=units, limit=close + self.step, tp=close - self.step)

    return Grid


def main() -> None:
    """Run it so many times."""
    file, calls, spacing, units, cash, fee, drift, warm_up = sys.argv[1:]
    frame = pd.read_csv(file)
    frame.index = pd.to_datetime(frame.pop("open_ns"))
    seconds = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        strategy = grid(float(spacing), int(units), float(drift), int(warm_up))
        for _ in range(int(calls)):
            test = Backtest(
                frame, strategy, cash=float(cash), commission=float(fee), hedging=True, finalize_trades=True
            )
            began = time.perf_counter()
            made = test.run()
            seconds.append(time.perf_counter() - began)
    trades = made["_trades"]
    told = {"seconds": seconds, "trades": len(trades), "equity": float(made["Equity Final [$]"])}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
