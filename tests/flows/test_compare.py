"""Two runs side by side: exactly the settings that differ, every figure, and whether the data were the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from mmlab.calib.spec import FitSpec, ProbeSpec, ScheduleSpec
from mmlab.core.errors import LakeError, UsageError
from mmlab.core.spans import Days
from mmlab.flows.backtest import IntensitySource, backtest
from mmlab.flows.calibrate import CalibrateSpec, calibrate_ladder
from mmlab.flows.compare import ABSENT, compare, flat, side_by_side
from mmlab.flows.run import Job
from mmlab.flows.synth import synth
from mmlab.flows.walkforward import walkforward
from mmlab.sim.spec import BacktestSpec, FillSpec, QuoteSpec
from mmlab.tape.synth_spec import SynthSpec

SPEC = BacktestSpec(QuoteSpec(sigma_window_s=30), FillSpec("trade_cross"), initial_inventory=0.2)
SOURCE = IntensitySource(1.5, 0.25)


def job(root: Path, run_id: str, data: str = "data") -> Job:
    return Job("SYNTH", Days.parse("20250101"), data_root=root / data, out_root=root / "out", run_id=run_id)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Runs a and same alike, b with two other flags, other on other data, walk a walk-forward."""
    path = tmp_path_factory.mktemp("compare")
    synth(SynthSpec(hours=0.2, seed=4), path / "data", replace=False)
    synth(SynthSpec(hours=0.2, seed=5), path / "data2", replace=False)
    changed = replace(SPEC, quote=replace(SPEC.quote, gamma=0.5), entry_latency_ms=200)
    backtest(job(path, "a"), SPEC, SOURCE)
    backtest(job(path, "same"), SPEC, SOURCE)
    backtest(job(path, "b"), changed, SOURCE)
    backtest(job(path, "other", "data2"), SPEC, SOURCE)
    calibration = CalibrateSpec(ProbeSpec(), FitSpec())
    walkforward(job(path, "walk"), calibration, ScheduleSpec(4, 2), SPEC)
    calibrate_ladder(job(path, "ladder"), calibration)
    return path


def test_only_the_settings_that_differ_are_told(root):
    found = compare(root / "out", "a", "b")
    assert found.spec == [("entry_latency_ms", 50, 200), ("quote.gamma", 0.1, 0.5)]
    assert found.warnings == []
    assert not found.same_figures


def test_every_metric_has_both_values_and_their_difference(root):
    """Slow twin: the two tables by name, one subtraction each."""
    found = compare(root / "out", "a", "b")
    a, b = ({m: v for m, v, _ in pl.read_parquet(path / "metrics.parquet").iter_rows()} for path in found.paths)
    assert found.metrics["metric"].to_list() == list(a) == list(b)
    for row in found.metrics.iter_rows(named=True):
        x, y = a[row["metric"]], b[row["metric"]]
        assert (row["first"], row["second"], row["where"]) == (x, y, "both")
        assert row["difference"] == (None if x is None or y is None else y - x)


def test_runs_alike_differ_in_nothing(root):
    """Also a run and itself."""
    for second in ("same", "a"):
        found = compare(root / "out", "a", second)
        assert (found.spec, found.warnings, found.same_figures) == ([], [], True)
        assert set(found.metrics["difference"].drop_nulls()) == {0.0}


def test_other_data_are_warned_of(root):
    """The same flags over other bytes: no setting differs, and the warning names the parts."""
    found = compare(root / "out", "a", "other")
    assert found.spec == []
    assert found.warnings == [
        "the data of 20250101 are not the same: "
        "depth/part-00000.parquet, events/part-00000.parquet, trades/part-00000.parquet"
    ]


def test_a_backtest_and_a_walk_forward_can_be_compared(root):
    """What only one of them has is absent in the other."""
    found = compare(root / "out", "a", "walk")
    by_name = {name: (a, b) for name, a, b in found.spec}
    assert by_name["kind"] == ("backtest", "walkforward")
    assert by_name["intensity.A"] == (1.5, ABSENT)
    assert by_name["calibration.deltas"] == (ABSENT, [1, 2, 3, 5, 8, 13])
    assert found.warnings == []


def test_a_run_is_found_by_its_path_too(root):
    found = compare(root / "elsewhere", *(str(root / f"out/backtest/symbol=SYNTH/day=20250101/run={n}") for n in "ab"))
    assert len(found.spec) == 2


def test_what_else_may_differ_is_warned_of(root):
    """Symbol, day, condition, instrument and versions, of manifests that say so."""
    place = root / "out/backtest/symbol=SYNTH/day=20250101/run=a"
    changed = root / "changed"
    changed.mkdir()
    manifest = json.loads((place / "manifest.json").read_text())
    manifest["spec"] |= {"symbol": "ELSE", "day": "20250102"}
    manifest["instrument"]["tick_size"] = "0.1"
    manifest["versions"]["polars"] = "0.0.1"
    manifest["inputs"].append({**manifest["inputs"][0], "day": "20250102"})
    manifest["inputs"][0]["condition"] = "degraded"
    (changed / "manifest.json").write_text(json.dumps(manifest))
    (changed / "metrics.parquet").write_bytes((place / "metrics.parquet").read_bytes())
    found = compare(root / "out", "a", str(changed))
    said = "\n".join(found.warnings)
    for part in (
        "different symbols: SYNTH and ELSE", "different days: 20250101 and 20250102", "tick_size differs: 0.01 and 0.1",
        "only the second run read 20250102 of synth", "the condition of 20250101 differs: complete and degraded",
        "the version of polars differs",
    ):  # fmt: skip
        assert part in said
    assert found.spec == []
    assert found.same_figures


def test_metrics_that_one_run_lacks_are_kept_with_a_gap():
    """Another version may have other metrics; one of another unit is another metric."""
    first = pl.DataFrame({"metric": ["a", "b", "u"], "value": [1.0, None, 5.0], "unit": ["1", "1", "s"]})
    second = pl.DataFrame({"metric": ["b", "c", "u"], "value": [2.0, 3.0, 5.0], "unit": ["1", "1", "ms"]})
    assert side_by_side(first, second).rows() == [
        ("a", 1.0, None, None, "1", "first"), ("b", None, 2.0, None, "1", "both"), ("u", 5.0, None, None, "s", "first"),
        ("c", None, 3.0, None, "1", "second"), ("u", None, 5.0, None, "ms", "second"),
    ]  # fmt: skip


def test_nested_settings_have_dotted_names():
    assert flat({"a": 1, "b": {"c": 2, "d": {"e": [3]}}}) == {"a": 1, "b.c": 2, "b.d.e": [3]}


def test_what_is_no_backtest_is_refused(root):
    with pytest.raises(UsageError, match="run=ladder is a run of calibration"):
        compare(root / "out", "a", "ladder")
    with pytest.raises(LakeError, match="no run 'nothing'"):
        compare(root / "out", "a", "nothing")
