"""On markets whose true (A, k) is known, calibration finds it."""

from __future__ import annotations

from datetime import date
from functools import cache

import numpy as np
import polars as pl
import pytest

from mmlab.calib.run import Tape, ladder, rolling
from mmlab.calib.spec import FitSpec, ProbeSpec, ScheduleSpec
from mmlab.core.instrument import Instrument
from mmlab.core.schemas import GAPS
from mmlab.core.spans import NS_PER_MIN
from mmlab.tape.synth import SynthSpec, chunks

A, K = 1.5, 0.25
SEEDS = range(1000, 1050)


@cache
def market(seed: int, hours: float = 0.5, pieces: tuple[tuple[float, float, float], ...] = ()) -> Tape:
    """A seeded market in memory."""
    spec = SynthSpec(day=date(2025, 1, 1), hours=hours, seed=seed, A=A, k=K, ak_schedule=pieces)
    depth, trades = (pl.concat(parts) for parts in zip(*chunks(spec), strict=True))
    return Tape(depth, trades, GAPS.empty(), Instrument("synth", "X", spec.tick_size, spec.lot_size))


@cache
def estimates(count: str, method: str) -> pl.DataFrame:
    """The pooled fits of all seeds, one row each."""
    rows = [ladder(market(s), ProbeSpec(count=count), FitSpec(method)).fits[2] for s in SEEDS]
    return pl.concat(rows)


@pytest.mark.parametrize("count", ["first_hit", "sweeps"])
@pytest.mark.parametrize("method", ["poisson_mle", "nested_mle"])
def test_estimates_are_unbiased_over_50_markets(count, method):
    """The mean of ln A and of k lies within two standard errors (of the mean) of the truth."""
    fits = estimates(count, method)
    for error in (np.log(fits["A"].to_numpy() / A), fits["k"].to_numpy() - K):
        assert abs(error.mean()) < 2 * error.std(ddof=1) / np.sqrt(len(SEEDS))


@pytest.mark.parametrize("count", ["first_hit", "sweeps"])
def test_nested_errors_are_as_wide_as_the_estimates_scatter(count):
    """The stated standard error equals the scatter over markets, within what 50 of them can tell (20%)."""
    fits = estimates(count, "nested_mle")
    assert fits["k"].std() == pytest.approx(fits["se_k"].mean(), rel=0.2)
    assert fits["A"].log().std() == pytest.approx(fits["se_log_A"].mean(), rel=0.2)


def test_sweeps_do_not_inflate_first_hits_but_do_inflate_all_hits():
    """A sweep of several prints is one arrival: only all_hits counts its prints apart."""
    seen = {
        count: ladder(market(1), ProbeSpec(count=count), FitSpec()).fits["A"][2]
        for count in ("first_hit", "sweeps", "all_hits")
    }
    assert seen["first_hit"] == pytest.approx(A, rel=0.1)
    assert seen["sweeps"] == pytest.approx(A, rel=0.1)
    assert seen["all_hits"] > 2 * A


def test_a_schedule_follows_a_market_that_changes():
    """When (A, k) doubles at half time, the fits before and after tell the two apart."""
    tape = market(3, 1.0, ((0.0, 1.5, 0.25), (1800.0, 3.0, 0.5)))
    found = rolling(tape, ProbeSpec(), FitSpec("nested_mle"), ScheduleSpec(10, 5))
    k = found.windows.select(minute=(pl.col("train_end_ns") // NS_PER_MIN) % 60, k="k")
    before = k.filter(pl.col("minute").is_between(10, 30))["k"]
    after = k.filter(pl.col("minute") >= 40)["k"]
    assert before.is_between(0.2, 0.3).all()
    assert after.is_between(0.4, 0.6).all()
