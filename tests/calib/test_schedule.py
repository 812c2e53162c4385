"""Windows by prefix sums equal windows computed one by one, use only the past, and carry forward."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
import pytest

from mmlab.calib.run import Tape, bucketed, ladder, rolling
from mmlab.calib.schedule import step_starts
from mmlab.calib.spec import FitSpec, ProbeSpec, ScheduleSpec, parse_deltas
from mmlab.core.errors import DataError, UsageError
from mmlab.core.instrument import Instrument
from mmlab.core.schemas import GAPS
from mmlab.core.spans import NS_PER_MIN
from mmlab.tape.synth import SynthSpec, chunks

MIN = NS_PER_MIN


def tape(seed: int = 0, hours: float = 0.75) -> Tape:
    """A short seeded market."""
    spec = SynthSpec(day=date(2025, 1, 1), hours=hours, seed=seed)
    depth, trades = (pl.concat(parts) for parts in zip(*chunks(spec), strict=True))
    return Tape(depth, trades, GAPS.empty(), Instrument("synth", "X", spec.tick_size, spec.lot_size))


@pytest.mark.parametrize("count", ["first_hit", "sweeps", "all_hits"])
@pytest.mark.parametrize(("train", "step"), [(10, 5), (7, 3), (5, 10)])
def test_prefix_sums_equal_each_window_summed_alone(count, train, step):
    """A schedule's windows are what one bucket per minute, added up by hand, gives."""
    t, spec = tape(), ProbeSpec(count=count)
    found = rolling(t, spec, FitSpec(), ScheduleSpec(train, step))
    minutes, _ = bucketed(t, spec, t.span_ns[0] // MIN * MIN, MIN)
    for row in found.fits.filter(pl.col("side") == "both").iter_rows(named=True):
        a, b = ((row[f"train_{end}_ns"] - minutes.origin_ns) // MIN for end in ("start", "end"))
        assert row["fills_total"] == minutes.hits[a:b, :, 0].sum()
        assert row["exposure_s"] == minutes.covered_ns[a:b].sum() / 1e9


def test_a_step_knows_nothing_of_what_follows_it():
    """Changing every row from an instant on leaves all windows that end before it byte for byte."""
    t = tape()
    cut = t.span_ns[0] + 30 * MIN
    other = tape(seed=99)
    spliced = Tape(
        pl.concat([t.depth.filter(pl.col("recv_ns") < cut), other.depth.filter(pl.col("recv_ns") >= cut)]),
        pl.concat([t.trades.filter(pl.col("recv_ns") < cut), other.trades.filter(pl.col("recv_ns") >= cut)]),
        t.gaps,
        t.instrument,
    )
    spliced = Tape(
        spliced.depth.with_columns(recv_seq=pl.int_range(pl.len())),
        spliced.trades.with_columns(recv_seq=10**9 + pl.int_range(pl.len())),
        t.gaps,
        t.instrument,
    )
    run = [rolling(x, ProbeSpec(), FitSpec(), ScheduleSpec(10, 5)) for x in (t, spliced)]
    past = [r.windows.filter(pl.col("start_ns") <= cut) for r in run]
    assert past[0].height >= 4
    assert past[0].equals(past[1])
    assert not run[0].windows.equals(run[1].windows)


def test_steps_lie_on_utc_multiples_after_one_full_training_span():
    """A day that starts at 00:07:30 with 10 minutes of training and 5 of step starts at 00:20."""
    start = 20_000 * 1440 * MIN + 15 * MIN // 2
    starts = step_starts(start, start + 30 * MIN, ScheduleSpec(10, 5))
    assert ((starts % (5 * MIN)) == 0).all()
    assert starts[0] - 20_000 * 1440 * MIN == 20 * MIN
    assert starts[-1] < start + 30 * MIN


def test_data_shorter_than_a_training_span_are_refused_with_both_lengths():
    """The message says how long the data are and how long they would have to be."""
    with pytest.raises(DataError, match=r"data last 45\.0 minutes: too short for 60 minutes of training"):
        rolling(tape(), ProbeSpec(), FitSpec(), ScheduleSpec(60, 5))


def test_a_window_without_hits_carries_the_last_good_fit_and_says_its_age():
    """Silence from minute 20 to 32 empties two windows of 5 minutes; before the first fit there is none."""
    t = tape()
    start = t.span_ns[0]
    quiet = t.trades.filter(
        (pl.col("recv_ns") >= start + 6 * MIN) & ~pl.col("recv_ns").is_between(start + 20 * MIN, start + 32 * MIN)
    )
    found = rolling(Tape(t.depth, quiet, t.gaps, t.instrument), ProbeSpec(), FitSpec(), ScheduleSpec(5, 5))
    rows = {
        (row["start_ns"] - start) // MIN: (row["source"], row["age_steps"], row["A"], row["reason"])
        for row in found.windows.iter_rows(named=True)
    }
    assert rows[5] == ("none", None, None, "no hits")
    assert rows[10][0] == "fit"
    assert rows[25] == ("carry_forward", 1, rows[20][2], "no hits")
    assert rows[30] == ("carry_forward", 2, rows[20][2], "no hits")
    assert rows[35][0] == "fit"
    assert next(e["start_ms"] for e in found.entries()) == (start + 10 * MIN) // 10**6


def test_the_same_tape_twice_gives_the_same_tables():
    """Determinism, down to the last bit of every float."""
    first, second = (rolling(tape(), ProbeSpec(), FitSpec(), ScheduleSpec(10, 5)) for _ in range(2))
    for name in ("points", "windows", "fits", "metrics"):
        assert getattr(first, name).equals(getattr(second, name))


def test_two_days_are_one_tape_over_midnight():
    """A range of days is calibrated as one span: epochs go on over midnight, windows look back over it."""
    t = tape(hours=24.5)
    found = rolling(t, ProbeSpec(), FitSpec(), ScheduleSpec(30, 15))
    over = found.windows.filter(pl.col("start_ns") == t.span_ns[0] + 1440 * MIN + 15 * MIN)
    assert over["source"].to_list() == ["fit"]
    assert over["coverage"][0] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("reach", ["touch", "through"])
def test_a_declared_hole_is_no_exposure(reach):
    """A hole of 5 minutes in the trade stream takes 5 minutes of exposure away, and nothing else counts in it."""
    t = tape()
    a = t.span_ns[0] + 10 * MIN + 1
    gaps = pl.DataFrame({"from_ns": [a], "to_ns": [a + 5 * MIN], "stream": ["trade"]})
    spec = ProbeSpec(reach=reach)
    whole = ladder(t, spec, FitSpec())
    holed = ladder(Tape(t.depth, t.trades, gaps, t.instrument), spec, FitSpec())
    lost = whole.fits["exposure_s"][0] - holed.fits["exposure_s"][0]
    assert lost == pytest.approx(300, abs=0.2)  # probes start again at the first frame after the hole
    in_hole = t.trades.filter(pl.col("recv_ns").is_between(a + 1, a + 5 * MIN))
    bare = ladder(
        Tape(t.depth, t.trades.join(in_hole, on="trade_id", how="anti", maintain_order="left"), gaps, t.instrument),
        spec,
        FitSpec(),
    )
    assert bare.points.equals(holed.points)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ProbeSpec(deltas=(0, 1)), "starts at 0"),
        (lambda: ProbeSpec(deltas=(3, 2)), "3,2 is not ascending"),
        (lambda: ProbeSpec(deltas=(2, 2)), "2,2 is not ascending"),
        (lambda: ProbeSpec(deltas=()), "--deltas is empty"),
        (lambda: ProbeSpec(deltas=(1, 60)), "beyond --max-delta-ticks 50"),
        (lambda: ProbeSpec(dwell_ms=-1), "--dwell-ms is -1"),
        (lambda: ProbeSpec(count="some"), "--count is 'some'"),
        (lambda: ProbeSpec(mid_move_threshold_ticks=float("nan")), "--mid-move-threshold-ticks is nan"),
        (lambda: FitSpec(fit_method="ols"), "--fit-method is 'ols'"),
        (lambda: FitSpec(min_exposure_s=-1), "--min-exposure-s is -1"),
        (lambda: ScheduleSpec(step_min=0), "--step-min is 0"),
        (lambda: ScheduleSpec(train_window_min=-5), "--train-window-min is -5"),
        (lambda: parse_deltas("1,x"), "--deltas is '1,x'"),
    ],
)
def test_a_specification_that_cannot_be_meant_names_its_flag(make, message):
    """Every fault of a flag is a UsageError (exit code 2) that names it."""
    with pytest.raises(UsageError) as caught:
        make()
    assert message in caught.value.message
    assert caught.value.remedy


def test_points_are_additive_and_meet_their_contract():
    """Bucket points add up to the ladder's points; lambda is hits over exposure."""
    from mmlab.core.schemas import POINTS

    t = tape()
    spec = ProbeSpec()
    parts = rolling(t, spec, FitSpec(), ScheduleSpec(10, 5)).points
    POINTS.check(parts)
    whole = ladder(t, spec, FitSpec()).points
    summed = parts.group_by("side", "delta_ticks").agg(pl.col("exposure_ns", "fills_total", "ring_fills").sum())
    both = whole.join(summed, on=("side", "delta_ticks"), suffix="_summed")
    assert both.height == 18
    for name in ("exposure_ns", "fills_total"):
        assert (both[name] == both[f"{name}_summed"]).all()
    np.testing.assert_allclose(whole["lambda_total"], whole["fills_total"] / whole["exposure_s_total"])
