"""Probe intervals: however the frames are cut and chunked, they are those of the obvious loop."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmlab.calib import cells, layout, pass_kernels, probes
from mmlab.calib.hits import sums
from mmlab.calib.probes import Intervals, Layer, intervals, joined, pieces
from mmlab.calib.spec import ProbeSpec
from mmlab.core.errors import DataError, TableError
from mmlab.core.instrument import OFF_GRID, Instrument
from mmlab.core.schemas import COUNT_RULES
from mmlab.core.spans import NS_PER_S
from reference import probes as slow

INSTRUMENT = Instrument("binance-spot", "BTCUSDT", "0.01", "0.001")
MS = 10**6
moves = st.tuples(
    st.sampled_from([0, 1, 1, 1, 2, 5, 40]), st.sampled_from([0, 0, 0, 0, 1, -1, 2, -3]), st.integers(0, 15)
)
holes = st.lists(st.tuples(st.integers(0, 120), st.sampled_from([0, 1, 3, 30])), max_size=3)


def frames_of(steps: list[tuple[int, int, int]]) -> list[slow.Frame]:
    """From steps in time (ms) and mid (half ticks); now and then an epoch begins."""
    made, ns, mid2, epoch = [], 0, 2001, 1
    for seq, (ms, move, fate) in enumerate(steps, 1):
        ns, mid2, epoch = ns + ms * MS, mid2 + move, epoch + (fate == 0)
        made.append(slow.Frame(ns, seq, epoch, Fraction(mid2, 2)))
    return made


def table(frames: list[slow.Frame]) -> pl.DataFrame:
    """As the columns of `depth`; a half-tick mid has an odd spread."""
    bid = [(int(f.mid * 2) - 1) // 2 for f in frames]
    ask = [int(f.mid * 2) - b for f, b in zip(frames, bid, strict=True)]
    return pl.DataFrame(
        {
            "recv_ns": pl.Series([f.ns for f in frames], dtype=pl.Int64),
            "recv_seq": pl.Series([f.seq for f in frames], dtype=pl.Int64),
            "run_id": pl.Series([7] * len(frames), dtype=pl.Int64),
            "epoch_id": pl.Series([f.epoch for f in frames], dtype=pl.Int64),
            "bid_px_1": pl.Series([b / 100 for b in bid], dtype=pl.Float64),
            "ask_px_1": pl.Series([a / 100 for a in ask], dtype=pl.Float64),
        }
    )


def gap_table(found: list[tuple[int, int]]) -> pl.DataFrame:
    rows = [(a * MS, (a + width) * MS, "depth") for a, width in found]
    return pl.DataFrame(rows, schema={"from_ns": pl.Int64, "to_ns": pl.Int64, "stream": pl.String}, orient="row")


def cut(frame: pl.DataFrame, at: list[int]) -> list[pl.DataFrame]:
    edges = sorted(min(i, frame.height) for i in at)
    return [frame[a:z] for a, z in itertools.pairwise([0, *edges, frame.height])]


@pytest.mark.parametrize("at_once", [1, 3, 1024])
@settings(max_examples=120, deadline=None)
@given(
    steps=st.lists(moves, min_size=1, max_size=60),
    gaps=holes,
    dwell=st.integers(1, 60),
    threshold=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    chunks=st.lists(st.integers(0, 60), max_size=4),
    parts=st.lists(st.integers(0, 60), max_size=4),
)
def test_intervals_equal_the_obvious_loop_however_the_frames_come(
    at_once, steps, gaps, dwell, threshold, chunks, parts
):
    """In chunks of the tape, in arrays of a chunk, and rounded so many at once; equal times, holes, epochs."""
    frames = frames_of(steps)
    spec = ProbeSpec((1, 2), dwell, threshold)
    parts_of = [pl.concat(cut(chunk, parts), rechunk=False) for chunk in cut(table(frames), chunks)]
    layer = Layer(gap_table(gaps), INSTRUMENT, spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probes, "LEAST_ROWS", 0)
        patch.setattr(probes, "AT_ONCE", at_once)
        laid = joined(*(layer.add(part) for part in parts_of), layer.close())
    merged = [(a * MS, b * MS) for a, b in slow.merged([(a, a + width) for a, width in gaps])]
    want = slow.probes(frames, merged, dwell * MS, Fraction(threshold))
    last = np.iinfo(np.int64).max
    assert list(zip(laid.start_ns.tolist(), laid.start_seq.tolist(), strict=True)) == [p.start for p in want]
    ends = [(ns, last if seq == float("inf") else seq) for ns, seq in (p.end for p in want)]
    assert list(zip(laid.end_ns.tolist(), laid.end_seq.tolist(), strict=True)) == ends
    assert laid.mid2.tolist() == [int(2 * p.mid) for p in want]


def test_in_a_market_that_stands_still_the_dwell_alone_lays_probes():
    """By hand: 10 s of frames every 100 ms and a dwell of 1 s give ten probes, each begun at the second's frame."""
    frames = frames_of([(0, 0, 1), *[(100, 0, 1)] * 100])
    laid = intervals(table(frames), gap_table([]), INSTRUMENT, ProbeSpec((1,), 1_000, 2.0))
    assert laid.start_ns.tolist() == [s * 1_000 * MS for s in range(11)]
    assert laid.end_ns.tolist() == [*[s * 1_000 * MS for s in range(1, 11)], 10_000 * MS]


