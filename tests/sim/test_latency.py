"""Latencies: what is drawn, what is measured, and how old a recorded book is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mmlab.core.errors import DataError, UsageError
from mmlab.sim import events, latency
from mmlab.sim.latency import DRAWS, Series, delays, feed_latency, series
from mmlab.sim.layout import uniform
from mmlab.sim.run import run
from mmlab.sim.spec import BacktestSpec, QuoteSpec
from reference.backtest import Twin, splitmix64
from reference.markets import MS, START, assert_same, cases, instrument, intensity, still, tape

NS = np.array([START], np.int64)
HOUR = 3_600 * 10**9


def quantiles(spec: BacktestSpec) -> tuple[np.ndarray, ...]:
    return delays(spec, None, NS, None).values


def test_draws_are_the_quantiles_of_the_distribution():
    u = (np.arange(DRAWS) + 0.5) / DRAWS
    spec = BacktestSpec(entry_latency_ms=40, cancel_latency_ms=0, response_latency_ms=5)
    entry, cancel, response, feed = quantiles(replace(spec, latency_jitter="exponential:12.5"))
    assert np.abs(entry - stats.expon.ppf(u, 40 * MS, 12.5 * MS)).max() < 1
    assert np.abs(cancel - stats.expon.ppf(u, 0, 12.5 * MS)).max() < 1
    assert np.abs(response - stats.expon.ppf(u, 5 * MS, 12.5 * MS)).max() < 1
    assert feed.tolist() == [0]
    entry, cancel, response, _ = quantiles(replace(spec, latency_jitter="lognormal:0.5"))
    assert np.abs(entry - stats.lognorm.ppf(u, 0.5, scale=40 * MS)).max() < 1
    assert cancel.tolist() == [0]
    assert np.median(response) == pytest.approx(5 * MS, rel=1e-3)


def test_constants_are_constant_and_endless_ones_are_counted():
    assert [v.tolist() for v in quantiles(BacktestSpec(feed_latency="2.25"))] == [
        [50 * MS],
        [25 * MS],
        [0],
        [2_250_000],
    ]
    far = BacktestSpec(entry_latency_ms=10**15, feed_latency="1e300", latency_jitter="exponential:1e6")
    assert quantiles(far)[0].max() == quantiles(far)[3].max() == latency.LONGEST_NS
    assert delays(BacktestSpec(), None, NS, None).at_once
    assert not delays(BacktestSpec(latency_jitter="exponential:1"), None, NS, None).at_once


@given(st.integers(0, 2**63 - 1), st.integers(1, 2**47), st.integers(0, 4))
def test_streams_of_draws_are_splitmix64s(seed, number, kind):
    assert uniform(seed, number + (kind << 48)) == splitmix64(seed, number + (kind << 48))


def test_drawn_latencies_follow_their_distribution_and_messages_differ():
    """Entry latencies of many orders, by Kolmogorov and Smirnov; an order's cancel is not late because it was."""
    spec = BacktestSpec(
        QuoteSpec("fixed_spread"), account="margin", entry_latency_ms=3, cancel_latency_ms=2, ttl_ms=0,
        latency_jitter="exponential:7", requote_interval_ms=1_000,
    )  # fmt: skip
    market = still(1_500)
    frames = [replace(f, bid=f.bid + 5 * (i % 2), ask=f.ask + 5 * (i % 2)) for i, f in enumerate(market.frames)]
    orders = run(tape(replace(market, frames=frames)), spec, intensity(market)).orders
    sent = orders.filter(pl.col("action") == "PLACE")
    entry = (sent["active_recv_ns"] - sent["recv_ns"]).to_numpy() - 3 * MS
    asked = orders.filter(pl.col("action") == "CANCEL_REQ")
    cancel = (asked["cancel_effective_ns"] - asked["cancel_req_ns"]).to_numpy() - 2 * MS
    assert entry.size > 2_500
    for drawn in (entry, cancel):
        assert stats.kstest(drawn / MS, stats.expon(scale=7).cdf).pvalue > 0.001
    assert abs(np.corrcoef(entry[: cancel.size], cancel)[0, 1]) < 0.06


# ---- recorded clocks


def recorded(spec: BacktestSpec, ns: list[int], event: list[int]) -> list[int]:
    got = feed_latency(spec, np.array(ns, np.int64), np.array(event, np.int64))
    return got.tolist()


