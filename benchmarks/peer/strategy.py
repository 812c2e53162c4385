"""Avellaneda-Stoikov on hftbacktest: `strategy.py FILE.npz CALLS SPEC.json`, in the peer's environment.

The loop is the one of hftbacktest's own tutorials ("High-Frequency Grid Trading", "Market Making with Alpha"): a
function of numba's over a market by depth, `elapse` for 100 ms, quotes, cancels of what is not wanted any more, new
post-only orders where none stands, and a record of the account. Quotes are eqs. 29 and 30 of the paper, outward to the
tick, and never across the touch; one order a side.

The exchange fills whole orders (the one that fills in part ends early: its issues 301 and 312). Its queue model is the
risk averse one: an order waits for all that was shown at its price when it came, and trades alone take from that.

Prints the seconds of each call, from events in memory to records, and what came of the last one.
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path

import numpy as np
from hftbacktest import BUY, GTX, LIMIT, BacktestAsset, Recorder, ROIVectorMarketDepthBacktest
from numba import njit

STEPS = 24 * 60 * 600 + 10


@njit
def quote(hbt, recorder, gamma, variance, tau, k, qty, step_ns):
    """Run to the end of the data."""
    risk = gamma * variance * tau
    half = risk / 2 + math.log1p(gamma / k) / gamma
    tick = hbt.depth(0).tick_size
    while hbt.elapse(step_ns) == 0:
        hbt.clear_inactive_orders(0)
        depth = hbt.depth(0)
        best_bid, best_ask = depth.best_bid_tick, depth.best_ask_tick
        centre = (best_bid + best_ask) / 2 - hbt.position(0) / qty * risk / tick
        bid = min(math.floor(centre - half / tick + 1e-9), best_ask - 1)
        ask = max(math.ceil(centre + half / tick - 1e-9), best_bid + 1)
        orders = hbt.orders(0)
        values = orders.values()
        while values.has_next():
            order = values.get()
            wanted = bid if order.side == BUY else ask
            if order.cancellable and order.price_tick != wanted:
                hbt.cancel(0, order.order_id, False)
        # as the tutorials do, an order's number is its price; asks are told apart, as a bid may stand where one was
        bid_id, ask_id = np.uint64(2 * bid), np.uint64(2 * ask + 1)
        if bid_id not in orders:
            hbt.submit_buy_order(0, bid_id, bid * tick, qty, GTX, LIMIT, False)
        if ask_id not in orders:
            hbt.submit_sell_order(0, ask_id, ask * tick, qty, GTX, LIMIT, False)
        recorder.record(hbt)


def market(events: object, spec: dict[str, float]) -> ROIVectorMarketDepthBacktest:
    """One asset with the spec's latencies and fees."""
    asset = (
        BacktestAsset()
        .data([events])
        .linear_asset(1.0)
        .constant_order_latency(int(spec["entry_ns"]), int(spec["response_ns"]))
        .risk_adverse_queue_model()
        .no_partial_fill_exchange()
        .trading_value_fee_model(spec["maker_fee"], spec["maker_fee"])
        .tick_size(spec["tick_size"])
        .lot_size(spec["lot_size"])
        .roi_lb(0.0)
        .roi_ub(3000.0)
    )
    return ROIVectorMarketDepthBacktest([asset])


def run(events: object, spec: dict[str, float]) -> object:
    """One backtest; its records."""
    recorder = Recorder(1, STEPS)
    hbt = market(events, spec)
    arguments = (spec["gamma"], spec["sigma"] ** 2, spec["tau"], spec["k"], spec["qty"], int(spec["step_ns"]))
    quote(hbt, recorder.recorder, *arguments)
    hbt.close()
    return recorder.get(0)


def told(records: object) -> dict[str, float]:
    """Fills, turnover and profit at the last record."""
    last = records[-1]
    earned = last["balance"] + last["position"] * last["price"] - last["fee"]
    return {
        "fills": int(last["num_trades"]), "turnover": float(last["trading_value"]), "fees": float(last["fee"]),
        "pnl_total": float(earned), "final_inventory": float(last["position"]), "steps": int(records.size),
        "max_abs_inventory": float(np.abs(records["position"]).max()),
    }  # fmt: skip


def main() -> None:
    """Read the events, as often as asked backtest, and print."""
    file, calls, spec = sys.argv[1], int(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text())
    events = np.load(file)["data"]
    seconds = []
    for _ in range(calls):
        began = time.perf_counter()
        records = run(events, spec)
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"seconds": seconds, "found": told(records)}))


if __name__ == "__main__":
    main()
