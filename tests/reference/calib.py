"""The slow, obvious twins of calib/collect, schedule, families, robust, auto: loops, fractions, one formula a line."""

from __future__ import annotations

import io
import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from scipy import stats
from scipy.optimize import minimize

from mmlab.calib.hits import TRADE_COLUMNS
from mmlab.calib.points import BLOCKS, Window
from mmlab.calib.probes import DEPTH_COLUMNS
from mmlab.calib.run import GAP_COLUMNS, Tape
from mmlab.calib.spec import ProbeSpec, ScheduleSpec
from mmlab.core import schemas
from mmlab.core.instrument import Instrument
from mmlab.tape.synth import SynthSpec
from mmlab.tape.synth import chunks as synth_chunks
from reference import probes as slow
from reference.parity import Recording, recording

SIDES = (1, -1)
CELL = ("exposure_ns", "hits", "rings", "lots")
Row = dict[str, Any]
Chunk = tuple[pl.DataFrame, pl.DataFrame]
Arrays = Mapping[str, np.ndarray]


# ---- tapes, and how they are cut


def drawn(seed: int, n: int, shift_ns: int = 0) -> Recording:
    """A random recording of `n` events with all its edges; the same seed with a smaller `n` is a shorter one."""
    rng = np.random.default_rng(seed)
    return narrowed(recording(n, lambda *values: values[rng.integers(len(values))]), shift_ns)


@cache
def synthetic(seed: int = 0, seconds: int = 72, A: float = 1.5, k: float = 0.25) -> Recording:
    """A seeded market whose (A, k) is known, from 00:00 UTC."""
    spec = SynthSpec(day=date(2025, 1, 1), hours=seconds / 3600, seed=seed, A=A, k=k)
    depth, trades = (pl.concat(parts) for parts in zip(*synth_chunks(spec), strict=True))
    return narrowed(Recording(depth, trades, schemas.GAPS.empty(), spec.instrument))


def by_hand(
    frames: Sequence[tuple[int, ...]], prints: Sequence[tuple[int, ...]] = (), gaps: Sequence[tuple[int, int]] = ()
) -> Recording:
    """From frames (ns, seq, epoch, bid, ask), prints (ns, seq, trade ns, id, price, lots, taker) and depth holes."""
    rows = (
        [(ns, seq, 1, epoch, bid / 100, ask / 100) for ns, seq, epoch, bid, ask in frames],
        [(*times, price / 100, lots / 1000, taker) for *times, price, lots, taker in prints],
        [(a, b, "depth") for a, b in gaps],
    )
    wanted = ((schemas.DEPTH, DEPTH_COLUMNS), (schemas.TRADES, TRADE_COLUMNS), (schemas.GAPS, GAP_COLUMNS))
    made = (
        pl.DataFrame(part, schema={name: table.schema[name] for name in names}, orient="row")
        for part, (table, names) in zip(rows, wanted, strict=True)
    )
    return Recording(*made, Instrument("synth", "TEST", "0.01", "0.001"))


def narrowed(tape: Recording, shift_ns: int = 0) -> Recording:
    """The columns that calibration reads, with all times shifted."""
    wanted = ((tape.depth, DEPTH_COLUMNS), (tape.trades, TRADE_COLUMNS), (tape.gaps, GAP_COLUMNS))
    parts = (frame.select(names).with_columns(pl.col("^.*_ns$") + shift_ns) for frame, names in wanted)
    return Recording(*parts, tape.instrument)


def whole(tape: Recording) -> Tape:
    """The tape as calibration takes it."""
    return Tape(tape.depth, tape.trades, tape.gaps, tape.instrument)


def keys(frame: pl.DataFrame) -> list[tuple[int, int]]:
    """(recv_ns, recv_seq) of every row."""
    return list(zip(frame["recv_ns"].to_list(), frame["recv_seq"].to_list(), strict=True))


