"""Distances chosen from the tape are whole, ascending, within bounds, and prints reach them all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmlab.calib.auto import auto_deltas, depths
from mmlab.calib.probes import Intervals, intervals
from mmlab.calib.run import chosen, ladder
from mmlab.calib.spec import AutoDeltas, FitSpec, ProbeSpec, parse_deltas
from mmlab.core.errors import DataError, UsageError
from reference import calib as slow
from reference.parity import START, Recording

specs = st.builds(
    ProbeSpec,
    dwell_ms=st.sampled_from([20, 400, 60_000]),
    mid_move_threshold_ticks=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
)
tapes = st.builds(slow.drawn, st.integers(0, 2**30), st.integers(1, 150))


def laid(tape: Recording, spec: ProbeSpec) -> Intervals:
    return intervals(tape.depth, tape.gaps, tape.instrument, spec)


def tick_at_one_instant() -> Recording:
    """Three frames of one nanosecond, each a tick on, and a print between the first two: it belongs to the first."""
    frames = [(START, seq, 1, 1000 + seq, 1002 + seq) for seq in (1, 3, 5)] + [(START + 9, 9, 1, 1005, 1007)]
    return slow.by_hand(frames, [(START, 2, 1, 1, 993, 1, -1)])


def no_probes() -> Recording:
    """A tape that is one hole: no probe stood at any time."""
    frames = [(START + i, i, 1, 999, 1001) for i in (1, 3)]
    return slow.by_hand(frames, [(START + 2, 2, 1, 1, 990, 1, -1)], [(START, START + 10)])


@settings(max_examples=60, deadline=None)
@given(tape=tapes, spec=specs)
@example(tape=tick_at_one_instant(), spec=ProbeSpec(mid_move_threshold_ticks=1.0))
@example(tape=no_probes(), spec=ProbeSpec())
def test_depths_equal_the_obvious_loop(tape, spec):
    """The deepest print of every interval and side, in whole ticks from the anchor."""
    assert sorted(depths(laid(tape, spec), tape.trades, tape.instrument).tolist()) == slow.depths(tape, spec)


def test_a_tape_without_probes_has_no_distances():
    """One hole from end to end: that is said in a sentence, not by an index out of range."""
    tape = no_probes()
    with pytest.raises(DataError, match="finds no two distances"):
        auto_deltas(laid(tape, ProbeSpec()), tape.trades, tape.instrument, AutoDeltas())


def walk(reached: list[int]) -> tuple[Recording, ProbeSpec]:
    """A still book, a probe a second, and one print a probe as deep as listed (0: none)."""
    frames = [(START + i * 10**9, 10 * i, 1, 99_999, 100_001) for i in range(1, len(reached) + 2)]
    prints = [
        (START + i * 10**9 + 5, 10 * i + 1, i, i, 100_000 - depth, 1, -1) for i, depth in enumerate(reached, 1) if depth
    ]
    return slow.by_hand(frames, prints), ProbeSpec(dwell_ms=1_000)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 80) | st.sampled_from([300, 2_500]),
    seed=st.integers(0, 2**30),
    mean=st.sampled_from([0.8, 4.0, 60.0, 5_000.0]),
    least=st.sampled_from([0, 0, 1, 50]),
    count=st.integers(2, 200) | st.integers(2, 9),
    most=st.none() | st.integers(2, 300),
)
def test_the_choice_follows_its_rule_within_its_bounds(n, seed, mean, least, count, most):
    """From what nine in ten reach to what one in fifty and thirty do, even in logarithm; or none at all."""
    depth = least + np.random.default_rng(seed).exponential(mean, n)
    reached = np.minimum(depth, 90_000).astype(int).tolist()
    tape, spec = walk(reached)
    auto, stood = AutoDeltas(count, most), laid(tape, spec)
    want = slow.auto_deltas(reached, count, most)
    if want is None:
        with pytest.raises(DataError, match="finds no two distances"):
            auto_deltas(stood, tape.trades, tape.instrument, auto)
        return
    got = auto_deltas(stood, tape.trades, tape.instrument, auto)
    assert got == want == auto_deltas(stood, tape.trades, tape.instrument, auto)
    assert all(type(delta) is int for delta in got)
    assert list(got) == sorted(set(got))
    assert 2 <= len(got) <= count
    assert 1 <= got[0] <= min(max(reached), most or max(reached)) >= got[-1]
    assert sum(depth >= got[-1] for depth in reached) >= min(30, sum(depth > 0 for depth in reached))


@pytest.mark.parametrize("reached", [[], [0, 0, 0], [1] * 50, [1] * 50 + [9] * 20])
def test_prints_that_reach_fewer_than_two_distances_give_none(reached):
    """No print, none beyond a tick, or too few of them: the user is told to list distances."""
    tape, spec = walk(reached)
    with pytest.raises(DataError, match="finds no two distances that prints reach") as caught:
        auto_deltas(laid(tape, spec), tape.trades, tape.instrument, AutoDeltas())
    assert "--deltas 1,2,3" in caught.value.remedy


@pytest.mark.parametrize(("A", "k", "far"), [(1.5, 0.25, 15), (3.0, 0.002, 400)])
def test_on_a_big_market_every_distance_is_hit_often_and_the_curve_is_found(A, k, far):
    """An hour, ticks coarse or fine: at least 30 hits at each distance, either side, and the truth within 4 errors."""
    tape = slow.whole(slow.synthetic(5, 3_600, A, k))
    spec = chosen(ProbeSpec(mid_move_threshold_ticks=2.0), AutoDeltas(12), tape)
    assert far <= spec.deltas[-1]
    assert len(spec.deltas) >= 8
    assert spec.max_delta_ticks is None
    assert spec == chosen(ProbeSpec(mid_move_threshold_ticks=2.0), AutoDeltas(12), tape)
    found = ladder(tape, spec, FitSpec("nested_mle"))
    hits = found.points.filter(pl.col("side") == "both")["fills_total"]
    assert hits.min() >= 30
    both = found.fits.row(by_predicate=(pl.col("side") == "both") & (pl.col("family") == "exponential"), named=True)
    assert abs(both["k"] - k) < 4 * both["se_k"]
    assert abs(np.log(both["A"] / A)) < 4 * both["se_log_A"]
    bound = chosen(ProbeSpec(), AutoDeltas(12, 9), tape)
    assert bound.deltas[-1] <= 9


def test_what_is_counted_and_how_does_not_change_the_choice():
    """The distances depend on the probes and the prints: not on the counting rule, nor on prints beyond the tape."""
    tape = slow.whole(slow.synthetic(seconds=144))
    first = chosen(ProbeSpec(), AutoDeltas(), tape).deltas
    assert chosen(ProbeSpec(count="all_hits"), AutoDeltas(), tape).deltas == first
    cut = tape.depth["recv_ns"][-1] - 10**9
    early = replace(tape, depth=tape.depth.filter(pl.col("recv_ns") < cut))
    bare = replace(early, trades=tape.trades.filter(pl.col("recv_ns") < early.depth["recv_ns"][-1]))
    assert chosen(ProbeSpec(), AutoDeltas(), early).deltas == chosen(ProbeSpec(), AutoDeltas(), bare).deltas


# ---- the flag


@pytest.mark.parametrize(("text", "want"), [("auto", 8), ("auto:12", 12), ("1,2,13", (1, 2, 13)), ("7", (7,))])
def test_the_flag_lists_distances_or_asks_for_a_number_of_them(text, want):
    assert parse_deltas(text) == want


@pytest.mark.parametrize("text", ["auto:x", "auto:1.5", "automatic", "auto12", "1,auto", "", ","])
def test_what_is_neither_names_the_flag(text):
    with pytest.raises(UsageError, match="--deltas is") as caught:
        parse_deltas(text)
    assert "auto:12" in caught.value.remedy


@pytest.mark.parametrize("text", ["auto:1", "auto:0", "auto:-3", "auto:201", "auto:500"])
def test_a_number_of_distances_that_makes_no_curve_is_refused(text):
    """One distance has no slope, and hundreds are no choice."""
    count = parse_deltas(text)
    with pytest.raises(UsageError, match=f"--deltas {text}") as caught:
        AutoDeltas(count)
    assert "2 to 200" in caught.value.remedy


@pytest.mark.parametrize("most", [-1, 0, 1])
def test_a_bound_below_two_ticks_is_refused(most):
    with pytest.raises(UsageError, match=f"--max-delta-ticks is {most}"):
        AutoDeltas(8, most)
