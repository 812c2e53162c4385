"""The join equals the obvious loop, count by count."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmlab.calib import hits, probes
from mmlab.calib.hits import sums
from mmlab.calib.probes import intervals
from mmlab.calib.spec import ProbeSpec
from mmlab.core.errors import DataError
from mmlab.core.instrument import Instrument
from reference import probes as slow

INSTRUMENT = Instrument("binance-spot", "BTCUSDT", "0.01", "0.001")
TAPE_START = 1_000_000


@st.composite
def tapes(draw):
    """A short tape: frames and prints on one sequence, equal times, epochs, half-tick mids, sweeps."""
    n = draw(st.integers(2, 40))
    ns, mid2, epoch, trade_id, trade_ns = TAPE_START, 2000, 1, 0, 0
    frames, prints = [], []
    for seq in range(1, n + 1):
        ns += draw(st.sampled_from([0, 0, 1, 3, 500_000, 1_000_000, 2_500_000]))
        if draw(st.booleans()):
            mid2 += draw(st.integers(-3, 3))
            epoch += draw(st.integers(0, 9)) == 0
            frames.append(slow.Frame(ns, seq, epoch, Fraction(mid2, 2)))
        else:
            trade_id += draw(st.sampled_from([1, 1, 1, 2]))
            trade_ns += draw(st.sampled_from([0, 0, 1]))
            price = mid2 // 2 + draw(st.integers(-8, 8))
            lots = draw(st.integers(1, 9))
            prints.append(slow.Print(ns, seq, trade_ns, trade_id, price, lots, draw(st.sampled_from([1, -1]))))
    return frames, prints


gap_lists = st.lists(
    st.tuples(st.integers(TAPE_START, TAPE_START + 20_000_000), st.integers(0, 5_000_000)), max_size=2
).map(lambda gs: [(a, a + w) for a, w in gs])


def frame_table(frames: list[slow.Frame]) -> pl.DataFrame:
    """Frames as the `depth` columns that calibration reads; a half-tick mid has an odd spread."""
    bid = [(int(f.mid * 2) - 1) // 2 for f in frames]
    ask = [int(f.mid * 2) - b for f, b in zip(frames, bid, strict=True)]
    return pl.DataFrame(
        {
            "recv_ns": [f.ns for f in frames],
            "recv_seq": [f.seq for f in frames],
            "run_id": [1] * len(frames),
            "epoch_id": [f.epoch for f in frames],
            "bid_px_1": [b / 100 for b in bid],
            "ask_px_1": [a / 100 for a in ask],
        },
        schema_overrides={"recv_ns": pl.Int64},
    )


def print_table(prints: list[slow.Print]) -> pl.DataFrame:
    """Prints as the `trades` columns that calibration reads."""
    return pl.DataFrame(
        {
            "recv_ns": [p.ns for p in prints],
            "recv_seq": [p.seq for p in prints],
            "trade_ns": [p.trade_ns for p in prints],
            "trade_id": [p.trade_id for p in prints],
            "price": [p.price / 100 for p in prints],
            "qty": [p.lots / 1000 for p in prints],
            "taker": [p.taker for p in prints],
        },
        schema={
            "recv_ns": pl.Int64,
            "recv_seq": pl.Int64,
            "trade_ns": pl.Int64,
            "trade_id": pl.Int64,
            "price": pl.Float64,
            "qty": pl.Float64,
            "taker": pl.Int8,
        },
    )


def gap_table(gaps: list[tuple[int, int]]) -> pl.DataFrame:
    """Holes in the trade stream."""
    rows = [(a, b, "trade") for a, b in gaps]
    return pl.DataFrame(rows, schema={"from_ns": pl.Int64, "to_ns": pl.Int64, "stream": pl.String}, orient="row")


@settings(max_examples=160, deadline=None)
@given(
    tape=tapes(),
    gaps=gap_lists,
    rule=st.sampled_from(["first_hit", "sweeps", "all_hits"]),
    dwell_ms=st.sampled_from([1, 2, 7]),
    threshold=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    through=st.booleans(),
    taker_side=st.booleans(),
    bucket_ns=st.sampled_from([700_000, 3_000_000, 1_000_000_000]),
)
def test_counts_and_exposure_equal_the_obvious_loop(
    tape, gaps, rule, dwell_ms, threshold, through, taker_side, bucket_ns
):
    """Every rule, side, distance and time bucket, on random tapes with gaps, epochs and equal times."""
    frames, prints = tape
    if not frames:
        return
    spec = ProbeSpec(
        deltas=(1, 2, 4, 7),
        dwell_ms=dwell_ms,
        mid_move_threshold_ticks=threshold,
        count=rule,
        reach="through" if through else "touch",
        taker_side=taker_side,
    )
    laid = intervals(frame_table(frames), gap_table(gaps), INSTRUMENT, spec)
    n_buckets = (frames[-1].ns - TAPE_START) // bucket_ns + 1
    got = sums(
        laid, print_table(prints), INSTRUMENT, spec, origin_ns=TAPE_START, bucket_ns=bucket_ns, n_buckets=n_buckets
    )
    merged = slow.merged(gaps)
    slow_laid = slow.probes(frames, merged, dwell_ms * 1_000_000, Fraction(threshold))
    assert laid.start_ns.tolist() == [p.start[0] for p in slow_laid]
    assert laid.end_ns.tolist() == [p.end[0] for p in slow_laid]
    assigned = slow.assign(slow_laid, prints)

    def bucket_of(ns):
        return (ns - TAPE_START) // bucket_ns

    for b in range(n_buckets):
        span = (TAPE_START + b * bucket_ns, TAPE_START + (b + 1) * bucket_ns)
        for s, side in enumerate((1, -1)):
            for d, delta in enumerate(spec.deltas):
                beyond = spec.deltas[d + 1] if d + 1 < len(spec.deltas) else None
                want = slow.count(assigned, side, delta, beyond, rule, through, taker_side, span, bucket_of)
                cell = (got.exposure_ns[b, s, d], got.hits[b, s, d], got.lots[b, s, d])
                assert cell == (want.exposure_ns, want.hits, want.lots)
                if rule == "first_hit":
                    assert got.rings[b, s, d] == want.rings


@settings(max_examples=40, deadline=None)
@given(tape=tapes(), rule=st.sampled_from(["first_hit", "sweeps", "all_hits"]), cut=st.integers(0, 20))
def test_what_happens_after_a_bucket_changes_nothing_in_it(tape, rule, cut):
    """No look-ahead: dropping every row from an instant on leaves the buckets before it as they were."""
    frames, prints = tape
    bucket_ns = 1_000_000
    edge = TAPE_START + cut * bucket_ns
    early = [f for f in frames if f.ns < edge]
    if not early or len(early) == len(frames):
        return
    spec = ProbeSpec(deltas=(1, 2, 4), dwell_ms=7, count=rule)

    def run(fs, ps):
        laid = intervals(frame_table(fs), gap_table([]), INSTRUMENT, spec)
        n = (fs[-1].ns - TAPE_START) // bucket_ns + 1
        return sums(laid, print_table(ps), INSTRUMENT, spec, origin_ns=TAPE_START, bucket_ns=bucket_ns, n_buckets=n)

    whole, part = run(frames, prints), run(early, [p for p in prints if p.ns < edge])
    known = (early[-1].ns - TAPE_START) // bucket_ns  # the last bucket ends with the shorter tape
    for name in ("exposure_ns", "hits", "rings", "lots"):
        np.testing.assert_array_equal(getattr(whole, name)[:known], getattr(part, name)[:known])


def test_a_print_at_the_probes_price_hits_under_touch_and_not_under_through():
    """The boundary itself, on both sides, with a mid on a half tick."""
    frames = [slow.Frame(TAPE_START + i * 1_000, i, 1, Fraction(2001, 2)) for i in (1, 9)]
    prints = [
        slow.Print(TAPE_START + 2_000, 2, 1, 1, 998, 1, -1),  # 2.5 below the mid: reaches 2
        slow.Print(TAPE_START + 3_000, 3, 2, 2, 1002, 1, 1),  # 1.5 above: reaches 1
    ]
    hits = {}
    for reach in ("touch", "through"):
        spec = ProbeSpec(deltas=(1, 2, 3), reach=reach, count="all_hits")
        laid = intervals(frame_table(frames), gap_table([]), INSTRUMENT, spec)
        got = sums(laid, print_table(prints), INSTRUMENT, spec, origin_ns=0, bucket_ns=10**10, n_buckets=1)
        hits[reach] = got.hits[0].tolist()
    assert hits == {"touch": [[1, 1, 0], [1, 0, 0]], "through": [[1, 0, 0], [0, 0, 0]]}


def test_one_pass_serves_any_number_of_distances():
    """The counts of a distance do not depend on which others are asked for."""
    rng = np.random.default_rng(7)
    frames = [slow.Frame(TAPE_START + i * 10**6, 2 * i, 1, Fraction(2000 + int(rng.integers(9)), 2)) for i in range(99)]
    prints = [
        slow.Print(f.ns + 5, f.seq + 1, i, i, 1000 + int(rng.integers(-9, 9)), 1, -1) for i, f in enumerate(frames)
    ]
    few, many = (2, 5), tuple(range(1, 30))
    got = {}
    for deltas in (few, many):
        spec = ProbeSpec(deltas=deltas)
        laid = intervals(frame_table(frames), gap_table([]), INSTRUMENT, spec)
        got[deltas] = sums(laid, print_table(prints), INSTRUMENT, spec, origin_ns=0, bucket_ns=10**10, n_buckets=1)
    np.testing.assert_array_equal(got[few].hits, got[many].hits[:, :, [1, 4]])
    np.testing.assert_array_equal(got[few].exposure_ns, got[many].exposure_ns[:, :, [1, 4]])


@pytest.mark.parametrize("which", ["depth", "trades"])
def test_rows_out_of_time_order_are_refused_with_their_number(which):
    """An unsorted tape would be joined wrongly without a word."""
    frames = [slow.Frame(TAPE_START + i, i, 1, Fraction(1000)) for i in (1, 2, 3)]
    prints = [slow.Print(TAPE_START + i, i, 1, i, 1000, 1, 1) for i in (4, 5, 6)]
    depth, trades = frame_table(frames), print_table(prints)
    if which == "depth":
        depth = depth.reverse()
    else:
        trades = trades.reverse()
    spec = ProbeSpec()
    with pytest.raises(DataError, match=f"{which} row 1 is earlier"):
        sums(
            intervals(depth, gap_table([]), INSTRUMENT, spec),
            trades,
            INSTRUMENT,
            spec,
            origin_ns=0,
            bucket_ns=10**10,
            n_buckets=1,
        )


@settings(max_examples=60, deadline=None)
@given(tape=tapes(), rule=st.sampled_from(["first_hit", "sweeps", "all_hits"]), block=st.integers(1, 12))
def test_how_many_rows_are_rounded_at_once_leaves_no_trace(tape, rule, block):
    """Intervals, taker orders and what they reached go on where the next rows begin, be it in their midst."""
    frames, prints = tape
    if not frames:
        return
    spec = ProbeSpec(deltas=(1, 3), count=rule, dwell_ms=1)

    def counted():
        laid = intervals(frame_table(frames), gap_table([]), INSTRUMENT, spec)
        return sums(laid, print_table(prints), INSTRUMENT, spec, origin_ns=TAPE_START, bucket_ns=900_000, n_buckets=200)

    whole = counted()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probes, "AT_ONCE", block)
        patch.setattr(hits, "AT_ONCE", block)
        in_blocks = counted()
    for name in ("exposure_ns", "hits", "rings", "lots", "flow", "covered_ns"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(in_blocks, name))