def chunks(tape: Recording, cuts: Sequence[int]) -> Iterator[Chunk]:
    """The tape cut before its events number `cuts`, frames and prints at one time key; equal cuts: an empty chunk."""
    events = sorted(keys(tape.depth) + keys(tape.trades))
    at = [(-1, -1), *(events[min(cut, len(events) - 1)] for cut in sorted(cuts)), (2**62, 0)]
    for low, high in pairwise(at):
        yield tuple(
            frame[bisect_left(keys(frame), low) : bisect_left(keys(frame), high)] for frame in (tape.depth, tape.trades)
        )


def saved(state: Arrays) -> dict[str, np.ndarray]:
    """Through np.savez and back, as a run's folder keeps it."""
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **state)
    file.seek(0)
    with np.load(file) as arrays:
        return dict(arrays)


# ---- tape -> probes, prints, cells


@dataclass(frozen=True)
class Quote:
    """One book frame: time key, run and epoch, best prices in ticks."""

    ns: int
    seq: int
    epoch: tuple[int, int]
    bid: int
    ask: int


def steps(values: pl.Series, unit: str) -> list[int]:
    """Decimals as whole steps of `unit`, by the text that the double prints as."""
    exact = [Fraction(repr(value)) / Fraction(unit) for value in values]
    assert all(value.denominator == 1 for value in exact)
    return [int(value) for value in exact]


def quotes(tape: Recording) -> list[Quote]:
    """The book frames."""
    d, tick = tape.depth, tape.instrument.tick_size
    epochs = zip(d["run_id"], d["epoch_id"], strict=True)
    return list(map(Quote, d["recv_ns"], d["recv_seq"], epochs, steps(d["bid_px_1"], tick), steps(d["ask_px_1"], tick)))


def prints(tape: Recording) -> list[slow.Print]:
    """The prints."""
    t, instrument = tape.trades, tape.instrument
    numbers = (t[name] for name in ("recv_ns", "recv_seq", "trade_ns", "trade_id"))
    price, lots = steps(t["price"], instrument.tick_size), steps(t["qty"], instrument.lot_size)
    return list(map(slow.Print, *numbers, price, lots, t["taker"]))


def known_holes(tape: Recording) -> list[tuple[int, int]]:
    """Holes in book or tape, those that overlap or touch as one."""
    out: list[tuple[int, int]] = []
    streams = (row for row in tape.gaps.sort("from_ns", "to_ns").rows() if row[2] in {"depth", "trade"})
    for a, b, _ in streams:
        if out and a <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], b))
        else:
            out.append((a, b))
    return out


def laid(tape: Recording, spec: ProbeSpec) -> list[slow.Probe]:
    """The probe intervals."""
    epochs = {epoch: i for i, epoch in enumerate(dict.fromkeys(q.epoch for q in quotes(tape)))}
    frames = [slow.Frame(q.ns, q.seq, epochs[q.epoch], Fraction(q.bid + q.ask, 2)) for q in quotes(tape)]
    return slow.probes(frames, known_holes(tape), spec.dwell_ns, Fraction(spec.mid_move_threshold_ticks))


