"""A small seeded raw recording as the venue would send it: snapshot, numbered book updates, prints."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np

START_NS = 1_735_689_600_000_000_000  # 2025-01-01 00:00:00 UTC


def lines(seconds: int = 600, seed: int = 5) -> list[str]:
    """`<local ns> <json>` lines: 10 book updates a second on a ladder of 40 levels, prints beyond the touch."""
    rng = np.random.default_rng(seed)
    out, update_id, trade_id, mid = [], 1000, 500, 100_000
    book: dict[str, dict[int, float]] = {"b": {}, "a": {}}
    for i in range(seconds * 10):
        ns = START_NS + i * 100_000_000
        mid += int(rng.choice([-2, 0, 0, 0, 0, 0, 2]))
        wanted = {"b": {mid - j: 1.0 + j for j in range(1, 41)}, "a": {mid + j: 1.0 + j for j in range(1, 41)}}
        changes = {
            side: [
                [f"{p / 100:.2f}", f"{wanted[side].get(p, 0):.5f}"] for p in sorted(changed(book[side], wanted[side]))
            ]
            for side in "ba"
        }
        book, first, update_id = wanted, update_id + 1, update_id + 3
        if i == 1:  # the snapshot holds everything so far, and arrives after its straddling update
            sides = {
                long: [[f"{p / 100:.2f}", f"{q:.5f}"] for p, q in sorted(book[side].items(), reverse=side == "b")]
                for side, long in (("b", "bids"), ("a", "asks"))
            }
        data = {"e": "depthUpdate", "E": ns // 10**6, "s": "BTCUSDT", "U": first, "u": update_id, **changes}
        out.append(f"{ns} {json.dumps({'stream': 'btcusdt@depth@100ms', 'data': data})}")
        if i == 1:
            out.append(f"{ns + 1000} {json.dumps({'lastUpdateId': update_id, **sides})}")
        for n in range(int(rng.poisson(0.3))):
            side = int(rng.choice([-1, 1]))
            trade_id += 1
            price = mid + side * (1 + int(rng.exponential(4)))
            at = ns + 10_000_000 * (n + 1)
            data = {
                "e": "trade", "E": at // 10**6, "s": "BTCUSDT", "t": trade_id, "p": f"{price / 100:.2f}",
                "q": f"{rng.integers(1, 100) / 1000:.5f}", "T": at // 10**6, "m": side == -1, "M": True,
            }  # fmt: skip
            out.append(f"{at} {json.dumps({'stream': 'btcusdt@trade', 'data': data})}")
    return out


def changed(old: dict[int, float], new: dict[int, float]) -> set[int]:
    """Prices whose quantity differs."""
    return {p for p in old.keys() | new.keys() if old.get(p) != new.get(p)}


def write_recording(path: Path, seconds: int = 600) -> None:
    """The lines as a gzip file, the same bytes each time."""
    path.write_bytes(gzip.compress("\n".join(lines(seconds)).encode() + b"\n", mtime=0))
