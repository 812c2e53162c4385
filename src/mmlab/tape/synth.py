"""A seeded market whose true (A, k) is known: what calibration must find again.

The mid is a whole number of ticks, constant between frames; at a frame it may jump by
`mid_jump_ticks` up or down. On each side taker orders are a Poisson process, and how deep beyond the
mid an order reaches is exponential with rate k per tick (Avellaneda & Stoikov 2008, section 2.5), so
orders reach delta ticks, a whole number of at least 1, at exactly A exp(-k delta) a second and side.
Orders that reach less than a tick meet no quote and do not print. An order prints its deepest level
and Poisson(m) more on levels before it, all at one instant; m is set by `prints_per_s`.

Every random stream belongs to one purpose and one hour, so that a change of the book's depth or of
the takers leaves the path of the mid as it was.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from mmlab.core.schemas import EVENTS, TRADES, depth
from mmlab.core.spans import NS_PER_MS
from mmlab.tape.synth_spec import HOUR_MS, SynthSpec, parse_ak_schedule, truth

__all__ = ["SynthSpec", "chunks", "events", "parse_ak_schedule", "truth"]

Ints = npt.NDArray[np.int64]

LATENCY_NS = 5 * NS_PER_MS  # from the venue's clock to the recorder's, the same for frames and prints
BOOK_LOTS, PRINT_LOTS = 20_000.0, 1_000.0  # mean size of a book level and of a print
MID, BOOK, ORDERS, PRINTS = range(4)  # purposes of the random streams


def chunks(spec: SynthSpec) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """(depth, trades) of one UTC hour after the other; trades may have no rows."""
    per_hour = HOUR_MS // spec.frame_ms
    unfolded, seq, trade_id = spec.start_mid_ticks - spec.floor_ticks, 0, 0
    for hour, first in enumerate(range(0, spec.n_frames, per_hour)):
        path = _walk(spec, hour, min(per_hour, spec.n_frames - first), unfolded)
        unfolded = int(path[-1])
        mid = spec.floor_ticks + np.abs(path)  # reflected at the floor, which lies on the lattice
        frame_ns = spec.start_ns + spec.frame_ns * (first + np.arange(mid.size))
        prints = _prints(spec, hour, first, mid)
        frame_seq = seq + 1 + np.arange(mid.size) + np.searchsorted(prints["recv_ns"], frame_ns)
        print_seq = seq + 1 + np.arange(prints["recv_ns"].size)
        print_seq += np.searchsorted(frame_ns, prints["recv_ns"])
        yield (
            _depth(spec, hour, first, mid, frame_ns, frame_seq),
            _trades(spec, prints, print_seq, trade_id),
        )
        seq += mid.size + print_seq.size
        trade_id += print_seq.size


def events(spec: SynthSpec) -> pl.DataFrame:
    """The `events` table: one run, in sync from its first frame to the span's last nanosecond."""
    details = {"source": "synth", "seed": spec.seed}
    return EVENTS.conform(
        pl.DataFrame(
            {
                "recv_ns": [spec.start_ns, spec.start_ns, spec.end_ns - 1],
                "event_id": [1, 2, 3],
                "run_id": spec.start_ns // NS_PER_MS,
                "epoch_id": [0, 1, 1],
                "kind": ["run_start", "sync", "run_stop"],
                "details": [json.dumps(details), "{}", "{}"],
            }
        )
    )


def _stream(spec: SynthSpec, purpose: int, hour: int) -> np.random.Generator:
    entropy = [spec.seed, spec.day.toordinal(), *spec.symbol.encode()]
    return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(purpose, hour)))


def _walk(spec: SynthSpec, hour: int, n: int, start: int) -> Ints:
    """Shape (n,) path of the mid above the floor before reflection, ticks; the span's first frame stays."""
    rng = _stream(spec, MID, hour)
    moves = rng.random(n) < spec.mid_moves_per_s * spec.frame_ms / 1000
    steps = np.where(moves, spec.mid_jump_ticks * rng.choice(np.array([-1, 1]), n), 0)
    if hour == 0:
        steps[0] = 0
    return start + np.cumsum(steps, dtype=np.int64)