@dataclass(frozen=True)
class Measured:
    """A tape's probes with their prints, and what any of them met in any span of time."""

    spec: ProbeSpec
    assigned: list[tuple[slow.Probe, list[slow.Print]]]

    def cell(
        self, side: int, d: int, span: tuple[int, int], bucket_of: Callable[[int], int] = lambda _: 0
    ) -> slow.Cell:
        """Sums of one side and distance; with `cycle`, of the intervals whose turn it is."""
        spec, n = self.spec, len(self.spec.deltas)
        taken = self.assigned[d::n] if spec.cycle else self.assigned
        taken = [(p, inside) for p, inside in taken if p.start[0] < span[1] and p.end[0] >= span[0]]
        beyond = spec.deltas[d + 1] if d + 1 < n and not spec.cycle else None
        how = (spec.count, spec.reach == "through", spec.taker_side)
        return slow.count(taken, side, spec.deltas[d], beyond, *how, span, bucket_of)

    def rings(self, side: int, d: int, span: tuple[int, int], bucket_of: Callable[[int], int]) -> int:
        """`sweeps`: taker orders whose furthest print lands at this distance and short of the next; `all_hits`: prints.

        In each bucket of time in which an order reaches further than before, it counts once more.
        """
        spec, found = self.spec, 0
        behind, delta = 1 if spec.reach == "through" else 0, spec.deltas[d]
        beyond = spec.deltas[d + 1] if d + 1 < len(spec.deltas) else None
        for probe, inside in self.assigned:
            for order in slow.orders(inside) if spec.count == "sweeps" else [[p] for p in inside]:
                reach = 0
                for part in slow.orders(order, bucket_of):
                    hits = (p for p in part if slow.is_hit(p, probe, side, 1, behind == 1, spec.taker_side))
                    furthest = max(
                        (slow.rank(side * (probe.mid - p.price) - behind, beyond, delta) for p in hits), default=0
                    )
                    found += furthest == 1 > reach and span[0] <= part[0].ns < span[1]
                    reach = max(reach, furthest)
        return found

    def covered(self, span: tuple[int, int]) -> int:
        """Time for which probes stood."""
        both = ((max(p.start[0], span[0]), min(p.end[0], span[1])) for p, _ in self.assigned)
        return sum(max(b - a, 0) for a, b in both)


def measured(tape: Recording, spec: ProbeSpec) -> Measured:
    """Lay the probes and give each its prints."""
    return Measured(spec, slow.assign(laid(tape, spec), prints(tape)))


def points_of(tape: Recording, spec: ProbeSpec) -> list[Row]:
    """Rows of `points` of the whole span as one bucket, without what follows from them."""
    found, n = measured(tape, spec), len(spec.deltas)
    span = (tape.depth["recv_ns"][0], tape.depth["recv_ns"][-1] + 1)
    cells = [[found.cell(side, d, span) for d in range(n)] for side in SIDES]
    both = [slow.Cell(*(getattr(a, f) + getattr(b, f) for f in CELL)) for a, b in zip(*cells, strict=True)]
    return [
        {
            "bucket_start_ns": span[0],
            "bucket_end_ns": span[1],
            "side": side,
            "delta_ticks": float(delta),
            "exposure_ns": cell.exposure_ns,
            "fills_total": cell.hits,
            "qty_total": float(cell.lots * Fraction(tape.instrument.lot_size)),
        }
        for side, row in zip(("bid", "ask", "both"), (*cells, both), strict=True)
        for delta, cell in zip(spec.deltas, row, strict=True)
    ]


def flow(tape: Sequence[slow.Print], span: tuple[int, int]) -> list[int]:
    """How many prints, their lots, and the lots whose taker bought."""
    inside = [p for p in tape if span[0] <= p.ns < span[1]]
    return [len(inside), sum(p.lots for p in inside), sum(p.lots for p in inside if p.taker == 1)]


def market(frames: Sequence[Quote], span: tuple[int, int]) -> list[int]:
    """Spread times time (ticks, us), that time, squared moves of the mid (half ticks) and their time, by later frame.

    The mid is sampled at the first frame of an epoch and of each second of UTC.
    """
    out, before, sample = [0, 0, 0, 0], None, None
    for q in frames:
        inside = span[0] <= q.ns < span[1]
        if before is None or q.epoch != before.epoch:
            sample = q
        else:
            stood = (q.ns - before.ns) // 1000
            out[0] += (before.ask - before.bid) * stood * inside
            out[1] += stood * inside
            if q.ns // 10**9 > before.ns // 10**9:
                out[2] += (q.bid + q.ask - sample.bid - sample.ask) ** 2 * inside
                out[3] += (q.ns - sample.ns) // 1000 * inside
                sample = q
        before = q
    return out


# ---- the schedule


