"""The real BTCUSDT recording: counts equal the slow loop for every rule, and the figures known from it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import polars as pl
import pytest

from mmlab.calib.run import Tape, ladder, rolling
from mmlab.calib.spec import FitSpec, ProbeSpec, ScheduleSpec
from mmlab.core import schemas
from mmlab.core.spans import Days
from mmlab.flows.import_raw import ImportSpec, import_raw
from mmlab.flows.tape import TapeReader
from mmlab.store.lake import Lake
from reference import probes as slow

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
FILES = [DATA / f"spot_btcusdt_2024080{day}.gz" for day in (8, 9)]
pytestmark = pytest.mark.skipif(not FILES[0].exists(), reason=f"the real recordings are not in {DATA}")


@pytest.fixture(scope="module")
def tape(tmp_path_factory) -> Tape:
    """Both files imported as one recording, and read back from the lake."""
    lake = Lake(tmp_path_factory.mktemp("lake"))
    import_raw(ImportSpec("binance-spot", "BTCUSDT", "0.01", "0.00001"), FILES, lake)
    refs = lake.find("BTCUSDT", Days.parse("20240808..20240809"))
    assert [lake.manifest(ref).condition for ref in refs] == ["complete", "complete"]
    assert [fault for ref in refs for fault in lake.verify(ref)] == []
    return TapeReader(lake, refs, lake.instrument(refs)).whole()


@pytest.fixture(scope="module")
def slow_tape(tape):
    """The same rows as plain objects, in exact ticks."""

    def ticks(name: str, frame: pl.DataFrame) -> list[int]:
        return [round(price * 100) for price in frame[name]]

    d, t = tape.depth, tape.trades
    mids = [Fraction(b + a, 2) for b, a in zip(ticks("bid_px_1", d), ticks("ask_px_1", d), strict=True)]
    frames = list(map(slow.Frame, d["recv_ns"], d["recv_seq"], d["epoch_id"], mids))
    lots = [round(q * 100_000) for q in t["qty"]]
    prints = list(
        map(slow.Print, t["recv_ns"], t["recv_seq"], t["trade_ns"], t["trade_id"], ticks("price", t), lots, t["taker"])
    )
    return frames, prints


@pytest.mark.parametrize("count", schemas.COUNT_RULES)
@pytest.mark.parametrize(("dwell_ms", "threshold"), [(60_000, 2.0), (5_000, 0.0), (1_000, 50.5)])
def test_points_equal_the_slow_loop_count_by_count(tape, slow_tape, count, dwell_ms, threshold):
    """Hits, exposure and quantity of every side and distance, near and far."""
    deltas = (1, 2, 13, 100, 1000)
    spec = ProbeSpec(deltas, dwell_ms, threshold, count, max_delta_ticks=None)
    got = ladder(tape, spec, FitSpec()).points
    frames, prints = slow_tape
    assigned = slow.assign(slow.probes(frames, [], dwell_ms * 10**6, Fraction(threshold)), prints)
    rows = {(r["side"], r["delta_ticks"]): r for r in got.iter_rows(named=True)}
    for name, side in (("bid", 1), ("ask", -1)):
        for i, delta in enumerate(deltas):
            beyond = deltas[i + 1] if i + 1 < len(deltas) else None
            want = slow.count(assigned, side, delta, beyond, count, False, False, (0, 2**62))
            row = rows[name, delta]
            assert (row["exposure_ns"], row["fills_total"]) == (want.exposure_ns, want.hits)
            assert round(row["qty_total"] * 100_000) == want.lots
            if count == "first_hit":
                assert row["ring_fills"] == want.rings
    for delta in deltas:
        for name in ("exposure_ns", "fills_total"):
            assert rows["both", delta][name] == rows["bid", delta][name] + rows["ask", delta][name]


def test_counts_are_those_found_by_others(tape):
    """Every print counted, dwell 5 s, threshold 2: the hits that an independent exact count gave, both sides added."""
    points = ladder(tape, ProbeSpec(dwell_ms=5_000, count="all_hits"), FitSpec()).points
    assert points.filter(pl.col("side") == "both")["fills_total"].to_list() == [11573, 10461, 10297, 10038, 9935, 9819]


def test_the_three_rules_differ_by_what_they_count(tape):
    """At one tick: 0.6, 2.2 and 8.9 events a second and side."""
    rate = {}
    for count in schemas.COUNT_RULES:
        points = ladder(tape, ProbeSpec(dwell_ms=5_000, count=count), FitSpec()).points
        rate[count] = points.filter((pl.col("side") == "both") & (pl.col("delta_ticks") == 1))["lambda_total"][0]
    assert [round(rate[count], 1) for count in schemas.COUNT_RULES] == [0.6, 2.2, 8.9]


def test_thirteen_ticks_are_no_distance_on_this_instrument(tape):
    """The default distances span a tenth of a dollar: no curve, and mmlab says so; wide ones have one."""
    narrow = ladder(tape, ProbeSpec(), FitSpec()).fits.row(2, named=True)
    assert not narrow["ok"]
    assert narrow["reason"].startswith("flat curve")
    wide = ladder(tape, ProbeSpec((10, 50, 100, 200, 400, 800), max_delta_ticks=800), FitSpec("nested_mle")).fits
    row = wide.row(2, named=True)
    assert row["ok"]
    assert 0.001 < row["k"] < 0.01


def test_a_walk_over_midnight_fits_every_minute(tape):
    """Three minutes of training, one of step: 23:58 to 00:05 without a seam."""
    spec = ProbeSpec((50, 200, 800), max_delta_ticks=800)
    found = rolling(tape, spec, FitSpec(), ScheduleSpec(3, 1))
    assert found.windows.height == 8
    assert found.windows["source"].to_list() == ["fit"] * 8
    assert (found.windows["coverage"] > 0.999).all()


def test_rings_of_first_hits_overstate_the_intensity_where_prints_follow_one_another(tape):
    """The market moves: under first_hit the rings add up to half as much again as was hit, under sweeps they do not."""
    deltas = (36, 73, 147, 294)
    fits = {
        (count, method): ladder(tape, ProbeSpec(deltas, count=count, max_delta_ticks=None), FitSpec(method)).fits[2]
        for count in ("first_hit", "sweeps")
        for method in ("poisson_mle", "nested_mle")
    }
    assert fits["first_hit", "nested_mle"]["ring_excess"][0] > 0.4
    assert abs(fits["sweeps", "nested_mle"]["ring_excess"][0]) < 0.01
    ratio = {
        count: (fits[count, "nested_mle"]["A"] / fits[count, "poisson_mle"]["A"])[0]
        for count in ("first_hit", "sweeps")
    }
    assert ratio["first_hit"] > 1.3
    assert ratio["sweeps"] == pytest.approx(1.0, abs=0.1)
