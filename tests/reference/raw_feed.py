"""Raw feed lines made by hand, and where the real ones lie."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SPOT = ("spot_btcusdt_20240808.gz", "spot_btcusdt_20240809.gz")
USDM = ("usdm_ethusdt_20240808.gz",)
START_NS = 1_735_689_600_000_000_000  # 2025-01-01
START_MS = START_NS // 1_000_000

Levels = Sequence[tuple[str, str]]


def real(names: tuple[str, ...]) -> list[Path]:
    """The real recordings, or a skip where they are absent."""
    paths = [DATA / name for name in names]
    if not all(path.exists() for path in paths):
        pytest.skip(f"real recordings are not at {DATA}")
    return paths


def line(ns: int, message: dict[str, Any]) -> bytes:
    """One line, `ns` after the start of 2025."""
    return b"%d %s" % (START_NS + ns, json.dumps(message).encode())


def event(stream: str, data: dict[str, Any]) -> dict[str, Any]:
    """A message as the combined stream wraps it."""
    return {"stream": f"{data['s'].lower()}@{stream}", "data": data}


def depth(U: int, u: int, bids: Levels = (), asks: Levels = (), pu: int | None = None, **more: Any) -> dict[str, Any]:
    """A depthUpdate, of spot or (with `pu`) of USD-M."""
    futures = {} if pu is None else {"pu": pu, "T": START_MS}
    data = {"e": "depthUpdate", "E": START_MS, "s": "BTCUSDT", "U": U, "u": u, **futures, "b": bids, "a": asks}
    return event("depth@100ms", data | more)


def snapshot(last_id: int, bids: Levels = (), asks: Levels = ()) -> dict[str, Any]:
    """A REST snapshot."""
    return {"lastUpdateId": last_id, "bids": bids, "asks": asks}


def trade(trade_id: int, price: str = "100.00", qty: str = "1.0", **more: Any) -> dict[str, Any]:
    """A trade in which the seller took."""
    data = {"e": "trade", "E": START_MS, "s": "BTCUSDT", "t": trade_id, "p": price, "q": qty, "T": START_MS, "m": True}
    return event("trade", data | more)


def ticker(update_id: int, bid: str = "99.00", ask: str = "101.00", **more: Any) -> dict[str, Any]:
    """A bookTicker."""
    data = {"u": update_id, "s": "BTCUSDT", "b": bid, "B": "1.0", "a": ask, "A": "1.0"}
    return event("bookTicker", data | more)