def window_metrics(
    tape: Recording, probes: ProbeSpec, spec: ScheduleSpec, starts: Sequence[int], days: Sequence[tuple[int, int, str]]
) -> list[Row]:
    """Rows of `window_metrics` from the raw frames and prints."""
    first_ns = tape.depth["recv_ns"][0]
    bucket = math.gcd(round(spec.step_min * 60_000), round(spec.train_window_min * 60_000)) * 10**6
    train = round(spec.train_window_min * 60_000) * 10**6
    fine = next(bucket // n for n in range(1, bucket + 1) if bucket % n == 0 and n * train >= 16 * bucket)
    origin, found = first_ns // bucket * bucket, measured(tape, probes)
    frames, tape_prints, rows = quotes(tape), prints(tape), []
    for t in starts:
        span = (t - train, t)
        count, lots, bought = flow(tape_prints, (max(t - train, origin), t))
        spread, spread_us, move2, move_us = market(frames, span)
        covered, seconds = found.covered(span), train / 1e9
        conditions = [c for a, b, c in days if a < t and b > t - train]
        order = ("unknown", "complete", "pending", "degraded")
        rows.append(
            {
                "start_ns": t,
                "end_ns": t + round(spec.step_min * 60_000) * 10**6,
                "train_start_ns": t - train,
                "train_end_ns": t,
                "exposure_s": covered / 1e9,
                "fills_total": sum(found.cell(side, 0, span).hits for side in SIDES),
                "dispersion": dispersion(found, max(t - train, origin), t, fine),
                "prints": count,
                "trade_rate": count / seconds,
                "qty_rate": float(lots * Fraction(tape.instrument.lot_size)) / seconds,
                "buy_share": bought / lots if lots else None,
                "volatility": math.sqrt((move2 / 4) / (move_us / 1e6)) if move_us else None,
                "spread": spread / spread_us if spread_us else None,
                "coverage": covered / train,
                "condition": max(conditions, key=order.index, default="unknown"),
            }
        )
    return rows


def dispersion(found: Measured, start: int, end: int, fine: int) -> float | None:
    """Pearson's chi-square of the nearest hits over 16 blocks of whole fine buckets, per degree of freedom."""
    n = (end - start) // fine
    edges = [start + fine * (n * b // 16) for b in range(17)]
    cells = [[found.cell(side, 0, span) for side in SIDES] for span in pairwise(edges)]
    hits = [sum(c.hits for c in cell) for cell in cells]
    at_risk = [sum(c.exposure_ns for c in cell) for cell in cells]
    exposed = sum(t > 0 for t in at_risk)
    if exposed < 2:
        return None
    rate = sum(hits) / sum(at_risk)
    mean = [t * rate for t in at_risk]
    return sum((h - m) ** 2 / m for h, m in zip(hits, mean, strict=True) if m > 0) / (exposed - 1)


def carried(windows: Sequence[Row], fits: Sequence[Row]) -> list[Row]:
    """A, k, source, age_steps of every step: its own good fit of both sides, or the last good one before it."""
    pooled = {f["train_end_ns"]: f for f in fits if f["side"] == "both"}
    rows, good = [], None
    for i, w in enumerate(windows):
        fit = pooled[w["start_ns"]]
        if fit["ok"]:
            good = (i, fit["A"], fit["k"])
        source = "fit" if fit["ok"] else "carry_forward" if good else "none"
        at, A, k = good or (None, None, None)
        rows.append({"A": A, "k": k, "source": source, "age_steps": None if at is None else i - at})
    return rows


# ---- windows by hand, and their curves


def window(exposure_ns: Any, hits: Any, rings: Any, spans: Sequence[tuple[int, int]] | None = None) -> Window:
    """A Window over buckets of shape (n_buckets, 2 sides, n_deltas); one span over all of them unless given."""

    def prefix(a: Any) -> np.ndarray:
        cells = np.asarray(a, np.int64)
        return np.concatenate([np.zeros_like(cells[:1]), np.cumsum(cells, axis=0)])

    sums = [prefix(a) for a in (exposure_ns, hits, rings)]
    first, last = (np.array(ends) for ends in zip(*(spans or [(0, len(sums[0]) - 1)]), strict=True))
    covered = sums[0][:, 0].max(axis=1)
    return Window(*sums, first, last, covered[last] - covered[first])


@dataclass(frozen=True)
class Points:
    """One span and side: distances with enough exposure, seconds, hits, rings, arrays of shape (n,)."""

    x: np.ndarray
    T: np.ndarray
    N: np.ndarray
    R: np.ndarray


def span_points(of: Window, w: int, side: int, deltas: Sequence[float], min_exposure_s: float = 0.0) -> Points:
    """Added up over the span; side 2 is both."""
    sides = (0, 1) if side == 2 else (side,)
    T, N, R = (
        sum(a[of.last[w], q] - a[of.first[w], q] for q in sides).astype(float) for a in (of.exposure, of.hit, of.ring)
    )
    kept = (T > 0) & (min_exposure_s <= T / 1e9)
    return Points(np.array(deltas, float)[kept], T[kept] / 1e9, N[kept], R[kept])


def intensity(family: str, A: float, b: float, x: np.ndarray) -> np.ndarray:
    """lambda(delta) of a family with two parameters."""
    return A * np.exp(-b * x) if family == "exponential" else A * x ** (-b)


def of_rings(rate: np.ndarray) -> np.ndarray:
    """Intensities at nested distances -> rates of the disjoint rings."""
    return rate - np.append(rate[1:], 0.0)


def log_likelihood(T: np.ndarray, N: np.ndarray, rate: np.ndarray) -> float:
    """Sum of ln Poisson(N | T rate), with ln N!."""
    return float(stats.poisson.logpmf(N, T * rate).sum())


def best(family: str, p: Points, counts: np.ndarray, nested: bool) -> tuple[float, float, float]:
    """(A, k or exponent, log-likelihood) by a general optimizer, from several starts."""
    scale = math.log(p.x[-1] / p.x[0]) if family == "power_law" else p.x[-1] - p.x[0]

    def loss(v: np.ndarray) -> float:
        rate = intensity(family, math.exp(v[0]), v[1] / scale, p.x)
        mu = np.maximum(p.T * (of_rings(rate) if nested else rate), 1e-300)
        return float(np.sum(mu - counts * np.log(mu)))

    options = {"xatol": 1e-10, "fatol": 1e-12, "maxiter": 20_000, "maxfev": 20_000}
    near = math.log(max(counts.sum() / p.T.sum(), 1e-12))
    runs = [minimize(loss, [near + s, s], method="Nelder-Mead", options=options) for s in (0.7, 4.0)]
    found = min(runs, key=lambda run: run.fun).x
    A, b = math.exp(found[0]), found[1] / scale
    rate = intensity(family, A, b, p.x)
    return A, b, log_likelihood(p.T, counts, of_rings(rate) if nested else rate)


def deviance(T: np.ndarray, N: np.ndarray, rate: np.ndarray) -> float:
    """Poisson deviance, term by term."""
    mu = T * rate
    return float(sum(2 * ((n * math.log(n / m) if n else 0.0) - (n - m)) for n, m in zip(N, mu, strict=True)))


def pearson(T: np.ndarray, N: np.ndarray, rate: np.ndarray) -> float:
    """Pearson's chi-square."""
    return float(sum((n - m) ** 2 / m for n, m in zip(N, T * rate, strict=True)))


def pava(N: Sequence[float], T: Sequence[float]) -> list[Fraction]:
    """The falling rates of greatest likelihood: min over starts before of the max over ends after, of pooled rates."""
    n = len(N)

    def pooled(a: int, b: int) -> Fraction:
        return Fraction(int(sum(N[a : b + 1]))) / sum(Fraction(t) for t in T[a : b + 1])

    return [min(max(pooled(a, b) for b in range(i, n)) for a in range(i + 1)) for i in range(n)]


def sandwich(
    of: Window, w: int, side: int, deltas: Sequence[float], A: float, k: float, method: str, nested: bool,
    min_exposure_s: float = 0.0,
) -> tuple[float, float, int, int]:  # fmt: skip
    """Errors of ln A and k clustered over blocks of time; how many blocks have exposure, and how many have hits.

    J from the Fisher information at the estimate; a block's score adds (N - T rate) (1, d ln rate / dk) over sides
    and used distances. log_linear: the rates are the empirical ones, the weights of J the hits.
    """
    x, rings = np.array(deltas, float), method == "nested_mle"
    counts = of.ring if rings else of.hit
    n, first, last = x.size, of.first[w], of.last[w]

    def cells(a: np.ndarray, sides: Sequence[int], low: int, high: int) -> np.ndarray:
        return sum((a[high, q] - a[low, q]).astype(float) for q in sides)

    pooled = (0, 1) if side == 2 else (side,)
    T, N = cells(of.exposure, pooled, first, last) / 1e9, cells(counts, pooled, first, last)
    used = [i for i in range(n) if T[i] > 0 and T[i] >= min_exposure_s]
    rate, grad = np.full(n, np.nan), np.full(n, np.nan)
    for at, i in enumerate(used):
        if method == "log_linear":
            rate[i], grad[i] = N[i] / T[i], -x[i]
            continue
        here = A * math.exp(-k * x[i])
        rate[i], grad[i] = here, -x[i]
        if rings and nested and at + 1 < len(used):
            beyond = x[used[at + 1]]
            there = A * math.exp(-k * beyond)
            rate[i] = here - there
            grad[i] = (-x[i] * here + beyond * there) / (here - there)
    weight = N if method == "log_linear" else T * rate
    J = sum(weight[i] * np.outer((1, grad[i]), (1, grad[i])) for i in used)
    edges = [first + (last - first) * b // BLOCKS for b in range(BLOCKS + 1)]
    meat, blocks, hit = np.zeros((2, 2)), 0, 0
    for low, high in pairwise(edges):
        u, at_risk, met = np.zeros(2), 0.0, 0.0
        for q in pooled:
            t, c = cells(of.exposure, [q], low, high) / 1e9, cells(counts, [q], low, high)
            for i in used:
                u += (c[i] - t[i] * rate[i]) * np.array([1, grad[i]])
                at_risk, met = at_risk + t[i], met + c[i]
        meat, blocks, hit = meat + np.outer(u, u), blocks + (at_risk > 0), hit + (met > 0)
    inverse = np.linalg.inv(J)
    covariance = inverse @ meat @ inverse * blocks / (blocks - 1) if blocks > 1 else np.full((2, 2), np.nan)
    return *(math.sqrt(max(covariance[i, i], 0.0)) for i in (0, 1)), blocks, hit


# ---- distances from the tape


def depths(tape: Recording, spec: ProbeSpec) -> list[int]:
    """Deepest print of each interval and side that has one, whole ticks from its anchor, ascending."""
    found = []
    for probe, inside in slow.assign(laid(tape, spec), prints(tape)):
        below = [probe.mid - p.price for p in inside]
        sides = ([d for d in below if d > 0], [-d for d in below if d <= 0])
        found += [math.floor(max(side)) for side in sides if side]
    return sorted(found)


def auto_deltas(deepest: Sequence[int], count: int, most: int | None) -> tuple[int, ...] | None:
    """What `--deltas auto` chooses: from what nine in ten exceed to what one in fifty does (and 30), even in log."""
    reached = sorted(d for d in deepest if d >= 1)
    if not reached:
        return None
    beyond = max(len(reached) // 50, min(30, len(reached)))
    far = reached[len(reached) - beyond]
    if most is not None:
        far = min(far, most)
    near = min(reached[len(reached) // 10], max(far // 2, 1))
    ratio = far / near
    chosen = sorted({round(near * ratio ** (i / (count - 1))) for i in range(count)})
    return tuple(chosen) if len(chosen) > 1 else None