def test_pieces_are_the_arrays_that_a_frame_has():
    """Large ones as they are, many small ones as one; columns that are cut unlike are one too."""
    whole = pl.DataFrame({"a": np.arange(30_000), "b": np.arange(30_000.0)})
    three = pl.concat([whole[:10_000], whole[10_000:20_000], whole[20_000:]], rechunk=False)
    small = pl.concat([whole[i : i + 100] for i in range(0, 30_000, 100)], rechunk=False)
    unlike = pl.concat([whole[:10_000], whole[10_000:]], rechunk=False).with_columns(whole["a"])
    for frame, sizes in ((three, [10_000] * 3), (small, [30_000]), (unlike, [30_000]), (whole[:0], [0])):
        found = list(pieces(frame))
        assert [piece.height for piece in found] == sizes
        assert all(piece.n_chunks("all") == [1, 1] for piece in found)
        assert pl.concat(found).equals(frame)


def chunked(rows: int, price: float = 10.0, at: int = -1) -> pl.DataFrame:
    """Frames in two arrays, one price of which may be another."""
    bid = np.full(rows, 10.0)
    bid[at] = price
    frame = table(frames_of([(1, 0, 1)] * rows)).with_columns(bid_px_1=bid, ask_px_1=bid + 0.02)
    return pl.concat([frame[: rows // 2], frame[rows // 2 :]], rechunk=False)


def test_a_frame_that_is_late_is_named_by_its_row_of_the_whole():
    """In the second array as in the first, and between the two."""
    frame = chunked(20_000)
    for row in (3, 9_999, 10_000, 15_000):
        late = frame.with_columns(recv_seq=pl.int_range(pl.len()) - (pl.int_range(pl.len()) == row) * 2, recv_ns=0)
        late = late.with_columns(pl.col("recv_ns").cast(pl.Int64))
        with pytest.raises(DataError, match=f"depth row {row} is earlier"):
            intervals(late, gap_table([]), INSTRUMENT, ProbeSpec((1,)))


def test_a_price_off_the_grid_is_named_by_its_row_of_the_whole():
    with pytest.raises(TableError, match=r"row 15000: 10\.005 is not a multiple of the tick size"):
        intervals(chunked(20_000, 10.005, 15_000), gap_table([]), INSTRUMENT, ProbeSpec((1,)))


def test_what_kernels_state_again_is_what_is_stated_elsewhere():
    """Constants that they take in have to lie beside them, or a change would not be seen."""
    assert pass_kernels.OFF_GRID == OFF_GRID
    assert (pass_kernels.SAMPLE_NS, pass_kernels.NS_PER_US, cells.NS_PER_S) == (NS_PER_S, 1_000, NS_PER_S)
    assert [COUNT_RULES[i] for i in (layout.FIRST_HIT, layout.SWEEPS, layout.ALL_HITS)] == list(COUNT_RULES)
    assert COUNT_RULES == ("first_hit", "sweeps", "all_hits")


@pytest.mark.parametrize("price", [float("nan"), float("inf"), -float("inf"), 1e300])
@pytest.mark.parametrize("row", [0, 7_000, 19_999])
def test_a_price_that_is_no_number_is_off_the_grid(price, row):
    """Wherever it stands among those that are rounded at once."""
    with pytest.raises(TableError, match=f"row {row}: .* is not a multiple"):
        intervals(chunked(20_000, price, row), gap_table([]), INSTRUMENT, ProbeSpec((1,)))


@pytest.mark.parametrize(("origin", "buckets"), [(1, 10), (0, 2)])
def test_intervals_outside_the_buckets_are_refused(origin, buckets):
    """Counts have to go somewhere: neither before the first bucket nor behind the last."""
    one = Intervals(*(np.array([n], np.int64) for n in (0, 1, 21, 9, 2000)))
    none = pl.DataFrame(
        schema=dict.fromkeys(("recv_ns", "recv_seq", "trade_ns", "trade_id"), pl.Int64)
        | {"price": pl.Float64, "qty": pl.Float64, "taker": pl.Int8}
    )
    with pytest.raises(ValueError, match="outside the buckets"):
        sums(one, none, INSTRUMENT, ProbeSpec((1,)), origin_ns=origin, bucket_ns=10, n_buckets=buckets)
