"""The slow, obvious twin of calib: probe by probe, print by print, with exact fractions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Frame:
    """One book frame: time key, epoch, mid in ticks."""

    ns: int
    seq: int
    epoch: int
    mid: Fraction


@dataclass(frozen=True)
class Print:
    """One print: time key, venue time and id, price in ticks, lots, taker side."""

    ns: int
    seq: int
    trade_ns: int
    trade_id: int
    price: int
    lots: int
    taker: int


@dataclass(frozen=True)
class Probe:
    """One interval: start and end keys and anchor mid."""

    start: tuple[int, float]
    end: tuple[int, float]
    mid: Fraction


def probes(frames: list[Frame], gaps: list[tuple[int, int]], dwell_ns: int, threshold: Fraction) -> list[Probe]:
    """Walk the frames, one `if` for each reason why an interval ends."""
    out: list[Probe] = []
    anchor: Frame | None = None
    before: Frame | None = None
    for frame in frames:
        if anchor is not None and before is not None:
            ended = [a for a, _ in gaps if before.ns <= a < frame.ns]
            if frame.epoch != before.epoch:
                out.append(Probe((anchor.ns, anchor.seq), (before.ns, before.seq), anchor.mid))
                anchor = None
            elif ended:
                out.append(Probe((anchor.ns, anchor.seq), (min(ended), float("inf")), anchor.mid))
                anchor = None
        before = frame
        if any(a < frame.ns < b for a, b in gaps):
            continue
        if anchor is not None:
            moved = threshold > 0 and abs(frame.mid - anchor.mid) >= threshold
            if frame.ns - anchor.ns < dwell_ns and not moved:
                continue
            out.append(Probe((anchor.ns, anchor.seq), (frame.ns, frame.seq), anchor.mid))
        anchor = frame
    if anchor is not None and before is not None:
        out.append(Probe((anchor.ns, anchor.seq), (before.ns, before.seq), anchor.mid))
    return out


def merged(gaps: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Overlapping holes as one."""
    out: list[tuple[int, int]] = []
    for a, b in sorted(gaps):
        if out and a <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], b))
        else:
            out.append((a, b))
    return out


def is_hit(p: Print, probe: Probe, side: int, delta: int, through: bool, taker_side: bool) -> bool:
    """Whether a print reaches the probe's price (side +1: the bid)."""
    if taker_side and p.taker != -side:
        return False
    price = probe.mid - side * delta
    beyond = 1 if through else 0
    return p.price <= price - beyond if side == 1 else p.price >= price + beyond


def orders(hits: list[Print], bucket_of: Callable[[int], int] = lambda _ns: 0) -> list[list[Print]]:
    """Prints of one taker order: same venue time and side, consecutive ids, positions; same time bucket."""
    groups: list[list[Print]] = []
    for p in hits:
        if groups:
            q = groups[-1][-1]
            same_bucket = bucket_of(p.ns) == bucket_of(q.ns)
            if same_bucket and (p.trade_ns, p.taker, p.trade_id) == (q.trade_ns, q.taker, q.trade_id + 1):
                groups[-1].append(p)
                continue
        groups.append([p])
    return groups


@dataclass
class Cell:
    """What one (side, delta) collects in one time span."""

    exposure_ns: int = 0
    hits: int = 0
    rings: int = 0
    lots: int = 0


def assign(laid: list[Probe], prints: list[Print]) -> list[tuple[Probe, list[Print]]]:
    """Every probe interval with the prints between its two ends."""
    return [(probe, [p for p in prints if probe.start <= (p.ns, p.seq) < probe.end]) for probe in laid]


def count(
    assigned: list[tuple[Probe, list[Print]]],
    side: int,
    delta: int,
    beyond: int | None,
    rule: str,
    through: bool,
    taker_side: bool,
    span: tuple[int, int],
    bucket_of: Callable[[int], int] = lambda _ns: 0,
) -> Cell:
    """Exposure, hits, ring hits (reach delta, not `beyond`) and lots within the span [a, b) of time."""
    cell = Cell()
    for probe, inside in assigned:
        at_delta = [p for p in inside if is_hit(p, probe, side, delta, through, taker_side)]
        end = probe.end[0]
        if rule == "first_hit":
            counted = at_delta[:1]
            end = counted[0].ns if counted else end
            # a taker order lands in the ring if it reaches further than all before it, and stops there
            reach = 0
            for group in orders(inside, bucket_of):
                depths = [
                    side * (probe.mid - p.price) - (1 if through else 0)
                    for p in group
                    if is_hit(p, probe, side, 1, through, taker_side)
                ]
                ranks = [0, *(rank(depth, beyond, delta) for depth in depths)]
                if max(ranks) > reach and max(ranks) == 1 and span[0] <= group[0].ns < span[1]:
                    cell.rings += 1
                reach = max(reach, *ranks)
            lots = counted
        elif rule == "sweeps":
            groups = [[p for p in g if is_hit(p, probe, side, delta, through, taker_side)] for g in orders(inside)]
            counted = [g[0] for g in groups if g]
            lots = at_delta
        else:
            counted = lots = at_delta
        cell.exposure_ns += max(0, min(end, span[1]) - max(probe.start[0], span[0]))
        cell.hits += sum(span[0] <= p.ns < span[1] for p in counted)
        cell.lots += sum(p.lots for p in lots if span[0] <= p.ns < span[1])
    return cell


def rank(depth: Fraction, beyond: int | None, delta: int) -> int:
    """0: short of delta, 1: in the ring [delta, beyond), 2: beyond."""
    if depth < delta:
        return 0
    return 2 if beyond is not None and depth >= beyond else 1
