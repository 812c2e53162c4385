"""Turn one day of the lake into hftbacktest's event files: `tape.py DAY_FOLDER LEVELS FILE.npz`, in the peer's env.

Of each book frame only what changed since the frame before is written, as a venue's feed would send it: levels that
are gone with quantity 0, then new levels and new quantities. Prints are trades of their taker's side.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from hftbacktest import BUY_EVENT, DEPTH_EVENT, EXCH_EVENT, LOCAL_EVENT, SELL_EVENT, TRADE_EVENT
from hftbacktest.data import validate_event_order
from hftbacktest.types import event_dtype

Array = npt.NDArray[np.generic]

BOTH = EXCH_EVENT | LOCAL_EVENT  # seen by the exchange's and by the trader's half of the backtest


def table(day: Path, name: str) -> pl.DataFrame:
    """One table of the day."""
    return pl.read_parquet(sorted((day / name).glob("part-*.parquet")), hive_partitioning=False)


def rows(event: int | Array, source: pl.DataFrame, price: Array, qty: Array) -> tuple[Array, Array]:
    """Events, and the place of each in the recorder's order."""
    made = np.zeros(source.height, event_dtype)
    made["ev"] = BOTH | event
    made["exch_ts"], made["local_ts"] = source["exch_ns"], source["recv_ns"]
    made["px"], made["qty"] = price, qty
    return made, source["recv_seq"].to_numpy()


def changes(depth: pl.DataFrame, side: str, levels: int) -> list[tuple[Array, Array]]:
    """What one side's frames change: the levels that go, and the levels and quantities that come."""
    flag = DEPTH_EVENT | (BUY_EVENT if side == "bid" else SELL_EVENT)
    price, qty = (depth.select(f"{side}_{what}_{n}" for n in range(1, levels + 1)).to_numpy() for what in ("px", "qty"))
    same = price[1:, :, None] == price[:-1, None, :]  # frame, its level, level of the frame before
    gone = np.zeros(price.shape, bool)
    gone[1:] = ~same.any(axis=1)
    come = np.ones(price.shape, bool)
    come[1:] = ~(same & (qty[1:, :, None] == qty[:-1, None, :])).any(axis=2)
    at, level = np.nonzero(gone)
    old = rows(flag, depth[at], price[at - 1, level], np.zeros(at.size))
    at, level = np.nonzero(come)
    return [old, rows(flag, depth[at], price[at, level], qty[at, level])]


def events(day: Path, levels: int) -> Array:
    """The day as events, in the recorder's order; within a frame, what goes comes before what comes."""
    depth, trades = table(day, "depth"), table(day, "trades")
    bids, asks = (changes(depth, side, levels) for side in ("bid", "ask"))
    taker = TRADE_EVENT | np.where(trades["taker"].to_numpy() > 0, BUY_EVENT, SELL_EVENT)
    prints = rows(taker, trades, trades["price"].to_numpy(), trades["qty"].to_numpy())
    made, places = zip(bids[0], asks[0], bids[1], asks[1], prints, strict=True)
    found = np.concatenate(made)[np.argsort(np.concatenate(places), kind="stable")]
    validate_event_order(found)
    return found


def main() -> None:
    """Write the whole book compressed, as hftbacktest's own converters write, and the touch alone as it is."""
    day, levels, file = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    found = events(day, levels)
    (np.savez if levels == 1 else np.savez_compressed)(file, data=found)
    print(found.size)


if __name__ == "__main__":
    main()