def _orders(spec: SynthSpec, hour: int, first: int, n_frames: int) -> tuple[Ints, Ints, Ints, Ints]:
    """(open ns since the hour's start, taker, levels reached, piece) of the hour's printing orders, in time order.

    Open time leaves out the first nanosecond of each frame, so that no order shares a frame's time.
    """
    rng = _stream(spec, ORDERS, hour)
    open_ns = spec.frame_ns - 1
    drawn: list[tuple[Ints, Ints, Ints, Ints]] = []
    for piece, (begin, end, A, k) in enumerate(spec.pieces()):
        a, b = max(begin - first, 0), min(end - first, n_frames)
        if a >= b:
            continue
        mean = A * math.exp(-k) * (b - a) * spec.frame_ms / 1000
        counts = rng.poisson(mean, 2)
        n = int(counts.sum())
        # sorted uniforms on a range shorter by n, spread by 0..n-1: n distinct instants, all sets equally likely
        at = a * open_ns + np.sort(rng.integers(0, (b - a) * open_ns - n, n)) + np.arange(n)
        taker = rng.permutation(np.repeat(np.array([1, -1]), counts))
        reach = 1 + np.floor(rng.exponential(1 / k, n)).astype(np.int64)  # no memory: depth beyond the first tick
        drawn.append((at, taker, reach, np.full(n, piece)))
    at, taker, reach, piece_of = (np.concatenate(column) for column in zip(*drawn, strict=True))
    return at, taker, reach, piece_of


def _prints(spec: SynthSpec, hour: int, first: int, mid: Ints) -> dict[str, Ints]:
    """recv_ns, taker, price in ticks and lots of the hour's prints, in time order, each sweep outward."""
    at, taker, reach, piece = _orders(spec, hour, first, mid.size)
    frame = at // (spec.frame_ns - 1)
    reach = np.where(taker < 0, np.minimum(reach, mid[frame] - 1), reach)  # a bid's price is above zero
    rng = _stream(spec, PRINTS, hour)
    prints = 1 + rng.poisson(np.array(spec.extra_prints())[piece])
    order = np.repeat(np.arange(at.size), prints)
    level = 1 + (rng.random(order.size) * reach[order]).astype(np.int64)
    level[np.cumsum(prints) - 1] = reach
    width = int(reach.max(initial=0)) + 1
    level = np.sort(order * width + level) - order * width
    recv_ns = spec.start_ns + spec.frame_ns * (first + frame) + 1 + at % (spec.frame_ns - 1)
    return {
        "recv_ns": recv_ns[order],
        "taker": taker[order],
        "ticks": mid[frame][order] + taker[order] * level,
        "lots": 1 + rng.exponential(PRINT_LOTS, order.size).astype(np.int64),
    }


def _depth(spec: SynthSpec, hour: int, first: int, mid: Ints, recv_ns: Ints, seq: Ints) -> pl.DataFrame:
    rng = _stream(spec, BOOK, hour)
    columns: dict[str, Any] = {
        "recv_ns": recv_ns,
        "exch_ns": recv_ns - LATENCY_NS,
        "recv_seq": seq,
        "update_id": first + 1 + np.arange(mid.size),
    }
    for level, (side, sign) in itertools.product(range(1, spec.levels + 1), (("bid", -1), ("ask", 1))):
        lots = 1 + rng.exponential(BOOK_LOTS, mid.size).astype(np.int64)
        columns[f"{side}_px_{level}"] = spec.instrument.ticks.to_decimal(mid + sign * level)
        columns[f"{side}_qty_{level}"] = spec.instrument.lots.to_decimal(lots)
    run = pl.lit(spec.start_ns // NS_PER_MS)
    return depth(spec.levels).conform(pl.DataFrame(columns).with_columns(run_id=run, epoch_id=1))


def _trades(spec: SynthSpec, prints: dict[str, Ints], seq: Ints, trade_id: int) -> pl.DataFrame:
    exch_ns = prints["recv_ns"] - LATENCY_NS
    frame = pl.DataFrame(
        {
            "recv_ns": prints["recv_ns"],
            "exch_ns": exch_ns,
            "trade_ns": exch_ns,
            "recv_seq": seq,
            "trade_id": trade_id + 1 + np.arange(seq.size),
            "price": spec.instrument.ticks.to_decimal(prints["ticks"]),
            "qty": spec.instrument.lots.to_decimal(prints["lots"]),
            "taker": prints["taker"],
        }
    )
    return TRADES.conform(frame.with_columns(run_id=pl.lit(spec.start_ns // NS_PER_MS), source=pl.lit("ws")))