def test_a_recorded_feed_is_as_late_as_its_frames_are_beyond_the_fastest_one():
    """The venue's clock is 3 s behind: the offset goes, and the floor stands for the fastest way."""
    spec = BacktestSpec(feed_latency="recorded", feed_floor_ms=2)
    ns = [START + i * 1_000 * MS for i in range(5)]
    late = [5, 9, 4, 40, 4]
    got = recorded(spec, ns, [t - 3_000 * MS - ms * MS for t, ms in zip(ns, late, strict=True)])
    assert got == [2 * MS, 6 * MS, 2 * MS, 38 * MS, 2 * MS]


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 20 * 60), st.integers(0, 300)), min_size=1, max_size=60), st.integers(-50, 50))
def test_a_clock_that_drifts_is_followed_over_the_past_hour_alone(steps, drift):
    """Slow twin: less the least of the frames received within the hour up to each one."""
    ns, event, now = [], [], START
    for wait, late in steps:
        now += wait * 10**9
        ns.append(now)
        event.append(now - late * MS + 7 * HOUR - drift * (now - START) // 10**6)
    raw = [a - b for a, b in zip(ns, event, strict=True)]
    twin = [
        age - min(other for at, other in zip(ns, raw, strict=True) if t - HOUR <= at <= t) + MS
        for t, age in zip(ns, raw, strict=True)
    ]
    assert recorded(BacktestSpec(feed_latency="recorded"), ns, event) == twin


def test_frames_without_the_venues_time_have_no_recorded_latency():
    """None was read, or one of them has none."""
    market, spec = still(2), BacktestSpec(QuoteSpec("fixed_spread"), feed_latency="recorded")
    frames = pl.DataFrame({name: [1, 2] for name in events.DEPTH_COLUMNS})
    frames = frames.with_columns(pl.selectors.matches("_px_|_qty_").cast(pl.Float64))
    no_prints = pl.DataFrame({name: [] for name in events.TRADE_COLUMNS}).cast(pl.Float64)
    some = events.tape(frames.with_columns(exch_ns=pl.Series([5, None])), no_prints, instrument(market))
    for found in (replace(tape(market), exch_ns=None), some):
        with pytest.raises(DataError, match="no event time"):
            run(found, spec, intensity(market))


# ---- measured series


@settings(max_examples=25, deadline=None)
@given(case=cases(), data=st.data())
def test_every_row_equals_the_slow_twins_with_measured_latencies(case, data):
    market, spec = case
    spec = replace(spec, latency_jitter="none")
    times = sorted(data.draw(st.lists(st.integers(-100, 9_000), min_size=1, max_size=8)))
    ns = [START + ms * MS for ms in times]
    kinds = data.draw(st.sets(st.sampled_from(["entry", "cancel", "response"]), min_size=1))
    some = st.lists(st.sampled_from([0, 1, 5 * MS, 80 * MS, 900 * MS]), min_size=len(ns), max_size=len(ns))
    found = {kind: data.draw(some) for kind in sorted(kinds)}
    arrays = Series(np.array(ns), **{kind: np.array(values) for kind, values in found.items()})
    twin = Twin(market, spec, None, {kind: list(zip(ns, values, strict=True)) for kind, values in found.items()})
    got = run(tape(market), spec, intensity(market), series=arrays)
    assert_same(twin.run(), got)
    assert_same(run(tape(market), spec, intensity(market), series=arrays, buffer_rows=1), got)


def test_a_series_is_read_to_the_nanosecond():
    frame = pl.DataFrame({"recv_ns": [5, 5, 2**60 + 1], "entry_ms": [1.5, 0.0, 2e-6], "response_ms": [1, 2, 3]})
    found = series(frame, "file")
    assert found.ns.tolist() == [5, 5, 2**60 + 1]
    assert found.entry.tolist() == [1_500_000, 0, 2]
    assert found.response.tolist() == [MS, 2 * MS, 3 * MS]
    assert found.cancel is None
    by_ms = series(pl.DataFrame({"recv_ms": [1.25, 3.0], "cancel_ms": [1, 4_000_000_000_000]}), "file")
    assert by_ms.ns.tolist() == [1_250_000, 3_000_000]
    assert by_ms.cancel.tolist() == [MS, 4 * 10**18]
    assert delays(BacktestSpec(), by_ms, NS, None).values[1].tolist() == [MS, latency.LONGEST_NS]


GOOD = {"recv_ns": [1, 2], "entry_ms": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("columns", "message", "remedy"),
    [
        ({"entry_ms": [1.0]}, "file has columns entry_ms", "recv_ns or recv_ms"),
        ({"recv_ns": [1], "latency": [1.0]}, "file has columns recv_ns, latency", "entry_ms, cancel_ms, response_ms"),
        ({"recv_ns": [], "entry_ms": []}, "file has no rows", "at least one"),
        ({**GOOD, "entry_ms": ["1", "2"]}, "entry_ms holds String, no numbers", "numbers"),
        ({**GOOD, "recv_ns": ["1", "2"]}, "recv_ns holds String, no numbers", "numbers"),
        ({**GOOD, "entry_ms": [1.0, None]}, "row 2 has entry_ms None", "give 0 to"),
        ({**GOOD, "entry_ms": [float("nan"), 1.0]}, "row 1 has entry_ms nan", "give 0 to"),
        ({**GOOD, "entry_ms": [1.0, -0.5]}, "row 2 has entry_ms -0.5", "give 0 to"),
        ({**GOOD, "entry_ms": [1.0, 1e30]}, "row 2 has entry_ms 1e+30", "give 0 to"),
        ({**GOOD, "recv_ns": [1, None]}, "row 2 has recv_ns None", "give 0 to"),
        ({"recv_ms": [START], "entry_ms": [1.0]}, f"row 1 has recv_ms {START}", "give 0 to"),
        ({**GOOD, "recv_ns": [2, 1]}, "row 2 is earlier than the one before", "sort by recv_ns"),
    ],
)
def test_a_series_that_cannot_be_meant_is_refused(columns, message, remedy):
    with pytest.raises(UsageError) as caught:
        series(pl.DataFrame(columns), "file")
    assert message in caught.value.message
    assert remedy in caught.value.remedy


@pytest.mark.parametrize("text", ["some", "exponential", "none:1", "exponential:-1", "exponential:x", "lognormal:nan"])
def test_a_jitter_that_cannot_be_meant_is_refused(text):
    with pytest.raises(UsageError, match="--latency-jitter is"):
        delays(BacktestSpec(latency_jitter=text), None, NS, None)
